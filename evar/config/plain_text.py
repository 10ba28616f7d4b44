"""Text that people can read and no program obeys: for terminals, tables, and spreadsheets.

Labels, file names, error messages and record files come from strangers. This module is the one place that makes them
harmless; everything that shows such text calls one of its functions.
"""

from __future__ import annotations

import re

# Control characters (C0 without tab and newline, delete, C1), line and paragraph separators, marks that change the
# direction of writing, and halves of surrogate pairs, which cannot be encoded at all.
# Source: Unicode Standard 15, chapter 23; "Trojan Source", Boucher and Anderson, USENIX Security 2023.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A spreadsheet takes a cell that begins with one of these for a formula.
# Source: OWASP, "CSV Injection".
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def make_printable(text: object, *, one_line: bool = False) -> str:
    r"""Replace each character that a terminal or table would obey by its visible escape, such as `\x1b`.

    Escape sequences, BEL, direction overrides and lone surrogates can repaint a terminal, hide what a file is called, or
    stop the output. All other characters stay, in every script.

    Args:
        text: of any origin; anything else is turned into text first.
        one_line: write each run of white space, line breaks included, as one space, as a table cell needs it.

    Returns:
        Text that can be encoded as UTF-8. Without `one_line`, tabs and line feeds stay.

    Example:
        >>> make_printable("dog\x1b[2J\x07"), make_printable("txt.\u202egnp"), make_printable("a\r\nb", one_line=True)
        ('dog\\x1b[2J\\x07', 'txt.\\u202egnp', 'a b')
        >>> make_printable("chien naïf, 犬")
        'chien naïf, 犬'
    """
    shown = str(text)
    if one_line:
        shown = " ".join(shown.split())
    return _UNSAFE.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode("ascii"), shown)


def make_cell_harmless(value: object) -> object:
    """Return a CSV cell that no spreadsheet runs as a formula.

    Args:
        value: numbers stay numbers; text that begins like a formula, but is no number, gets an apostrophe before it,
            which spreadsheets hide.

    Example:
        >>> make_cell_harmless("=cmd|' /C calc'!A0"), make_cell_harmless("-0.5"), make_cell_harmless(-0.5)
        ("'=cmd|' /C calc'!A0", '-0.5', -0.5)
    """
    if not isinstance(value, str):
        return value
    starts_like_formula = value.startswith(_FORMULA_STARTS)
    shown = make_printable(value)
    if not starts_like_formula or _is_number(value):
        return shown
    return f"'{shown}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
