"""How ranks move between protocols: planted orders, ties, few encoders, and what keeps rows from being compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evar import results
from evar.report import describe_rank_moves
from evar.report.protocol_ranks import describe_task, find_ranks, write_ranks
from evar.results import Result

N = 200


def write_row(
    out: Path, encoder: str, protocol: str, n_right: int, *, task: str = "planted", seed: int = 0, clip: str = "{}.wav"
) -> None:
    """Write a row of which the first clips are right; `clip` is how their paths are made of their numbers."""
    score = n_right / N
    row = Result(
        encoder=encoder,
        layers=["last"],
        pooling={"last": "mean"},
        score=score,
        round_scores=[score],
        task=task,
        protocol=protocol,
        seed=seed,
        n_test=N,
        weights="none",
        weights_sha256="none",
        fusion="none",
        task_version="1",
        metric="accuracy",
        params={},
        n_train=10,
        n_valid=0,
        skipped=[],
        seconds=1.0,
        versions={},
        default=True,
        created="2026-01-31T12:00:00+00:00",
        n_classes=2,
    )
    right = np.arange(N) < n_right
    named = {"clip": [clip.format(at) for at in range(N)], "round": [0] * N, "group": [str(at) for at in range(N)]}
    results.save_predictions(out, row.id, **named, y_true=[1] * N, y_pred=right.astype(int))
    results.save(row, out)


def write_grid(out: Path, orders: dict[str, str], task: str = "planted") -> None:
    """Write rows of encoders named by letters, the best first, each 30 clips behind the one before."""
    for protocol, order in orders.items():
        for place, encoder in enumerate(order):
            write_row(out, encoder, protocol, 180 - 30 * place, task=task)


def test_planted_orders_have_the_tau_that_they_were_planted_with(tmp_path):
    write_grid(tmp_path, {"linear": "abcd", "knn": "abcd", "mteb": "dcba", "hear": "bacd"})
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    taus = {(one.first, one.second): one.tau for one in task.correlations}
    assert taus["knn", "linear"] == 1 and taus["linear", "mteb"] == -1
    assert taus["hear", "linear"] == pytest.approx(2 / 3)  # one of six pairs is exchanged
    assert task.ranks["a"] == (2.0, 1.0, 1.0, 4.0) and task.protocols == ("hear", "knn", "linear", "mteb")
    for one in task.correlations:  # 30 of 200 clips are far beyond chance, so no sample changes an order
        assert one.interval == pytest.approx((one.tau, one.tau))
    assert "differ most are" in describe_task(task)[0] and "-1.00" in describe_task(task)[0]


def test_the_interval_is_wide_where_encoders_are_close(tmp_path):
    for protocol in ("linear", "knn"):
        for encoder, n_right in zip("abcd", (120, 119, 118, 60), strict=True):
            write_row(tmp_path, encoder, protocol, n_right + (encoder == "c" and protocol == "knn"))
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    (one,) = task.correlations
    assert one.interval[0] < one.tau <= one.interval[1] and one.interval[0] < 0.9


def test_seeds_are_averaged_and_tasks_are_joined(tmp_path):
    for task in ("first", "second"):
        write_grid(tmp_path, {"linear": "abc", "knn": "abc" if task == "first" else "cba"}, task)
    write_row(tmp_path, "a", "linear", 160, task="first", seed=1)
    tasks = find_ranks(results.load_all(tmp_path), tmp_path)
    assert [task.title for task in tasks] == ["first", "second", "mean over 2 tasks"]
    assert tasks[0].scores["a"][1] == pytest.approx(0.85)
    assert [task.correlations[0].tau for task in tasks] == [1, -1, 0]
    assert tasks[2].ranks["a"] == (2.0, 1.0)
    assert [path.name for path in write_ranks(tasks, tmp_path)] == ["protocol_ranks.md", "protocol_ranks.csv"]
    assert "mean over 2 tasks" in (tmp_path / "protocol_ranks.md").read_text()
    assert "tau,second,,knn,linear,,,-1.0,-1.0,-1.0" in (tmp_path / "protocol_ranks.csv").read_text()


def test_what_cannot_be_compared_is_said(tmp_path):
    write_grid(tmp_path, {"linear": "abc", "knn": "ab"})
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    assert describe_task(task) == [
        "There are 2 encoders; a correlation of ranks needs at least 3.",
        "Left out, since a protocol has no row of them: c.",
    ]
    write_grid(tmp_path, {"knn": "abc"})
    (path,) = (tmp_path / "predictions").glob("b__last__planted__knn*")
    path.unlink()
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    assert task.correlations[0].interval is None and "No interval" in " ".join(describe_task(task))
    only = tmp_path / "one"
    write_grid(only, {"linear": "abc"})
    assert find_ranks(results.load_all(only), only) == []
    assert "cannot be compared" in describe_rank_moves(only)


def test_a_protocol_of_other_clips_costs_no_other_pair_its_interval(tmp_path):
    write_grid(tmp_path, {"linear": "abcd", "knn": "bacd", "mteb": "dcba"})
    alone = find_ranks(results.load_all(tmp_path), tmp_path)[0].correlations
    for place, encoder in enumerate("abcd"):
        write_row(tmp_path, encoder, "pairs", 180 - 30 * place, clip="{0}.wav\t{0}_again.wav")
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    found = {(one.first, one.second): one for one in task.correlations}
    assert len(found) == 6 and all(found[one.first, one.second] == one and one.interval for one in alone)
    of_pairs = {names: one for names, one in found.items() if "pairs" in names}
    assert [one.interval for one in of_pairs.values()] == [None] * 3 and of_pairs["linear", "pairs"].tau == 1
    said = [text for text in describe_task(task) if text.startswith("No interval")]
    assert said == [
        "No interval for knn with pairs, linear with pairs, mteb with pairs: predictions are missing, or not all rows were "
        "tested on the same clips, or these are a single group."
    ]


def test_scores_that_all_tie_are_the_reason_why_there_is_no_tau(tmp_path):
    """Every row is here and was tested on the same clips: neither is said to be the reason."""
    write_grid(tmp_path, {"linear": "abc", "hear": "abc"})
    for encoder in "abc":
        write_row(tmp_path, encoder, "knn", 100)
    (task,) = find_ranks(results.load_all(tmp_path), tmp_path)
    assert [one.tau for one in task.correlations] == [None, 1, None]
    text = " ".join(describe_task(task))
    assert (
        "No tau-b for hear with knn, knn with linear: one of the two protocols gives all encoders the same score"
        in text
    )
    assert "No interval" not in text and "missing" not in text and "All 3 protocols" not in text
    (path,) = (tmp_path / "predictions").glob("b__last__planted__linear*")
    path.unlink()
    text = " ".join(describe_task(find_ranks(results.load_all(tmp_path), tmp_path)[0]))
    assert "No tau-b for hear with knn" in text and "No interval for hear with linear: predictions are missing" in text
