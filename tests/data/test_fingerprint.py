"""Near-duplicates: copies in another format, rate, level or cut are found; other sound is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import soundfile
from toy import noise_with_bands as sound

from evar import cli
from evar.audio.reading import read
from evar.cli import run
from evar.data.audit import audit
from evar.data.fingerprint import FRAME, HOP, RATE, find_near_duplicates, fingerprint
from evar.data.task import load_task


def test_words_are_signs_of_differences_of_band_energies():
    """Against the formula, written out bin by bin."""
    samples = sound(0, 1.0, RATE)
    words, is_sound = fingerprint(samples)
    padded = np.pad(samples, FRAME // 2)
    edges, bins = np.geomspace(300, 2000, 34), np.fft.rfftfreq(FRAME, 1 / RATE)
    energy = []
    for first in range(0, len(padded) - FRAME + 1, HOP):
        power = np.abs(np.fft.rfft(padded[first : first + FRAME] * np.hanning(FRAME))) ** 2
        energy.append([power[(bins >= low) & (bins < high)].sum() for low, high in itertools.pairwise(edges)])
    energy = np.array(energy)
    assert len(words) == len(energy) - 1 and is_sound.all()
    steps = energy[:, :-1] - energy[:, 1:]
    for at in range(len(words)):
        bits = "".join("1" if now > before else "0" for now, before in zip(steps[at + 1], steps[at], strict=True))
        assert bin(int(words[at]) ^ int(bits, 2)).count("1") <= 1  # ties of rounding


@pytest.fixture(scope="module")
def twenty(tmp_path_factory):
    """Fingerprints of twenty different sounds."""
    folder = tmp_path_factory.mktemp("twenty")
    return [fingerprint(read_of(folder, f"{seed}.wav", sound(seed), 16000)) for seed in range(20)]


@pytest.mark.parametrize("change", ["same", "quieter", "ogg", "mp3", "other rate", "cut", "noisy"])
def test_copies_are_found_and_others_are_not(tmp_path, twenty, change):
    prints = [*twenty]
    wave, rate, name = sound(7), 16000, "copy.wav"
    if change == "quieter":
        wave = 0.1 * wave
    elif change in ("ogg", "mp3"):
        name = f"copy.{change}"
    elif change == "other rate":
        wave, rate = wave[::2], 8000
    elif change == "cut":
        wave = wave[round(0.58 * rate) : round(2.5 * rate)]
    elif change == "noisy":
        wave = wave + 0.001 * np.random.default_rng(99).standard_normal(len(wave)).astype(np.float32)
    prints.append(fingerprint(read_of(tmp_path, name, wave, rate)))
    found = find_near_duplicates(prints)
    assert [(one.first, one.second) for one in found] == [(7, 20)]
    assert found[0].offset_seconds == pytest.approx(0.58 if change == "cut" else 0.0, abs=0.03)
    assert find_near_duplicates(prints, [0] * 21) == [] and len(find_near_duplicates(prints, [0] * 20 + [1])) == 1


def read_of(folder, name, wave, rate):
    soundfile.write(folder / name, wave, rate)
    return read(folder / name, RATE)


def test_silence_is_like_nothing():
    prints = [fingerprint(np.zeros(RATE, np.float32)) for _ in range(3)]
    assert not any(is_sound.any() for _, is_sound in prints) and find_near_duplicates(prints) == []
    assert find_near_duplicates([]) == []


def test_an_audit_and_a_new_task_name_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    folder = tmp_path / "mine"
    for seed in range(20):
        (folder / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "ab"[seed % 2] / f"{seed}.wav", sound(seed), 16000)
    words = ["task", "new", "mine", f"--folder={folder}", f"--to={tmp_path / 'config'}"]
    assert run(words) == cli.DONE
    assert "sound alike" not in capsys.readouterr().out and not audit(load_task("mine")).findings
    index = load_task("mine").index
    train, test = (index["path"][index["split"] == part].iloc[0] for part in ("train", "test"))
    samples, _ = soundfile.read(folder / train)
    soundfile.write(folder / test, 0.5 * samples, 16000)
    assert run([*words, "--replace"]) == cli.DONE
    said = capsys.readouterr().out
    assert "sound alike in different splits" in said and train in said and test in said
    (finding,) = audit(load_task("mine")).findings
    assert "1 pairs of files in different splits sound alike" in finding
