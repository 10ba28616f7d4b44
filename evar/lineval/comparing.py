"""Rounds of protocols that compare test clips with each other: what the probe is given, and what is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.experiment.rounds import Items, score_compared
from evar.probes.comparing import ComparedClips
from evar.probes.making import reads_pairs
from evar.probes.protocol import get_traits
from evar.probes.spaces import SPACES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Round, Task
    from evar.experiment.cell import Cell


def describe_clips(task: Task, clips: NDArray[np.int64], readable: NDArray[np.int64] | None = None) -> ComparedClips:
    """Return what is known of some clips of a task.

    Args:
        task: of one class a clip.
        clips: (clips,) rows of the task.
        readable: rows that could be read; None: all of them.
    """
    names = task.index["path"].to_numpy(str)[clips]
    is_readable = None if readable is None else np.isin(clips, readable)
    return ComparedClips.of(task.y[clips], task.groups[clips], names, is_readable)


def give_pairs(probe: Any, task: Task) -> dict[str, Any]:
    """Return the parameter of a probe that tests published pairs, where the task has some."""
    pairs = task.pairs if get_traits(probe).reads_pairs else None
    return {} if pairs is None else {"published": pairs}


def find_compared_clips(cell: Cell, seeds: Sequence[int]) -> NDArray[np.int64]:
    """Return the clips that a comparison looks at.

    Training and validation clips are left out where there is but one space, and test clips where no published pair has them.

    Args:
        cell: task and protocol.
        seeds: of the rows.

    Returns:
        (clips,) positions, sorted.
    """
    task = cell.task
    is_chosen = list(cell.protocol.params.get("spaces", SPACES)) != ["raw"]
    of_rounds = [one for seed in seeds for one in task.rounds(seed)]
    found = [clips for one in of_rounds for clips in ((one.train, one.valid) if is_chosen else ())]
    tested = np.unique(np.concatenate([one.test for one in of_rounds]))
    if reads_pairs(cell.protocol) and task.pairs is not None:
        paired = {path for one, other, _ in task.pairs for path in (one, other)}
        tested = tested[task.index["path"].isin(paired).to_numpy()[tested]]
    return np.unique(np.concatenate([*found, tested]))


def compare_round(cell: Cell, a_round: Round, probe: Any, features: Any, readable: NDArray[np.int64]) -> dict[str, Any]:
    """Compare the test clips of a round.

    Args:
        cell: whose task and metric.
        a_round: whose test clips.
        probe: fitted.
        features: of every clip of the task, by row.
        readable: (readable,) rows of test clips that could be read.

    Returns:
        What a `FittedRound` takes: `tested`, `y_pred`, `score`, `extras` and `items`.

    Raises:
        ValueError: if nothing can be scored; the round is named.
    """
    task = cell.task
    tested = readable if cell.spec.skip_bad else a_round.test
    vectors = np.zeros((len(tested), features.shape[1]), np.float32)
    vectors[np.isin(tested, readable)] = np.asarray(features[readable])
    try:
        found = probe.compare(vectors, describe_clips(task, tested, readable))
        score, extras = score_compared(cell.metric, found.y_true, found.y_pred)
    except ValueError as error:
        raise ValueError(f"{task.name} {a_round.name}: {error}") from error
    items = Items(found.names, found.groups, found.y_true, found.facts)
    return {"tested": tested, "y_pred": found.y_pred, "score": score, "extras": extras, "items": items}
