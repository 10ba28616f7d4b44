"""Fusion search: finds what is planted, reads no test label, costs no encode, and becomes an encoder."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import RidgeClassifier
from sklearn.preprocessing import StandardScaler
from toy import Bands

from evar import cli, embed, evaluate, load_encoder, results
from evar.cli import run
from evar.lineval.ranker import Layers, Ranker, SearchRound
from evar.lineval.search import objectives, search
from evar.probes.linear import LinearProbe

N_LAYERS, WIDTH = 7, 16


def planted(
    task: str, knowing: Sequence[int], seed: int, *, is_fold: bool = False, name: str = "split", strength: float = 2.5
) -> SearchRound:
    """A round of 4 classes that only some layers tell; of several, each tells a part."""
    rng = np.random.default_rng(seed)
    y = np.arange(240) % 4
    layers = [rng.normal(size=(240, WIDTH)).astype(np.float32) for _ in range(N_LAYERS)]
    for at, layer in enumerate(knowing):
        told = y % 2 if len(knowing) > 1 and at == 0 else y // 2 if len(knowing) > 1 else y
        layers[layer] += strength * np.eye(WIDTH, dtype=np.float32)[told]
    return SearchRound(task, name, is_fold, y[:160], y[160:], lambda at: (layers[at][:160], layers[at][160:]))


def probing_of(rounds: Sequence[SearchRound]):
    def probing(candidates: Sequence[tuple[Layers, int]]):
        for candidate, index in candidates:
            parts = [rounds[index].layer(at) for at in candidate]
            train, valid = (np.concatenate([part[which] for part in parts], axis=1) for which in (0, 1))
            probe = LinearProbe(refit="train").fit(train, rounds[index].y_train, valid, rounds[index].y_valid)
            yield probe.valid_score_, probe.valid_log_loss_

    return probing


def searched(rounds: Sequence[SearchRound], **options):
    return search(rounds, N_LAYERS, probing_of(rounds), **options)


@pytest.mark.parametrize("objective", ["mean_score", "mean_rank"])
def test_two_tasks_that_two_layers_tell_choose_these_two(objective: str) -> None:
    found = searched([planted("a", [2], 0), planted("b", [5], 1)], objective=objective)
    assert found.choice == (2, 5) == found.choices[0] == found.choices[1]
    n_pairs = N_LAYERS * (N_LAYERS - 1) // 2
    assert len([layers for layers in found.ranked if len(layers) == 1]) == N_LAYERS
    assert len([layers for layers in found.ranked if len(layers) == 2]) == n_pairs
    assert any(len(layers) == 3 for layers in found.ranked)


def test_one_layer_that_tells_all_is_chosen_alone() -> None:
    assert searched([planted("a", [3], 0), planted("b", [3], 1)]).choice == (3,)


def test_three_layers_that_tell_a_part_each_are_grown_to() -> None:
    rounds = [planted("a", [1], 0), planted("b", [4], 1), planted("c", [6], 2)]
    assert searched(rounds).choice == (1, 4, 6)
    assert len(searched(rounds, max_layers=2).choice) == 2


def test_a_layer_pair_that_is_needed_for_one_task_is_found() -> None:
    assert searched([planted("a", [0, 6], 3, strength=6.0)]).choice == (0, 6)


def test_the_cheap_ranker_agrees_with_the_full_search() -> None:
    rounds = [planted("a", [2], 0, strength=1.0), planted("b", [5], 1, strength=1.2), planted("c", [1, 4], 2)]
    found = searched(rounds)
    every = [layers for size in (1, 2) for layers in itertools.combinations(range(N_LAYERS), size)]
    probing = probing_of(rounds)
    scores = [score for score, _ in probing([(layers, index) for index in range(len(rounds)) for layers in every])]
    full = np.reshape(scores, (len(rounds), -1)).mean(axis=0)
    ranked = np.array([found.ranked[layers].mean() for layers in every])
    from scipy.stats import spearmanr

    assert spearmanr(full, ranked).statistic > 0.9
    assert every[int(full.argmax())] in sorted(every, key=lambda layers: -found.ranked[layers].mean())[:6]


@pytest.mark.parametrize("n_train", [160, 60])  # 60 are fewer than all layers have components
def test_ranker_is_ridge_classification(n_train: int) -> None:
    full = planted("a", [2], 0, strength=1.0)

    def layer(at: int):
        train, valid = full.layer(at)
        return train[:n_train], valid

    a_round = SearchRound("a", "split", False, full.y_train[:n_train], full.y_valid, layer)
    ranker = Ranker(a_round, N_LAYERS)
    for layers in ((2,), (2, 5), (0, 1, 3), tuple(range(N_LAYERS))):
        parts = [a_round.layer(at) for at in layers]
        scalers = [StandardScaler().fit(train.astype(float)) for train, _ in parts]
        train, valid = (
            np.concatenate([s.transform(p[which].astype(float)) for s, p in zip(scalers, parts, strict=True)], axis=1)
            for which in (0, 1)
        )
        scores = []
        for penalty in (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0):
            reference = RidgeClassifier(alpha=penalty * n_train).fit(train, a_round.y_train)
            scores.append(reference.score(valid, a_round.y_valid))
        assert ranker.score(layers) == pytest.approx(max(scores))


def test_a_constant_layer_harms_nothing() -> None:
    a_round = planted("a", [2], 0)
    flat = (np.ones((160, 3), np.float32), np.ones((80, 3), np.float32))
    with_flat = SearchRound(
        "a", "split", False, a_round.y_train, a_round.y_valid, lambda at: flat if at == 0 else a_round.layer(at)
    )
    ranker = Ranker(with_flat, N_LAYERS)
    assert ranker.score((0,)) == pytest.approx(0.25) and ranker.score((0, 2)) == ranker.score((2,)) > 0.9


def test_a_fold_does_not_see_the_rounds_that_validate_on_its_test_clips() -> None:
    """Of three folds one tells another layer: each fold's choice follows its own validation clips."""
    rounds = [
        planted("f", [1], 0, is_fold=True, name="fold 1"),
        planted("f", [1], 1, is_fold=True, name="fold 2"),
        planted("f", [4], 2, is_fold=True, name="fold 3"),
        planted("g", [2], 3),
    ]
    found = searched(rounds, max_layers=2)
    assert found.choices[0] == found.choices[1] == (1, 2)
    assert found.choices[2] == (2, 4)
    assert found.choices[3] == found.choice == (1, 2)


def test_objectives_count_tasks_alike() -> None:
    rounds = [planted("f", [1], 0, is_fold=True, name=str(at)) for at in range(3)] + [planted("g", [2], 3)]
    scores = {(0,): np.array([0.9, 0.6, 0.3, 0.2]), (1,): np.array([0.1, 0.1, 0.1, 0.8])}
    assert objectives(scores, rounds, None, "mean_score") == pytest.approx({(0,): 0.4, (1,): 0.45})
    assert objectives(scores, rounds, 0, "mean_score") == pytest.approx({(0,): 0.55, (1,): 0.45})
    assert objectives(scores, rounds, None, "mean_rank") == pytest.approx({(0,): -1.5, (1,): -1.5})


@pytest.mark.parametrize(
    ("n_rounds", "n_layers", "objective", "said"),
    [
        (0, 3, "mean_score", "at least one round"),
        (1, 1, "mean_score", "2 layers"),
        (1, 3, "mean", "no objective 'mean'"),
    ],
)
def test_what_cannot_be_searched_is_told(n_rounds: int, n_layers: int, objective: str, said: str) -> None:
    rounds = [planted("a", [0], 0)] * n_rounds
    with pytest.raises(ValueError, match=said):
        search(rounds, n_layers, probing_of(rounds), objective=objective)


def lineval(root: Path, *words: str, encoder: str = "toy") -> int:
    return run(["lineval", encoder, "tones", "--fusion=search", *words, f"--out={root / 'results'}"])


def record(root: Path) -> results.SearchRecord:
    (found,) = results.load_searches(root / "results")
    return found


def test_a_search_costs_no_encode_and_is_not_repeated(tones, capsys):
    root = tones(folds=True)
    assert lineval(root) == cli.DONE
    assert sum(Bands.calls) == 36
    first = record(root)
    assert first.n_ranked == 3 and set(map(tuple, first.choices["tones"])) <= {
        ("level",),
        ("bands",),
        ("level", "bands"),
    }
    assert "3 combinations of 2 layers ranked" in capsys.readouterr().out
    (path,) = (root / "results" / "searches").iterdir()
    written = path.stat().st_mtime_ns
    assert lineval(root) == cli.DONE
    assert path.stat().st_mtime_ns == written and sum(Bands.calls) == 36
    assert "0 of them new; 0 clips encoded" in capsys.readouterr().out
    path.write_text("{")
    assert lineval(root) == cli.DONE
    assert record(root).choices == first.choices


def poisoned(root: Path, part: str) -> None:
    """Give every clip of one split or fold the next label."""
    path = root / "config" / "tasks" / "tones.csv"
    rows = list(csv.DictReader(path.open()))
    column = "fold" if "fold" in rows[0] else "split"
    after = {"low": "middle", "middle": "high", "high": "low"}
    for row in rows:
        if row[column] == part:
            row["label"] = after[row["label"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_poisoned_test_labels_change_no_choice(tones):
    root = tones(n_per_class=24)
    assert lineval(root) == cli.DONE
    before = record(root)
    poisoned(root, "test")
    (root / "results").rename(root / "before")
    assert lineval(root) == cli.DONE
    after = record(root)
    assert after.id != before.id  # the index is another
    assert (after.ranked, after.probed, after.choice, after.choices) == (
        before.ranked, before.probed, before.choice, before.choices)  # fmt: skip
    scores = [row.score for row in results.load_all(root / "results") if row.default]
    assert scores and max(scores) < 0.2  # the poison did reach the test clips


def test_poisoned_labels_of_a_fold_do_not_change_the_choice_of_its_round(tones):
    root = tones(n_per_class=24, folds=True)
    assert lineval(root) == cli.DONE
    before = record(root)
    (rounds,) = [task["rounds"] for task in before.tasks]
    poisoned(root, "2")
    (root / "results").rename(root / "before")
    assert lineval(root) == cli.DONE
    after = record(root)
    at = next(number for number, name in enumerate(rounds) if "2" in name)
    assert after.choices["tones"][at] == before.choices["tones"][at]
    own = [[entry["scores"]["tones"][at] for entry in one.ranked] for one in (before, after)]
    others = [[entry["scores"]["tones"][at - 1] for entry in one.ranked] for one in (before, after)]
    assert own[0] == own[1] and others[0] != others[1]


def test_the_choice_becomes_an_encoder_of_the_same_vectors(tones, capsys):
    root = tones()
    assert lineval(root, "--export=general") == cli.DONE
    chosen = record(root).choice
    exported = load_encoder("general")
    assert exported.default_layers == tuple(chosen)
    clip = (0.3 * np.sin(np.arange(4000) / 3)).astype(np.float32)
    fused = embed("toy", clip, layers=list(chosen), fusion="concat")
    assert np.array_equal(embed("general", clip), fused)
    Bands.calls.clear()
    outcome = evaluate("general", "tones", out=str(root / "results"))
    assert not outcome.failures and not Bands.calls  # the features of toy are found
    scores = {
        row.encoder: row.score for row in results.load_all(root / "results") if tuple(row.layers) == tuple(chosen)
    }
    assert scores["general"] == scores["toy"]
    assert lineval(root, "--export=general") == cli.DONE  # again: the same name, replaced


def test_fuse_makes_an_encoder_of_named_layers(tones, capsys):
    root = tones()
    assert run(["fuse", "toy", "level,bands", "--name=both"]) == cli.DONE
    path = root / "config" / "encoders" / "both.yaml"
    assert str(path) in capsys.readouterr().out
    assert yaml.safe_load(path.read_text())["default_layers"] == ["level", "bands"]
    clip = (0.3 * np.sin(np.arange(4000) / 3)).astype(np.float32)
    assert np.array_equal(embed("both", clip), embed("toy", clip, layers="all", fusion="concat"))
    assert run(["fuse", "both", "bands", "--name=one"]) == cli.DONE  # a variant of a variant has the same base
    assert yaml.safe_load((path.parent / "one.yaml").read_text())["base"] == "toy"
    for words, said in (
        (["toy", "bandz", "--name=x"], "did you mean 'bands'?"),
        (["toy", "bands", "--name=toy"], "there is an encoder 'toy' already"),
        (["toy", "bands", "--name=../x"], "must be letters, digits"),
        (["toy", "bands"], "needs --name=NAME"),
        (["toy", "bands,bands", "--name=x"], "named once each"),
    ):
        assert run(["fuse", *words]) == cli.WRONG
        assert said in capsys.readouterr().err


def test_several_encoders_are_exported_by_their_names(tones):
    root = tones()
    assert lineval(root, "--export=general", encoder="toy,toy_fragile") == cli.DONE
    assert load_encoder("toy.general").store_name == "toy"
    assert load_encoder("toy_fragile.general").store_name == "toy_fragile"


def test_an_encoder_of_one_layer_has_nothing_to_fuse(tones, capsys):
    root = tones()
    assert run(["fuse", "toy", "bands", "--name=single"]) == cli.DONE
    assert lineval(root, encoder="logmel") == cli.DONE
    assert "logmel: one layer, nothing to fuse" in capsys.readouterr().out


def test_a_failing_search_is_told_and_rows_stay(tones, capsys, monkeypatch):
    root = tones()
    from evar.lineval import fusion_search

    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(fusion_search, "search", broken)
    assert lineval(root) == cli.SOME_FAILED
    assert "toy x tones fusion search FAILED: RuntimeError: broken on purpose" in capsys.readouterr().out
    assert "broken on purpose" in (root / "results" / "table.md").read_text()
    assert len(results.load_all(root / "results")) == 2
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fusion=serach"], "did you mean 'search'?"),
        (["--export=x", "--layers=all"], "--export names what --fusion=search chooses"),
        (["--fusion=search", "--objective=mean_scores"], "did you mean 'mean_score'?"),
        (["--fusion=search", "--max_layers=0"], "max_layers must be at least 1"),
        (["--fusion=weighted"], "--fusion needs --layers"),
    ],
)
def test_misspelt_flags_are_told(tones, words, said, capsys):
    tones()
    assert run(["lineval", "toy", "tones", *words]) == cli.WRONG
    assert said in capsys.readouterr().err


def test_weighted_and_pca_rows(tones, capsys):
    root = tones(folds=True)
    errors = ""
    for fusion in ("pca", "average", "weighted"):
        status = run(["lineval", "toy", "tones", "--layers=all", f"--fusion={fusion}", f"--out={root / 'results'}"])
        assert status == (cli.DONE if fusion == "pca" else cli.WRONG)  # level is narrower than bands: known beforehand
        errors += capsys.readouterr().err
    (row,) = results.load_all(root / "results")
    assert row.fusion == "pca" and row.width == 16 and row.score > 0.9
    assert "average needs layers of equal width" in errors and "weighted needs layers of equal width" in errors
    assert not results.load_failures(root / "results")


def test_a_weighted_sum_says_what_it_made_of_the_layers(tones, real_pictures):
    root = tones(folds=True)
    assert lineval(root, encoder="toy_twins,toy_peak_twins") == cli.DONE
    rows = [row for row in results.load_all(root / "results") if row.fusion == "weighted"]
    assert [row.encoder for row in rows] == ["toy_peak_twins", "toy_twins"]
    for row in rows:
        weights = row.params["layer_weights"]
        assert len(weights) == 3 and all(sum(one) == pytest.approx(1.0) for one in weights)
        assert all(one[1] > one[0] for one in weights) and row.score > 0.9
        assert row.width == 32 and row.rounds[0]["valid_score"] is not None
    assert "after_pool" in rows[0].flags and "after_pool" not in rows[1].flags
    text = (root / "results" / "fusion.md").read_text()
    assert text.count("weighted sum of all layers") == 2 and "no weighted sum" not in text
    assert (root / "results" / "weights.png").stat().st_size > 10_000
    assert text.count("(after_pool)") == 1 and "toy_peak_twins: the weighted sum is taken after" in text.replace(
        "\\_", "_"
    )
    assert "weighted sum" not in (root / "results" / "table.md").read_text()
    words = ["lineval", "toy_peak_twins", "tones", "--layers=all", "--fusion=average", f"--out={root / 'asked'}"]
    assert run(words) == cli.DONE
    table = (root / "asked" / "table.md").read_text()
    assert "average of deaf+bands" in table and "layers were averaged or weighted after pooling" in table


def test_a_record_that_does_not_hold_together_is_refused(tones):
    root = tones()
    assert lineval(root) == cli.DONE
    (path,) = (root / "results" / "searches").iterdir()
    data = json.loads(path.read_text())
    for change, said in (({"choice": ["conv9"]}, "some of the layers"), ({"colour": 1}, "no key 'colour'")):
        path.write_text(json.dumps({**data, **change}))
        with pytest.raises(ValueError, match=said):
            results.load_search(path)


def test_a_variant_beside_its_base_shows_its_own_feature_only(tones):
    root = tones()
    assert run(["fuse", "toy", "level,bands", "--name=both"]) == cli.DONE
    grid = root / "mine.yaml"
    grid.write_text(
        yaml.safe_dump({"description": "x", "encoders": ["toy", "both"], "tasks": ["gone"], "layers": "all"})
    )
    assert run(["lineval", str(grid), f"--out={root / 'results'}"]) == cli.WRONG
    assert run(["lineval", str(grid), "tones", f"--out={root / 'results'}"]) == cli.DONE
    rows = [(row.encoder, "+".join(row.layers)) for row in results.load_all(root / "results")]
    assert sorted(rows) == [("both", "level+bands"), ("toy", "bands"), ("toy", "level")]
    assert sum(Bands.calls) == 36
    assert run(["lineval", "both", "tones", "--layers=all", f"--out={root / 'alone'}"]) == cli.DONE
    assert len(results.load_all(root / "alone")) == 3


def test_the_grid_of_the_fusion_paper_takes_the_tasks_that_are_there():
    from evar.experiment.request import parse_request

    settings = parse_request("composing_gar", "esc10,fsdd_digit")
    assert settings.layers == "all" and settings.tasks == ("esc10", "fsdd_digit")
    assert {"vggish", "cnn14.16k", "ast"} < set(settings.encoders) and "cnn14.fusion_3_6" in settings.encoders
