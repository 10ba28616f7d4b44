"""The vectors of altered test clips: encoded once for each condition, then read and fused like those of clean clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evar.extraction.altered import AlteredPass, extract_altered
from evar.extraction.fusion import fuse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.experiment.cell import Cell
    from evar.experiment.selection import Selection
    from evar.extraction.conditions import Condition
    from evar.extraction.extract import Extraction
    from evar.extraction.input_statistics import Statistics
    from evar.lineval.cell_features import Vectors
    from evar.lineval.cells import Workplace

#: clips whose features are in memory at once
_CLIPS_AT_ONCE = 4096


@dataclass
class AlteredVectors:
    """The vectors of a cell's test clips under some conditions.

    Attributes:
        clean: vectors of the unaltered clips.
        positions: input statistics -> (clips,) positions in the task of the clips that are tested under them, sorted.
        extractions: of these clips, by input statistics and condition.
    """

    clean: Vectors
    positions: Mapping[Statistics, NDArray[np.int64]]
    extractions: Mapping[Statistics, Mapping[Condition, Extraction]]
    _where: dict[tuple[Condition, Statistics], dict[str, tuple[str, int]]] = field(default_factory=dict)

    @property
    def n_encoded(self) -> int:
        """Forwards of an altered clip, over all conditions and input statistics."""
        return sum(one.n_encoded for of in self.extractions.values() for one in of.values())

    def list_failed(self, condition: Condition) -> dict[int, str]:
        """List the clips that could not be altered or encoded: position in the task -> reason."""
        found: dict[int, str] = {}
        for stats, of in self.extractions.items():
            for place, reason in of[condition].bad.items():
                found.setdefault(int(self.positions[stats][place]), reason)
        return dict(sorted(found.items()))

    def read_parts(
        self,
        condition: Condition,
        selection: Selection,
        stats: Statistics,
        wanted: NDArray[np.int64],
        train: NDArray[np.int64],
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield the features of altered clips, a few thousand at a time.

        Args:
            condition: how they were altered.
            selection: which layers, and how they become one feature.
            stats: input statistics.
            wanted: (clips,) positions in the task; clips without finite features are left out.
            train: positions of the round's usable training clips, whose clean vectors a fusion is fitted on.

        Yields:
            Positions (some clips,) and features (some clips, width).
        """
        extraction = self.extractions[stats][condition]
        rows = dict(zip(self.positions[stats].tolist(), extraction.rows, strict=True))
        known = np.array([at for at in wanted.tolist() if rows.get(at) is not None], np.int64)
        where = self._find_rows(condition, stats, extraction)
        for begin in range(0, len(known), _CLIPS_AT_ONCE):
            part = known[begin : begin + _CLIPS_AT_ONCE]
            names = [str(rows[at]) for at in part.tolist()]
            layers = {
                name: self.clean.store.load(extraction.key, names, name, where) for name in selection.layers
            }  # layer -> (some clips, width)
            finite = np.logical_and.reduce([np.isfinite(value).all(axis=1) for value in layers.values()])
            layers = {name: value[finite] for name, value in layers.items()}
            if finite.any():
                yield part[finite], self._fuse(selection, stats, layers, train)

    def _find_rows(self, condition: Condition, stats: Statistics, extraction: Extraction) -> dict[str, tuple[str, int]]:
        key = condition, stats
        if key not in self._where:
            self._where[key] = self.clean.store.rows(extraction.key)
        return self._where[key]

    def _fuse(
        self,
        selection: Selection,
        stats: Statistics,
        layers: dict[str, NDArray[np.float32]],
        train: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """Fuse the layers; components are those of the clean training clips."""
        if selection.fusion != "pca":
            return fuse(layers, selection.fusion)
        joined = {name: np.concatenate([self.clean.layer(name, stats)[train], value]) for name, value in layers.items()}
        return fuse(joined, "pca", np.arange(len(train)))[len(train) :]


def encode_altered(
    cell: Cell, workplace: Workplace, clean: Vectors, conditions: Sequence[Condition], seeds: Sequence[int]
) -> AlteredVectors:
    """Put the vectors of altered test clips into the store, under the input statistics of the clean training clips.

    Args:
        cell: encoder and task.
        workplace: store.
        clean: vectors of the unaltered clips.
        conditions: how test clips are altered.
        seeds: whose rounds are tested.

    Raises:
        OSError: if the vectors would take too much of the disk.
    """
    tested: dict[Statistics, list[NDArray[np.int64]]] = {}
    for seed in seeds:
        for stats, a_round in zip(clean.of_rounds[seed], cell.task.rounds(seed), strict=True):
            tested.setdefault(stats, []).append(a_round.test)
    positions: dict[Statistics, NDArray[np.int64]] = {}
    extractions: dict[Statistics, Mapping[Condition, Extraction]] = {}
    for stats, rounds in tested.items():  # a clip is tested in its own rounds only, and so under their statistics
        found = np.unique(np.concatenate(rounds))
        positions[stats] = found[clean.usable[found]]
        work = AlteredPass(
            cell.encoder,
            [cell.task.paths[at] for at in positions[stats]],
            cell.task.policy(),
            workplace.store,
            workplace.resources.batch_size,
            f"{cell.label}, altered",
        )
        extractions[stats] = extract_altered(work, conditions, stats)
    return AlteredVectors(clean, positions, extractions)
