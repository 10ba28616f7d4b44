"""A figure that shows every text unchanged: names come from strangers, and `$` or control characters are no commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from evar.config.plain_text import make_printable


@contextmanager
def read_texts_plainly() -> Iterator[None]:
    """Let matplotlib read no text as mathematics while this lasts; its settings are put back afterwards."""
    with matplotlib.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield


class PlainFigure(Figure):
    """A figure in which `a$b$c` is a name like any other, and control characters show as `\\x1b`.

    matplotlib decides when a text is made whether it may hold mathematics, and makes the texts of ticks while it draws. So
    all texts that exist are set right before each drawing, and those that it makes meanwhile are plain from the start.

    Example:
        >>> figure = PlainFigure()
        >>> text = figure.text(0, 0, "two $ in $ a name")
        >>> figure.draw_without_rendering()
        >>> text.get_parse_math()
        False
    """

    def draw(self, renderer: Any) -> None:
        """Draw the figure with plain texts."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
            content = text.get_text()
            if (shown := make_printable(content)) != content:
                text.set_text(shown)
        with read_texts_plainly():
            super().draw(renderer)
