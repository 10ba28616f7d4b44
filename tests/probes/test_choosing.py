"""The one place that decides by validation score: in the metric's direction, with ties settled, and when to stop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evar.probes.choosing import (
    BestEpoch,
    choose_best,
    choose_setting,
    count_always_tried,
    is_getting_worse,
    is_improvement,
    rank_candidates,
)
from evar.probes.events import EventsProbe
from evar.probes.network import NetworkProbe


def test_the_best_score_wins_then_the_loss_then_the_simpler_setting_then_the_first():
    assert choose_setting("accuracy", [0.8, 0.9, 0.7]) == 1
    assert choose_setting("mean_absolute_error", [0.8, 0.9, 0.7]) == 2
    assert choose_setting("accuracy", [0.9, 0.9, 0.9], [0.5, 0.4, 0.4], [1, 3, 2]) == 2
    assert choose_setting("accuracy", [0.9, 0.9], [0.5, 0.5], [1, 1]) == 0
    assert rank_candidates([0.1, 0.3, 0.3], [0, 2, 1]) == [2, 1, 0]
    with pytest.raises(ValueError, match="empty"):
        choose_best([])


def test_trying_stops_where_both_score_and_loss_are_worse_than_the_best_before():
    assert not is_getting_worse("accuracy", [0.8], [0.5])
    assert is_getting_worse("accuracy", [0.8, 0.7], [0.5, 0.6])
    assert not is_getting_worse("accuracy", [0.8, 0.8], [0.5, 0.6])
    assert not is_getting_worse("accuracy", [0.8, 0.7], [0.5, 0.4])
    assert is_getting_worse("mean_absolute_error", [1.0, 2.0], [0.5, 0.6])
    assert not is_getting_worse("mean_absolute_error", [2.0, 1.0], [0.5, 0.6])
    assert [count_always_tried(n) for n in (1, 5, 8)] == [2, 4, 6]


@pytest.mark.parametrize(("ties", "kept"), [("first", 1), ("last", 3), ("loss", 2)])
def test_equal_epochs_are_settled_as_asked(ties, kept):
    best = BestEpoch("accuracy", ties)
    for epoch, loss in enumerate([0.5, 0.3, 0.4], start=1):
        best.take(0.8, loss, epoch)
    assert best.epoch == kept


def test_the_first_epoch_is_the_best_even_if_it_diverged_and_a_finite_one_replaces_it():
    for metric, worst, better in (("accuracy", -math.inf, 0.1), ("mean_absolute_error", math.inf, 9.0)):
        best = BestEpoch(metric)
        assert best.take(worst, math.inf, 1) and best.take(better, 1.0, 2) and not best.take(worst, math.inf, 3)
        assert best.epoch == 2 and best.n_without == 1
        assert not is_improvement(metric, worst, math.inf, better, 1.0, "last")


def test_a_network_that_diverges_is_never_chosen_by_an_error_metric():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3)).astype(np.float32)
    y = X[:, 0] + 0.1 * rng.normal(size=60)
    probe = NetworkProbe(learning_rates=(1e-2, 1e38), metric="mean_absolute_error", max_epochs=5, standardise=False)
    probe.fit(X[:40], y[:40], X[40:], y[40:])
    assert probe.chosen_["learning_rate"] == 1e-2 and math.isfinite(probe.valid_score_)


def test_events_are_chosen_by_the_lower_error():
    from evar.numeric.frames import FramesInMemory

    rng = np.random.default_rng(0)
    active = rng.random((30, 20)) < 0.4
    clips = [np.stack([own + 0.1 * rng.normal(size=20), rng.normal(size=20)], axis=1) for own in active]
    events = np.empty(30, object)
    for at, own in enumerate(active):
        edges = np.diff(np.pad(own.astype(int), 1))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        events[at] = np.stack([np.zeros(len(starts)), starts * 0.1, ends * 0.1], axis=1)
    frames = FramesInMemory({"l": clips}, {"l": 0.1})
    train, valid = np.arange(20), np.arange(20, 30)
    probe = EventsProbe((1e-6, 1.0), 0.0, (0.0, 5.0), metric="segment_error_rate")
    probe.fit(frames[train], events[train], frames[valid], events[valid])
    assert probe.valid_score_ == min(probe.valid_scores_) < 0.5 and probe.chosen_ == {"least_seconds": 0.0}
