"""Splits that keep sources apart, where published ones do not. Nothing is drawn: a table always gives the same split.

A task that is called NAME_grouped is made here. Where only some sources lie on both sides, the test clips stay as they were
published, and the training and validation clips of the same sources are left out (`keep_apart`). Where every source does,
whole sources are put into folds (`fold_by_group`).
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd

from evar.config.messages import warn
from evar.data.task_config import LABEL_SEPARATOR


def keep_apart(index: pd.DataFrame, name: str) -> pd.DataFrame:
    """Leave out clips whose group is in a later part too, so that no group is in two parts.

    Training clips go if validation or test clips have their group, and validation clips if test clips have it.

    Args:
        index: path, label, split and group of each clip.
        name: of the data set, for the message.

    Returns:
        The index without those rows; test clips are never left out.

    Example:
        >>> index = pd.DataFrame({"path": list("abc"), "split": ["train", "train", "test"], "group": ["x", "y", "y"]})
        >>> keep_apart(index, "toy")["path"].tolist()
        ['a', 'c']
    """
    groups = {split: set(rows["group"]) for split, rows in index.groupby("split")}
    in_test, in_valid = groups.get("test", set()), groups.get("valid", set())
    is_shared = (index["split"] != "test") & index["group"].isin(in_test)
    is_shared |= (index["split"] == "train") & index["group"].isin(in_valid)
    if is_shared.any():
        counts = Counter(index["split"][is_shared])
        told = " and ".join(f"{n:,} {split}" for split, n in sorted(counts.items()))
        warn(f"{name}: {told} clips are left out, since their source is in validation or test clips too")
    return index[~is_shared].reset_index(drop=True)


def fold_by_group(labels: Iterable[str], groups: Iterable[str], n_folds: int = 5) -> list[str]:
    """Put whole groups into folds with about as many clips of each label: large groups first, each where it fits best.

    Args:
        labels: of each clip; several are separated by ";".
        groups: of each clip.
        n_folds: at least 2.

    Returns:
        The fold of each clip, "1" to `n_folds` as text. It depends on the labels and groups alone, and not on their order.

    Raises:
        ValueError: if there are fewer groups than folds.

    Example:
        >>> fold_by_group(["cat", "cat", "dog", "cat", "dog"], ["a", "a", "b", "c", "d"], 2)
        ['1', '1', '1', '2', '2']
    """
    labels, groups = list(labels), list(groups)
    of_group: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        of_group[group].update(label.split(LABEL_SEPARATOR))
    if len(of_group) < n_folds:
        raise ValueError(f"{n_folds} folds need at least {n_folds} groups, got {len(of_group)}; is the data set whole?")
    totals: Counter[str] = sum(of_group.values(), Counter())
    held: list[Counter[str]] = [Counter() for _ in range(n_folds)]

    def measure(fold: Counter[str], own: Mapping[str, int]) -> tuple[float, int]:
        # A rare label weighs as much as a frequent one.
        return sum(n * (2 * fold[label] + n) / totals[label] ** 2 for label, n in own.items()), fold.total()

    fold_of: dict[str, int] = {}
    for group in sorted(of_group, key=lambda name: (-of_group[name].total(), hashlib.sha256(name.encode()).digest())):
        place = min(range(n_folds), key=lambda number: (*measure(held[number], of_group[group]), number))
        held[place].update(of_group[group])
        fold_of[group] = place
    return [str(fold_of[group] + 1) for group in groups]


def join_names(names: Iterable[Iterable[str]]) -> dict[str, str]:
    """Give one group to all names that are told together somewhere, such as artists of one track.

    Args:
        names: sets of names.

    Returns:
        Name -> the first name, in alphabetical order, of all that are joined with it.

    Example:
        >>> join_names([["b", "a"], ["c", "b"], ["d"]])
        {'a': 'a', 'b': 'a', 'c': 'a', 'd': 'd'}
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for told in names:
        first, *others = [find(name) for name in told] or [""]
        for other in others:
            one, two = sorted((find(first), find(other)))
            leader[two] = one
    return {name: find(name) for name in sorted(leader) if name}
