"""Scores without the test clips that also occur in a training corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evar.report.tables.cells import make_sections
from evar.report.tables.csv_text import format_csv_table
from evar.report.tables.layout import escape_markdown, format_percent
from evar.report.tables.markdown import format_markdown_table
from evar.report.tables.tested import load_row_predictions
from evar.results import Result
from evar.results.contamination import Contamination, find_contaminated_clips
from evar.storage.atomic import write_atomic


@dataclass(frozen=True)
class CleanScore:
    """One row of the main table, with and without contaminated test clips.

    Attributes:
        protocol, encoder, layers, task: what was evaluated.
        score, interval: of all test clips, 0..1.
        clean_score, clean_interval: of the others, 0..1; None if nothing is left of some round.
        n_test, n_contaminated: test clips, and those of them that occur in a corpus, over all rounds.
    """

    protocol: str
    encoder: str
    layers: str
    task: str
    score: float
    interval: tuple[float, float] | None
    clean_score: float | None
    clean_interval: tuple[float, float] | None
    n_test: int
    n_contaminated: int


def find_clean_scores(
    results: Sequence[Result], records: Sequence[Contamination], out: Path, *, every: bool = False
) -> list[CleanScore]:
    """Score the rows of the tables on the test clips that occur in no corpus.

    Args:
        results: rows of a results folder.
        records: what was found in corpora.
        out: the results folder, which holds the predictions.
        every: all layers, not only those of the main table.

    Returns:
        The rows whose task was compared with a corpus and whose predictions are there, in reading order.
    """
    found = []
    for section in make_sections(results, every=every):
        for row in section.rows:
            for column, cell in zip(section.columns, row.cells, strict=True):
                if cell is None or not cell.results or cell.score is None:
                    continue
                contaminated = find_contaminated_clips(records, cell.results[0])
                if contaminated is None:
                    continue
                try:
                    clean, interval, n_test, n_bad = _score_clean_clips(cell.results, contaminated, out)
                except FileNotFoundError:
                    continue
                found.append(
                    CleanScore(
                        section.protocol, row.encoder, row.layers, column.label, cell.score, cell.interval, clean, interval,
                        n_test, n_bad,
                    )
                )  # fmt: skip
    return found


def _score_clean_clips(
    results: Sequence[Result], contaminated: frozenset[str], out: Path
) -> tuple[float | None, tuple[float, float] | None, int, int]:
    """Score, interval, test clips and contaminated ones; the score is the mean over rounds and seeds, as in the table."""
    import numpy as np

    from evar.metrics import METRICS
    from evar.metrics.intervals import score_interval, score_rounds

    scores, runs, first, n_bad = [], [], None, 0
    for result in results:
        run = load_row_predictions(out, result)
        is_clean = np.array([not is_contaminated(clip, contaminated) for clip in run["clip"].tolist()])
        n_bad = int((~is_clean).sum())
        rounds = np.unique(run["round"])
        kept = {name: values[is_clean] for name, values in run.items()}
        if not np.array_equal(np.unique(kept["round"]), rounds):
            return None, None, len(is_clean), n_bad
        scores += score_rounds(result.metric, kept["y_true"], kept["y_pred"], kept["round"])
        same = first is None or np.array_equal(first["clip"], kept["clip"])
        first = kept if first is None else first
        runs += [kept["y_pred"]] if same else []
    assert first is not None
    interval = None
    if len(runs) == len(results) and METRICS[results[0].metric].resampled is not None:
        interval = score_interval(results[0].metric, first["y_true"], runs, first["group"], first["round"])
    return float(np.mean(scores)), interval, len(is_clean), n_bad


def is_contaminated(name: str, contaminated: frozenset[str]) -> bool:
    """Tell whether a clip, or one of two that are named as a pair, is among contaminated clips.

    Example:
        >>> bad = frozenset(["a and b.wav"])
        >>> is_contaminated("a and b.wav and c.wav", bad), is_contaminated("b.wav and c.wav", bad)
        (True, False)
    """
    from evar.metrics.pairs import BETWEEN_NAMES  # here, as the table of a run needs no numpy

    words = name.split(BETWEEN_NAMES)
    return name in contaminated or any(
        BETWEEN_NAMES.join(part) in contaminated for at in range(1, len(words)) for part in (words[:at], words[at:])
    )


def write_clean_scores(results: Sequence[Result], records: Sequence[Contamination], out: Path) -> list[Path]:
    """Write `clean.md` and `clean.csv`; nothing if no task was compared with a corpus."""
    found = find_clean_scores(results, records, out)
    if not found:
        return []
    texts = {"clean.md": format_markdown(found, records), "clean.csv": format_csv(found)}
    for name, text in texts.items():
        write_atomic(out / name, text.encode("utf-8"))
    return [out / name for name in texts]


def format_markdown(found: Sequence[CleanScore], records: Sequence[Contamination]) -> str:
    """Format the table with its notes."""
    header = [
        "protocol",
        "encoder",
        "layers",
        "task",
        "all clips",
        "clean clips",
        "difference",
        "test clips",
        "contaminated",
    ]
    lines = []
    for one in found:
        texts = [escape_markdown(text) for text in (one.protocol, one.encoder, one.layers, one.task)]
        texts.append(format_percent(one.score, one.interval))
        clean = one.clean_score
        texts += ["-", "-"] if clean is None else [
            format_percent(clean, one.clean_interval), f"{100 * (clean - one.score):+.1f}"
        ]  # fmt: skip
        lines.append([*texts, str(one.n_test), str(one.n_contaminated)])
    corpora = "; ".join(
        f"{escape_markdown(one.task)} with {escape_markdown(one.corpus)} ({one.n_sounds:,} sounds): "
        f"{len(one.clips)} of {one.n_clips} clips occur in it"
        for one in records
    )
    return (
        "# Scores without contaminated test clips\n\n"
        + format_markdown_table(header, lines, 4)
        + "\n\n- A contaminated clip also occurs in a training corpus: as an identical file, or as the same sound by its "
        "fingerprint (another format, level or cut). The probes are the same; only the test clips differ.\n"
        "- Scores are in percent ± half the width of the 95 % interval; they are means over rounds and seeds.\n"
        f"- Compared were: {corpora}.\n"
    )


def format_csv(found: Sequence[CleanScore]) -> str:
    """Format the same table for programs; scores are fractions."""
    header = ["protocol", "encoder", "layers", "task", "score", "clean_score", "clean_low", "clean_high", "n_test"]
    return format_csv_table(
        [*header, "n_contaminated"],
        [
            [
                *(one.protocol, one.encoder, one.layers, one.task, one.score),
                "" if one.clean_score is None else one.clean_score,
                *(one.clean_interval or ("", "")),
                *(one.n_test, one.n_contaminated),
            ]
            for one in found
        ],
    )
