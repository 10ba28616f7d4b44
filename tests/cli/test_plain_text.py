"""Text of strangers on a terminal, in a table and in a spreadsheet."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from evar.config.plain_text import make_cell_harmless, make_printable


def test_no_character_that_is_obeyed_gets_through() -> None:
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        shown = make_printable(character)
        shown.encode("utf-8")
        kind, direction = unicodedata.category(character), unicodedata.bidirectional(character)
        is_obeyed = kind in ("Cc", "Cs", "Zl", "Zp") or direction in (
            *("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"),
        )
        if is_obeyed and character not in "\t\n":
            assert shown.isascii() and shown.startswith("\\"), hex(code)
        elif code not in (0x061C, 0x200E, 0x200F):
            assert shown == character, hex(code)


def test_one_line_has_no_line_breaks() -> None:
    assert make_printable("a\n b\u2028c\td\x85e", one_line=True) == "a b c d e"
    assert make_printable(None) == "None"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-cmd|x", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_text(text: str) -> None:
    assert str(make_cell_harmless(text)).startswith("'")


@pytest.mark.parametrize("value", ["-1.5", "+3", "-inf", "1e-5", "a=b", "", -2, -0.5, None, True])
def test_numbers_and_other_text_stay(value: object) -> None:
    assert make_cell_harmless(value) == value
