"""The one error of this package."""

from __future__ import annotations


class AudioError(ValueError):
    """A clip that cannot be used; the message says what is wrong with it, in one sentence, without its name."""
