"""Render the clips that a task's index lists: only the missing ones, each file complete or absent."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import warnings
import wave
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from evar import config as configs
from evar import download
from evar.config.messages import progress_bar
from evar.config.registry import stays_below
from evar.storage.atomic import write_atomic

#: Raise it when the same rows sound different; clips of an older revision are rendered again.
REVISION = 1
STAMP = "built.json"

FONT = {
    "package": "pretty_midi",
    "version": "0.2.11.post0",
    "member": "pretty_midi/TimGM6mb.sf2",
    "sha256": "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1",
}
NOTE_RATE = 44100  # Hz
NOTE_SECONDS, HELD_SECONDS = 2.0, 1.5
FADE_SECONDS = 0.01  # so that a note cut at the end of its clip does not click
MARGIN_SECONDS = 0.05  # of silence left on both sides of an utterance
QUIET_DECIBELS = -50.0  # against the peak: below it an utterance has not begun or is over
LOUD_SECONDS = 0.4  # a clip's level is that of its loudest stretch of this length
HIGHEST_PEAK = 0.98

Row = dict[str, str]
Renderer = Callable[[Row], tuple[np.ndarray, int]]


def build(name: str, folder: Path) -> None:
    """Render the clips of an embedded task; those that are there already are left alone.

    What a clip sounds like depends on its row alone. The sounds come from parts that pip fetches at first use; a
    stamp in the folder records what was built. Runs that build the same folder at once wait for each other.

    Args:
        name: of a task whose index has the columns program, note, level_db (a note of a General MIDI instrument),
            programs, notes, gains_db, level_db (several at once, separated by ";") or
            text, language, voice, rate, pitch, level_db (an utterance).
        folder: where the index's paths start.

    Raises:
        ValueError: if there is no such task, or a row cannot be rendered.
        OSError: if a part cannot be fetched, or a clip cannot be written.

    Warns:
        UserWarning: if the sounds differ from those that the task's published digest was made from.
    """
    from filelock import FileLock

    folder = Path(folder)
    rows = read_index(name)
    wanted = _hash_recipe(rows)
    if _is_complete(folder, rows, wanted):  # without the lock, so that a built folder may be read-only
        return
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if _is_complete(folder, rows, wanted):
            return
        if _read_stamp(folder).get("recipe") != wanted:
            (folder / STAMP).unlink(missing_ok=True)
            for row in rows:
                (folder / row["path"]).unlink(missing_ok=True)
            _write_stamp(folder, {"recipe": wanted})
        missing = _list_missing(folder, rows)
        if missing:
            render = _make_renderer(name, missing[0])

            def render_to_file(row: Row) -> None:
                _write_wave(folder / row["path"], *render(row))

            pool = ThreadPoolExecutor(os.cpu_count())
            try:
                clips = pool.map(render_to_file, missing)
                for _ in progress_bar(clips, total=len(missing), desc=f"render {name}", unit="clip", leave=False):
                    pass
            finally:
                pool.shutdown(cancel_futures=True)
        digest = content_digest(folder, rows)
        _write_stamp(folder, {"recipe": wanted, "clips": len(rows), "sha256": digest})
    expected = _read_task_yaml(name).get("expected", {}).get("sha256")
    if expected and expected != digest:
        warnings.warn(
            f"{name}: the rendered clips have digest {digest[:12]}, expected {expected[:12]} as on Linux x86-64; "
            "scores may differ a little from those of other machines",
            stacklevel=2,
        )


def is_built(name: str, folder: Path) -> bool:
    """Tell whether a task is built: the stamp fits the index, and every file is there.

    Raises:
        ValueError: if there is no such task.

    Example:
        >>> is_built("gm_pitch", Path("a/folder/that/is/not/there"))
        False
    """
    rows = read_index(name)
    return _is_complete(Path(folder), rows, _hash_recipe(rows))


def read_index(name: str) -> list[Row]:
    """Rows of a task's index, as text.

    Raises:
        ValueError: if there is no such task, or a path leaves the task's folder.

    Example:
        >>> sorted(read_index("gm_pitch")[0])
        ['group', 'label', 'level_db', 'note', 'path', 'program', 'split']
    """
    path = configs.find("tasks", name).with_name(_read_task_yaml(name).get("index", f"{name}.csv"))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, start=2):
        if not stays_below(row.get("path") or ""):
            raise ValueError(f"{path} line {number}: path must stay below the task's folder, got {row.get('path')!r}")
    return rows


def content_digest(folder: Path, rows: Sequence[Row]) -> str:
    """Compute one SHA-256 over the paths and contents of all clips, in the order of their paths: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(row["path"] for row in rows):
        digest.update(f"{path} {download.sha256_of(Path(folder) / path)}\n".encode())
    return digest.hexdigest()


def _make_renderer(name: str, row: Row) -> Renderer:
    """Make the function that turns a row of this task into samples; parts are fetched here, once."""
    has_notes, has_voices = "program" in row or "programs" in row, "voice" in row
    if not has_notes and not has_voices:
        raise ValueError(f"{name}: the index of an embedded task needs a column program or voice, got {', '.join(row)}")
    note = _make_note_renderer("programs" in row) if has_notes else None
    utterance = _make_utterance_renderer() if has_voices else None

    def render(row: Row) -> tuple[np.ndarray, int]:
        """A task of both kinds leaves the columns of the other kind empty."""
        found = utterance if note is None or (utterance is not None and row["voice"]) else note
        assert found is not None
        return found(row)

    return render


def _make_note_renderer(is_mixed: bool) -> Renderer:
    """Fetch the font; return what sounds a note, or several at once."""
    from evar.data.embedded.notes import render_note
    from evar.data.embedded.soundfont import SoundFont

    font = SoundFont(download.wheel_member(**FONT))
    fade = np.minimum(np.arange(round(NOTE_SECONDS * NOTE_RATE))[::-1] / (FADE_SECONDS * NOTE_RATE), 1)

    def sound(program: str, note: str) -> np.ndarray:
        settings = {"seconds": NOTE_SECONDS, "held_seconds": HELD_SECONDS}
        return render_note(font, int(program), int(note), **settings, sample_rate=NOTE_RATE) * fade

    def note(row: Row) -> tuple[np.ndarray, int]:
        return _set_level(sound(row["program"], row["note"]), NOTE_RATE, float(row["level_db"])), NOTE_RATE

    def mixture(row: Row) -> tuple[np.ndarray, int]:
        parts = zip(*(row[name].split(";") for name in ("programs", "notes", "gains_db")), strict=True)
        # Equally loud but for the drawn gain, independent of the presets' own levels.
        each = [_set_level(sound(program, key), NOTE_RATE, float(gain) - 30) for program, key, gain in parts]
        return _set_level(np.sum(each, axis=0), NOTE_RATE, float(row["level_db"])), NOTE_RATE

    return mixture if is_mixed else note


def _make_utterance_renderer() -> Renderer:
    """Fetch the synthesiser; return what speaks."""
    from evar.data.embedded import speech

    speaker = speech.Speaker()

    def utterance(row: Row) -> tuple[np.ndarray, int]:
        sound = speaker.say(
            row["text"],
            language=row["language"],
            variant=row["voice"],
            rate=int(row["rate"]),
            pitch=int(row["pitch"]),
        )
        sound = _trim(sound, speech.SAMPLE_RATE)
        return _set_level(sound, speech.SAMPLE_RATE, float(row["level_db"])), speech.SAMPLE_RATE

    return utterance


def _trim(sound: np.ndarray, sample_rate: int) -> np.ndarray:
    """Cut the pauses around an utterance, and add `MARGIN_SECONDS` of silence on both sides."""
    loud = np.flatnonzero(np.abs(sound) > np.abs(sound).max() * 10 ** (QUIET_DECIBELS / 20))
    if not len(loud):
        raise ValueError("an utterance came out silent")
    return np.pad(sound[loud[0] : loud[-1] + 1], round(MARGIN_SECONDS * sample_rate))


def _set_level(sound: np.ndarray, sample_rate: int, level_db: float) -> np.ndarray:
    """Scale so that the loudest stretch has this level in dB below full scale, or less where its peak would clip.

    A level of its own for each clip, drawn without regard to its label, keeps loudness from giving the label away.
    """
    length = min(round(LOUD_SECONDS * sample_rate), len(sound))
    energy = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    loudest = float(np.sqrt((energy[length:] - energy[:-length]).max() / length))
    peak = float(np.abs(sound).max())
    if loudest == 0:
        raise ValueError("a clip came out silent")
    return sound * min(10 ** (level_db / 20) / loudest, HIGHEST_PEAK / peak)


def _write_wave(path: Path, sound: np.ndarray, sample_rate: int) -> None:
    """Mono 16-bit WAV, renamed into place when complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with wave.open(str(part), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(np.rint(np.asarray(sound) * 32767).astype("<i2").tobytes())
    os.replace(part, path)


def _is_complete(folder: Path, rows: Sequence[Row], recipe: str) -> bool:
    stamp = _read_stamp(folder)
    return bool(stamp.get("sha256")) and stamp.get("recipe") == recipe and not _list_missing(folder, rows)


def _list_missing(folder: Path, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not (folder / row["path"]).is_file()]


def _hash_recipe(rows: Sequence[Row]) -> str:
    """Hash of everything that the sounds are made from, but for this package's code (see `REVISION`)."""
    from evar.data.embedded import speech

    parts = [REVISION, FONT["sha256"], speech.PACKAGE, speech.VERSION]
    return hashlib.sha256(json.dumps([parts, rows], sort_keys=True).encode()).hexdigest()


def _read_task_yaml(name: str) -> dict[str, Any]:
    return yaml.safe_load(configs.find("tasks", name).read_text(encoding="utf-8"))


def _read_stamp(folder: Path) -> dict[str, Any]:
    """The stamp, or nothing if none was written or it was damaged."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def _write_stamp(folder: Path, stamp: dict[str, Any]) -> None:
    write_atomic(folder / STAMP, (json.dumps(stamp, indent=1) + "\n").encode())
