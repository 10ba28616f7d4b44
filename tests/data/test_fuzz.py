"""Damaged sounds, tables and folders, drawn with a fixed seed: never a traceback, and every clip is used or named."""

from __future__ import annotations

import contextlib
import io
import os
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy import RATE, tone

from evar import audio, cli, exporting
from evar.audio.folders import LeftOut, find_audio, has_audio_suffix, is_hidden
from evar.cli import run
from evar.data.new_task import TaskOptions, new_task
from evar.data.own_tables import read_own_table

SEED = 17
#: seconds of the processor that each part may take: what is left of its cases is then not tried
PATIENCE = 12.0
#: what a wrong input may raise; anything else is a traceback
EXPECTED = (ValueError, OSError)


def mutate(data: bytes, draw: random.Random, other: bytes) -> bytes:
    """Flip, cut, join, drop, repeat, insert or blank bytes, once or a few times."""
    mutant = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, length = draw.randrange(len(mutant) or 1), draw.choice((1, 4, 40, 400, 4000))
        what = draw.randrange(8)
        if what == 0:
            for _ in range(draw.choice((1, 3, 30))):
                mutant[draw.randrange(len(mutant))] ^= 1 << draw.randrange(8)
        elif what == 1:
            mutant[draw.randrange(min(len(mutant), 200))] = draw.randrange(256)  # in the header
        elif what == 2:
            del mutant[at:]
        elif what == 3:
            mutant += draw.choice((data, other, other[at:]))
        elif what == 4:
            del mutant[at : at + length]
        elif what == 5:
            mutant[at:at] = mutant[at : at + length]
        elif what == 6:
            mutant[at:at] = draw.randbytes(length)
        else:
            mutant[at : at + length] = bytes(len(mutant[at : at + length]))
        if not mutant:
            return b""
    return bytes(mutant)


def make_sounds() -> dict[str, bytes]:
    sounds = {}
    for number, (ending, subtype) in enumerate(
        [
            ("wav", "PCM_16"),
            ("wav", "FLOAT"),
            ("flac", None),
            ("ogg", None),
            ("mp3", None),
            ("aiff", None),
            ("au", None),
        ]
    ):
        buffer = io.BytesIO()
        wave = np.stack([tone(number % 3, number)] * (1 + number % 2), axis=1)
        soundfile.write(buffer, wave, RATE, format=ending.upper(), subtype=subtype)
        sounds[f"{number}.{ending}"] = buffer.getvalue()
    return sounds


def test_damaged_sounds_are_read_or_named(tmp_path):
    draw, sounds, began = random.Random(SEED), make_sounds(), time.process_time()
    n_read = n_named = n_tried = 0
    for number in range(1200):
        if time.process_time() - began > PATIENCE:
            break
        name = draw.choice(list(sounds))
        path = tmp_path / f"x{Path(name).suffix}"
        path.write_bytes(mutate(sounds[name], draw, sounds[draw.choice(list(sounds))]))
        n_tried += 1
        try:
            info = audio.inspect(path)
            clip = audio.read_clip(path, info, audio.ClipPolicy(None), RATE)
            part = audio.read_clip(path, info, audio.ClipPolicy(0.1, crop="seeded_random", seed=number), RATE)
        except audio.AudioError as error:
            assert str(error) and "\n" not in str(error) and "0x" not in str(error), error
            n_named += 1
            continue
        n_read += 1
        assert clip.dtype == np.float32 and np.isfinite(clip).all() and len(part)
        # Never a silent loss: what was promised when the file was looked at is what is decoded.
        assert abs(len(clip) - audio.length(path, RATE)) <= 0.11 * RATE, (number, name)
        if number % 5 == 0:
            try:
                assert audio.describe(path).seconds > 0
            except audio.AudioError as error:
                assert "decod" in str(error)
    assert n_read + n_named == n_tried >= 100 and n_read > 20 and n_named > 20


def test_clips_in_are_clips_used_and_clips_named(tones, monkeypatch, capsys):
    root = tones()
    monkeypatch.chdir(root)
    draw, sounds = random.Random(SEED + 1), make_sounds()
    folder = root / "odd"
    names = [
        "plain",
        "with space",
        "semi;colon",
        "comma,",
        "new\nline",
        "tab\t",
        "'quote\"",
        "=cmd|x",
        "ü é",
        "06:12:05",
    ]
    for number in range(60):
        name = draw.choice(list(sounds))
        path = folder / draw.choice("abc") / f"{draw.choice(names)} {number}{Path(name).suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(sounds[name] if number % 3 else mutate(sounds[name], draw, b"junk" * 100))
    if sys.platform == "linux":
        os.rename(path, os.fsencode(path.parent) + b"/\xff\xfe odd.wav")
    os.symlink(folder, folder / "a" / "loop")
    n_files = len(list(find_audio(folder)))
    assert n_files == 60
    assert run(["embed", "toy", str(folder), "-o", "out.npz", "--skip_bad"]) in (cli.DONE, cli.SOME_FAILED)
    meta = exporting.read_metadata("out.npz")
    assert meta["n_clips"] + len(meta["bad_clips"]) == n_files and meta["n_clips"] >= 40
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression", "events"])
def test_damaged_tables_are_read_or_refused(tmp_path, kind):
    draw, began = random.Random(f"{SEED} {kind}"), time.process_time()
    folder = tmp_path / "sounds"
    folder.mkdir()
    for number in range(12):
        soundfile.write(folder / f"{number}.wav", tone(number % 2, number), RATE)
    label = {"multiclass": "{c}", "multilabel": "{c};x", "regression": "{n}.5", "events": "0.{n}-0.9 {c}"}[kind]
    rows = [f"{n}.wav,{label.format(c='ab'[n % 2], n=n)},{('train', 'valid', 'test')[n % 3]}" for n in range(12)]
    tables = ["\n".join(["path,label,split", *rows]) + "\n", "\r\n".join(["path;label", *rows]).replace(",", ";")]
    n_read = 0
    for number in range(150):
        if time.process_time() - began > PATIENCE / 3:
            break
        text = draw.choice(tables)
        data = text.encode(draw.choice(("utf-8", "utf-8-sig", "utf-16", "latin-1")))
        if number % 4:
            data = mutate(data, draw, b'"\x00\xff,;\n\t' * 9)
        (tmp_path / "t.csv").write_bytes(data)
        try:
            found = read_own_table(tmp_path / "t.csv", folder, ";", kind)
        except EXPECTED as error:
            assert "\n" not in str(error) or b"\n" in data
            continue
        n_read += 1
        assert len(found.index) and all((folder / path).is_file() for path in found.index["path"])
        if number % 10 == 0:
            with contextlib.suppress(*EXPECTED):
                new_task(
                    f"t{number}",
                    folder,
                    tmp_path / "t.csv",
                    TaskOptions(kind=kind),
                    to=tmp_path / "config",
                    replace=True,
                )
    assert n_read >= 10


def test_any_folder_is_walked_to_its_end(tmp_path):
    draw = random.Random(SEED + 2)
    names = [
        "train",
        "test",
        "fold1",
        "fold2",
        "cat",
        "dog",
        ".hidden",
        "__MACOSX",
        "a b",
        "ünï",
        "x" * 200,
        "wav",
        "1",
    ]
    for case in range(25):
        top = tmp_path / str(case)
        folders = [top]
        top.mkdir()
        for _ in range(draw.randrange(1, 12)):
            folder = draw.choice(folders) / draw.choice(names)
            if len(str(folder)) < 900 and not folder.exists():
                folder.mkdir()
                folders.append(folder)
        written = set()
        for number in range(draw.randrange(30)):
            path = draw.choice(folders) / f"{number}{draw.choice(['.wav', '.WAV', '.txt', '.oga', ''])}"
            path.write_bytes(draw.choice([b"", b"text that is no sound", make_wave(number)]))
            if has_audio_suffix(path.name) and not any(is_hidden(part) for part in path.relative_to(top).parts):
                written.add(str(path))
        for number in range(draw.randrange(4)):
            os.symlink(draw.choice([*folders, Path("nowhere")]), draw.choice(folders) / f"link{number}")
        left = LeftOut()
        found = set(find_audio(top, left))
        assert written <= found and isinstance(left.describe(), str)
        try:
            made = new_task(f"f{case}", top, to=tmp_path / "config", replace=True)
        except EXPECTED:
            continue
        assert set(made.task.index["path"]) <= {os.path.relpath(path, top) for path in found}


def make_wave(number: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(number % 3, number), RATE, format="WAV")
    return buffer.getvalue()
