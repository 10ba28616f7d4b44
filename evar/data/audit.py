"""`evar verify --deep`: a description of a task's sounds, and of the problems that can spoil a comparison."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.audio import AudioError, Sound, describe
from evar.config.messages import progress_bar
from evar.data.fingerprint import find_alike_clips
from evar.data.problems import count_labels, list_label_problems, list_late_events, list_sound_problems, tell_some
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from evar.audio.segments import Segment
    from evar.data.task import Task

#: of the table, beside path and split: attributes of a sound
_COLUMNS = (
    *("seconds", "sample_rate", "channels", "subtype", "rms_db", "peak_db", "clipped", "mono_db", "heard_db"),
    *("offset", "band_limit", "sha256"),
)


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        sounds: path -> description of the file; files that cannot be read are in `bad`.
        bad: path -> why it cannot be read.
        split_of: path -> split or fold.
        findings: sentences on what may spoil a comparison; none is good.
        lines: the same and all counts, as lines for the terminal.
    """

    sounds: dict[str, Sound]
    bad: dict[str, str]
    split_of: dict[str, str]
    findings: list[str]
    lines: list[str]


def audit(task: Task) -> Audit:
    """Look into every file of a task.

    Args:
        task: whose clips are there.

    Returns:
        Counts and findings; nothing is raised for a bad file.
    """
    part = task.config.part
    split_of = dict(zip(task.index["path"], task.index[part], strict=True))
    sounds: dict[str, Sound] = {}
    bad: dict[str, str] = {}

    def look(path: Path | Segment) -> Sound | str:
        try:
            return describe(path)
        except AudioError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = progress_bar(pool.map(look, task.paths), f"audit {task.name}", len(task), unit="clip", leave=False)
        for path, one in zip(task.index["path"], found, strict=True):
            if isinstance(one, str):
                bad[path] = one
            else:
                sounds[path] = one
    findings = _list_findings(task, sounds, bad, split_of, part)
    alike = find_alike_clips(task)
    if alike is None:
        findings.append(
            f"{len(task)} clips are too many to look for ones that sound alike; only identical files were looked for"
        )
    elif alike:
        pairs = [f"{one} ~ {other}" for one, other in alike]
        findings.append(tell_some(f"pairs of files in different {part}s sound alike (by fingerprint)", pairs, "sets"))
    return Audit(
        sounds, bad, split_of, findings, [*_count_by_class(task, sounds, part), *(f"! {one}" for one in findings)]
    )


def write_audit(found: Audit, task: Task, stem: Path) -> list[Path]:
    """Write `STEM.csv` (one line a clip), `.png` and `.svg` (durations, levels, labels)."""
    from evar.figures.style import COLOURS, PAGE_INCHES, make_figure, save_figure

    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "split", *_COLUMNS])
    for path, one in found.sounds.items():
        values = [getattr(one, column) for column in _COLUMNS]
        rounded = [round(value, 5) if isinstance(value, float) else value for value in values]
        writer.writerow([path, found.split_of[path], *rounded])
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(stem.with_name(f"{stem.name}.csv"), buffer.getvalue().encode("utf-8"))
    figure = make_figure(
        PAGE_INCHES, 2.2, f"{task.name}: {len(found.sounds)} files that can be read, {len(found.bad)} that cannot."
    )
    durations, levels, labels = figure.subplots(1, 3)
    durations.hist([one.seconds for one in found.sounds.values()], bins=40, color=COLOURS[0])
    durations.set_xlabel("seconds")
    durations.set_ylabel("clips")
    if task.config.clip_seconds:
        durations.axvline(task.config.clip_seconds, color=COLOURS[1], linestyle=":", label="clip_seconds")
        durations.legend(fontsize=7, frameon=False)
    levels.hist([max(one.rms_db, -100.0) for one in found.sounds.values()], bins=40, color=COLOURS[2])
    levels.set_xlabel("level, dB of full scale")
    if task.config.kind == "regression":
        labels.hist(task.y, bins=40, color=COLOURS[3])
        labels.set_xlabel(f"label {task.config.unit}".strip())
    else:
        counts = sorted(_label_counts(task).items(), key=lambda item: (-item[1], item[0]))
        labels.bar(range(len(counts)), [count for _, count in counts], color=COLOURS[3])
        if len(counts) <= 40:
            size = 7 if len(counts) <= 12 else 5 if len(counts) <= 25 else 4
            labels.set_xticks(range(len(counts)), [name for name, _ in counts], rotation=90, fontsize=size)
        labels.set_xlabel("classes, largest first")
    return [stem.with_name(f"{stem.name}.csv"), *save_figure(figure, stem)]


def _label_counts(task: Task) -> dict[str, int]:
    counts = count_labels(task, np.arange(len(task)))
    return dict(zip(task.config.classes, counts.tolist(), strict=True))


def _count_by_class(task: Task, sounds: dict[str, Sound], part: str) -> list[str]:
    lines = [
        f"{task.name}: {len(task)} clips, {len(set(task.groups))} groups; {part}s: "
        + _list_counts(task.index[part].tolist())
    ]
    if not sounds:
        return lines
    every = list(sounds.values())
    seconds = np.array([one.seconds for one in every])
    lines.append(
        f"seconds: {seconds.min():.2f} to {seconds.max():.2f}, median {np.median(seconds):.2f}, "
        f"{seconds.sum() / 3600:.2f} hours in all"
    )
    lines.append("rates: " + _list_counts([f"{one.sample_rate} Hz" for one in every]))
    lines.append("channels: " + _list_counts([str(one.channels) for one in every]))
    lines.append("coding: " + _list_counts([one.subtype for one in every]))
    levels = np.array([one.rms_db for one in every])
    lines.append(f"level: median {np.median(levels):.1f} dB, from {levels.min():.1f} to {levels.max():.1f}")
    if task.config.kind != "regression":
        counts = _label_counts(task)
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        lines.append(f"labels: {len(counts)}, from {counts[least]} clips ({least}) to {counts[most]} ({most})")
    return lines


def _list_counts(values: list[Any]) -> str:
    counts = sorted(Counter(values).items(), key=lambda item: (-item[1], str(item[0])))
    return ", ".join(f"{n} x {value}" for value, n in counts)


def _list_findings(
    task: Task, sounds: dict[str, Sound], bad: dict[str, str], split_of: dict[str, str], part: str
) -> list[str]:
    said = [tell_some("cannot be read", [f"{path} ({reason})" for path, reason in bad.items()])]
    said += list_label_problems(task)
    said += list_sound_problems(sounds)
    said += list_late_events(task, sounds)
    if task.config.clip_seconds:
        least = task.config.clip_seconds / 2
        short = [path for path, one in sounds.items() if one.seconds < least]
        said.append(tell_some(f"are shorter than half of clip_seconds ({least:g} s)", short))
    of_content: dict[str, list[str]] = defaultdict(list)
    for path, one in sounds.items():
        of_content[one.sha256].append(path)
    twins = [paths for paths in of_content.values() if len(paths) > 1]
    across = [" = ".join(paths) for paths in twins if len({split_of[path] for path in paths}) > 1]
    within = [" = ".join(paths) for paths in twins if len({split_of[path] for path in paths}) == 1]
    said.append(tell_some(f"sets of identical files lie in different {part}s", across, "sets"))
    said.append(tell_some(f"sets of identical files lie in one {part}", within, "sets"))
    label_of = dict(zip(task.index["path"], task.index["label"], strict=True))
    contradicting = [" = ".join(paths) for paths in twins if len({label_of[path] for path in paths}) > 1]
    said.append(tell_some("sets of identical files have different labels", contradicting, "sets"))
    return [one for one in said if one]
