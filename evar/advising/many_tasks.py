"""Advice from several tasks: mean ranks with intervals over the tasks, for a new task or for a whole results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evar.advising.candidates import Facts, collect_facts, make_encoder_key
from evar.advising.features import Feature, FeatureKey, Rows, find_valid_score, fix_feature, group_features
from evar.advising.one_task import Source, choose_rows, find_misfits, make_filter
from evar.advising.verdicts import Verdict, judge, observe_tasks
from evar.advising.wishes import Wishes
from evar.results import Result

#: draws of tasks for the interval of a mean rank
_N_RESAMPLES = 4000


@dataclass(frozen=True)
class RankedCandidate:
    """One encoder over several tasks, read at one feature.

    Attributes:
        facts: licence, cost, size.
        label, key: of the feature that is best on the validation clips of all tasks; "" and None where nothing fits.
        width: numbers that a classifier reads of a clip.
        scores: task -> test score, 0..1.
        rank: mean rank by test scores, 1 the best; None where it is left out.
        rank_low, rank_high: 95 % interval over tasks; None with fewer than three tasks.
        valid_rank: mean rank by validation scores, by which the choice is made.
        misfits: reasons why it is left out.
        verdict: against the choice, over tasks.
    """

    facts: Facts
    label: str
    key: FeatureKey | None
    width: int | None
    scores: Mapping[str, float]
    rank: float | None = None
    rank_low: float | None = None
    rank_high: float | None = None
    valid_rank: float | None = None
    misfits: tuple[str, ...] = ()
    verdict: Verdict | None = None


@dataclass(frozen=True)
class RankedAdvice:
    """What to read over several tasks.

    Attributes:
        tasks: that were ranked, each counted once; those that fewer than half of the encoders have are left out.
        choice: the candidate with the best mean rank on validation clips; None if none fits.
        others: that fit too, by rank.
        left_out: do not fit, or were not measured on all tasks.
        chosen_by: "validation", or "test" where no row tells validation scores.
        wishes: conditions.
    """

    tasks: tuple[str, ...]
    choice: RankedCandidate | None
    others: tuple[RankedCandidate, ...]
    left_out: tuple[RankedCandidate, ...]
    chosen_by: str
    wishes: Wishes

    @property
    def fitting(self) -> tuple[RankedCandidate, ...]:
        """The choice and the others."""
        return (self.choice, *self.others) if self.choice else self.others


def advise_over_tasks(source: Source, tasks: Sequence[str], wishes: Wishes) -> RankedAdvice:
    """Rank encoders over tasks; one feature an encoder, chosen on the validation clips of all of them.

    Args:
        source: rows of the results folder.
        tasks: that count, each once.
        wishes: conditions.

    Raises:
        ValueError: if no task has rows.
    """
    by_encoder: dict[tuple[str, str, str], dict[str, list[Result]]] = {}
    per_task = {task: rows for task in tasks if (rows := choose_rows(source, task))}
    if not per_task:
        raise ValueError(f"no rows of the tasks {', '.join(tasks)} in {source.out}")
    used = choose_shared_tasks(per_task)
    for task in used:
        for row in per_task[task]:
            by_encoder.setdefault(make_encoder_key(row), {}).setdefault(task, []).append(row)
    labels = _label_encoders(list(by_encoder))
    made, features = [], {}
    for key, own in by_encoder.items():
        one, found = _make_candidate(labels[key], own, used, source, wishes)
        made.append(one)
        if found:
            features[labels[key]] = found
    fitting = [one for one in made if not one.misfits]
    left_out = sorted((one for one in made if one.misfits), key=lambda one: one.facts.encoder)
    ranked, by_test = _rank(fitting, features, used)
    judged = _judge_over_tasks(ranked, used, wishes, by_test=by_test)
    return RankedAdvice(
        tuple(used),
        judged[0] if judged else None,
        tuple(sorted(judged[1:], key=lambda one: one.rank or 0.0)),
        tuple(left_out),
        "test" if by_test else "validation",
        wishes,
    )


def choose_shared_tasks(per_task: Mapping[str, Sequence[Result]]) -> list[str]:
    """Choose the tasks that at least half of the encoders were measured on: ranks need encoders that have all of them.

    Args:
        per_task: task -> its rows.

    Returns:
        The tasks, in their order; those of the most encoders where no task has half of them.
    """
    encoders = {task: {make_encoder_key(row) for row in rows if not row.is_random} for task, rows in per_task.items()}
    n_encoders = len(set().union(*encoders.values()))
    least = min(n_encoders / 2, max(map(len, encoders.values())))
    return [task for task, found in encoders.items() if len(found) >= least]


def _label_encoders(keys: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    names = [key[0] for key in keys]
    return {key: key[0] if names.count(key[0]) == 1 else f"{key[0]} (weights {key[1][:8]})" for key in keys}


def _make_candidate(
    label: str, per_task: Mapping[str, Sequence[Result]], tasks: Sequence[str], source: Source, wishes: Wishes
) -> tuple[RankedCandidate, dict[str, Feature]]:
    rows = [row for found in per_task.values() for row in found]
    facts = collect_facts(label, rows, source.costs, source.store)
    missing = [task for task in tasks if task not in per_task]
    grouped = {task: group_features(found) for task, found in per_task.items()}
    misfits = find_misfits(facts, next(iter(grouped.values())), wishes)
    if missing:
        misfits.append(f"it was not measured on {', '.join(missing)}")
    fits = make_filter(facts, wishes)
    common = [
        key
        for key in next(iter(grouped.values()))
        if all(key in features for features in grouped.values())
        and all(fits(next(iter(features[key].values()))) for features in grouped.values())
    ]
    if not common and not misfits:
        misfits.append("no feature of it that fits was measured on all tasks")
    if misfits or not common:
        return RankedCandidate(facts, "", None, None, {}, misfits=tuple(misfits)), {}
    key = choose_common_feature(grouped, common)
    found = {task: fix_feature(features, key, source.out, "validation") for task, features in grouped.items()}
    first = found[tasks[0]]
    scores = {task: found[task].score for task in tasks}
    return RankedCandidate(facts, first.label, key, first.width, scores), found


def choose_common_feature(grouped: Mapping[str, Rows], common: Sequence[FeatureKey]) -> FeatureKey:
    """Choose the feature of an encoder with the best mean rank among its features on the validation clips of all tasks.

    Where a row tells no validation score, the encoder's default is taken, without looking at test scores; without a
    default, the first.

    Args:
        grouped: task -> features of one encoder.
        common: features that all tasks have.
    """
    valid = [[find_valid_score(features[key]) for features in grouped.values()] for key in common]
    if all(score is not None for scores in valid for score in scores):
        ranks = rank_down(np.array(valid, dtype=float))
        return common[int(np.lexsort((-np.mean(np.array(valid, dtype=float), axis=1), ranks.mean(axis=1)))[0])]
    features = next(iter(grouped.values()))
    defaults = [key for key in common if next(iter(features[key].values())).default]
    return (defaults or list(common))[0]


def rank_down(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank rows within each column, 1 the best; ties share the mean of their ranks.

    Args:
        scores: (rows, tasks), larger is better.

    Returns:
        (rows, tasks) ranks.

    Example:
        >>> rank_down(np.array([[0.9, 0.5], [0.8, 0.5]])).tolist()
        [[1.0, 1.5], [2.0, 1.5]]
    """
    from scipy.stats import rankdata

    return np.asarray(rankdata(-np.round(scores, 12), axis=0))


def bootstrap_ranks(ranks: NDArray[np.float64], seed: int = 0) -> NDArray[np.float64]:
    """Compute 95 % intervals of mean ranks over draws of the tasks.

    Args:
        ranks: (rows, tasks).
        seed: of the draws.

    Returns:
        (rows, 2) lower and upper ends.

    Example:
        >>> bootstrap_ranks(np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])).tolist()
        [[1.0, 1.0], [2.0, 2.0]]
    """
    n_tasks = ranks.shape[1]
    counts = np.random.default_rng(seed).multinomial(n_tasks, np.full(n_tasks, 1 / n_tasks), size=_N_RESAMPLES)
    return np.quantile(ranks @ counts.T / n_tasks, [0.025, 0.975], axis=1).T


def _rank(
    fitting: Sequence[RankedCandidate], features: Mapping[str, Mapping[str, Feature]], tasks: Sequence[str]
) -> tuple[list[RankedCandidate], bool]:
    """Return the candidates with their ranks, the choice first, and whether test scores made the choice."""
    from dataclasses import replace

    if not fitting:
        return [], False
    test = np.array([[one.scores[task] for task in tasks] for one in fitting])
    ranks = rank_down(test)
    intervals = bootstrap_ranks(ranks) if len(tasks) > 2 else None
    found = [[features[one.facts.encoder][task].valid_score for task in tasks] for one in fitting]
    by_test = any(score is None for scores in found for score in scores)
    by_validation = ranks if by_test else rank_down(np.array(found, dtype=float))
    made = [
        replace(
            one,
            rank=float(ranks[at].mean()),
            rank_low=None if intervals is None else float(intervals[at, 0]),
            rank_high=None if intervals is None else float(intervals[at, 1]),
            valid_rank=None if by_test else float(by_validation[at].mean()),
        )
        for at, one in enumerate(fitting)
    ]
    means = by_validation.mean(axis=1)
    scores = test.mean(axis=1) if by_test else np.array(found, dtype=float).mean(axis=1)
    order = sorted(range(len(made)), key=lambda at: (means[at], -scores[at]))
    return [made[at] for at in order], by_test


def _judge_over_tasks(
    ranked: Sequence[RankedCandidate], tasks: Sequence[str], wishes: Wishes, *, by_test: bool
) -> list[RankedCandidate]:
    from dataclasses import replace

    if len(ranked) < 2:
        return list(ranked)
    base = [ranked[0].scores[task] for task in tasks]
    observed = [observe_tasks([one.scores[task] for task in tasks], base) for one in ranked[1:]]
    n_pairs = len(ranked) * (len(ranked) - 1) // 2 if by_test else None
    verdicts = judge(observed, wishes.tie, n_pairs=n_pairs)
    return [ranked[0], *(replace(one, verdict=verdict) for one, verdict in zip(ranked[1:], verdicts, strict=True))]
