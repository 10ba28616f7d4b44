"""Problems of labels and sounds that can spoil a comparison, in sentences: for `evar verify --deep`, `task new` and runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from evar.audio import AudioError, Sound, describe
from evar.audio.reading import MAX_SECONDS, measure
from evar.audio.segments import name_file
from evar.data.task_config import WITHOUT_CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.audio.segments import Segment
    from evar.data.task import Round, Task

#: below this level, in dB of full scale (root mean square), a clip holds nothing to recognise
SILENT_DB = -70.0
#: more of a clip's samples at its largest value than this, and it was cut off
CLIPPED_SHARE = 0.001
#: peak in dB above which values are no sound in [-1, 1]: lossy coding overshoots by less
FAR_ABOVE_DB = 12.0
#: mean of the samples, in parts of full scale
LARGE_OFFSET = 0.02
#: dB that a mix to mono, or a limit at 8 kHz, may take from the level
LARGE_LOSS_DB = 30.0
#: of an encoder's rate up to which it can use what it hears
HEARD_SHARE = 0.45
#: smaller files are not measured: with fewer bits a second no usual coding keeps a sound of `MAX_SECONDS`
LONG_BYTES = 1_000_000
#: of a clip that is looked at before a run
SAMPLED_SECONDS = 10.0


@dataclass(frozen=True)
class LabelProblem:
    """A problem of the labels of a round.

    Attributes:
        sort: of the problem; a list of problems names each sort once.
        round_name: as `evar.data.task.Round` has it.
        text: the problem, without the name of the round.
        is_fatal: no probe can be fitted or tested.
    """

    sort: str
    round_name: str
    text: str
    is_fatal: bool = False


def list_label_problems(task: Task, seed: int = 0) -> list[str]:
    """Describe the problems of the labels of the splits: sentences, none if all is well.

    Args:
        task: with its rounds.
        seed: of the validation draw.

    Returns:
        At most one sentence for each kind of problem: test clips of a class that has no training clips (they cannot be
        right), training clips of one class only, splits without clips, numbers that are all the same, and recordings whose
        parts are in several splits.
    """
    try:
        rounds = task.rounds(seed)
    except ValueError as error:
        return [str(error)]
    of_sort: dict[str, list[LabelProblem]] = {}
    for problem in find_label_problems(task, rounds):
        of_sort.setdefault(problem.sort, []).append(problem)
    texts = [
        f"{same[0].round_name}: {same[0].text}" + (f" (and so in {len(same) - 1} more rounds)" if len(same) > 1 else "")
        for same in of_sort.values()
    ]
    unknown = describe_unknown_classes(task, rounds)
    shared = describe_shared_files(task)
    return [*texts, *([f"{unknown} and cannot be right"] if unknown else []), *([shared] if shared else [])]


def describe_shared_files(task: Task) -> str:
    """Write a sentence on recordings whose parts are in several splits or folds; "" for none, or if groups are given."""
    part = task.config.part
    names = [name_file(name) for name in task.index["path"]]
    if names == task.index["path"].tolist() or names != task.index["group"].tolist():
        return ""
    n_parts = task.index[part].groupby(pd.Series(names, index=task.index.index)).nunique()
    shared = n_parts[n_parts > 1].index.tolist()
    if not shared:
        return ""
    return (
        f"{len(shared)} of {len(n_parts)} recordings have clips in more than one {part}, first {shared[0]}: scores are then "
        "higher than for new recordings"
    )


def describe_long_sounds(task: Task) -> str:
    """Write a sentence on files that are too long to be encoded as a whole clip; "" for none, or if clips are cut shorter.

    Args:
        task: whose files are looked at; parts of files are not. A file of fewer than `LONG_BYTES` is not opened.

    Returns:
        How many there are, and the first, with its length in seconds.
    """
    if task.config.clip_seconds is not None:
        return ""
    found = []
    for name, path in zip(task.index["path"], task.paths, strict=True):
        try:
            if not isinstance(path, Path) or path.stat().st_size < LONG_BYTES:
                continue
            n_samples, sample_rate = measure(path)
        except (OSError, AudioError):
            continue  # others name what cannot be read
        if n_samples > MAX_SECONDS * sample_rate:
            found.append((name, n_samples / sample_rate))
    if not found:
        return ""
    name, seconds = found[0]
    return (
        f"{len(found)} of {len(task)} sounds are longer than {MAX_SECONDS / 60:g} minutes, first {name} ({seconds:.0f} s): "
        "evar lineval counts them as unreadable; name their parts by columns start and end in the table, or say "
        "--clip_seconds=X"
    )


def require_labels(task: Task, rounds: Sequence[Round]) -> None:
    """Raise unless every round has training and test clips, and training clips of at least 2 classes.

    Args:
        task: whose labels.
        rounds: as `task.rounds` gives them.

    Raises:
        ValueError: naming the round, and what its index holds.
    """
    for problem in find_label_problems(task, rounds):
        if problem.is_fatal:
            raise ValueError(f"{task.name} {problem.round_name}: {problem.text}; see `evar verify`")


def find_label_problems(task: Task, rounds: Sequence[Round]) -> Iterator[LabelProblem]:
    """Yield the problems of each round, except classes without training clips (see `describe_unknown_classes`)."""
    for a_round in rounds:
        parts = (("training", a_round.train), ("validation", a_round.valid), ("test", a_round.test))
        for name, clips in parts:
            if not len(clips):
                yield LabelProblem(
                    f"empty {name}", a_round.name, f"the index has no {name} clips", name != "validation"
                )
        if not len(a_round.train) or task.config.kind == "captions":
            continue
        if task.config.kind == "regression":
            if len(np.unique(task.y[a_round.train])) == 1:
                yield LabelProblem("constant", a_round.name, "all training clips have the same number as label")
            continue
        counts = count_labels(task, a_round.train)
        if task.config.kind == "multiclass" and int((counts > 0).sum()) < 2:
            text = f"all {len(a_round.train)} training clips are of class {task.config.classes[int(counts.argmax())]!r}"
            yield LabelProblem("one class", a_round.name, f"{text}, but a probe needs at least 2 classes", True)
        elif not counts.any():
            yield LabelProblem("no label", a_round.name, "no training clip has a label")


def describe_unknown_classes(task: Task, rounds: Sequence[Round]) -> str | None:
    """Return a sentence on test clips whose class no training clip has; None if there are none.

    Args:
        task: whose labels; tasks of numbers and of captions have no such clips.
        rounds: as `task.rounds` gives them.

    Example:
        >>> from evar.data.task import load_task
        >>> task = load_task("esc10")
        >>> print(describe_unknown_classes(task, task.rounds()))
        None
    """
    if task.config.kind in WITHOUT_CLASSES:
        return None
    n_lost, n_test = 0, 0
    names: set[str] = set()
    for a_round in rounds:
        unknown = (count_labels(task, a_round.train) == 0) & (count_labels(task, a_round.test) > 0)
        n_test += len(a_round.test)
        n_lost += sum(bool(_has_label(task, clip, unknown)) for clip in a_round.test) if unknown.any() else 0
        names |= {str(task.config.classes[int(place)]) for place in np.flatnonzero(unknown)}
    if not n_lost:
        return None
    shown = ", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{n_lost} of {n_test} test clips are of classes without training clips ({shown})"


def _has_label(task: Task, clip: int, wanted: NDArray[np.bool_]) -> np.bool_:
    """Tell whether a clip has one of the wanted classes, (classes,)."""
    if task.config.kind == "multilabel":
        return np.bool_(task.y[clip][wanted].any())
    if task.config.kind == "events":
        return np.bool_(wanted[task.y[clip][:, 0].astype(int)].any())
    return np.bool_(wanted[int(task.y[clip])])


def count_labels(task: Task, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how many clips, labels or events of each class some rows have: (classes,)."""
    n_classes = len(task.config.classes)
    if task.config.kind == "multilabel":
        return np.asarray(task.y[rows].sum(axis=0), np.int64)
    if task.config.kind == "events":
        own = [task.y[row][:, 0] for row in rows]
        return np.bincount(np.concatenate(own).astype(int) if own else [], minlength=n_classes)
    return np.bincount(task.y[rows], minlength=n_classes)


def list_sound_problems(
    sounds: Mapping[str, Sound], sample_rate: int | None = None, least_limited: float = 0.0
) -> list[str]:
    """Describe the problems of sounds as an encoder receives them, mixed to mono and resampled.

    Args:
        sounds: path -> description of the file.
        sample_rate: of an encoder in Hz, which hears up to half of it: limits above do not matter. None names them all.
        least_limited: share of the sounds, 0..1, that must have a limit in frequency before it is a problem: a few low
            sounds have nothing above, whatever their rate.
    """
    found = [
        ("hold NaN or infinite samples", [path for path, one in sounds.items() if not one.is_finite]),
        (
            "hold values far beyond full scale, as integers stored as floats do; encoders expect [-1, 1]: divide them (by "
            "32768 for 16 bits)",
            [f"{path} (peak {10 ** (one.peak_db / 20):.0f})" for path, one in sounds.items() if one.peak_db > FAR_ABOVE_DB],
        ),
        (f"are silent (below {SILENT_DB:g} dB)", [path for path, one in sounds.items() if one.rms_db < SILENT_DB]),
        (
            "are silent in mono, which is what encoders get: their channels cancel",
            [
                path for path, one in sounds.items()
                if one.rms_db >= SILENT_DB and (one.mono_db < SILENT_DB or one.mono_db < one.rms_db - LARGE_LOSS_DB)
            ],
        ),
        (
            "hold next to nothing below 8 kHz, which is all that many encoders hear",
            [p for p, one in sounds.items() if one.mono_db >= SILENT_DB and one.heard_db < one.mono_db - LARGE_LOSS_DB],
        ),
        ("are clipped", [path for path, one in sounds.items() if one.clipped > CLIPPED_SHARE]),
        (
            f"have an offset (DC) above {LARGE_OFFSET:g} of full scale",
            [path for path, one in sounds.items() if abs(one.offset) > LARGE_OFFSET and one.peak_db <= FAR_ABOVE_DB],
        ),
    ]  # fmt: skip
    texts = [tell_some(what, which) for what, which in found if which]
    heard = HEARD_SHARE * sample_rate if sample_rate else np.inf
    limits = {path: one.band_limit for path, one in sounds.items() if 0 < one.band_limit < heard}
    if limits and len(limits) >= least_limited * len(sounds):
        told = [f"{path} ({sounds[path].sample_rate} Hz, nothing above {limit:g} Hz)" for path, limit in limits.items()]
        texts.append(
            tell_some(
                "hold less than their rate allows: it was lower once, or a coder cut it off",
                told,
            )
        )
    return texts


#: share of a few clips that must lack high frequencies before a run warns of it
LEAST_LIMITED = 0.25


def choose_places(n_all: int, n_chosen: int) -> list[int]:
    """Choose positions spread over a list.

    Example:
        >>> choose_places(9, 3), choose_places(2, 3)
        ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, n_all - 1, min(n_chosen, n_all)).astype(int)).tolist()


def sample_sound_problems(task: Task, n_clips: int = 12, sample_rate: int | None = None) -> list[str]:
    """List the problems of a few clips, spread over the index: quick enough before a run.

    Args:
        task: whose clips are there; ones that cannot be read are left out, as the run itself names them.
        n_clips: that are looked at.
        sample_rate: as for `list_sound_problems`.
    """
    if task.config.builder:
        return []  # sounds that this package renders itself
    paths, places = task.paths, choose_places(len(task), n_clips)
    files = tuple((paths[place], str(task.index["path"].iloc[place]), _read_stamp(paths[place])) for place in places)
    sounds = _describe_once(files)
    found = [*list_sound_problems(sounds, sample_rate, LEAST_LIMITED), *list_late_events(task, sounds)]
    return [f"of {len(sounds)} clips looked at, {text}" for text in found]


def _read_stamp(path: Path | Segment) -> tuple[int, int]:
    """Size and time of a file; zeros where it is missing."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=4)
def _describe_once(files: tuple[tuple[Path | Segment, str, tuple[int, int]], ...]) -> dict[str, Sound]:
    """Describe the beginnings of files (path, name, stamp); a process decodes them once for all encoders and rows."""
    sounds = {}
    for path, name, _ in files:
        try:
            sounds[name] = describe(path, SAMPLED_SECONDS)
        except AudioError:
            continue
    return sounds


def list_late_events(task: Task, sounds: Mapping[str, Sound]) -> list[str]:
    """Events that begin or end behind the end of their clip; times in milliseconds look so."""
    if task.config.kind != "events":
        return []
    late = []
    for path, events in zip(task.index["path"], task.y, strict=True):
        if path in sounds and len(events) and events[:, 2].max() > sounds[path].seconds + 0.1:
            late.append(f"{path} ({events[:, 2].max():g} s of {sounds[path].seconds:.1f} s)")
    return [tell_some("have events behind their end; are the times in seconds?", late)] if late else []


def tell_some(what: str, which: Sequence[str], unit: str = "files") -> str:
    """Write a sentence with the number and the first three; "" for none.

    Example:
        >>> tell_some("are silent", ["a.wav"]), tell_some("are silent", [])
        ('1 file is silent: a.wav', '')
    """
    if not which:
        return ""
    more = f", ... and {len(which) - 3} more" if len(which) > 3 else ""
    noun = "" if unit == "sets" else "files "
    if len(which) == 1 and noun:
        verb, _, rest = what.partition(" ")
        noun, what = "file ", f"{_SINGULAR.get(verb, verb)} {rest}"
    return f"{len(which)} {noun}{what}: {', '.join(which[:3])}{more}"


#: what several files do -> what one does
_SINGULAR = {"are": "is", "have": "has", "hold": "holds", "end": "ends", "begin": "begins"}


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {len(names) - 3} more" if len(names) > 3 else "")
