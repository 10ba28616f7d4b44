"""What a service relies on: quiet, typed, safe in threads, errors as values, and every usual form of audio."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import evar
from evar.audio.reading import AudioError
from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.extraction.embed import embed

RATE = 16000
RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def logmel() -> Encoder:
    return load_encoder("logmel")


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    import soundfile

    path = tmp_path / "sound.wav"
    soundfile.write(path, RNG.normal(size=(RATE, 2)) / 10, RATE)
    return path


def test_open_files_bytes_and_dictionaries_are_files_and_arrays(logmel: Encoder, wav: Path) -> None:
    import soundfile

    expected = embed(logmel, wav)
    data = wav.read_bytes()
    for same in (
        str(wav),
        io.BytesIO(data),
        data,
        {"path": str(wav)},
        {"bytes": data, "path": None},
        [{"bytes": data}],
    ):
        np.testing.assert_array_equal(embed(logmel, same), expected)
    with wav.open("rb") as file:
        np.testing.assert_array_equal(embed(logmel, file), expected)
    mono = soundfile.read(wav, dtype="float32")[0].mean(axis=1)
    np.testing.assert_array_equal(embed(logmel, {"array": mono, "sampling_rate": RATE}), expected)
    at_half = embed(logmel, mono, sample_rate=RATE // 2)
    each_at_its_own = embed(
        logmel, [{"array": mono, "sampling_rate": RATE // 2}, {"array": mono, "sampling_rate": RATE}]
    )
    np.testing.assert_allclose(each_at_its_own, np.concatenate([at_half, expected]), rtol=1e-5)


def test_half_precision_tensors(logmel: Encoder) -> None:
    clip = torch.from_numpy(RNG.normal(size=RATE).astype(np.float32) / 10)
    for kind in (torch.bfloat16, torch.float16):
        np.testing.assert_array_equal(embed(logmel, clip.to(kind)), embed(logmel, clip.to(kind).float()))


@pytest.mark.parametrize(
    ("audio", "options", "message"),
    [
        (np.zeros(RATE), {"sample_rate": 0}, "sample_rate must be a whole number of Hz, at least 1, got 0"),
        (np.zeros(RATE), {"sample_rate": -1}, "at least 1, got -1"),
        (np.zeros(RATE), {"sample_rate": 44.1}, "whole number of Hz"),
        (np.zeros(RATE), {"batch_size": 0}, "batch_size must be at least 1"),
        (np.zeros(RATE), {"errors": "ignore"}, "errors must be one of warn, raise, return"),
        ({"array": np.zeros(RATE)}, {}, "must have 'sampling_rate' too"),
        ({"array": np.zeros(RATE), "sampling_rate": 0}, {}, "sample_rate must be a whole number"),
        ({"waveform": np.zeros(RATE)}, {}, "got ['waveform']"),
        (io.StringIO("text"), {}, "must be binary"),
        (b"no audio at all", {}, "clip 0 (15 bytes)"),
    ],
)
def test_what_is_wrong_is_said(logmel: Encoder, audio: object, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        embed(logmel, audio, **options)


def test_a_folder_is_no_file(logmel: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a folder, expected an audio file; .* evar embed ENCODER"):
        embed(logmel, tmp_path)


def test_one_unreadable_file_costs_its_own_row(logmel: Encoder, wav: Path, tmp_path: Path) -> None:
    (tmp_path / "junk.wav").write_bytes(b"junk")
    files = [tmp_path / "junk.wav", wav, tmp_path / "missing.wav"]
    with pytest.warns(RuntimeWarning, match=r"2 of 3 clips could not be read, .*junk\.wav.*missing\.wav"):
        vectors = embed(logmel, files)
    assert np.isnan(vectors).all(axis=1).tolist() == [True, False, True]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, errors = embed(logmel, files, errors="return")
        by_layer, _ = embed(logmel, files, "all", errors="return")
        alone, why = embed(logmel, files[0], errors="return")
    np.testing.assert_array_equal(values, vectors)
    np.testing.assert_array_equal(by_layer["logmel"], vectors)
    np.testing.assert_array_equal(values[1:2], embed(logmel, wav))
    assert sorted(errors) == [0, 2] and all(isinstance(error, AudioError) for error in errors.values())
    assert alone.shape == (1, values.shape[1]) and list(why) == [0]
    with pytest.raises(AudioError, match="junk"):
        embed(logmel, files, errors="raise")
    with pytest.raises(AudioError, match="none of 2 clips could be read"):
        embed(logmel, [files[0], files[2]])
    with pytest.raises(ValueError, match="NaN"):  # a caller's mistake is no damaged file
        embed(logmel, [np.zeros(RATE), np.full(RATE, np.nan)])


def test_four_threads_give_the_same_numbers() -> None:
    clips = [RNG.normal(size=RATE + 400 * n).astype(np.float32) / 10 for n in range(12)]
    encoder = load_encoder("crepe.tiny", "random")
    expected = [embed(encoder, clip) for clip in clips]

    def work(clip: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return embed(encoder, clip), embed(load_encoder("crepe.tiny", "random"), clip)

    with ThreadPoolExecutor(4) as pool:
        for (shared, own), reference in zip(pool.map(work, clips), expected, strict=True):
            np.testing.assert_array_equal(shared, reference)
            np.testing.assert_array_equal(own, reference)


def test_devices() -> None:
    there = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert load_encoder("logmel", device="auto").device.type == there
    with pytest.raises(ValueError, match="no CUDA|CUDA device|not available"):
        load_encoder("logmel", device="cuda:63")
    with pytest.raises(ValueError, match="device 'gpu' is not known"):
        load_encoder("logmel", device="gpu")


USER_CODE = """
import evar
import numpy as np
from evar.errors import AudioError
from numpy.typing import NDArray

encoder = evar.load_encoder("logmel", device="auto")
vectors: NDArray[np.float32] = evar.embed(encoder, np.zeros(16000))
layers: dict[str, NDArray[np.float32]] = evar.embed(encoder, ["a.wav", b"bytes"], "all")
pair: tuple[NDArray[np.float32], dict[int, AudioError]] = evar.embed("logmel", ["a.wav"], errors="return")
fused: NDArray[np.float32] = evar.embed(encoder, {"array": np.zeros(9), "sampling_rate": 9}, ["a", "b"], "concat")
names: list[str] = [info.name for info in encoder.layer_infos]
outcome = evar.evaluate("logmel", "esc10", limit=20, quiet=True)
scores: list[float] = [row.score for row in outcome.rows]
"""
SKIPPED = "torch.*,matplotlib.*,pandas.*,scipy.*,sklearn.*,PIL.*,transformers.*,plotly.*,fsspec.*,huggingface_hub.*"
WRONG_CODE = """
import evar

vectors: int = evar.embed("logmel", "a.wav")
evar.load_encoder(3)
evar.embed("logmel", "a.wav", errors="ignore")
"""


def test_mypy_reads_the_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    assert (Path(evar.__file__).parent / "py.typed").is_file()
    (tmp_path / "user.py").write_text(USER_CODE)
    (tmp_path / "wrong.py").write_text(WRONG_CODE)
    # Torch and the like are taken for Any: they are no part of what is checked, and take four fifths of the time.
    (tmp_path / "mypy.ini").write_text(f"[mypy]\n[mypy-{SKIPPED}]\nfollow_imports = skip\n")
    flags = [
        "--strict",
        "--config-file=mypy.ini",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--no-error-summary",
    ]
    command = [sys.executable, "-m", "mypy", *flags, "--cache-dir", str(tmp_path / "cache"), "user.py", "wrong.py"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    errors = [line for line in found.stdout.splitlines() if ": error:" in line]
    assert [line.split(": error:")[0] for line in errors] == ["wrong.py:4", "wrong.py:5", "wrong.py:6"], found.stdout


def test_a_notebook_gets_bars_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.auto

    from evar.config.messages import progress_bar, silence

    seen: list[dict] = []
    Notebook = type("tqdm", (), {"__module__": "tqdm.notebook", "__init__": lambda self, *a, **k: seen.append(k)})
    monkeypatch.setattr(tqdm.auto, "tqdm", Notebook)
    progress_bar(total=3, desc="a")
    with silence():
        progress_bar(total=3)
    assert [one["disable"] for one in seen] == [False, True]


def test_the_transformer_is_one_of_scikit_learn(wav: Path, tmp_path: Path) -> None:
    import pickle

    from sklearn.base import clone
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline

    from evar.sklearn import Embedding

    embedding = Embedding("crepe.tiny", weights="random", layers=["conv1", "conv2"], device="cpu")
    X = RNG.normal(size=(12, RATE // 4)) * np.repeat([0.01, 0.3], 6)[:, None]
    y = ["low"] * 6 + ["high"] * 6
    vectors = embedding.fit_transform(X)
    assert vectors.shape == (12, len(embedding.get_feature_names_out()))
    assert embedding.get_feature_names_out()[0] == "conv1_0"
    copy = clone(embedding)
    assert copy.get_params() == embedding.get_params() and "_held" not in vars(copy)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(embedding)).transform(list(X)), vectors)  # noqa: S301
    np.testing.assert_array_equal(copy.transform(list(X)), vectors)
    search = GridSearchCV(
        make_pipeline(Embedding("logmel"), LogisticRegression()), {"embedding__pooling": ["mean", "max"]}, cv=3
    )
    assert search.fit(X, y).best_score_ > 0.9
    assert Embedding("logmel").transform(np.array([str(wav), str(wav)])).shape[0] == 2
    with pytest.raises(ValueError, match="did you mean 'concat'"):
        Embedding("logmel", fusion="conact").fit(X)
    with pytest.raises(AudioError):
        Embedding("logmel").transform([wav, tmp_path / "missing.wav"])


def test_evaluate_prints_nothing(tones, capsys, caplog) -> None:
    import logging

    root = tones()
    with caplog.at_level(logging.INFO, "evar"):
        evar.evaluate("toy", "tones", out=str(root / "results"), quiet=True)
        assert not caplog.records
        evar.evaluate("toy", "tones", out=str(root / "results"))
        assert "1 rows are there already" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_quiet_command_prints_its_table_alone(tones, capsys) -> None:
    from evar import cli

    root = tones()
    assert cli.run(["lineval", "toy", "tones", f"--out={root}/results", "--quiet"]) == cli.DONE
    quiet = capsys.readouterr().out.strip().splitlines()
    assert cli.run(["lineval", "toy", "tones", f"--out={root}/others"]) == cli.DONE
    loud = capsys.readouterr().out.strip().splitlines()
    assert len(loud) > len(quiet) and quiet[0].split()[0] in ("linear", "encoder", "protocol")
