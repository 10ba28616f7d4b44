"""Tables for papers: LaTeX with booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evar.config.plain_text import make_printable
from evar.report.tables.layout import TERMINAL, Dress, count_text_columns, lay_out_cells, list_remarks
from evar.report.tables.section import Section


def format_latex(tables: Sequence[Section]) -> str:
    """Tables for a paper: booktabs, best in bold, not significantly worse underlined, notes below as comments.

    Needs the LaTeX package booktabs.
    """
    parts = [r"% \usepackage{booktabs}"]
    for section in tables:
        (header, counts), body = lay_out_cells(section, False, _LATEX)
        names = [
            rf"\shortstack{{{name}\\ \scriptsize {escape_latex(count)}}}" if count else name
            for name, count in zip(header, counts, strict=True)
        ]
        marked = [text for text in list_remarks(section, False, _LATEX) if text.startswith(("[", r"\textsuperscript"))]
        lines = [format_latex_table(section.title, names, body, count_text_columns(False), marked)]
        notes = ["% " + text.replace("\n", " ") for text in list_remarks(section, False, _COMMENT)]
        parts.append("\n".join([*lines, *notes]))
    return "\n\n".join(parts) + "\n"


def format_latex_table(
    title: str, header: Sequence[str], body: Sequence[Sequence[str]], n_text_columns: int, notes: Sequence[str] = ()
) -> str:
    """One table environment; header, body and notes are LaTeX already, the title is not.

    Args:
        title: for the caption.
        header, body: as for `format_markdown_table`.
        n_text_columns: the first ones, set to the left.
        notes: below the table in small print.
    """
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{escape_latex(title)}}}"]
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
    r"""A text that LaTeX shows as it is.

    Example:
        >>> print(escape_latex("gm_pitch & 5 %"))
        gm\_pitch \& 5 \%
    """
    return "".join(_TEX_SPECIAL.get(character, character) for character in make_printable(text, one_line=True))


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
_COMMENT = replace(TERMINAL, best=_LATEX.best, equal=_LATEX.equal)
