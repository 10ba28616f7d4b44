"""Features that are read a part at a time give what all of them at once give, to the digits that are promised."""

from __future__ import annotations

import numpy as np
import pytest

from evar import cli, results
from evar.cli import run
from evar.lineval import cell_features as vectors
from evar.numeric import logistic_problem
from evar.numeric import rows as stored_rows
from evar.numeric import streamed as _streamed
from evar.numeric.rows import Rows, RowsInMemory, RowsJoined, standardisation_of
from evar.probes import linear as probes
from evar.probes.linear import LinearProbe
from evar.probes.multilabel import MultilabelProbe
from evar.probes.network import NetworkProbe
from evar.storage import rows_on_disk
from evar.storage.feature_store import FeatureStore
from evar.storage.keys import FeatureKey

N, WIDTH = 600, 30
PARTS = [slice(0, 360), slice(360, 480), slice(480, N)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Many parts, of unequal size at the end."""
    monkeypatch.setattr(stored_rows, "CHUNK_BYTES", 4 * WIDTH * 70)
    monkeypatch.setattr(_streamed, "NUMBERS_AT_ONCE", 2000)
    monkeypatch.setattr(logistic_problem, "NUMBERS_AT_ONCE", 2000)


def clips(kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features, one of them constant, and labels that they tell in part."""
    random = np.random.default_rng(seed)
    X = (random.normal(size=(N, WIDTH)) @ random.normal(size=(WIDTH, WIDTH))).astype(np.float32)
    told = X[:, :5] + 12 * random.normal(size=(N, 5))
    X[:, 7] = 3.0
    if kind == "multilabel":
        return X, (told > 4).astype(int)
    if kind == "regression":
        return X, told[:, 0]
    return X, told.argmax(1) if kind == "several" else (told[:, 0] > 0).astype(int)


def split(X, y, streamed: bool) -> tuple:
    train, valid, _ = PARTS
    rows = [RowsInMemory(X[part]) if streamed else X[part] for part in (train, valid)]
    return rows[0], y[train], rows[1], y[valid]


@pytest.mark.parametrize("refit", ["train", "train_and_valid"])
@pytest.mark.parametrize(
    ("kind", "made"), [("several", LinearProbe), ("two", LinearProbe), ("multilabel", MultilabelProbe)]
)
def test_logistic_regression_in_passes_is_that_in_memory(kind: str, made: type, refit: str, monkeypatch) -> None:
    X, y = clips(kind)
    whole = made(refit=refit).fit(*split(X, y, False))
    streamed = made(refit=refit).fit(*split(X, y, True))
    assert whole.strength_ == streamed.strength_ and streamed.converged_
    assert streamed.predict_proba(X) == pytest.approx(whole.predict_proba(X), abs=1e-5)
    assert streamed.valid_scores_ == pytest.approx(whole.valid_scores_, nan_ok=True)
    assert streamed.valid_log_losses_ == pytest.approx(whole.valid_log_losses_, abs=1e-4, nan_ok=True)
    assert not streamed.coef_[:, 7].any()
    monkeypatch.setattr(probes, "BYTES_IN_MEMORY", 0)  # arrays whose fit would not fit
    monkeypatch.setattr(probes, "principal_coordinates", None)  # nobody calls what needs all at once
    again = made(refit=refit).fit(*split(X, y, False))
    assert np.array_equal(again.coef_, streamed.coef_)


@pytest.mark.parametrize("kind", ["several", "multilabel", "regression"])
def test_networks_on_parts_are_those_in_memory(kind: str) -> None:
    X, y = clips(kind)
    metric = {"several": "accuracy", "multilabel": "mean_average_precision", "regression": "pearson"}[kind]
    settings = {"learning_rates": (0.001, 0.01), "hiddens": ((), (8,)), "dropout": 0.3, "max_epochs": 12, "patience": 3}

    def fitted(streamed: bool) -> list[NetworkProbe]:
        made = [NetworkProbe(**settings, metric=metric, random_state=seed, batch_size=50) for seed in (0, 1)]
        train, *others = split(X, y, streamed)
        fewer = (train[np.arange(200)], others[0][:200], *others[1:])  # another round, of another size
        NetworkProbe.fit_together(made, [split(X, y, streamed), fewer])
        return made

    for whole, streamed in zip(fitted(False), fitted(True), strict=True):
        assert whole.chosen_ == streamed.chosen_
        assert streamed.decision_function(X) == pytest.approx(whole.decision_function(X), abs=1e-4)


def test_moments_in_passes_are_those_of_all() -> None:
    from evar.numeric.axes import standardisation

    X, _ = clips("several")
    for one, other in zip(standardisation_of(RowsInMemory(X)), standardisation(X), strict=True):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    X[500, 3] = np.nan
    with pytest.raises(ValueError, match="first at clip 500"):
        standardisation_of(RowsInMemory(X))


def test_joined_rows_are_read_across_the_seam() -> None:
    X, _ = clips("several")
    joined = RowsJoined(RowsInMemory(X[:100]), RowsInMemory(X[100:]))
    index = np.array([5, 150, 99, 100, 599])
    assert np.array_equal(joined.read(index), X[index])
    for part in (slice(0, 90), slice(90, 200), slice(300, 400), slice(None)):
        assert np.array_equal(joined[part].read(), X[part]) and np.array_equal(np.asarray(joined[part]), X[part])
    assert np.array_equal(np.concatenate([joined.read(part) for part in joined.parts()]), X)
    with pytest.raises(TypeError, match="slice of step 1"):
        joined[index]


def test_rows_of_the_store_are_what_it_loads(tmp_path) -> None:
    store = FeatureStore(tmp_path)
    key = FeatureKey("toy", "none", {}, 1, None, 8000, "none", None, "none", "head", 0, {"a": "2 mean", "b": "3 mean"})
    random = np.random.default_rng(0)
    for names in (["p", "q", "r"], ["s", "t"]):
        with store.writing(key) as writer:
            values = {name: random.normal(size=(len(names), n)).astype(np.float32) for name, n in (("a", 2), ("b", 3))}
            writer.append(names, values)
    asked = ["t", "q", "s", "p", "q"]
    rows = store.on_disk(key, asked, ["b", "a"])
    expected = np.concatenate([store.load(key, asked, "b"), store.load(key, asked, "a")], axis=1)
    assert rows.shape == (5, 5) and np.array_equal(rows.read(), expected)
    assert np.array_equal(rows[np.array([3, 0])].read(slice(0, 1)), expected[[3]])
    assert np.isnan(store.on_disk(key, ["p", None], ["a"]).read()[1]).all()
    with pytest.raises(KeyError):
        store.on_disk(key, ["nowhere"], ["a"])


@pytest.mark.parametrize("protocol", ["linear", "mlp", "evar", "knn"])
def test_rows_of_a_table_do_not_depend_on_where_features_are(tones, protocol, monkeypatch) -> None:
    root = tones(n_per_class=24, folds=True)
    words = ["lineval", "toy", "tones", "--layers=all", f"--protocol={protocol}", "--seeds=1"]
    assert run([*words, f"--out={root / 'whole'}"]) == cli.DONE
    monkeypatch.setattr(vectors, "BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(stored_rows, "CHUNK_BYTES", 4 * 16 * 7)
    seen: list[int] = []
    read = rows_on_disk.RowsOnDisk.read

    def counted(self: Rows, rows=slice(None)) -> np.ndarray:
        found = read(self, rows)
        seen.append(len(found))
        return found

    monkeypatch.setattr(rows_on_disk.RowsOnDisk, "read", counted)
    assert run([*words, f"--out={root / 'parts'}"]) == cli.DONE
    assert seen and (protocol == "knn" or max(seen) <= 200)
    old, new = ({row.id: row for row in results.load_all(root / folder)} for folder in ("whole", "parts"))
    assert old.keys() == new.keys() and len(old) == 2
    for name, row in old.items():
        assert new[name].round_scores == row.round_scores
        one, other = (results.load_predictions(root / folder, name)["y_pred"] for folder in ("whole", "parts"))
        assert np.array_equal(one, other)
