"""Predictions of files as a table: written row by row, in the order of the source, so that there may be any number."""

from __future__ import annotations

import contextlib
import csv
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from evar.applying.classifier import Classifier, ClipPrediction, load_classifier
from evar.applying.clips import Sound
from evar.classifiers.predicting import choose_heads
from evar.config.disk import explain_writing
from evar.config.messages import progress_bar, tell
from evar.config.plain_text import make_cell_harmless, make_printable
from evar.exporting.sources import Source
from evar.extraction.audio_input import Clip

#: rows that are shown where no file is written, and bad clips that are named
_SHOWN, _BAD_SHOWN = 50, 20


@dataclass
class PredictedFiles:
    """Result of `evar predict`.

    Attributes:
        n_rows: clips that have a prediction.
        n_bad: clips that could not be used.
        n_cut: clips that were longer than those of the task, so that only a part was used.
        lines: for the terminal.
        labels: predicted label -> clips.
    """

    n_rows: int = 0
    n_bad: int = 0
    n_cut: int = 0
    lines: list[str] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)


def predict_files(
    path: str | Path,
    words: Sequence[str],
    output: Path | None = None,
    *,
    round: str = "",
    weights: str | None = None,
    data_root: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    trust_code: bool = False,
) -> PredictedFiles:
    """Predict files, folders and tables, and write a table.

    Args:
        path: of the classifier file.
        words: audio files, folders, and CSV files with a column `path`.
        output: a CSV; None shows the first rows in the lines for the terminal.
        round, batch_size: as for `Classifier.predict`.
        weights, device, trust_code: as for `load_classifier`.
        data_root: where relative paths of a CSV begin.

    Returns:
        Counts, and lines for the terminal.

    Raises:
        ValueError: if a word, the output's ending or the classifier is not legal, before anything is decoded.
        OSError: if a file is not there or cannot be written.
    """
    if output is not None and output.suffix.lower() != ".csv":
        raise ValueError(f"the table must end in .csv, got {str(output)!r}; say {output.with_suffix('.csv')}")
    classifier = load_classifier(path, weights, device, trust_code=trust_code)
    choose_heads(classifier.record, round)
    source, done = Source(words, data_root), PredictedFiles()
    if classifier.record.encoder.is_random:
        tell(f"NOTE: {classifier.record.encoder.name} has random weights: these predictions are a baseline only")
    _ = classifier.encoder  # another one is refused before anything is decoded
    with progress_bar(desc=classifier.record.encoder.name, unit="clip", delay=2) as bar:
        sounds = (Sound(clip.path, Clip(source=clip.file), clip.columns) for clip in source)
        found = _count(classifier.predict_each(sounds, round=round, batch_size=batch_size), done, bar)
        if output is None:
            _show(classifier, found, done)
        else:
            _write(classifier, source.columns, found, output)
    _summarise(classifier, done, source, output)
    return done


def _count(found: Iterable[ClipPrediction], done: PredictedFiles, bar: Any) -> Iterator[ClipPrediction]:
    for one in found:
        bar.update()
        if one.problem:
            done.n_bad += 1
            if done.n_bad <= _BAD_SHOWN:
                done.lines.append(f"bad clip: {one.sound.name}: {one.problem}")
        else:
            done.n_rows += 1
            done.n_cut += bool(one.cut_seconds)
            if isinstance(one.label, str):
                for label in one.label.split(";"):
                    done.labels[label] = done.labels.get(label, 0) + 1
        yield one


def _write(classifier: Classifier, columns: Sequence[str], found: Iterable[ClipPrediction], output: Path) -> None:
    """Write beside the output, then give it its name, so that a reader never sees half of it."""
    with explain_writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(unfinished, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                _write_rows(classifier, columns, found, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, output)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def _write_rows(classifier: Classifier, columns: Sequence[str], found: Iterable[ClipPrediction], file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([make_cell_harmless(name) for name in classifier.list_columns(columns)])
    for one in found:
        writer.writerow([_format_cell(cell) for cell in classifier.make_row(one)])


def _format_cell(cell: Any) -> object:
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return "" if cell is None else make_cell_harmless(cell)


def _show(classifier: Classifier, found: Iterable[ClipPrediction], done: PredictedFiles) -> None:
    rows: list[tuple[str, str]] = []
    for one in found:
        if len(rows) < _SHOWN and not one.problem:
            rows.append((one.sound.name, describe_prediction(classifier, one)))
    width = max((len(name) for name, _ in rows), default=0)
    done.lines += [f"{make_printable(name, one_line=True).ljust(width)}  {what}" for name, what in rows]
    if done.n_rows > len(rows):
        done.lines.append(f"... and {done.n_rows - len(rows)} more; -o table.csv writes all")


def describe_prediction(classifier: Classifier, one: ClipPrediction) -> str:
    """Return a prediction in a few words: the class and the next ones with their probabilities, labels, or a number.

    Args:
        classifier: that predicted.
        one: its prediction for a clip that could be used.
    """
    task = classifier.record.task
    if task.kind == "regression":
        return f"{one.label:.4g} {task.unit}".strip()
    best = sorted(one.shares.items(), key=lambda pair: -pair[1])
    if task.kind == "multilabel":
        has = set(str(one.label).split(";"))
        return ", ".join(f"{name} {share:.2f}" for name, share in best if name in has) or "(none)"
    return ", ".join(f"{name} {share:.2f}" for name, share in best[:3])


def _summarise(classifier: Classifier, done: PredictedFiles, source: Source, output: Path | None) -> None:
    if done.n_bad > _BAD_SHOWN:
        done.lines.append(f"bad clips: ... and {done.n_bad - _BAD_SHOWN} more, all in the column `problem`")
    if said := source.left_out.describe():
        done.lines.append(said)
    if done.n_cut:
        seconds = classifier.record.clip.seconds
        done.lines.append(
            f"NOTE: {done.n_cut} clips are longer than the {seconds:g} s of the task's; only this much of each was used"
        )
    n_all = done.n_rows + done.n_bad
    counted = f"{n_all} clips" if not done.n_bad else f"{done.n_rows} of {n_all} clips"
    most = sorted(done.labels.items(), key=lambda pair: (-pair[1], pair[0]))
    labels = ", ".join(f"{make_printable(name) or '(none)'} {n}" for name, n in most[:8]) + (
        ", ..." if len(most) > 8 else ""
    )
    done.lines.append(f"{output or 'predicted'}: {counted}" + (f": {labels}" if labels else ""))
