"""Input statistics: exact, taken from the clips that may have a say, and no pass over the audio more than needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from toy import RATE, Bands

from evar import cli, evaluate, load_encoder, results
from evar.audio.reading import read
from evar.cli import run
from evar.config.protocol import NORM_STATS, ProtocolConfig
from evar.data.task import Task, load_task
from evar.extraction import extract
from evar.extraction import input_statistics as norm_stats
from evar.storage.feature_store import FeatureStore


def lineval(root: Path, *words: str) -> int:
    return run(["lineval", "toy_normalised", "tones", *words, f"--out={root / 'results'}"])


def only_row(root: Path) -> results.Result:
    (row,) = results.load_all(root / "results")
    return row


def used(row: results.Result) -> list[tuple[float, float] | None]:
    """What the input was normalised by, of each round."""
    return [one["norm_stats"] and tuple(one["norm_stats"]) for one in row.rounds]


def by_hand(task: Task, clips: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation over every value of some clips, each put through the front-end by itself."""
    encoder = load_encoder("toy_normalised")
    values = []
    for clip in clips:
        waveform = torch.from_numpy(read(task.paths[clip], encoder.sample_rate))[None]
        values.append(encoder.frontend(waveform).numpy().astype(np.float64).ravel())
    pooled = np.concatenate(values)
    return float(pooled.mean()), float(pooled.std())


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded, in order."""
    seen: list[str] = []
    read_clip = extract.read_clip
    monkeypatch.setattr(extract, "read_clip", lambda path, *rest: seen.append(path.name) or read_clip(path, *rest))
    return seen


def test_train_statistics_are_those_of_the_training_clips_of_each_round(tones):
    root = tones(folds=True, unequal=True)
    assert lineval(root) == cli.DONE
    task = load_task("tones")
    of_rounds = used(only_row(root))
    assert len(set(of_rounds)) == 3
    for a_round, (mean, std) in zip(task.rounds(0), of_rounds, strict=True):
        assert (mean, std) == pytest.approx(by_hand(task, a_round.train), abs=1e-5)


def test_task_statistics_are_those_of_all_clips_and_marked(tones):
    root = tones(folds=True, unequal=True)
    assert lineval(root, "--norm_stats=task") == cli.DONE
    row, task = only_row(root), load_task("tones")
    assert len(set(used(row))) == 1
    assert used(row)[0] == pytest.approx(by_hand(task, np.arange(len(task))), abs=1e-5)
    assert "task statistics" in row.flags
    assert "test clips among them" in (root / "results" / "table.md").read_text()
    assert sum(Bands.calls) == len(task)


def test_validation_and_test_clips_have_no_say(tones):
    root = tones()
    task = load_task("tones")
    (a_round,) = task.rounds(0)
    encoder, store = load_encoder("toy_normalised"), FeatureStore()
    before = norm_stats.of_task(encoder, task, "train", [0], store)
    task_before = norm_stats.of_task(encoder, task, "task", [0], store)
    for clip in [*a_round.valid, *a_round.test]:
        loud = np.random.default_rng(clip).uniform(-0.9, 0.9, RATE // 2).astype(np.float32)
        soundfile.write(task.paths[clip], loud, RATE)
    assert norm_stats.of_task(encoder, task, "train", [0], store) == before
    assert norm_stats.of_task(encoder, task, "task", [0], store) != task_before
    loud = np.random.default_rng(0).uniform(-0.9, 0.9, RATE // 2).astype(np.float32)
    soundfile.write(task.paths[a_round.train[0]], loud, RATE)
    assert norm_stats.of_task(encoder, task, "train", [0], store) != before
    assert root.is_dir()


def test_a_round_costs_an_encode_but_no_decode(tones, decoded, capsys):
    root = tones(folds=True)
    assert lineval(root, "--layers=all") == cli.DONE
    assert sum(Bands.calls) == 3 * 36
    assert len(decoded) == 2 * 36  # once for the statistics, once for all three rounds
    said = capsys.readouterr().out
    assert "encoded 3 times" in said and "108 clips encoded" in said
    Bands.calls.clear()
    decoded.clear()
    assert lineval(root, "--layers=level,bands", "--fusion=concat") == cli.DONE
    assert not Bands.calls and not decoded


def test_rounds_of_equal_statistics_share_an_encode(tones):
    root = tones()
    assert lineval(root) == cli.DONE
    assert sum(Bands.calls) == 36
    assert lineval(root, "--seeds=2") == cli.DONE
    assert sum(Bands.calls) == 36


def test_given_numbers_are_used_as_they_are(tones):
    root = tones(folds=True)
    assert lineval(root, "--norm_stats=-2.5,1.5") == cli.DONE
    row = only_row(root)
    assert used(row) == [(-2.5, 1.5)] * 3 and "task statistics" not in row.flags
    assert sum(Bands.calls) == 36


def test_default_is_what_the_encoder_says(tones, monkeypatch):
    root = tones(folds=True)
    assert lineval(root, "--norm_stats=default") == cli.DONE
    assert len(set(used(only_row(root)))) == 3
    from toy import Normalised

    monkeypatch.setattr(Normalised, "default_norm_stats", "constants")
    Bands.calls.clear()
    out = root / "constants"
    assert run(["lineval", "toy_normalised", "tones", f"--out={out}"]) == cli.DONE
    (row,) = results.load_all(out)
    assert used(row) == [(-3.0, 2.5)] * 3 and sum(Bands.calls) == 36


def test_rows_of_different_statistics_are_different_rows(tones):
    root = tones()
    for choice in ("train", "task", "-3.0,2.5", "-3.0,2.6"):
        assert lineval(root, f"--norm_stats={choice}") == cli.DONE
    assert len(results.load_all(root / "results")) == 4


def test_python_takes_the_same_words(tones):
    root = tones(folds=True)
    outcome = evaluate("toy_normalised", "tones", norm_stats="train", out=str(root / "results"))
    assert len(set(used(outcome.rows[0]))) == 3
    pair = evaluate("toy_normalised", "tones", norm_stats=(-3.0, 2.5), out=str(root / "results"))
    assert used(pair.rows[0]) == [(-3.0, 2.5)] * 3
    with pytest.raises(ValueError, match="norm_stats"):
        evaluate("toy_normalised", "tones", norm_stats="trian", out=str(root / "results"))


def test_an_encoder_without_statistics_is_not_touched_by_the_words(tones):
    root = tones(folds=True)
    assert run(["lineval", "toy", "tones", "--norm_stats=train", f"--out={root / 'results'}"]) == cli.DONE
    assert used(only_row(root)) == [None] * 3 and sum(Bands.calls) == 36


def test_an_unreadable_clip_has_no_say(tones):
    root = tones()
    task = load_task("tones")
    (a_round,) = task.rounds(0)
    bad, rest = a_round.train[0], a_round.train[1:]
    expected = by_hand(task, rest)
    task.paths[bad].write_bytes(b"no audio at all")
    assert lineval(root) == cli.DONE
    assert used(only_row(root))[0] == pytest.approx(expected, abs=1e-5)


def test_clips_that_are_all_silent_are_an_error_with_a_next_step(tones, capsys):
    root = tones()
    for path in load_task("tones").paths:
        soundfile.write(path, np.zeros(RATE // 2, np.float32), RATE)
    assert lineval(root) == cli.SOME_FAILED
    assert "are they silent? Give --norm_stats=MEAN,STD" in capsys.readouterr().out


def test_moments_lose_no_bit_on_their_way_through_the_store(tones):
    tones(unequal=True)
    encoder, task, store = load_encoder("toy_normalised"), load_task("tones"), FeatureStore()
    found = extract.extract(norm_stats.InputMoments(encoder), task.paths, task.policy(), store)
    kept = norm_stats._load(store, found.key, found.rows)
    for clip in range(0, len(task), 5):
        waveform = torch.from_numpy(read(task.paths[clip], encoder.sample_rate))[None]
        assert kept[clip].tolist() == encoder.input_moments(waveform)[0].tolist()


def test_dry_run_says_how_often_clips_are_encoded(tones, capsys):
    root = tones(folds=True)
    assert lineval(root, "--dry_run") == cli.DONE
    assert "36 of 36 clips to encode (3 times, for the input statistics of each round)" in capsys.readouterr().out
    assert lineval(root, "--norm_stats=task", "--dry_run") == cli.DONE
    assert "36 of 36 clips to encode, " in capsys.readouterr().out
    assert lineval(root) == cli.DONE
    assert lineval(root, "--layers=all", "--dry_run") == cli.DONE
    assert "1 of 2 rows to compute; 0 of 36 clips" in capsys.readouterr().out


def test_a_protocol_may_say_whose_statistics(tones):
    encoder = load_encoder("toy_normalised") if tones() else None
    assert encoder is not None
    assert norm_stats.mode(encoder, None, "task") == "task"
    assert norm_stats.mode(encoder, "train", "task") == "train"
    assert norm_stats.mode(encoder, None, "default") == "train"
    fields = {"name": "x", "version": "1", "description": "x", "probe": "x:X", "params": {}, "refit": "train"}
    assert ProtocolConfig(**fields).norm_stats in NORM_STATS
    with pytest.raises(ValueError, match="norm_stats must be default, train, task"):
        ProtocolConfig(**fields, norm_stats="test")
