"""Predictions over windows as files: Audacity labels, where neighbours are joined, and CSV with a row for each window.

`evar predict CLASSIFIER FILES --window=3 --hop=1.5 --labels=labels -o table.csv` calls `write_windows`, and so may any other
program that names the class of parts of a recording.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from evar.config.tables import show_path
from evar.storage.atomic import write_atomic

#: windows are neighbours if the second begins at most this long after the end of the first: decimals are rounded
_GAP_SECONDS = 1e-3
#: columns of the CSV
COLUMNS = ("path", "start", "end", "label", "probability")


class LabelledWindow(NamedTuple):
    """A part of a sound, and a class that was found in it.

    Attributes:
        file: path of the sound.
        start, end: seconds from the beginning of the sound, start < end.
        label: name of the class.
        probability: of the class, 0 to 1; NaN if it is not known.
    """

    file: str
    start: float
    end: float
    label: str
    probability: float = math.nan


def write_windows(
    path: str | Path, rows: Iterable[tuple[str | Path, float, float, str, float]], probabilities: bool = False
) -> list[Path]:
    """Write predictions over windows.

    Args:
        path: what is written depends on its ending. `.csv`: one row for each window, with the columns path, start, end,
            label and probability. `.txt`: one file of Audacity labels; if there are several sounds, each label begins with
            the name of its sound. Any other path is a folder, in which each sound gets a file of Audacity labels of its own.
        rows: (file, start, end, label, probability) of each window, in any order; start and end in seconds. A window with
            several classes has several rows; a window without one has none.
        probabilities: write the highest probability of the joined windows behind each Audacity label, such as "dog 0.93".

    Returns:
        The files that were written.

    Raises:
        ValueError: if a window ends before it begins.
        OSError: if a file cannot be written.

    Source:
        Audacity manual, "Importing and Exporting Labels": start, TAB, end, TAB, text; one label on each line.

    Example:
        >>> import tempfile
        >>> rows = [("a.wav", 0.0, 3.0, "dog", 0.9), ("a.wav", 1.5, 4.5, "dog", 0.8), ("a.wav", 3.0, 6.0, "cat", 0.6)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     (written,) = write_windows(Path(folder) / "labels", rows)
        ...     written.name, written.read_text().splitlines()
        ('a.txt', ['0.000000\\t4.500000\\tdog', '3.000000\\t6.000000\\tcat'])
    """
    path = Path(path)
    windows = [_make_window(number, row) for number, row in enumerate(rows, start=1)]
    if path.suffix.lower() == ".csv":
        write_atomic(path, _format_csv(windows))
        return [path]
    of_file: dict[str, list[LabelledWindow]] = {}
    for window in windows:
        of_file.setdefault(window.file, []).append(window)
    files = list(of_file)
    joined = {file: join_windows(own) for file, own in of_file.items()}
    if path.suffix.lower() == ".txt":
        lines = [
            _format_label(window, f"{os.path.basename(file)}: " if len(files) > 1 else "", probabilities)
            for file in files
            for window in joined[file]
        ]
        write_atomic(path, "".join(lines).encode())
        return [path]
    written = []
    for file, name in _name_label_files(files).items():
        write_atomic(path / name, "".join(_format_label(window, "", probabilities) for window in joined[file]).encode())
        written.append(path / name)
    return written


def join_windows(windows: Iterable[LabelledWindow]) -> list[LabelledWindow]:
    """Join windows of one label that overlap or touch.

    Args:
        windows: of one sound, in any order.

    Returns:
        Sorted by start, end and label; the probability is the highest of the windows that were joined.

    Example:
        >>> one, other = LabelledWindow("a.wav", 0, 3, "dog", 0.7), LabelledWindow("a.wav", 3, 6, "dog", 0.9)
        >>> [(window.start, window.end, window.probability) for window in join_windows([other, one])]
        [(0, 6, 0.9)]
    """
    found: list[LabelledWindow] = []
    last_of: dict[str, int] = {}
    for window in sorted(windows, key=lambda one: (one.start, one.end, one.label)):
        place = last_of.get(window.label)
        if place is not None and window.start <= found[place].end + _GAP_SECONDS:
            before = found[place]
            best = max((before.probability, window.probability), key=lambda p: -math.inf if math.isnan(p) else p)
            found[place] = before._replace(end=max(before.end, window.end), probability=best)
        else:
            last_of[window.label] = len(found)
            found.append(window)
    return sorted(found, key=lambda one: (one.start, one.end, one.label))


def _make_window(number: int, row: tuple[str | Path, float, float, str, float]) -> LabelledWindow:
    file, start, end, label, probability = row
    window = LabelledWindow(show_path(os.fspath(file)), float(start), float(end), str(label), float(probability))
    if not 0 <= window.start <= window.end:
        raise ValueError(
            f"window {number}, of {window.file}, must begin at 0 or later and not after its end, got {start} to {end} s"
        )
    return window


def _format_csv(windows: Iterable[LabelledWindow]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for window in windows:
        known = "" if math.isnan(window.probability) else f"{window.probability:.6g}"
        writer.writerow([window.file, f"{window.start:.6f}", f"{window.end:.6f}", window.label, known])
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def _format_label(window: LabelledWindow, before: str, with_probability: bool) -> str:
    text = " ".join(f"{before}{window.label}".split())  # a tab or a line break would begin another label
    if with_probability and not math.isnan(window.probability):
        text += f" {window.probability:.2f}"
    return f"{window.start:.6f}\t{window.end:.6f}\t{text}\n"


def _name_label_files(files: Iterable[str]) -> dict[str, str]:
    """Name the file of labels of each sound: below the output folder, as sounds lie below the folder that all share."""
    places = {file: os.path.abspath(file) for file in files}
    if not places:
        return {}
    top = os.path.commonpath([os.path.dirname(place) for place in places.values()])
    inner = {file: os.path.relpath(place, top) for file, place in places.items()}
    plain = {file: os.path.splitext(name)[0] for file, name in inner.items()}
    taken = list(plain.values())
    return {
        file: (name if taken.count(plain[file]) > 1 else plain[file])
        + ".txt"  # of a.wav and a.flac both keep their ending
        for file, name in inner.items()
    }
