"""What in labels and sounds may spoil a comparison, in sentences: for `evar verify --deep`, `task new` and before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evar.audio import AudioError, Sound, describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

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


def list_label_problems(task: Task, seed: int = 0) -> list[str]:
    """What is wrong with the labels of the splits: sentences, none where all is well.

    Args:
        task: with its rounds.
        seed: of the validation draw.

    Returns:
        At most one sentence for each kind of problem: test clips of a class that has no training clips (they cannot be
        right), training clips of one class only, splits without clips, and numbers that are all the same.
    """
    try:
        rounds = task.rounds(seed)
    except ValueError as error:
        return [str(error)]
    found: dict[str, list[str]] = {}
    for one in rounds:
        for sort, text in _check_round(task, one):
            found.setdefault(sort, []).append(text)
    return [
        texts[0] + (f" (and so in {len(texts) - 1} more rounds)" if len(texts) > 1 else "") for texts in found.values()
    ]


def _check_round(task: Task, one: Round) -> list[tuple[str, str]]:
    """(sort of problem, sentence) of one round."""
    found = []
    for name, rows in (("training", one.train), ("validation", one.valid), ("test", one.test)):
        if not len(rows):
            found.append((f"empty {name}", f"{one.name}: there is no {name} clip"))
    if not len(one.train) or not len(one.test):
        return found
    if task.config.kind == "regression":
        if len(np.unique(task.y[one.train])) == 1:
            found.append(("constant", f"{one.name}: all training clips have the same number as label"))
        return found
    trained, tested = (count_labels(task, rows) for rows in (one.train, one.test))
    unseen = np.flatnonzero((trained == 0) & (tested > 0))
    if len(unseen):
        names = _shorten([task.config.classes[number] for number in unseen])
        what = "events" if task.config.kind == "events" else "labels" if task.config.kind == "multilabel" else "clips"
        found.append(
            ("unseen", f"{one.name}: {int(tested[unseen].sum())} of {int(tested.sum())} test {what} are of classes without "
             f"training clips ({names}) and cannot be right")
        )  # fmt: skip
    n_trained = int((trained > 0).sum())
    if n_trained < 2 and task.config.kind == "multiclass":
        only = task.config.classes[int(trained.argmax())]
        found.append(
            ("one class", f"{one.name}: all training clips are of one class, {only!r}; nothing can be learned")
        )
    elif n_trained == 0:
        found.append(("no label", f"{one.name}: no training clip has a label"))
    return found


def count_labels(task: Task, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(classes,) how many clips, labels or events of each class some rows have."""
    n_classes = len(task.config.classes)
    if task.config.kind == "multilabel":
        return np.asarray(task.y[rows].sum(axis=0), np.int64)
    if task.config.kind == "events":
        own = [task.y[row][:, 0] for row in rows]
        return np.bincount(np.concatenate(own).astype(int) if own else [], minlength=n_classes)
    return np.bincount(task.y[rows], minlength=n_classes)


def list_sound_problems(sounds: Mapping[str, Sound]) -> list[str]:
    """What is wrong with sounds as an encoder hears them, mixed to mono and resampled.

    Args:
        sounds: path -> what the file is like.
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
    limits = {path: one.band_limit for path, one in sounds.items() if one.band_limit}
    if limits:
        told = [f"{path} ({sounds[path].sample_rate} Hz, nothing above {limit:g} Hz)" for path, limit in limits.items()]
        texts.append(tell_some("hold less than their rate allows: they were sampled at a lower rate once", told))
    return texts


def sample_sound_problems(task: Task, n_clips: int = 12) -> list[str]:
    """`list_sound_problems` of a few clips, spread over the index: quick enough before a run.

    Args:
        task: whose clips are there; ones that cannot be read are named by the run itself.
        n_clips: that are looked at.
    """
    places = np.unique(np.linspace(0, len(task) - 1, min(n_clips, len(task))).astype(int))
    sounds = {}
    for place in places:
        try:
            sounds[task.index["path"].iloc[place]] = describe(task.paths[place])
        except AudioError:
            continue
    return [f"of {len(places)} clips looked at, {text}" for text in list_sound_problems(sounds)]


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
    """A sentence with the number and the first three; "" for none.

    Example:
        >>> tell_some("are silent", ["a.wav"]), tell_some("are silent", [])
        ('1 files are silent: a.wav', '')
    """
    if not which:
        return ""
    more = f", ... and {len(which) - 3} more" if len(which) > 3 else ""
    return f"{len(which)} {'' if unit == 'sets' else 'files '}{what}: {', '.join(which[:3])}{more}"


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {len(names) - 3} more" if len(names) > 3 else "")
