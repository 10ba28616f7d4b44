"""A certificate as text, as JSON, and as a badge for a README."""

from __future__ import annotations

import dataclasses
import html
import json
import textwrap

from evar.encoders.certificate import Certificate

_GOOD, _BAD, _GREY = "#2e7d32", "#b3261e", "#555555"
_MARKS = {True: "good", False: "BAD", None: "-"}


def format_certificate(found: Certificate) -> str:
    """Write one line for each question, for a terminal.

    Args:
        found: of `measure_wrapper`.
    """
    lines = [f"{found.encoder} (weights: {found.weights}): {found.n_good} of {found.n_judged} are good"]
    for answer in found.answers:
        text = f"{answer.question} {answer.answer}"
        lines += textwrap.wrap(text, 98, initial_indent=f"  {_MARKS[answer.is_good]:5}", subsequent_indent=" " * 7)
    return "\n".join(lines)


def format_certificate_json(found: Certificate) -> str:
    """Write the certificate for programs.

    Args:
        found: of `measure_wrapper`.
    """
    data = dataclasses.asdict(found) | {"n_good": found.n_good, "n_judged": found.n_judged}
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def format_badge_markdown(found: Certificate, picture: str) -> str:
    """Write the badge and the answers as Markdown.

    Args:
        found: of `measure_wrapper`.
        picture: name of the badge's file.
    """
    lines = [
        f"![evar check: {found.n_good} of {found.n_judged}]({picture})",
        "",
        "| question | answer | |",
        "|---|---|---|",
    ]
    for answer in found.answers:
        cells = [answer.question, answer.answer, _MARKS[answer.is_good]]
        lines.append("| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def format_badge(found: Certificate) -> str:
    """Draw the badge as SVG: "evar check", and how many answers are good.

    Args:
        found: of `measure_wrapper`.

    Example:
        >>> format_badge(Certificate("a", "random", ())).startswith("<svg")
        True
    """
    left, right = "evar check", f"{found.n_good} of {found.n_judged}"
    colour = _GOOD if found.n_good == found.n_judged else _BAD
    widths = [7 * len(text) + 12 for text in (left, right)]
    total = sum(widths)
    title = html.escape(f"{left}: {right}, {found.encoder}", quote=True)
    style = 'fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        f'<rect width="{widths[0]}" height="20" fill="{_GREY}"/>'
        f'<rect x="{widths[0]}" width="{widths[1]}" height="20" fill="{colour}"/>'
        f'<text x="{widths[0] / 2}" y="14" {style}>{left}</text>'
        f'<text x="{widths[0] + widths[1] / 2}" y="14" {style}>{right}</text></svg>\n'
    )
