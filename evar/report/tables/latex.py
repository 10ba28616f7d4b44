"""Tables for papers: LaTeX with booktabs.

Not by the Styler of pandas, which has no place for counts in the header and notes below the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from evar.config.plain_text import make_printable
from evar.report.tables.layout import MARKS, TERMINAL, Dress, count_text_columns, lay_out_cells, list_remarks
from evar.report.tables.section import Section


def format_latex(tables: Sequence[Section]) -> str:
    """Write tables for a paper: booktabs, best in bold, not significantly worse underlined, notes in small print below.

    Rows that failed on every task are left out, and a failed cell is a dash: the Markdown table says why. An encoder from a
    file of one's own is called by its class. Each table has a label, such as `tab:linear`. Needs the LaTeX package booktabs.

    Args:
        tables: as `make_sections` gives them.
    """
    parts = [r"% \usepackage{booktabs}"]
    for section in tables:
        shown = _prepare(section)
        if not shown.rows:
            continue
        (header, counts), body = lay_out_cells(shown, False, _LATEX)
        names = [
            rf"\shortstack{{{name}\\ \scriptsize {escape_latex(count)}}}" if count else name
            for name, count in zip(header, counts, strict=True)
        ]
        # Flags and numbered notes carry marks, which are LaTeX already; everything else is plain text.
        marked = [text for text in list_remarks(shown, False, _LATEX) if text.startswith(_MARKED)]
        plain = [text for text in list_remarks(shown, False, _PLAIN) if not text.startswith(("[", *MARKS))]
        notes = [*map(escape_latex, plain), *marked]
        parts.append(format_latex_table(shown.title, names, body, count_text_columns(False), notes))
    return "\n\n".join(parts) + "\n"


def _prepare(section: Section) -> Section:
    """Return a table without rows and notes of what failed, and with short names of encoders."""
    rows = []
    for row in section.rows:
        if any(cell is not None and cell.score is not None for cell in row.cells):
            cells = tuple(cell if cell is None or cell.score is not None else None for cell in row.cells)
            rows.append(replace(row, encoder=shorten_class_path(row.encoder), cells=cells))
    return replace(section, rows=tuple(rows))


def shorten_class_path(label: str) -> str:
    """Return the class alone of an encoder that is named by module or file.

    Example:
        >>> shorten_class_path("my/encoders.py:Fancy (weights a.pt)"), shorten_class_path("byol_a.d512")
        ('Fancy (weights a.pt)', 'byol_a.d512')
    """
    name, bracket, rest = label.partition(" (")
    path, colon, attribute = name.rpartition(":")
    is_path = bool(colon) and attribute.isidentifier() and not path.endswith(("hf", "hear"))
    return (attribute if is_path else name) + bracket + rest


def format_latex_table(
    title: str, header: Sequence[str], body: Sequence[Sequence[str]], n_text_columns: int, notes: Sequence[str] = ()
) -> str:
    r"""Format one table environment; header, body and notes are LaTeX already, the title is not.

    Args:
        title: for the caption.
        header, body: as for `format_markdown_table`.
        n_text_columns: the first ones, set to the left.
        notes: below the table in small print.

    Example:
        >>> print(format_latex_table("5 %", ["encoder", "esc10"], [["logmel", "71.0"]], 1).splitlines()[2])
        \caption{5 \%}
    """
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(title)}}}", rf"\label{{{name_label(title)}}}"]
    lines += [rf"\begin{{tabular}}{{{'l' * n_text_columns}{'r' * (len(header) - n_text_columns)}}}", r"\toprule"]
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    # A bracket after a line's end would be read as a distance: a group before it keeps it text.
    lines += [("{}" if line[0].startswith("[") else "") + " & ".join(map(_format_cell, line)) + r" \\" for line in body]
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip {{\footnotesize {note}\par}}" for note in notes]
    return "\n".join([*lines, r"\end{table}"])


_TEX_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX_SPECIAL |= {character: rf"\{character}" for character in "&%$#_{}"}
_TEX_SPECIAL |= {"†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "±": r"$\pm$"}


def escape_latex(text: str) -> str:
    r"""Escape a text, so that LaTeX shows it unchanged.

    Example:
        >>> print(escape_latex("gm_pitch & 5 %"))
        gm\_pitch \& 5 \%
    """
    return "".join(_TEX_SPECIAL.get(character, character) for character in make_printable(text, one_line=True))


def name_label(title: str) -> str:
    """Return a label for references to a table.

    Example:
        >>> name_label("linear (limit 50)")
        'tab:linear-limit-50'
    """
    return "tab:" + (re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "results")


def _format_cell(text: str) -> str:
    """A cell of `lay_out_cells`, which is LaTeX already, but for a minus of "not run"."""
    return "--" if text == "-" else text


_LATEX = Dress(
    lambda text: rf"\textbf{{{text}}}",
    lambda text: rf"\underline{{{text}}}",
    escape_latex,
    "in bold",
    "underlined",
    r"$\pm$",
    lambda mark: rf"\textsuperscript{{{escape_latex(mark)}}}",
)
_PLAIN = replace(TERMINAL, best=_LATEX.best, equal=_LATEX.equal)
_MARKED = ("[", r"\textsuperscript")
