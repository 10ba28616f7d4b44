"""`evar embed` over windows and tables of parts: the same numbers in every format, each file opened once, bounded memory."""

import tracemalloc

import numpy as np
import pytest
import soundfile
from test_exporting import FORMATS, opened
from toy import RATE, tone

from evar import cli, embed, exporting, load_encoder
from evar.audio import read, sound_pool
from evar.audio.segments import Segment
from evar.cli import run
from evar.exporting import read_metadata
from evar.exporting.sources import Source


@pytest.fixture
def field(tones, monkeypatch):
    """Two recordings of tones, 12.3 and 3 seconds, and something that is no sound; exports take several parts."""
    root = tones()
    monkeypatch.chdir(root)
    monkeypatch.setattr(exporting, "CLIPS_A_PART", 4)
    folder = root / "field"
    folder.mkdir()
    soundfile.write(
        folder / "a.flac", np.concatenate([tone(n % 3, n, 0.5) for n in range(25)])[: round(12.3 * RATE)], RATE
    )
    soundfile.write(folder / "b.wav", np.concatenate([tone(n % 3, n, 0.5) for n in range(6)]), RATE)
    return folder


@pytest.mark.parametrize("ending", FORMATS)
def test_windows_have_start_and_end_and_the_numbers_of_embed(field, ending):
    assert run(["embed", "toy", "field", "--window=2", "--hop=1", f"--output=out.{ending}"]) == cli.DONE
    found = opened(f"out.{ending}")
    n_first = 12  # 0, 1, ..., 10, and one that ends with the recording
    assert list(found["path"]) == ["field/a.flac"] * n_first + ["field/b.wav"] * 2
    np.testing.assert_allclose(found["start"], [*range(n_first), 0, 1])
    np.testing.assert_allclose(found["end"], [*range(2, 13), 12.3, 2, 3])
    np.testing.assert_allclose(found["end"] - found["start"], found["seconds"], atol=1e-3)
    encoder = load_encoder("toy")
    ours = embed(encoder, ["field/a.flac", "field/b.wav"], window=2, hop=1)
    np.testing.assert_allclose(found["bands"], ours.vectors, atol=1e-5)
    np.testing.assert_allclose(found["start"], ours.start)
    assert ours.clip.tolist() == [0] * n_first + [1] * 2 and len(ours) == n_first + 2
    cut = read(Segment(field / "a.flac", 4.0, 6.0), RATE)
    np.testing.assert_allclose(found["bands"][4], embed(encoder, cut)[0], atol=1e-5)
    meta = read_metadata(f"out.{ending}")
    assert (meta["window_seconds"], meta["window_hop_seconds"], meta["n_clips"]) == (2.0, 1.0, n_first + 2)


def test_a_second_run_encodes_nothing_and_other_windows_are_another_output(field, capsys):
    for _ in range(2):
        assert run(["embed", "toy", "field", "--window=2", "-o", "out.npz"]) == cli.DONE
    assert "8 windows: bands (16); all there already" in capsys.readouterr().out
    assert run(["embed", "toy", "field", "--window=3", "-o", "out.npz"]) == cli.DONE
    assert "5 windows: bands (16); 5 encoded now" in capsys.readouterr().out


def test_rows_of_a_table_may_be_parts_of_files_in_any_order(field, monkeypatch):
    names = []
    real = sound_pool.open_sound
    monkeypatch.setattr(sound_pool, "open_sound", lambda path, content: names.append(path.name) or real(path, content))
    (field / "t.csv").write_text(
        "file_name,onset,offset,label\na.flac,6,7.5,x\na.flac,0,1,y\nb.wav,,,z\na.flac,6,7.5,again\na.flac,2,77,late\n"
    )
    assert run(["embed", "toy", "field/t.csv", "-o", "out.npz"]) == cli.SOME_FAILED
    found = opened("out.npz")
    assert found["label"].tolist() == ["x", "y", "z", "again"] and names == ["a.flac"]
    assert found["start"].tolist() == [6, 0, 0, 6] and found["end"].tolist() == [7.5, 1, 3, 7.5]
    np.testing.assert_array_equal(found["bands"][0], found["bands"][3])
    (bad,) = read_metadata("out.npz")["bad_clips"]
    assert bad["path"] == "a.flac#t=2,77" and "not inside the file, which lasts 12.30 s" in bad["reason"]
    assert run(["embed", "toy", "field/t.csv", "-o", "win.npz", "--window=0.5", "--skip_bad"]) == cli.DONE
    assert opened("win.npz")["start"].tolist()[:5] == [6, 6.5, 7, 0, 0.5]


def test_frames_of_windows_tell_their_time_in_the_file(field):
    assert run(["embed", "toy", "field/b.wav", "-o", "out.npz", "--window=1", "--frames"]) == cli.DONE
    found = opened("out.npz")
    np.testing.assert_allclose(found["time"], np.arange(60) * 0.05)
    assert found["start"].tolist() == [0, 1, 2] and found["clip"].tolist() == [0] * 20 + [1] * 20 + [2] * 20


def test_illegal_windows_are_refused_and_bad_files_named(field):
    with pytest.raises(ValueError, match="give the window too"):
        Source(["field"], hop=1.0)
    with pytest.raises(ValueError, match="window and hop must be seconds above 0, got window 0"):
        Source(["field"], window=0.0)
    (field / "c.wav").write_bytes(b"no sound at all, only text")
    with pytest.warns(RuntimeWarning, match="1 of 2 clips could not be read"):
        found = embed("toy", [field / "c.wav", field / "b.wav"], window=1.0)
    assert found.clip.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="give window too"):
        embed("toy", [field / "b.wav"], hop=1.0)


def test_memory_does_not_grow_with_the_length_of_a_recording(field, monkeypatch):
    peaks = []
    encoder = load_encoder("toy")
    monkeypatch.setattr(type(encoder), "batch_seconds", 4.0)
    for seconds in (30, 150):
        soundfile.write(field / "long.wav", np.tile(tone(0, 0, 10), seconds // 10), RATE)
        tracemalloc.start()
        exporting.export(encoder, Source(["field/long.wav"], None, 1.0, 1.0), f"{seconds}.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4 * 150 * RATE / 10, peaks
