"""The certificate of an audit, as text for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

from evar.report.tables.layout import escape_markdown
from evar.report.tables.markdown import format_markdown_table
from evar.sharing.auditing import DIFFERENT, IDENTICAL, NOT_RERUNNABLE, VERIFIED, AuditReport


def format_summary(report: AuditReport) -> str:
    """Summarise in a few lines what an audit found.

    Args:
        report: of `audit_bundle`.
    """
    lines = [
        f"{report.bundle}: {len(report.rows)} rows; the numbers of {len(report.rows) - report.count(DIFFERENT)} follow from "
        "their predictions",
        f"computed again: {report.n_sampled} rows, of which {report.count(IDENTICAL)} are identical to the last digit and "
        f"{report.count(NOT_RERUNNABLE)} cannot be computed here",
    ]
    lines += [f"! {fault}" for fault in report.faults]
    if report.robustness:
        n_good = sum(one.verdict != DIFFERENT for one in report.robustness)
        n_all = len(report.robustness)
        lines.insert(1, f"robustness: {n_all} records; the numbers of {n_good} follow from their predictions")
    for row in (*report.rows, *report.robustness):
        if row.reasons:
            lines.append(f"! {'robustness/' if row in report.robustness else ''}{row.id}: {row.verdict}")
            lines += [f"    {reason}" for reason in row.reasons]
    lines.append("nothing differs" if report.is_clean else "the bundle is NOT as it says")
    return "\n".join(lines)


def format_certificate(report: AuditReport) -> str:
    """Write the certificate as Markdown.

    Args:
        report: of `audit_bundle`.
    """
    body = []
    shown = [*report.rows, *(replace(one, id=f"robustness/{one.id}") for one in report.robustness)]
    for row in shown:
        again = "" if row.score_again is None else f"{100 * row.score_again:.6g}"
        score = "" if row.score is None else f"{100 * row.score:.6g}"
        body.append([escape_markdown(row.id), row.verdict, escape_markdown("; ".join(row.reasons)), score, again])
    counts = ", ".join(
        f"{report.count(verdict)} {verdict}" for verdict in (IDENTICAL, VERIFIED, NOT_RERUNNABLE, DIFFERENT)
    )
    faults = "\n".join(f"- {escape_markdown(fault)}" for fault in report.faults) or "None."
    versions = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    return (
        f"# Certificate of {escape_markdown(report.bundle)}\n\n"
        f"{'Nothing differs' if report.is_clean else 'The bundle is NOT as it says'}: {counts}.\n\n"
        f"- Bundle: sha256 `{report.bundle_sha256}`\n- Audited: {report.created}, with {escape_markdown(versions)}\n\n"
        "A row is *verified* if its name follows from its settings, and its scores and its interval follow from its "
        "predictions. It is *identical* if, besides, it was computed again here, with the same score to the last digit and "
        "the same predictions. A label curve and a record of robustness are checked by predictions of their own: "
        "scores, intervals and tests follow from them.\n\n"
        f"## Faults of the bundle\n\n{faults}\n\n## Rows\n\n"
        + format_markdown_table(["row", "verdict", "why", "score", "computed again"], body, 3)
        + "\n"
    )


def format_certificate_json(report: AuditReport) -> str:
    """Write the certificate as JSON.

    Args:
        report: of `audit_bundle`.
    """
    data = dataclasses.asdict(report) | {"is_clean": report.is_clean}
    return json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
