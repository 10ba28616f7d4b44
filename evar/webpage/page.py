"""One HTML file from parts: templates with autoescape, data as JSON that cannot end its element, hashes of all scripts."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from evar.config.plain_text import make_printable

#: own scripts in the order in which they run; each is a file in `assets`
SCRIPTS = ("core", "tables", "charts", "layers", "cost", "row", "listen", "map", "start")
#: characters that could end a script element or begin another, as JSON writes them otherwise
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "'": "\\u0027"}


@dataclass(frozen=True)
class Part:
    """One section of the page.

    Attributes:
        name: of its element, its template and its data.
        title: heading, and what the navigation shows.
        shown: values for the template.
        data: plain data for the scripts; None if there is nothing to draw.
        problem: why the part could not be made; "" if it was made.
    """

    name: str
    title: str
    shown: Mapping[str, Any] = field(default_factory=dict)
    data: Any = None
    problem: str = ""


def render_page(title: str, parts: Sequence[Part], footer: Sequence[str] = (), *, links_files: bool = False) -> str:
    """Write the page.

    Args:
        title: of the window, plain text of any origin.
        parts: in order.
        footer: sentences at the end.
        links_files: may the page play files that lie beside it? Else only sounds that it holds.

    Returns:
        HTML with nothing that is loaded from elsewhere, apart from linked sounds.

    Example:
        >>> text = render_page("a </title><script>alert(1)</script>", [])
        >>> "<script>alert" in text, text.count("Content-Security-Policy")
        (False, 1)
    """
    style, plotly = read_asset("report.css"), read_plotly()
    own = '"use strict";\n(function () {\n' + "\n".join(read_asset(f"{name}.js") for name in SCRIPTS) + "\n})();\n"
    blocks = {part.name: escape_json(part.data) for part in parts if part.data is not None}
    return (
        _make_environment()
        .get_template("page.html.j2")
        .render(
            title=make_printable(title, one_line=True),
            policy=make_policy([plotly, own], [style], links_files=links_files),
            style=style,
            plotly=plotly,
            unneeded=_list_unneeded_styles(plotly),
            own=own,
            parts=[_clean_part(part) for part in parts],
            blocks=blocks,
            footer=clean(footer),
        )
    )


def make_policy(scripts: Sequence[str], styles: Sequence[str], *, links_files: bool) -> str:
    """Write the Content-Security-Policy: nothing but what the file itself holds may run, load, be sent or be framed.

    plotly.js writes style attributes on the elements of its charts, and one empty style element; so style attributes are
    legal, which can neither run code nor load anything here. Scripts are legal by their hash alone, and nothing may be
    evaluated.

    Args:
        scripts, styles: texts of the elements, exactly as in the page.
        links_files: may sounds come from the page's own place or from the disk?

    Returns:
        The value of the policy.

    Example:
        >>> policy = make_policy(["a"], [], links_files=False)
        >>> "unsafe-eval" in policy, "connect-src" in policy, policy.split(";")[0]
        (False, False, "default-src 'none'")
    """
    sounds = "data: 'self' file:" if links_files else "data:"
    return "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(map(_hash_source, scripts)),
            "style-src-elem " + " ".join(map(_hash_source, [*styles, ""])),
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            f"media-src {sounds}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def escape_json(data: Any) -> str:
    r"""Write plain data as JSON that is safe inside a script element, even with hostile texts.

    Args:
        data: dicts, lists, texts, numbers, None; numbers that are not finite become null.

    Returns:
        ASCII without `<`, `>`, `&` and `'`, which are written as escapes.

    Example:
        >>> print(escape_json({"label": "</script><b>", "score": float("nan")}))
        {"label":"\u003c/script\u003e\u003cb\u003e","score":null}
    """
    text = json.dumps(clean(data), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text


def clean(value: Any) -> Any:
    r"""Return plain data whose texts have no control characters, and whose numbers are finite or None.

    Example:
        >>> clean({"a\x07": ["b\u202e", float("inf"), 0.5]})
        {'a\\x07': ['b\\u202e', None, 0.5]}
    """
    if isinstance(value, str):
        return make_printable(value)
    if isinstance(value, Mapping):
        return {make_printable(key): clean(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [clean(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _clean_part(part: Part) -> Part:
    return Part(part.name, part.title, clean(part.shown), part.data, make_printable(part.problem))


@cache
def read_asset(name: str) -> str:
    """Return a text file of the package's `assets`."""
    return resources.files("evar.webpage").joinpath("assets", name).read_text(encoding="utf-8")


@cache
def read_plotly() -> str:
    """Return the plotly.js of plotly's wheel, safe inside a script element.

    Raises:
        ImportError: if plotly is not installed.
    """
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _list_unneeded_styles(plotly: str) -> list[str]:
    """List ids of style elements that plotly.js would add for maps of the earth, which the policy blocks.

    It adds none if an element of that id is there already.
    """
    return sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly)))


@cache
def _make_environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("evar.webpage", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
