"""`evar embed`: the numbers of `evar.embed` in a file, in the source's order, after a kill -9 the same bytes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy import HOP, RATE, Bands, tone

from evar import cli, embed, exporting, load_encoder
from evar.audio.folders import AUDIO_SUFFIXES, find_audio
from evar.audio.reading import FFMPEG_SUFFIXES, AudioError, length, read
from evar.cli import run
from evar.cli.words import UsageError, check_words
from evar.data.task import load_task
from evar.encoders.features import LayerInfo
from evar.exporting import parts, sources, writers
from evar.exporting import table as tables
from evar.exporting.sources import Source, portions
from evar.extraction import extract
from evar.storage.feature_store import FeatureStore

FORMATS = ("parquet", "npz", "h5")


@pytest.fixture
def folder(tones, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of 36 tones of 7 lengths; exports of it take several parts, and blocks that cut through parts."""
    root = tones(unequal=True)
    monkeypatch.chdir(root)
    monkeypatch.setattr(exporting, "CLIPS_A_PART", 10)
    monkeypatch.setattr(tables, "_BLOCK_ROWS", 7)
    return Path("data/tones")


def opened(path: str | Path) -> dict[str, np.ndarray]:
    """Every column of an output as an array, as a user would read it."""
    path = Path(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: value for name, value in arrays.items() if name != "meta"}
    if path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path) as file:
            texts = {name: h5py.check_string_dtype(value.dtype) for name, value in file.items()}
            return {
                name: value.asstr()[:] if texts[name] else value[()] for name, value in file.items() if name != "meta"
            }
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(path)
    is_vector = {name: isinstance(table[name].iloc[0], np.ndarray) for name in table.columns}
    return {name: np.stack(list(table[name])) if is_vector[name] else table[name].to_numpy() for name in table.columns}


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.wav"))


# ---------------------------------------------------------------------------------------------- numbers and formats


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_holds_the_numbers_of_embed_and_of_the_store(folder, monkeypatch, ending):
    assert run(["embed", "toy", str(folder), "-o", f"small_parts.{ending}", "--layers=all"]) == cli.DONE
    monkeypatch.setattr(exporting, "CLIPS_A_PART", 256)  # the batches of the others: equal to the last bit
    assert run(["embed", "toy", str(folder), "-o", f"out.{ending}", "--layers=all"]) == cli.DONE
    found, encoder, task = opened(f"out.{ending}"), load_encoder("toy"), load_task("tones")
    files = files_of(folder)
    assert list(found["path"]) == [str(file) for file in files]
    assert np.array_equal(found["seconds"], [soundfile.info(file).frames / RATE for file in files])
    expected = embed(encoder, files, layers="all")
    store = FeatureStore()
    stored = extract.extract(encoder, [folder / file.name for file in files], task.policy(), store)
    for layer in ("level", "bands"):
        assert found[layer].dtype == np.float32
        assert np.array_equal(found[layer], expected[layer])
        np.testing.assert_allclose(opened(f"small_parts.{ending}")[layer], expected[layer], rtol=1e-5, atol=1e-6)
        assert np.array_equal(found[layer], store.load(stored.key, [str(row) for row in stored.rows], layer))
    assert not Path(f"out.{ending}.parts").exists()


@pytest.mark.parametrize("ending", FORMATS)
def test_frames_come_with_their_time(folder, ending):
    assert run(["embed", "toy", str(folder), f"--output=out.{ending}", "--frames", "--layers=bands,level"]) == cli.DONE
    found, encoder = opened(f"out.{ending}"), load_encoder("toy")
    row = 0
    for number, file in enumerate(files_of(folder)):
        wave = read(file, RATE)
        with torch.no_grad():
            expected = encoder.encode(torch.from_numpy(wave)[None])
        n_frames = int(expected.frames["bands"][0])
        rows = slice(row, row + n_frames)
        np.testing.assert_allclose(found["bands"][rows], expected["bands"][0].numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["level"][rows], expected["level"][0].numpy(), rtol=1e-5, atol=1e-6)
        assert found["time"][rows] == pytest.approx(np.arange(n_frames) * HOP / RATE, abs=1e-12)
        paths = found["path"][rows] if ending == "parquet" else found["path"][found["clip"][rows]]
        assert set(paths) == {str(file)}
        assert ending == "parquet" or set(found["clip"][rows]) == {number}
        assert np.unique(found["hop"]) == HOP / RATE
        row += n_frames
    assert row == len(found["time"]) == exporting.read_metadata(f"out.{ending}")["n_rows"]


@pytest.mark.parametrize(
    ("words", "keywords"),
    [
        (["--layers=level,bands", "--fusion=concat"], {"layers": "level,bands", "fusion": "concat"}),
        (["--pooling=mean_std"], {"pooling": "mean_std"}),
        (["--batch_size=2"], {}),
        (["--layers=default"], {}),
    ],
)
def test_layers_fusions_and_poolings_are_those_of_embed(folder, words, keywords):
    assert run(["embed", "toy", str(folder), "-o", "out.npz", *words]) == cli.DONE
    found, meta = opened("out.npz"), exporting.read_metadata("out.npz")
    (name,) = meta["features"]
    assert name == keywords.get("fusion", "bands")
    np.testing.assert_allclose(found[name], embed("toy", files_of(folder), **keywords), rtol=1e-5, atol=1e-6)


def test_several_default_layers_are_concatenated_unless_told_otherwise(folder, monkeypatch):
    monkeypatch.setattr(Bands, "default_layers", ("level", "bands"))
    for ending, words in (("1.npz", []), ("2.npz", ["--fusion=none"])):
        assert run(["embed", "toy", str(folder), "-o", ending, *words]) == cli.DONE
    apart = opened("2.npz")
    assert np.array_equal(opened("1.npz")["concat"], np.concatenate([apart["level"], apart["bands"]], axis=1))


def test_an_encoder_that_cannot_stand_padding_gets_equal_lengths(folder):
    samples, rate = soundfile.read(files_of(folder)[4])
    soundfile.write(files_of(folder)[4], samples[: len(samples) // 2], rate)
    assert run(["embed", "toy_fragile", str(folder), "-o", "out.npz"]) == cli.DONE
    assert np.array_equal(opened("out.npz")["bands"], embed("toy_fragile", files_of(folder)))


@pytest.mark.parametrize("ending", FORMATS)
def test_metadata_say_how_to_make_the_numbers_again(folder, ending):
    assert run(["embed", "toy_normalised", str(folder), "-o", f"out.{ending}", "--norm_stats=-2.5,2"]) == cli.DONE
    meta, encoder = exporting.read_metadata(f"out.{ending}"), load_encoder("toy_normalised", norm_stats=(-2.5, 2.0))
    assert meta["weights_sha256"] == encoder.weights_sha256 and meta["weights"] == encoder.weights_label
    assert (meta["encoder"], meta["norm_stats"], meta["sample_rate"]) == ("toy_normalised", [-2.5, 2.0], RATE)
    assert (meta["layers"], meta["pooling"], meta["fusion"]) == (["bands"], {"bands": "mean"}, "none")
    assert meta["torch"] == torch.__version__ and meta["evar"] and meta["options"] == {} and meta["bad_clips"] == []
    again = embed(encoder, list(opened(f"out.{ending}")["path"]), layers=meta["layers"])
    np.testing.assert_allclose(again["bands"], opened(f"out.{ending}")["bands"], rtol=1e-5, atol=1e-6)


def test_whose_statistics_are_used_is_told(folder, capsys):
    assert run(["embed", "toy_normalised", str(folder), "-o", "1.npz"]) == cli.DONE
    assert "mean -3 and standard deviation 2.5, its own constants" in capsys.readouterr().out
    assert run(["embed", "toy_normalised", str(folder), "-o", "2.npz", "--norm_stats=1,2"]) == cli.DONE
    assert "its own constants" not in capsys.readouterr().out
    assert not np.allclose(opened("1.npz")["bands"], opened("2.npz")["bands"])


def test_memory_is_bounded_by_blocks_and_rows_are_gathered_in_order(tmp_path, monkeypatch):
    """Clips written in another order than the source's, one longer than a block."""
    monkeypatch.setattr(tables, "_BLOCK_ROWS", 4)
    clips = [sources.Clip(f"{number}.wav", tmp_path / f"{number}.wav") for number in range(3)]
    random = np.random.default_rng(0)
    rows = {number: random.normal(size=(n, 2)).astype(np.float32) for number, n in ((0, 3), (1, 9), (2, 1))}
    writer = parts.PartWriter(tmp_path, "ab", clips, {"x": 2})
    for number in (1, 2, 0):
        assert not parts.record_file(tmp_path, "ab").exists()
        writer.add(number, 1.0, {"x": rows[number]})
    table = tables.Table(tmp_path, ["ab", "ab"], {"x": 2}, (), 0.1)
    blocks = list(table.blocks(["x"]))
    assert (table.n_clips, table.n_rows) == (6, 26) and max(len(values["x"]) for _, values in blocks) == 4
    expected = np.concatenate([rows[0], rows[1], rows[2]] * 2)
    assert np.array_equal(np.concatenate([values["x"] for _, values in blocks]), expected)
    numbers = [row.clip for block, _ in blocks for row in block for _ in range(row.n_rows)]
    assert numbers == [0] * 3 + [1] * 9 + [2] + [3] * 3 + [4] * 9 + [5]


# ----------------------------------------------------------------------------------------------------------- sources


def test_a_folder_is_searched_to_the_bottom_in_the_order_of_names(tmp_path):
    for name in ("b.wav", "a/z.FLAC", "a/b/c.mp3", "a.ogg", ".hidden.wav", ".git/x.wav", "notes.txt", "c/._b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "round").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "linked").symlink_to(tmp_path / "a" / "b", target_is_directory=True)
    found = [str(Path(path).relative_to(tmp_path)) for path in find_audio(str(tmp_path))]
    assert found == ["a/b/c.mp3", "a/z.FLAC", "a.ogg", "b.wav", "linked/c.mp3"]
    with pytest.raises(ValueError, match=r"no audio below .*c; looked for .*\.aac, .*\.wav"):
        list(Source([str(tmp_path / "c")]))


def test_endings_are_those_that_libsndfile_reads(tmp_path):
    known = {name.lower() for name in soundfile.available_formats()}
    others = {"aif", "aifc", "snd", "sph", "oga", "opus"} | {"sd2", "nist"}
    others |= {"wave", "bwf", "bw64", "iff", "8svx", "sf", "mp1", "mpa"}  # other endings of WAV, SVX, IRCAM and MPEG
    assert {suffix[1:] for suffix in AUDIO_SUFFIXES - set(FFMPEG_SUFFIXES)} <= known | others
    for suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".au", ".caf", ".w64"):
        assert suffix in AUDIO_SUFFIXES


def write_csv(path: Path, rows: list[list[str]]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.parametrize("ending", FORMATS)
def test_a_csv_carries_its_columns(folder, ending):
    absolute = str(folder.resolve() / "high_1.wav")
    rows = [
        ["label", "path", "note"],
        ["low", "low_3.wav", "007"],
        ["high", absolute, "Größe, laut"],
        ["low", "low_3.wav", ""],
    ]
    write_csv(folder / "list.csv", rows)
    write_csv(Path("list.csv"), rows)
    assert run(["embed", "toy", str(folder / "list.csv"), "-o", f"1.{ending}"]) == cli.DONE
    assert run(["embed", "toy", "list.csv", f"--data_root={folder}", "-o", f"2.{ending}"]) == cli.DONE
    for name in (f"1.{ending}", f"2.{ending}"):
        found = opened(name)
        assert list(found["path"]) == ["low_3.wav", absolute, "low_3.wav"]
        assert list(found["label"]) == ["low", "high", "low"] and list(found["note"]) == ["007", "Größe, laut", ""]
        files = [folder / "low_3.wav", folder / "high_1.wav", folder / "low_3.wav"]
        np.testing.assert_allclose(found["bands"], embed("toy", files), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file"], ["a.wav"]], "needs a column 'path'; it has file"),
        ([["path", "path"], ["a", "b"]], "name each of its columns, and once"),
        ([["path"]], "no rows below its header"),
        ([["path", "label"], ["a.wav"]], "line 2 has 1 values, expected 2"),
        ([["path"], ["../a.wav"]], r"line 2: path '../a.wav' must be absolute, or relative .* without '..'"),
        ([["path"], [""]], "line 2: path '' must be"),
        ([["path", "bands"], ["a.wav", "x"]], "column 'bands' has the name of a column of the output"),
        ([["path", "time"], ["a.wav", "x"]], "column 'time' has the name"),
    ],
)
def test_a_csv_that_cannot_be_used_is_told_before_any_work(folder, capsys, rows, message):
    write_csv(Path("list.csv"), rows)
    assert run(["embed", "toy", "list.csv", "-o", "out.npz"]) == cli.WRONG
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    with pytest.raises(ValueError, match=message):
        raise ValueError(said)
    assert not Bands.calls and not Path("out.npz").exists() and not Path("out.npz.parts").exists()


def test_a_csv_in_another_encoding_is_told(folder):
    Path("list.csv").write_bytes("path,ort\na.wav,Köln\n".encode("latin-1"))
    with pytest.raises(ValueError, match="list.csv is not in UTF-8"):
        list(Source(["list.csv"]))


def test_sources_with_different_columns_do_not_fit_one_output(folder):
    write_csv(Path("list.csv"), [["path", "label"], ["a.wav", "x"]])
    with pytest.raises(ValueError, match=r"carries the columns \[\], but list.csv \['label'\]"):
        Source([str(folder), "list.csv"])


def test_portions_are_fixed_by_the_list(folder):
    assert [len(part) for part in portions(Source([str(folder), str(files_of(folder)[0])]), 10)] == [10, 10, 10, 7]


def test_length_is_that_of_read(tmp_path):
    for rate in (8000, 11025, 44100):
        soundfile.write(tmp_path / "a.wav", np.zeros(rate // 3), rate)
        assert 0 <= length(tmp_path / "a.wav", 16000) - len(read(tmp_path / "a.wav", 16000)) <= 1
    (tmp_path / "empty.wav").touch()
    (tmp_path / "junk.wav").write_bytes(b"junk")
    for name, message in (("empty.wav", "is empty"), ("junk.wav", "not decodable"), ("none.wav", "is missing")):
        with pytest.raises(AudioError, match=message):
            length(tmp_path / name, 16000)


# ---------------------------------------------------------------------------------------- stopping, going on, changes

SLOW = """
import sys, time
import toy
from evar import exporting
from evar.cli import run

exporting.CLIPS_A_PART = 5
forward = toy.Bands.forward
def slow(self, waveform, lengths):
    time.sleep(0.2)
    return forward(self, waveform, lengths)
toy.Bands.forward = slow
sys.exit(run(["embed", *sys.argv[1:]]))
"""


def slow_run(*words: str) -> subprocess.Popen:
    path = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SLOW, *words], env=environment)


def test_killed_and_started_again_gives_the_same_bytes(folder, monkeypatch, capsys):
    monkeypatch.setattr(exporting, "CLIPS_A_PART", 5)
    words = ["embed", "toy", str(folder), "--layers=all", "-o"]
    with slow_run(*words[1:], "killed.npz") as process:
        records = Path("killed.npz.parts")
        while len(list(records.glob("*.json"))) < 2 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    committed = len(list(records.glob("*.json")))
    assert 2 <= committed < 7 and not Path("killed.npz").exists()
    (records / "unfinished").write_bytes(b"from a kill while the output was put together")
    assert run([*words, "killed.npz"]) == cli.DONE
    assert f"{36 - 5 * committed} encoded now" in capsys.readouterr().out
    assert sum(Bands.calls) == 36 - 5 * committed
    assert run([*words, "whole.npz"]) == cli.DONE and sum(Bands.calls) == 2 * 36 - 5 * committed
    assert Path("killed.npz").read_bytes() == Path("whole.npz").read_bytes()
    assert not records.exists()


@pytest.mark.parametrize("ending", FORMATS)
def test_frames_of_a_stopped_run_give_the_same_bytes(folder, monkeypatch, ending):
    words = ["embed", "toy", str(folder), "--frames", "-o"]
    go_on = stop_after(monkeypatch, 2)
    assert run([*words, f"stopped.{ending}"]) == 130
    go_on()
    Bands.calls.clear()
    assert run([*words, f"stopped.{ending}"]) == run([*words, f"whole.{ending}"]) == cli.DONE
    assert sum(Bands.calls) == 16 + 36
    assert Path(f"stopped.{ending}").read_bytes() == Path(f"whole.{ending}").read_bytes()


@pytest.mark.parametrize("ending", FORMATS)
def test_the_same_command_again_encodes_nothing_and_gives_the_same_bytes(folder, ending, capsys):
    assert run(["embed", "toy", str(folder), "-o", f"1.{ending}"]) == cli.DONE
    Bands.calls.clear()
    capsys.readouterr()
    assert run(["embed", "toy", str(folder), "-o", f"1.{ending}"]) == cli.DONE
    assert not Bands.calls and "all there already, nothing was encoded" in capsys.readouterr().out
    assert run(["embed", "toy", str(folder), "-o", f"2.{ending}"]) == cli.DONE
    assert sum(Bands.calls) == 36
    assert Path(f"1.{ending}").read_bytes() == Path(f"2.{ending}").read_bytes()


def stop_after(monkeypatch, n_batches: int):
    """The encoder stops at a batch, as Ctrl-C would."""
    forward, seen = Bands.forward, []

    def forward_or_stop(self, waveform, lengths):
        seen.append(1)
        if len(seen) > n_batches:
            raise KeyboardInterrupt
        return forward(self, waveform, lengths)

    monkeypatch.setattr(Bands, "forward", forward_or_stop)
    return lambda: monkeypatch.setattr(Bands, "forward", forward)


@pytest.mark.parametrize(
    "words", [["--layers=level"], ["--pooling=max"], ["--weights=random"], ["--frames"], ["--fusion=concat"]]
)
def test_other_settings_take_no_part_of_a_stopped_run(folder, monkeypatch, words):
    go_on = stop_after(monkeypatch, 2)
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == 130
    go_on()
    assert len(list(Path("out.npz.parts").glob("*.json"))) == 2
    Bands.calls.clear()
    if words == ["--weights=random"]:  # the toy's are random anyway: other parameters
        original = Bands.__init__
        monkeypatch.setattr(Bands, "__init__", lambda self: original(self, gain=2.0))
    assert run(["embed", "toy", str(folder), "-o", "out.npz", *words]) == cli.DONE
    assert sum(Bands.calls) == 36
    fresh = exporting.read_metadata("out.npz")["features"]
    assert run(["embed", "toy", str(folder), "-o", "fresh.npz", *words]) == cli.DONE
    assert Path("out.npz").read_bytes() == Path("fresh.npz").read_bytes() and fresh


def test_the_same_settings_go_on_and_changed_files_are_encoded_again(folder, monkeypatch):
    go_on = stop_after(monkeypatch, 3)
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == 130
    go_on()
    soundfile.write(files_of(folder)[13], tone(2, 555, 0.7), RATE)  # in the second of the three parts that are there
    Bands.calls.clear()
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.DONE
    assert sum(Bands.calls) == 10 + 6
    np.testing.assert_allclose(opened("out.npz")["bands"], embed("toy", files_of(folder)), rtol=1e-5, atol=1e-6)
    Bands.calls.clear()
    soundfile.write(folder / "zzz.wav", tone(1, 77, 0.5), RATE)  # one more: the output is of other files now
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.DONE
    assert sum(Bands.calls) == 37 and len(opened("out.npz")["path"]) == 37


def test_two_runs_cannot_write_one_output(folder, monkeypatch, capsys):
    import filelock

    monkeypatch.setattr(exporting, "_PATIENCE", 0.2)
    Path("out.npz.parts").mkdir()
    with filelock.FileLock("out.npz.parts/lock"):
        assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.WRONG
        assert "another run is still writing out.npz" in capsys.readouterr().err and Path("out.npz.parts/lock").exists()
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.DONE


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_something_else_is_not_replaced(folder, ending, capsys):
    Path(f"out.{ending}").write_bytes(b"a thesis")
    assert run(["embed", "toy", str(folder), "-o", f"out.{ending}"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "was not written by `evar embed`" in said and "choose another name" in said and not Bands.calls
    assert Path(f"out.{ending}").read_bytes() == b"a thesis"
    if ending == "npz":
        np.savez("out.npz", x=np.arange(3))
        assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.WRONG


# ---------------------------------------------------------------------------------------------------------- bad clips


@pytest.mark.parametrize("ending", FORMATS)
def test_bad_clips_are_named_left_out_and_fail_the_run_at_its_end(folder, ending, capsys):
    files = files_of(folder)
    files[3].write_bytes(b"junk")
    data = files[20].read_bytes()
    files[20].write_bytes(data[:60])  # the header is fine, almost nothing follows
    words = ["embed", "toy", str(folder), "-o", f"out.{ending}"]
    assert run(words) == cli.SOME_FAILED
    said = capsys.readouterr().out
    assert f"bad clip: {files[3]}: not decodable" in said and f"bad clip: {files[20]}: " in said
    assert "34 of 36 clips" in said and "mend the bad clips and run again" in said
    assert list(opened(f"out.{ending}")["path"]) == [str(file) for file in files if file not in (files[3], files[20])]
    bad = exporting.read_metadata(f"out.{ending}")["bad_clips"]
    assert [clip["path"] for clip in bad] == [str(files[3]), str(files[20])] and "too short" in bad[1]["reason"]
    Bands.calls.clear()
    assert run(words) == cli.SOME_FAILED and not Bands.calls  # there already, and still not well
    files[20].write_bytes(data)
    assert run(words) == cli.SOME_FAILED and sum(Bands.calls) == 10  # its neighbours' part only
    assert len(opened(f"out.{ending}")["path"]) == 35
    assert run([*words, "--skip_bad"]) == cli.DONE and not Path(f"out.{ending}.parts").exists()


def test_a_csv_may_name_missing_files(folder):
    write_csv(Path("list.csv"), [["path"], ["low_1.wav"], ["no.wav"], ["low_2.wav"]])
    assert run(["embed", "toy", "list.csv", f"--data_root={folder}", "-o", "out.npz", "--skip_bad"]) == cli.DONE
    assert list(opened("out.npz")["path"]) == ["low_1.wav", "low_2.wav"]
    assert exporting.read_metadata("out.npz")["bad_clips"] == [{"path": "no.wav", "reason": "the file is missing"}]


def test_integers_stored_as_floats_are_warned_of_wherever_they_are_encoded(folder, capsys):
    path = files_of(folder)[3]
    samples, rate = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples * 32768, rate, subtype="FLOAT")
    sentence = "1 clips hold values far beyond full scale, first"
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.DONE
    assert f"{sentence} {path} (peak " in capsys.readouterr().out
    assert run(["lineval", "toy", "tones"]) == cli.DONE and sentence in capsys.readouterr().out
    with pytest.warns(RuntimeWarning, match=sentence):
        embed("toy", samples * 32768, sample_rate=rate)


@pytest.mark.parametrize("words", [[], ["--frames"]])
def test_a_path_that_repeats_is_encoded_once_in_all_parts(folder, monkeypatch, words):
    """Two good files and a missing one, again and again over four parts of 10; then with a part that is stopped."""
    names = ["low_1.wav", "no.wav", "high_1.wav"] * 11 + ["low_2.wav"] * 6
    write_csv(Path("list.csv"), [["path", "row"], *([name, str(row)] for row, name in enumerate(names))])
    command = ["embed", "toy", "list.csv", f"--data_root={folder}", "--skip_bad", *words, "-o"]
    assert run([*command, "out.npz"]) == cli.DONE
    assert sum(Bands.calls) == 3
    found, good = opened("out.npz"), [row for row, name in enumerate(names) if name != "no.wav"]
    if not words:
        assert found["row"].tolist() == [str(row) for row in good]
        vectors = dict(zip(found["path"], found["bands"], strict=True))
        expected = embed("toy", [folder / name for name in vectors])
        np.testing.assert_allclose(np.stack(list(vectors.values())), expected, rtol=1e-5, atol=1e-6)
        assert all((vectors[path] == row).all() for path, row in zip(found["path"], found["bands"], strict=True))
    else:
        assert list(dict.fromkeys(found["row"].tolist())) == [str(row) for row in good]
    meta = exporting.read_metadata("out.npz")
    assert meta["bad_clips"] == [{"path": "no.wav", "reason": "the file is missing"}] * 11
    go_on = stop_after(monkeypatch, 1)
    assert run([*command, "again.npz"]) == 130
    go_on()
    Bands.calls.clear()
    assert run([*command, "again.npz"]) == cli.DONE
    assert Path("again.npz").read_bytes() == Path("out.npz").read_bytes()


def test_a_part_that_pointed_to_another_is_made_anew_when_that_one_is_gone(folder, monkeypatch):
    names = [f"low_{n}.wav" for n in range(10)] + ["low_0.wav"] + [f"high_{n}.wav" for n in range(9)] + ["no.wav"]
    write_csv(Path("list.csv"), [["path"], *([name] for name in names)])
    command = ["embed", "toy", "list.csv", f"--data_root={folder}", "-o", "out.npz"]
    assert run(command) == cli.SOME_FAILED and len(list(Path("out.npz.parts").glob("*.json"))) == 3
    Bands.calls.clear()
    write_csv(Path("list.csv"), [["path"], *([name] for name in ["middle_0.wav", *names[1:]])])
    assert run(command) == cli.SOME_FAILED
    assert opened("out.npz")["path"].tolist() == ["middle_0.wav", *names[1:-1]]
    np.testing.assert_allclose(
        opened("out.npz")["bands"][10], embed("toy", [folder / "low_0.wav"])[0], rtol=1e-5, atol=1e-6
    )


def test_vectors_that_are_not_finite_are_bad_clips(folder, monkeypatch):
    forward = Bands.forward

    def forward_with_nan(self, waveform, lengths):
        features = forward(self, waveform, lengths)
        features["bands"][lengths == int(0.6 * RATE)] = torch.nan
        return features

    monkeypatch.setattr(Bands, "forward", forward_with_nan)
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.SOME_FAILED
    bad = exporting.read_metadata("out.npz")["bad_clips"]
    assert len(bad) == 3 and bad[0]["reason"] == "the encoder's output is not finite"
    assert np.isfinite(opened("out.npz")["bands"]).all()


def test_nothing_is_written_where_no_clip_can_be_used(folder, capsys):
    Path("junk.wav").write_bytes(b"junk")
    assert run(["embed", "toy", "junk.wav", "-o", "out.npz"]) == cli.WRONG
    assert "none of 1 clips could be used, first junk.wav: not decodable" in capsys.readouterr().err
    assert not Path("out.npz").exists() and not Path("out.npz.parts").exists()


# ------------------------------------------------------------------------------------------------------ wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs --output=FILE"),
        (["-o", "out.csv"], "must end in .parquet, .npz, .h5, got 'out.csv'"),
        (["-o", "out.parqet"], "did you mean out.parquet"),
        (["-o", "out.npz", "--output=out.npz"], "--output is given twice"),
        (["-o"], "--output needs a value"),
        (["-x", "out.npz"], "no flag -x"),
        (["-o", "out.npz", "--source=a"], "no flag --source"),
        (["-o", "out.npz", "nowhere"], "no file or folder 'nowhere'"),
        (["-o", "out.npz", "--layers=band"], "did you mean 'bands'"),
        (["-o", "out.npz", "--fusion=conct"], "did you mean 'concat'"),
        (["-o", "out.npz", "--pooling=maen"], "did you mean 'mean'"),
        (["-o", "out.npz", "--frames", "--pooling=mean"], "leave out either --frames or --pooling=mean"),
        (["-o", "out.npz", "--norm_stats=train"], "must be default or MEAN,STD here, got 'train'"),
        (["-o", "out.npz", "--norm_stats=1,2"], "does not normalise its input"),
        (["-o", "out.npz", "--batch_size=0"], "--batch_size must be at least 1"),
        (["-o", "out.npz", "--layers=all", "--fusion=average"], "average needs layers of equal width"),
    ],
)
def test_wrong_words_fail_before_any_work(folder, capsys, words, message):
    assert run(["embed", "toy", str(folder), *words]) == cli.WRONG
    said = capsys.readouterr().err
    assert said.startswith("evar embed") and said.count("\n") == 1 and message in said
    assert not Bands.calls and not list(Path().glob("out*"))


def test_frames_need_one_hop(folder, monkeypatch, capsys):
    layers = (LayerInfo("level", 1, 2 * HOP, "mean"), LayerInfo("bands", 16, HOP, "mean"))
    monkeypatch.setattr(Bands, "layer_infos", layers)
    assert run(["embed", "toy", str(folder), "-o", "out.npz", "--frames", "--layers=all"]) == cli.WRONG
    assert "one hop, got level 100 ms, bands 50 ms; choose one with --layers" in capsys.readouterr().err
    monkeypatch.setattr(Bands, "layer_infos", (LayerInfo("level", 1, 0, "mean"), layers[1]))
    assert run(["embed", "toy", str(folder), "-o", "out.npz", "--frames", "--layers=level"]) == cli.WRONG
    assert "layer level gives one vector a clip and has no frames" in capsys.readouterr().err


@pytest.mark.parametrize(("ending", "package"), [("parquet", "pyarrow"), ("h5", "h5py")])
def test_a_missing_package_is_told_before_any_work(folder, monkeypatch, capsys, ending, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert run(["embed", "toy", str(folder), "-o", f"out.{ending}"]) == cli.WRONG
    assert f"pip install {package}, or write .npz" in capsys.readouterr().err
    assert not Bands.calls and not list(Path().glob("out*"))


def test_a_full_disk_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(exporting.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 100}))
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.WRONG
    assert "36 clips need about 0.0 GB" in capsys.readouterr().err and not Bands.calls


def test_any_number_of_words_and_short_flags():
    assert check_words("embed", cli.COMMANDS["embed"], ["toy", "a", "-o", "f.npz", "b", "c", "--frames"]) == [
        "toy", "a", "b", "c", "--output=f.npz", "--frames=True",
    ]  # fmt: skip
    assert check_words("compare", cli.COMMANDS["compare"], ["-o=here"]) == ["--out=here"]
    with pytest.raises(UsageError, match="needs SOURCE"):
        check_words("embed", cli.COMMANDS["embed"], ["toy", "-o", "f.npz"])
    with pytest.raises(UsageError, match="has no flag -o"):  # a command without any output
        check_words("layers", cli.COMMANDS["layers"], ["toy", "-o", "f.npz"])


def test_paths_stay_text(folder):
    """A file named 007 is not read as a number."""
    (folder / "low_1.wav").rename("007")
    Path("1e5").mkdir()
    files_of(folder)[0].rename("1e5/[1,2].wav")
    assert run(["embed", "toy", "007", "1e5", "-o", "out.npz"]) == cli.DONE
    assert list(opened("out.npz")["path"]) == ["007", "1e5/[1,2].wav"]


def test_npz_is_plain_and_reproducible(folder):
    assert run(["embed", "toy", str(folder), "-o", "out.npz"]) == cli.DONE
    with zipfile.ZipFile("out.npz") as archive:
        assert archive.testzip() is None
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert json.loads(np.load("out.npz")["meta"].item())["made_by"] == "evar embed"
    assert set(writers.FORMATS) == {".parquet", ".npz", ".h5"}
