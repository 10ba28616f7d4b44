"""Probes as arrays and back: a restored probe predicts the very same numbers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from evar.probes.linear import LinearProbe
from evar.probes.nearest import KNNProbe, PrototypeProbe
from evar.probes.network import NetworkProbe
from evar.probes.saved import restore_probe, save_probe
from evar.probes.weighted_sum import WeightedSumProbe

RNG = np.random.default_rng(3)
Y = np.arange(60) % 3
X = (RNG.normal(size=(60, 6)) + 2 * np.eye(6)[Y]).astype(np.float32)
NUMBERS = (X @ RNG.normal(size=6)).astype(np.float64)
NETWORK = {"learning_rates": (0.01,), "max_epochs": 3, "batch_size": 16}


@pytest.mark.parametrize(
    ("probe", "y"),
    [
        (LinearProbe((1.0,)), Y % 2),
        (PrototypeProbe(), Y),
        (WeightedSumProbe(2, (1.0,)), Y),
        (NetworkProbe(**NETWORK), Y),
        (NetworkProbe(hiddens=((8, 5),), batch_norm=True, dropout=0.1, **NETWORK), Y),
        (NetworkProbe(metric="mean_average_precision", **NETWORK), np.eye(3)[Y]),
        (NetworkProbe(metric="pearson", **NETWORK), 50 + 9 * NUMBERS),
    ],
)
def test_a_restored_probe_predicts_the_same_numbers(probe, y):
    y = y.astype(np.int64) if y.dtype.kind in "iu" or y.ndim == 2 else y
    probe.fit(X[:40], y[:40], X[40:], y[40:])
    restored = restore_probe(save_probe(probe))
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(probe, method) and not (method == "predict_proba" and getattr(probe, "metric", "") == "pearson"):
            assert np.array_equal(getattr(probe, method)(X), getattr(restored, method)(X)), method


def test_other_probes_and_files_that_are_not_whole_are_refused():
    with pytest.raises(ValueError, match="a KNNProbe cannot be saved"):
        save_probe(KNNProbe((1,)).fit(X, Y))
    saved = save_probe(LinearProbe((1.0,)).fit(X, Y))
    with pytest.raises(ValueError, match="too old"):
        restore_probe(dataclasses.replace(saved, kind="forest"))
    with pytest.raises(ValueError, match="'coef_' is missing"):
        restore_probe(dataclasses.replace(saved, arrays={"classes_": saved.arrays["classes_"]}))
