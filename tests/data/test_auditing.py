"""`evar verify --deep`: planted faults are found and named, and a sound task has none."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
import soundfile

from evar import cli
from evar.audio import describe
from evar.cli import run
from evar.data.audit import audit
from evar.data.task import load_task

CODINGS = [("PCM_U8", "x.wav"), ("PCM_24", "x.flac"), ("VORBIS", "x.ogg"), ("PCM_16", "x.aiff")]


def test_planted_faults_are_named(tones, capsys, real_pictures):
    root = tones(n_per_class=12)
    folder = root / "data" / "tones"
    soundfile.write(folder / "low_0.wav", np.zeros(4000), 8000)
    soundfile.write(folder / "low_1.wav", np.clip(3 * np.sin(np.arange(4000) / 5), -1, 1), 8000)
    shutil.copy(folder / "low_4.wav", folder / "low_3.wav")  # a training clip is a test clip
    shutil.copy(folder / "low_4.wav", folder / "high_5.wav")  # ... and of another class
    soundfile.write(folder / "low_5.wav", np.full((4000, 2), np.nan, np.float32), 22050, subtype="FLOAT")
    (folder / "low_6.wav").write_bytes(b"nothing")
    found = audit(load_task("tones"))
    text = "\n".join(found.findings)
    assert "1 file cannot be read: low_6.wav" in text and "1 file holds NaN or infinite samples: low_5.wav" in text
    assert "are silent (below -70 dB): low_0.wav" in text and "1 file is clipped: low_1.wav" in text
    assert "1 sets of identical files lie in different splits: low_3.wav = low_4.wav = high_5.wav" in text
    assert "have different labels" in text
    assert any("34 x 8000 Hz, 1 x 22050 Hz" in line for line in found.lines)
    assert run(["verify", "tones", "--deep", f"--out={root / 'out'}"]) == cli.SOME_FAILED
    assert "! 1 file is clipped" in capsys.readouterr().out
    with (root / "out" / "audit_tones.csv").open() as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 35 and rows["low_5.wav"]["channels"] == "2" and float(rows["high_0.wav"]["seconds"]) == 0.5
    assert (root / "out" / "audit_tones.png").stat().st_size > 1000


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "regression"])
def test_a_sound_task_has_no_findings(tones, kind):
    root = tones(kind=kind, folds=True)
    assert not audit(load_task("tones")).findings
    assert run(["verify", "tones", "--deep", f"--out={root / 'out'}"]) == cli.DONE


@pytest.mark.parametrize(("subtype", "name"), CODINGS)
def test_levels_of_a_sine_whatever_the_coding(tmp_path, subtype, name):
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(96000) / 96000)
    soundfile.write(tmp_path / name, np.stack([wave, wave], axis=1), 96000, subtype=subtype)
    found = describe(tmp_path / name)
    assert (found.sample_rate, found.channels, found.subtype, found.seconds) == (96000, 2, subtype, 1.0)
    assert found.rms_db == pytest.approx(-9.03, abs=0.1) and found.peak_db == pytest.approx(-6.02, abs=0.3)
    assert found.clipped == 0 and found.is_finite
