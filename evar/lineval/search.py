"""Fusion search: which layers of an encoder, side by side, serve the given tasks best, chosen on validation clips alone.

Candidates are all single layers, all pairs, and larger sets grown greedily from the best pair. A cheap ranker scores them
all: every layer is standardised over the training clips and projected onto its first principal components, and a ridge
classifier on any set of layers is then solved from blocks of one matrix of inner products, whatever the number of clips.
The protocol's own probe scores the finalists, and the best of them is the choice. Nothing is encoded, and no test clip is
read: the functions here get the training and validation clips only.

In a task with folds the validation clips of one round are test clips of another. So each of its rounds has a choice of its
own, for which the task's other rounds are left out; only the choice over everything, which is exported, uses them all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evar.config.registry import near_miss
from evar.lineval.ranker import MAX_LAYERS, Layers, Ranker, SearchRound
from evar.probes.choosing import choose_best, rank_candidates

N_FINALISTS = 6


OBJECTIVES = ("mean_score", "mean_rank")


@dataclass
class Search:
    """Candidates and choice of a search.

    Attributes:
        ranked: candidate -> (rounds,) the ranker's validation scores.
        probed: finalist -> (rounds,) the probe's validation scores.
        log_losses: finalist -> (rounds,) the probe's validation log-losses.
        choice: the best over everything.
        choices: for each round, the best as far as that round may know.
    """

    ranked: dict[Layers, NDArray[np.float64]] = field(default_factory=dict)
    probed: dict[Layers, NDArray[np.float64]] = field(default_factory=dict)
    log_losses: dict[Layers, NDArray[np.float64]] = field(default_factory=dict)
    choice: Layers = ()
    choices: list[Layers] = field(default_factory=list)


#: candidates, each with the number of a round -> validation score and log-loss of each, in their order
Probing = Callable[[Sequence[tuple[Layers, int]]], Iterable[tuple[float, float]]]


def search(
    rounds: Sequence[SearchRound],
    n_layers: int,
    probing: Probing,
    *,
    objective: str = "mean_score",
    max_layers: int = MAX_LAYERS,
    n_finalists: int = N_FINALISTS,
    progress: Callable[[int, str], None] = lambda done, what: None,
) -> Search:
    """Search for the layers that serve all rounds of all tasks.

    Args:
        rounds: of all tasks; every task has the same weight, independent of its number of rounds.
        n_layers: how many layers there are, at least 2.
        probing: the protocol's probe; called once, for every finalist in every round.
        objective: "mean_score" (mean over tasks of the validation score) or "mean_rank" (of the place among the
            candidates).
        max_layers: largest set that is tried.
        n_finalists: candidates that the probe scores, for each choice to be made.
        progress: called with how many steps of the work are done.

    Returns:
        Everything tried, and the choices.

    Raises:
        ValueError: if there are no rounds, fewer than 2 layers, or the objective is unknown.
    """
    if not rounds or n_layers < 2:
        raise ValueError(f"a fusion search needs at least one round and 2 layers, got {len(rounds)} and {n_layers}")
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r}; {near_miss(objective, OBJECTIVES)}")
    found = Search()
    rankers = []
    for number, a_round in enumerate(rounds):
        rankers.append(Ranker(a_round, n_layers))
        progress(number + 1, "ranker")

    def rank(candidates: Iterable[Layers]) -> None:
        for layers in candidates:
            if layers not in found.ranked:
                found.ranked[layers] = np.array([ranker.score(layers) for ranker in rankers])

    rank((layer,) for layer in range(n_layers))
    rank(itertools.combinations(range(n_layers), 2))
    views = [None, *(index for index, a_round in enumerate(rounds) if a_round.is_fold)]
    for view in views:
        _grow(found, rank, rounds, view, objective, n_layers, max_layers)
    progress(len(rounds), "ranked")
    finalists = {view: _rank_candidates(found.ranked, rounds, view, objective)[:n_finalists] for view in views}
    _probe_finalists(
        found, sorted(set(itertools.chain.from_iterable(finalists.values()))), len(rounds), probing, progress
    )
    chosen = {view: _choose(found, finalists[view], rounds, view, objective) for view in views}
    found.choice = chosen[None]
    found.choices = [chosen[index] if a_round.is_fold else chosen[None] for index, a_round in enumerate(rounds)]
    return found


def _probe_finalists(
    found: Search, finalists: Sequence[Layers], n_rounds: int, probing: Probing, progress: Callable[[int, str], None]
) -> None:
    """Score every finalist in every round by the protocol's probe, and keep the scores."""
    probed = []
    for score, log_loss in probing([(layers, index) for index in range(n_rounds) for layers in finalists]):
        probed.append((score, log_loss))
        progress(len(probed) // len(finalists), "finalists")
    columns = np.array(probed).reshape(n_rounds, len(finalists), 2)
    for at, layers in enumerate(finalists):
        found.probed[layers], found.log_losses[layers] = columns[:, at].T.copy()


def objectives(
    scores: dict[Layers, NDArray[np.float64]], rounds: Sequence[SearchRound], view: int | None, objective: str
) -> dict[Layers, float]:
    """Compute the value that is maximised: one number for each candidate.

    Args:
        scores: candidate -> (rounds,) scores or negative losses; higher is better.
        rounds: of all tasks.
        view: a round of a fold task, of which task then only this round counts; None: every round counts.
        objective: as for `search`.
    """
    tasks = list(dict.fromkeys(a_round.task for a_round in rounds))
    columns = []
    for task in tasks:
        own = [index for index, a_round in enumerate(rounds) if a_round.task == task]
        columns.append([view] if view in own else own)
    candidates = list(scores)
    of_tasks = np.array([[scores[layers][own].mean() for own in columns] for layers in candidates])
    if objective == "mean_rank":
        from scipy.stats import rankdata

        of_tasks = -np.stack([rankdata(-column) for column in of_tasks.T], axis=1)
    return dict(zip(candidates, of_tasks.mean(axis=1).tolist(), strict=True))


def _rank_candidates(
    scores: dict[Layers, NDArray[np.float64]], rounds: Sequence[SearchRound], view: int | None, objective: str
) -> list[Layers]:
    """Candidates from best to worst; of equals the smaller set, then the deeper layers."""
    values = objectives(scores, rounds, view, objective)
    candidates = list(values)
    deepest_first = [tuple(-layer for layer in layers) for layers in candidates]
    order = rank_candidates(list(values.values()), [len(layers) for layers in candidates], deepest_first)
    return [candidates[at] for at in order]


def _grow(
    found: Search,
    rank: Callable[[Iterable[Layers]], None],
    rounds: Sequence[SearchRound],
    view: int | None,
    objective: str,
    n_layers: int,
    max_layers: int,
) -> None:
    """Add to the best pair the layer that helps most, as long as one helps."""
    pairs: dict[Layers, NDArray[np.float64]] = {pair: score for pair, score in found.ranked.items() if len(pair) == 2}
    best = _rank_candidates(pairs, rounds, view, objective)[0]
    while len(best) < min(max_layers, n_layers):
        larger = [tuple(sorted((*best, layer))) for layer in range(n_layers) if layer not in best]
        rank(larger)
        compared = {layers: found.ranked[layers] for layers in (best, *larger)}
        values = objectives(compared, rounds, view, objective)
        top = larger[choose_best([values[layers] for layers in larger])]
        if values[top] <= values[best]:
            return
        best = top


def _choose(
    found: Search, finalists: Sequence[Layers], rounds: Sequence[SearchRound], view: int | None, objective: str
) -> Layers:
    """Highest objective by the probe; of equals the lower log-loss, then the smaller set."""
    scores = objectives({layers: found.probed[layers] for layers in finalists}, rounds, view, objective)
    losses = objectives({layers: -found.log_losses[layers] for layers in finalists}, rounds, view, "mean_score")
    goodness = [round(scores[layers], 12) for layers in finalists]
    return finalists[choose_best(goodness, [-losses[layers] for layers in finalists], [len(one) for one in finalists])]
