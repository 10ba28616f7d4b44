"""Probes trained by gradient steps: side by side as alone, as plain PyTorch, and the protocols that are made of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evar import cli, results
from evar.cli import run
from evar.config.protocol import load_protocol_config
from evar.experiment.request import choose_protocol
from evar.experiment.settings import Settings
from evar.metrics import METRICS
from evar.probes.few_shot import FewShotProbe, draw_clips
from evar.probes.network import NetworkProbe


def clips(seed=0, n=90, width=24, n_classes=4, signal=0.8):
    """X and y of training and validation, and of test clips."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    X = (rng.normal(size=(n, width)) + signal * np.random.default_rng(99).normal(size=(n_classes, width))[y]).astype(
        np.float32
    )
    return (X[:50], y[:50], X[50:70], y[50:70]), (X[70:], y[70:])


SETTINGS = {
    "linear": {"learning_rates": (1e-3, 1e-2), "batch_size": 16, "max_epochs": 15},
    "hidden": {"learning_rates": (1e-2,), "hiddens": ((8,), (8, 6)), "dropout": 0.3, "batch_size": 16, "max_epochs": 12},
    "normed": {
        "learning_rates": (1e-2,), "hiddens": ((8,),), "inits": ("xavier_uniform", "xavier_normal"), "dropout": 0.1,
        "batch_norm": True, "batch_size": 16, "max_epochs": 12, "validate_every": 3, "patience": 2,
    },
}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_side_by_side_gives_what_each_would_be_alone(settings):
    # Other numbers of clips, other seeds: networks end at different epochs, and their last batches differ in size.
    splits = [(X[: 50 - 7 * i], y[: 50 - 7 * i], *rest) for i, ((X, y, *rest), _) in enumerate(map(clips, range(4)))]
    together = [NetworkProbe(**{"patience": 3, **settings}, random_state=seed) for seed in range(4)]
    NetworkProbe.fit_together(together, splits)
    for one, split in zip(together, splits, strict=True):
        alone = NetworkProbe(**one.get_params()).fit(*split)
        assert alone.chosen_ == one.chosen_ and alone.valid_scores_.tolist() == one.valid_scores_.tolist()
        for ours, other in zip(alone._weights, one._weights, strict=True):
            assert torch.allclose(ours, other, atol=1e-5)
    assert len({tuple(one._weights[0].flatten()[:3].tolist()) for one in together}) == 4  # seeds do matter


def test_equals_a_plain_loop_of_pytorch():
    (X, y, X_valid, y_valid), _ = clips()
    probe = NetworkProbe(learning_rates=(1e-2,), batch_size=16, max_epochs=4, patience=99, weight_decay=1e-3)
    probe.fit(X, y, X_valid, y_valid)
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor((X - X.mean(0)) / X.std(0))
    model = torch.nn.Linear(24, 4)
    bound = 1 / np.sqrt(24)
    with torch.no_grad():
        model.weight.copy_(torch.empty(24, 4).uniform_(-bound, bound, generator=generator).T)
        model.bias.uniform_(-bound, bound, generator=generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-3)
    told, kept, best = torch.eye(4)[torch.tensor(y)], None, -1.0
    for _ in range(4):
        for part in torch.randperm(len(rows), generator=generator).split(16):
            optimiser.zero_grad()
            (-(told[part] * torch.log_softmax(model(rows[part]), 1)).mean()).backward()
            optimiser.step()
        score = (model(torch.tensor((X_valid - X.mean(0)) / X.std(0))).argmax(1).numpy() == y_valid).mean()
        if score >= best:
            best, kept = score, model.weight.detach().clone()
    assert torch.allclose(probe._weights[0][0].T, kept, atol=1e-5) and probe.valid_score_ == pytest.approx(best)


def test_batch_norm_and_dropout_equal_pytorchs_layers():
    from evar.probes.network_training import run_forward

    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.BatchNorm1d(7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    rows = torch.randn(11, 5)
    torch.nn.init.zeros_(layers[0].bias)
    weights = [layers[0].weight.T, layers[1].weight[None], layers[1].bias[None]]
    weights = [weight[None].detach() for weight in [*weights, layers[3].weight.T, layers[3].bias[None]]]
    moments = [(torch.zeros(1, 1, 7), torch.ones(1, 1, 7))]
    padded = torch.cat([rows, torch.full((2, 5), 9.0)])[None]  # what is padded must not be seen
    is_row = (torch.arange(13) < 11).float()[None, :, None]
    assert torch.allclose(run_forward(weights, padded, moments, is_row=is_row)[0, :11], layers(rows), atol=1e-5)
    assert torch.allclose(moments[0][1][0, 0], layers[1].running_var, atol=1e-5)
    assert torch.allclose(run_forward(weights, rows[None], moments)[0], layers.eval()(rows), atol=1e-5)


def test_training_stops_early_and_keeps_the_best_weights():
    fitting, _ = clips(signal=0.3)
    probe = NetworkProbe(learning_rates=(0.05,), patience=5, max_epochs=100).fit(*fitting)
    assert probe.converged_ and probe.chosen_["epoch"] <= 95
    assert probe.valid_score_ == pytest.approx((probe.predict(fitting[2]) == fitting[3]).mean())


def test_ties_keep_the_later_weights_only_where_they_improve():
    (X, y, X_valid, y_valid), _ = clips(signal=4.0)
    epochs = [
        NetworkProbe(learning_rates=(0.05,), patience=5, max_epochs=40, ties_improve=ties).fit(X, y, X_valid, y_valid)
        for ties in (True, False)
    ]
    assert epochs[0].valid_score_ == epochs[1].valid_score_ == 1.0
    assert epochs[0].chosen_["epoch"] == 40 > epochs[1].chosen_["epoch"]


def test_the_learning_rate_is_chosen_on_validation_clips():
    fitting, (X, y) = clips()
    probe = NetworkProbe(learning_rates=(1e-7, 1e-2, 1e4), max_epochs=30).fit(*fitting)
    assert probe.chosen_["learning_rate"] == 1e-2 and not probe.on_grid_edge_ and probe.score(X, y) > 0.8
    assert NetworkProbe(learning_rates=(1e-7, 1e-2), max_epochs=30).fit(*fitting).on_grid_edge_


def test_a_validation_class_that_training_lacks_is_an_error_of_every_epoch():
    (X, y, X_valid, y_valid), _ = clips(signal=4.0)
    keep = y != 3
    probe = NetworkProbe(learning_rates=(0.05,)).fit(X[keep], y[keep], X_valid, y_valid)
    assert probe.classes_.tolist() == [0, 1, 2] and probe.valid_score_ == pytest.approx(np.mean(y_valid != 3))


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_other_kinds_learn_and_the_unit_comes_back(kind):
    (X, _, X_valid, _), (X_test, _) = clips(signal=0.0)
    metric = "mean_average_precision" if kind == "multilabel" else "pearson"

    def told(rows):
        return (rows[:, :2] > 0).astype(np.uint8) if kind == "multilabel" else 500 + 20 * rows[:, 0]

    probe = NetworkProbe(learning_rates=(1e-2,), metric=metric).fit(X, told(X), X_valid, told(X_valid))
    assert probe.score(X_test, told(X_test)) > 0.8
    if kind == "regression":
        assert METRICS["mean_absolute_error"].function(told(X_test), probe.predict(X_test)) < 12


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rates": ()}, "learning_rates must be"),
        ({"refit": "train_and_valid"}, "refit must be train"),
        ({"inits": ("xavier",)}, "no init 'xavier'"),
        ({"dropout": 1.0}, "dropout must lie in"),
        ({"metric": "accurracy"}, "no metric 'accurracy'"),
        ({"learning_rates": (1e38,), "max_epochs": 3}, "diverged"),
    ],
)
def test_what_cannot_be_trained_is_told(settings, said):
    fitting, _ = clips()
    with pytest.raises(ValueError, match=said):
        NetworkProbe(**settings).fit(*fitting)
    with pytest.raises(ValueError, match="validation clips; X_valid and y_valid are needed"):
        NetworkProbe().fit(fitting[0], fitting[1], None, None)


def test_few_shots_are_drawn_by_seed_and_class():
    y = np.repeat([0, 1, 2], [10, 5, 2])
    assert np.bincount(y[draw_clips(y, 4, 0)]).tolist() == [4, 4, 2]
    assert draw_clips(y, 4, 0).tolist() == draw_clips(y, 4, 0).tolist() != draw_clips(y, 4, 1).tolist()
    fitting, (X, y) = clips(signal=2.0)
    poisoned = (fitting[0], fitting[1], fitting[2], fitting[3][::-1])
    one, other = (FewShotProbe(n_per_class=3, random_state=1).fit(*split) for split in (fitting, poisoned))
    assert np.array_equal(one.predict_proba(X), other.predict_proba(X)) and one.score(X, y) > 0.9


# ---------------------------------------------------------------- protocols


def lineval(root, *words):
    status = run(["lineval", "toy", "tones", *words, f"--out={root / 'results'}"])
    return status, results.load_all(root / "results")


FAST = ["--learning_rate=0.03"]


@pytest.mark.parametrize("protocol", ["evar", "mlp", "fewshot"])
@pytest.mark.parametrize("folds", [False, True])
def test_protocols_tell_tones_apart(tones, protocol, folds):
    root = tones(n_per_class=20, folds=folds)
    status, rows = lineval(root, f"--protocol={protocol}", *(FAST if protocol != "fewshot" else []))
    assert status == cli.DONE and len(rows) == load_protocol_config(protocol).seeds
    # A network keeps of its random start what the clips say nothing of; with so few clips that costs some.
    assert np.mean([row.score for row in rows]) >= (0.75 if protocol == "evar" else 0.9)
    for row in rows:
        assert row.protocol.startswith(protocol)
        if folds:
            assert ("1/10 of" if protocol == "evar" else "1/5 of") in row.params["validation"]


@pytest.mark.parametrize("protocol", ["evar", "mlp"])
def test_shuffled_labels_give_chance(tones, protocol):
    root = tones(n_per_class=60, folds=True, shuffled=True)
    _, (row,) = lineval(root, f"--protocol={protocol}", "--seeds=1", *FAST)
    assert abs(row.score - 1 / 3) < 4 * np.sqrt(2 / 9 / 180)


def test_layers_and_seeds_are_trained_together_and_give_the_rows_of_one_by_one(tones, monkeypatch):
    root = tones(n_per_class=20)
    _, together = lineval(root, "--protocol=evar", "--layers=all", *FAST)
    assert len(together) == 6
    monkeypatch.setattr("evar.lineval.fit.BYTES_TOGETHER", 1)
    run(["lineval", "toy", "tones", "--protocol=evar", "--layers=all", *FAST, f"--out={root / 'alone'}"])
    assert {row.id: row.score for row in together} == {row.id: row.score for row in results.load_all(root / "alone")}


def test_training_clips_are_cropped_at_random_and_test_clips_at_the_head(tones, monkeypatch, capsys):
    import yaml

    root = tones(folds=True, n_per_class=18)
    path = root / "config" / "tasks" / "tones.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "clip_seconds": 0.25}))
    from toy import Bands

    lineval(root, "--protocol=linear")
    assert sum(Bands.calls) == 54
    capsys.readouterr()
    lineval(root, "--protocol=evar", "--seeds=2", *FAST, "--dry_run")
    assert (
        "0 of 54 clips to encode and 108 random windows of training and validation clips, 27 s"
        in capsys.readouterr().out
    )
    Bands.calls.clear()
    _, rows = lineval(root, "--protocol=evar", "--seeds=2", *FAST)
    assert sum(Bands.calls) == 108  # a random window of every clip for each seed; the heads are there
    cropped = [row for row in rows if row.protocol.startswith("evar")]
    assert len(cropped) == 2 and all("test clips at the head" in row.extraction["crop"] for row in cropped)
    Bands.calls.clear()
    lineval(root, "--protocol=evar", "--seeds=2", "--learning_rate=0.01")
    assert not Bands.calls


def test_the_vectors_of_a_role_are_those_of_its_windows(tones):
    import yaml

    from evar.data.task import load_task
    from evar.encoders import load_encoder
    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection
    from evar.experiment.spec import CellSpec, Resources
    from evar.lineval.cell_features import encode_cell
    from evar.storage.feature_store import FeatureStore

    root = tones(folds=True, n_per_class=18)
    path = root / "config" / "tasks" / "tones.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "clip_seconds": 0.25}))
    task, encoder = load_task("tones"), load_encoder("toy")
    cell = Cell(encoder, task, CellSpec("toy", "tones", load_protocol_config("evar"), "evar"))
    vectors = encode_cell(cell, FeatureStore(root / "other"), Resources(), {0})
    rounds = task.rounds(0)
    found = vectors.read_rounds(Selection(("bands",), "none"), 0, [r.train for r in rounds], [r.valid for r in rounds])
    head = vectors.layer("bands", None)
    for a_round, features in zip(rounds, found, strict=True):
        fitted = np.concatenate([a_round.train, a_round.valid])
        assert np.array_equal(features[a_round.test], head[a_round.test])
        assert not np.any(np.all(features[fitted] == head[fitted], axis=1))


def test_a_learning_rate_makes_a_protocol_of_its_own(tones):
    ask = {"encoders": ("toy",), "tasks": ("tones",)}
    given = choose_protocol(Settings(**ask, protocol="evar", learning_rate="0.01"))
    assert given.name == "evar (learning_rate=0.01)" and given.params["learning_rates"] == [0.01]
    searched = choose_protocol(Settings(**ask, protocol="evar", learning_rate="search"))
    assert len(searched.params["learning_rates"]) == 6 and "search" in searched.name
    for protocol, rate, said in (
        ("linear", "0.1", "has no learning rate"),
        ("evar", "fast", "number above 0 or search"),
    ):
        with pytest.raises(ValueError, match=said):
            choose_protocol(Settings(**ask, protocol=protocol, learning_rate=rate))


def test_a_trained_row_runs_again(tones, capsys):
    root = tones(n_per_class=20)
    _, rows = lineval(root, "--protocol=evar", "--seeds=2", *FAST)
    for row in rows:
        assert run(["rerun", str(root / "results" / "runs" / f"{row.id}.json")]) == cli.DONE
    assert "0 of 15 predictions changed" in capsys.readouterr().out


def test_the_weighted_protocol_sums_all_layers(tones):
    root = tones(n_per_class=20)
    status = run(["lineval", "toy_twins", "tones", "--protocol=weighted", f"--out={root / 'results'}"])
    (row,) = results.load_all(root / "results")
    assert (
        status == cli.DONE and row.fusion == "weighted" and list(row.layers) == ["deaf", "bands"] and row.score >= 0.9
    )
    with pytest.raises(ValueError, match="protocol weighted has fusion weighted"):
        from evar.experiment.request import parse_request

        parse_request("toy_twins", "tones", protocol="weighted", fusion="concat", layers="all")


def test_the_hear_protocol_tries_eight_of_sixteen():
    protocol = load_protocol_config("hear")
    probe = NetworkProbe(**protocol.params)
    combinations = probe._list_combinations()
    assert len(combinations) == 8 == len({tuple(map(str, one.values())) for one in combinations})
    small = {**protocol.params, "hiddens": [[8], [8, 8]], "max_epochs": 20, "learning_rates": [1e-2, 1e-3]}
    fitting, (X, y) = clips(signal=2.0)
    assert NetworkProbe(**small).fit(*fitting).score(X, y) > 0.8


def test_processes_side_by_side_train_the_same_rows(tones):
    root = tones(n_per_class=12)
    words = ["lineval", "toy,toy_twins", "tones", "--protocol=evar", "--seeds=2", *FAST]
    assert run([*words, f"--out={root / 'one'}"]) == cli.DONE
    assert run([*words, "--jobs=2", f"--out={root / 'two'}"]) == cli.DONE
    scores = [{row.id: row.score for row in results.load_all(root / name)} for name in ("one", "two")]
    assert scores[0] == scores[1] and len(scores[0]) == 4
