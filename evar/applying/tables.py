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

from evar.applying.classifier import Classifier, ClipPrediction
from evar.applying.clips import Sound
from evar.applying.windows import Windows
from evar.classifiers.predicting import choose_heads
from evar.config.disk import explain_writing
from evar.config.messages import progress_bar, tell
from evar.config.plain_text import make_cell_harmless, make_printable
from evar.exporting.sources import Source
from evar.exporting.window_labels import write_windows
from evar.extraction.audio_input import Clip

#: file, start, end, label and probability of a window
Mark = tuple[str, float, float, str, float]
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


@dataclass(frozen=True)
class TableOptions:
    """How files become a table of predictions.

    Attributes:
        round: of a file with several heads, the one that predicts; "" averages all.
        data_root: where relative paths of a CSV begin; None: at its folder.
        windows: how recordings are cut; None predicts clips.
        labels: of windows, a file of Audacity labels (.txt), or a folder for one file a recording; None writes none.
        min_probability: of a class, for a label.
        batch_size: clips a batch; None takes as many as `encoder.batch_seconds` of audio.
    """

    round: str = ""
    data_root: str | None = None
    windows: Windows | None = None
    labels: Path | None = None
    min_probability: float = 0.0
    batch_size: int | None = None


def predict_files(
    classifier: Classifier, words: Sequence[str], output: Path | None = None, options: TableOptions | None = None
) -> PredictedFiles:
    """Predict files, folders and tables, and write a table.

    Args:
        classifier: as `evar.load_classifier` gives it.
        words: audio files, folders, and CSV files with a column `path`.
        output: a CSV; None shows the first rows in the lines for the terminal.
        options: windows, labels and so on; None for clips.

    Returns:
        Counts, and lines for the terminal.

    Raises:
        ValueError: if a word, the output's ending, an option or the classifier's encoder is not legal, before anything is
            decoded.
        OSError: if a file is not there or cannot be written.
    """
    how = options or TableOptions()
    if output is not None and output.suffix.lower() != ".csv":
        raise ValueError(f"the table must end in .csv, got {str(output)!r}; say {output.with_suffix('.csv')}")
    choose_heads(classifier.record, how.round)
    _require_labels(classifier, how)
    source, done = Source(words, how.data_root), PredictedFiles()
    if how.windows and "start" in source.columns:
        raise ValueError(
            "the table names parts of files already; leave --window out, or delete its columns start and end"
        )
    own = classifier.list_columns(with_windows=how.windows is not None)
    if clash := [name for name in source.columns if name in own]:
        raise ValueError(f"the CSV's column {clash[0]!r} has the name of a column of the output; rename it in the CSV")
    if classifier.record.encoder.is_random:
        tell(f"NOTE: {classifier.record.encoder.name} has random weights: these predictions are a baseline only")
    _ = classifier.encoder  # another one is refused before anything is decoded
    marks: list[Mark] = []
    what = "windows" if how.windows else "clips"
    seconds = classifier.record.clip.seconds
    if how.windows and seconds is not None and abs(seconds - how.windows.seconds) > 0.01:
        tell(f"NOTE: the classifier was trained on clips of {seconds:g} s, windows have {how.windows.seconds:g} s")
    with progress_bar(desc=classifier.record.encoder.name, unit=what[:-1], delay=2) as bar:
        sounds = (Sound(clip.path, Clip(source=clip.file), clip.columns, clip.times) for clip in source)
        each = classifier.predict_each(sounds, windows=how.windows, round=how.round, batch_size=how.batch_size)
        found = _keep_labels(classifier, _count(each, done, bar), how, marks)
        if output is None:
            _show(classifier, found, done)
        else:
            _write(classifier, source.columns, found, output, how.windows is not None)
    _summarise(classifier, done, source, output, what)
    if how.labels:
        written = write_windows(how.labels, marks, probabilities=True)
        n_files = "" if written == [how.labels] else f", {len(written)} files"
        done.lines.append(f"labels for Audacity: {how.labels}{n_files}")
    return done


def _require_labels(classifier: Classifier, how: TableOptions) -> None:
    """Check that labels can be written of what is predicted; raises ValueError if not."""
    if not 0 <= how.min_probability <= 1:
        raise ValueError(f"--min_probability must lie in 0..1, got {how.min_probability:g}")
    if how.min_probability and how.labels is None:
        raise ValueError("--min_probability chooses among labels, which --labels=FILE.txt writes; give both")
    if how.labels is None:
        return
    if how.windows is None:
        raise ValueError("--labels are of windows; say how long these are with --window=SECONDS")
    if how.labels.suffix.lower() not in (".txt", ""):
        raise ValueError(f"labels go into a file that ends in .txt, or into a folder, got {str(how.labels)!r}")
    if classifier.record.task.kind == "regression":
        raise ValueError(f"{classifier.path} predicts numbers, which have no labels; leave --labels out")


def _count(found: Iterable[ClipPrediction], done: PredictedFiles, bar: Any) -> Iterator[ClipPrediction]:
    """Pass predictions on, and count them."""
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


def _keep_labels(
    classifier: Classifier, found: Iterable[ClipPrediction], how: TableOptions, marks: list[Mark]
) -> Iterator[ClipPrediction]:
    """Pass predictions on; those of windows are added to `marks`, if these are to be written."""
    is_several = classifier.record.task.kind == "multilabel"
    for one in found:
        if how.labels and one.start is not None and one.end is not None and isinstance(one.label, str):
            for label in one.label.split(";") if is_several else [one.label]:
                if label and one.shares[label] >= how.min_probability:
                    marks.append((one.sound.name, one.start, one.end, label, one.shares[label]))
        yield one


def _write(
    classifier: Classifier,
    columns: Sequence[str],
    found: Iterable[ClipPrediction],
    output: Path,
    with_windows: bool,
) -> None:
    """Write beside the output, then give it its name, so that a reader never sees half of it."""
    with explain_writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            with open(unfinished, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                _write_rows(classifier, columns, found, file, with_windows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, output)
        finally:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def _write_rows(
    classifier: Classifier,
    columns: Sequence[str],
    found: Iterable[ClipPrediction],
    file: TextIO,
    with_windows: bool,
) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([make_cell_harmless(name) for name in classifier.list_columns(columns, with_windows=with_windows)])
    for one in found:
        writer.writerow([_format_cell(cell) for cell in classifier.make_row(one, with_windows=with_windows)])


def _format_cell(cell: Any) -> object:
    if isinstance(cell, float):
        return f"{cell:.6g}"
    return "" if cell is None else make_cell_harmless(cell)


def _show(classifier: Classifier, found: Iterable[ClipPrediction], done: PredictedFiles) -> None:
    rows: list[tuple[str, str]] = []
    for one in found:
        if len(rows) < _SHOWN and not one.problem:
            times = "" if one.start is None else f"  {one.start:.2f}-{one.end:.2f} s"
            rows.append((f"{one.sound.name}{times}", describe_prediction(classifier, one)))
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


def _summarise(classifier: Classifier, done: PredictedFiles, source: Source, output: Path | None, what: str) -> None:
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
    counted = f"{n_all} {what}" if not done.n_bad else f"{done.n_rows} of {n_all} {what}"
    most = sorted(done.labels.items(), key=lambda pair: (-pair[1], pair[0]))
    labels = ", ".join(f"{make_printable(name) or '(none)'} {n}" for name, n in most[:8]) + (
        ", ..." if len(most) > 8 else ""
    )
    done.lines.append(f"{output or 'predicted'}: {counted}" + (f": {labels}" if labels else ""))
