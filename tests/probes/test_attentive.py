"""The probe that reads frames, and where frames are kept: exact, bounded, safe to kill, and blind to test labels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from toy import Bands

from evar import cli, results
from evar.cli import run
from evar.extraction.frame_request import FrameRequest, mean_of_stretches
from evar.extraction.plan import feature_key, plan
from evar.numeric.frames import Frames, FramesInMemory
from evar.probes.attentive import AttentiveProbe
from evar.storage.feature_store import FeatureStore
from evar.storage.frame_store import FrameStore, FrameWriter, StoredFrames
from evar.storage.keys import FeatureKey

SPLIT = [60, 90]


def lineval(root, *words: str) -> int:
    return run(["lineval", *words, f"--out={root / 'results'}"])


def planted(knowing: str, n_clips: int = 150, seed: int = 0) -> tuple[FramesInMemory, np.ndarray]:
    """Two layers of other widths and frame rates; one frame of one layer, at a random place, tells 3 classes."""
    random = np.random.default_rng(seed)
    y = np.arange(n_clips) % 3
    layers: dict[str, list[np.ndarray]] = {"fine": [], "coarse": []}
    for label in y:
        n_frames = int(random.integers(6, 14))
        clips = {"fine": random.normal(size=(2 * n_frames, 5)), "coarse": 30 + 10 * random.normal(size=(n_frames, 8))}
        frame = clips[knowing][random.integers(len(clips[knowing]))]
        frame[[label, 3]] += np.array([6.0, 8.0]) * (
            10 if knowing == "coarse" else 1
        )  # what it tells, and that it tells
        for name, clip in clips.items():
            layers[name].append(clip)
    return FramesInMemory(layers), y


def fitted(probe: AttentiveProbe, frames: Frames, y: np.ndarray) -> AttentiveProbe:
    train, valid, _ = np.split(np.arange(len(y)), SPLIT)
    return probe.fit(frames[train], y[train], frames[valid], y[valid])


@pytest.mark.parametrize("knowing", ["fine", "coarse"])
def test_the_frame_that_tells_is_found_in_its_layer(knowing: str) -> None:
    frames, y = planted(knowing, 450)
    train, valid, test = np.split(np.arange(450), [250, 350])
    probe = AttentiveProbe(learning_rates=(0.01, 0.03), max_epochs=60).fit(
        frames[train], y[train], frames[valid], y[valid]
    )
    assert probe.score(frames[test], y[test]) > 0.9
    assert probe.layer_weights_.sum() == pytest.approx(1, abs=1e-5)
    assert list(frames.widths)[probe.layer_weights_.argmax()] == knowing and probe.layer_weights_.max() > 0.6
    # A mean over time, which is all that other probes see, hides it.
    from evar.probes.linear import LinearProbe

    means = np.stack(
        [np.concatenate([frames.join([at], name)[0].mean(0) for name in frames.widths]) for at in range(450)]
    )
    blind = LinearProbe().fit(means[train], y[train], means[valid], y[valid])
    assert blind.score(means[test], y[test]) < probe.score(frames[test], y[test]) - 0.05


def test_outputs_are_those_of_the_formula() -> None:
    frames, y = planted("fine")
    probe = fitted(AttentiveProbe(n_heads=2, max_epochs=3, learning_rates=(0.03,)), frames, y)
    query, offset, maps = (probe._parameters[at::3][:2] for at in range(3))
    train = np.arange(SPLIT[0])
    moments = []
    for name in frames.widths:
        every = frames.join(train.tolist(), name)[0].double()
        moments.append((every.mean(0), every.std(0, unbiased=False)))
    expected = []
    for at in range(10):
        scores, values = [], []
        for layer, name in enumerate(frames.widths):
            x = (frames.join([at], name)[0].double() - moments[layer][0]) / moments[layer][1]
            scores.append(x @ query[layer].double() + offset[layer].double() - np.log(len(x)))
            values.append(x)
        shares = torch.cat(scores).softmax(dim=0).split([len(x) for x in values])
        said = probe._parameters[-1].double()
        for layer, x in enumerate(values):
            for head in range(2):
                said = said + (shares[layer][:, head] @ x) @ maps[layer][head].double()
        expected.append(said.numpy())
    assert probe.decision_function(frames[np.arange(10)]) == pytest.approx(np.array(expected), abs=1e-4)


def test_training_begins_at_the_mean_over_time_and_layers() -> None:
    frames, y = planted("coarse")
    probe = fitted(AttentiveProbe(learning_rates=(1e-12,), max_epochs=1), frames, y)
    assert probe.layer_weights_ == pytest.approx([0.5, 0.5], abs=1e-6)


def test_learning_rates_side_by_side_are_as_each_alone() -> None:
    frames, y = planted("fine")
    rates = (0.003, 0.03)
    together = fitted(AttentiveProbe(learning_rates=rates, max_epochs=8, patience=3), frames, y)
    alone = [fitted(AttentiveProbe(learning_rates=(rate,), max_epochs=8, patience=3), frames, y) for rate in rates]
    assert together.valid_scores_ == pytest.approx([one.valid_score_ for one in alone])
    best = alone[rates.index(together.chosen_["learning_rate"])]
    assert together.decision_function(frames) == pytest.approx(best.decision_function(frames), abs=1e-6)
    assert clone(together).get_params() == together.get_params()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_heads": 0}, "at least 1"),
        ({"learning_rates": (-1.0,)}, "positive"),
        ({"refit": "train_and_valid"}, "refit must be train"),
        ({"metric": "acuracy"}, "accuracy"),
    ],
)
def test_settings_that_cannot_be_are_told(change: dict, said: str) -> None:
    frames, y = planted("fine")
    with pytest.raises(ValueError, match=said):
        fitted(AttentiveProbe(**change), frames, y)


def test_arrays_and_other_layers_are_refused() -> None:
    frames, y = planted("fine")
    with pytest.raises(ValueError, match="reads frames"):
        AttentiveProbe().fit(np.zeros((9, 2)), np.arange(9) % 3, np.zeros((9, 2)), np.arange(9) % 3)
    probe = fitted(AttentiveProbe(max_epochs=1), frames, y)
    with pytest.raises(ValueError, match="expected frames of layers"):
        probe.predict(FramesInMemory({"fine": [np.zeros((2, 5))]}))


def test_means_of_stretches() -> None:
    frames = torch.randn(11, 3)
    found = mean_of_stretches(frames, 4)
    assert found.shape == (3, 3)
    for at in range(3):
        assert torch.allclose(found[at], frames[4 * at : 4 * at + 4].mean(0), atol=1e-6)
    assert mean_of_stretches(frames, 1) is frames and len(mean_of_stretches(frames, 100)) == 1


def key(**changes) -> FeatureKey:
    fields = {
        "encoder": "toy", "weights_sha256": "none", "options": {}, "revision": 1, "norm_stats": None, "sample_rate": 8000,
        "resampler": "none", "clip_seconds": None, "pad": "none", "crop": "head", "crop_seed": 0,
        "layers": {"a": "2 frames", "b": "3 frames"},
    }  # fmt: skip
    return FeatureKey(**{**fields, **changes})


def written(store: FrameStore, rows: list[str], seed: int = 0, scale: float = 1.0) -> dict[str, list[np.ndarray]]:
    random = np.random.default_rng(seed)
    clips = {
        "a": [scale * random.normal(size=(n, 2)).astype(np.float32) for n in range(1, len(rows) + 1)],
        "b": [random.normal(size=(2 * n, 3)).astype(np.float32) for n in range(1, len(rows) + 1)],
    }
    with store.writing(key()) as writer:
        writer.append(rows, clips)
    return clips


def test_frames_come_back_as_they_were_in_half_precision(tmp_path) -> None:
    store = FrameStore(tmp_path)
    first, second = written(store, ["p", "q", "r"]), written(store, ["s", "t"], seed=1, scale=1e6)
    known = store.places(key())
    frames = StoredFrames({"a": 2, "b": 3}, [known[row] for row in ("t", "q", "s", "p")] + [None])
    for layer in "ab":
        batch, counts = frames.batch(range(4), layer)
        wanted = [second[layer][1], first[layer][1], second[layer][0], first[layer][0]]
        for found, n, clip in zip(batch, counts.tolist(), wanted, strict=True):
            assert n == len(clip) and not found[n:].any()
            assert found[:n].numpy() == pytest.approx(clip, rel=1e-3, abs=1e-3 * float(np.abs(clip).max()))
            if np.abs(clip).max() < 100:  # not above what half precision holds: rounded to it, and no more
                assert np.array_equal(found[:n].numpy(), clip.astype(np.float16).astype(np.float32))
    part = frames[np.array([3, 1])]
    assert np.array_equal(part.join([0], "b")[0], frames.join([3], "b")[0])
    with pytest.raises(KeyError, match="no frames"):
        frames.join([4], "a")


def test_a_killed_run_leaves_whole_batches_only(tmp_path) -> None:
    store = FrameStore(tmp_path)
    written(store, ["p", "q"])
    (segment,) = store.key_folder(key()).glob("segment-*")
    with open(segment / "a.f16", "ab") as file:
        file.write(b"torn")
    with open(segment / "rows.jsonl", "ab") as file:
        file.write(json.dumps([["r", [4, 8], [0, 0]]]).encode() + b"\n")  # committed, but its frames are not all there
    assert sorted(store.places(key())) == ["p", "q"]
    assert [entry["clips"] for entry in store.contents()] == [3] and "frames" in store.contents()[0]["clip"]
    FrameWriter(store.key_folder(key())).open_files({"a": 2})
    assert len(store.prune()) == 1 and sorted(store.places(key())) == ["p", "q"]


def test_frames_of_more_layers_serve_fewer(tmp_path) -> None:
    store = FrameStore(tmp_path)
    written(store, ["p"])
    assert store.wider(key(layers={"b": "3 frames"})) == {"a", "b"}
    assert store.wider(key(layers={"b": "4 frames"})) == store.wider(key(layers={"b": "3 frames"}, revision=2)) == set()


def test_attention_over_stored_frames_from_the_command_line(tones, capsys) -> None:
    root = tones(n_per_class=32, unequal=True)
    Bands.calls.clear()
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--learning_rate=0.03") == cli.DONE
    assert "frames of 2 layers of 96 clips take" in capsys.readouterr().out
    assert sum(Bands.calls) == 96
    (row,) = results.load_all(root / "results")
    assert row.score > 0.9 and row.fusion == "attention" and row.layers == ("level", "bands")
    assert row.pooling == {"level": "attention", "bands": "attention"} and row.extraction["frame_seconds"] == 0.1
    assert row.width == 17 and np.sum(row.params["layer_weights"]) == pytest.approx(1, abs=1e-4)
    assert row.params["chosen"][0]["learning_rate"] == 0.03
    Bands.calls.clear()  # one of the layers alone: its frames are there
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--learning_rate=0.03", "--layers=bands") == cli.DONE
    assert not Bands.calls and "attention over bands" in capsys.readouterr().out
    for path in sorted((root / "results" / "runs").glob("*.json")):
        assert run(["rerun", str(path)]) == cli.DONE
    assert not Bands.calls and "the same" in capsys.readouterr().out


def test_stored_frames_are_those_of_the_encoder(tones) -> None:
    from evar.data.task import load_task
    from evar.encoders import load_encoder
    from evar.lineval.cell_features import request_frames

    root = tones(unequal=True)
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--layers=bands") == cli.DONE
    encoder, task = load_encoder("toy"), load_task("tones")
    from evar.experiment.cell import Cell
    from evar.experiment.request import parse_request
    from evar.experiment.resolving import resolve_request

    grid = resolve_request(parse_request("toy", "tones", protocol="attentive", layers="bands"))
    store = FeatureStore()
    request = request_frames(Cell(encoder, task, grid.cells[0]), ["bands"], store, grid.resources)
    assert request is not None and request.stride(encoder, "bands") == 2
    planned = plan(encoder, task.paths, task.policy(), store, frames=request)
    assert not planned.todo
    known = FrameStore().places(feature_key(encoder, task.policy(), request))
    frames = StoredFrames({"bands": 16}, [known[str(row)] for row in planned.rows])
    import soundfile

    for at in (0, 5, 17):
        wave = torch.from_numpy(soundfile.read(task.paths[at], dtype="float32")[0])[None]
        own = mean_of_stretches(encoder.encode(wave)["bands"][0], 2).detach()
        assert frames.join([at], "bands")[0].numpy() == pytest.approx(own.numpy(), abs=0.01)
    n_bytes = sum(own.stat().st_size for own in FrameStore().folder.rglob("*.f16"))
    lengths = [len(soundfile.read(path)[0]) for path in task.paths]
    assert n_bytes < request.n_bytes(encoder, lengths) < n_bytes + 100 * len(lengths)


def test_more_frames_than_allowed_are_refused_before_any_is_made(tones, capsys) -> None:
    root = tones()
    Bands.calls.clear()
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--frames_gb=1e-6") == cli.SOME_FAILED
    out = capsys.readouterr().out
    assert "more than --frames_gb=1e-06" in out and not Bands.calls
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--frames_gb=1e-6", "--dry_run") == cli.DONE
    assert "will be refused" in capsys.readouterr().out


def test_frames_and_protocols_that_do_not_go_together_are_told(tones, capsys) -> None:
    root = tones()
    assert lineval(root, "toy", "tones", "--fusion=attention", "--layers=all") == cli.WRONG
    assert "--protocol=attentive" in capsys.readouterr().err
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--fusion=concat") == cli.WRONG


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_labels_and_numbers_are_told_from_frames(tones, kind: str) -> None:
    root = tones(n_per_class=16, kind=kind)
    assert lineval(root, "toy", "tones", "--protocol=attentive", "--learning_rate=0.03") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score > 0.9


def test_statistics_of_each_round_have_their_own_frames_and_shuffled_labels_give_chance(tones) -> None:
    root = tones(n_per_class=40, folds=True, shuffled=True)
    assert lineval(root, "toy_normalised", "tones", "--protocol=attentive") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert len({tuple(one["norm_stats"]) for one in row.rounds}) == 3
    assert abs(row.score - 1 / 3) < 4 * np.sqrt(2 / 9 / 120)
    assert FrameRequest(("bands",), 0.0).n_bytes(None, []) == 0  # type: ignore[arg-type]
