"""The vectors of one cell, encoder x task: extracted once for each pair of input statistics, then read and fused."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.config.messages import tell
from evar.encoders.pooling import count_pooled_features
from evar.experiment.selection import Selection
from evar.extraction import input_statistics as norm_stats
from evar.extraction.extract import Extraction, extract_each
from evar.extraction.frame_request import FrameRequest
from evar.extraction.fusion import fuse
from evar.extraction.plan import feature_key
from evar.lineval.comparing import find_compared_clips
from evar.probes.making import compares_clips, needs_text
from evar.storage.feature_store import FeatureStore
from evar.storage.frame_store import FrameStore, StoredFrames
from evar.storage.rows_on_disk import RowsOnDisk

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.experiment.cell import Cell
    from evar.experiment.spec import Resources


#: bytes of features of a round that are held in memory; of more, probes read parts from the store
BYTES_IN_MEMORY = 2**30


@dataclass(frozen=True)
class Vectors:
    """The vectors of a cell in the store: one extraction for each pair of input statistics.

    Attributes:
        store: that holds them.
        of_rounds: seed -> input statistics of each round.
        extractions: by input statistics.
        bad: position of a clip -> why it cannot be used.
        n_clips: of the task.
        cropped: seed -> extractions of the windows that training and validation clips are cropped to at random; empty
            if every clip has the same window in every role.
        widths: features of each layer's pooled vectors.
        frames: layer -> width and seconds of the frames that are kept in place of pooled vectors, for probes that read
            frames; else empty.
        unneeded: positions of clips that were not encoded, since the protocol's probe looks at none of them.
    """

    store: FeatureStore
    of_rounds: dict[int, list[norm_stats.Statistics]]
    extractions: dict[norm_stats.Statistics, Extraction]
    bad: dict[int, str]
    n_clips: int
    cropped: dict[int, dict[norm_stats.Statistics, Extraction]] = field(default_factory=dict)
    widths: dict[str, int] = field(default_factory=dict)
    frames: dict[str, tuple[int, float]] = field(default_factory=dict)
    unneeded: frozenset[int] = frozenset()
    _where: dict[norm_stats.Statistics, dict[str, tuple[str, int]]] = field(default_factory=dict)
    _frames: dict[norm_stats.Statistics, StoredFrames] = field(default_factory=dict)
    _not_finite: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def n_encoded(self) -> int:
        """Forwards of a clip, over all input statistics."""
        passes = [self.extractions, *self.cropped.values()]
        return sum(extraction.n_encoded for one in passes for extraction in one.values())

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        """(clips,) False for bad clips, and for those that were not encoded."""
        left_out = self.unneeded | set(self.bad)
        return np.array([position not in left_out for position in range(self.n_clips)])

    def find_bad(self, selection: Selection) -> dict[int, str]:
        """Return position of a clip -> why it cannot be used with these layers.

        That is `bad`, and clips for which one of the layers is not finite: the encoder overflowed there.
        """
        found = dict(self.bad)
        for name in selection.layers:
            for position in self._list_not_finite(name):
                found.setdefault(position, f"layer {name} is not finite")
        return dict(sorted(found.items()))

    def find_usable(self, selection: Selection) -> NDArray[np.bool_]:
        """Return (clips,) False for clips that cannot be used with these layers."""
        broken = [position for name in selection.layers for position in self._list_not_finite(name)]
        usable = self.usable.copy() if broken else self.usable
        usable[broken] = False
        return usable

    def _list_not_finite(self, name: str) -> frozenset[int]:
        """Usable clips whose vector of a layer is not finite, in any pass; of frames none, which are checked when stored."""
        if self.frames:
            return frozenset()
        if name not in self._not_finite:
            alone, found = Selection((name,), "none"), set()
            passes: list[tuple[norm_stats.Statistics, int, Sequence[int]]] = [
                (stats, 0, ()) for stats in self.extractions
            ]
            for seed, one in self.cropped.items():
                for stats, extraction in one.items():
                    there = [at for at, row in enumerate(extraction.rows) if row is not None and self.usable[at]]
                    passes.append((stats, seed, there))
            for stats, seed, cropped in passes:
                positions = np.array(cropped, np.int64) if len(cropped) else np.flatnonzero(self.usable)
                rows = self._open_on_disk(alone, stats, seed, cropped)[positions]
                for part in rows.parts():
                    is_finite = np.isfinite(rows.read(part)).all(axis=1)
                    found.update(positions[part][~is_finite].tolist())
            self._not_finite[name] = frozenset(found)
        return self._not_finite[name]

    def layer(self, name: str, stats: norm_stats.Statistics, seed: int | None = None) -> NDArray[np.float32]:
        """Pooled vectors of one layer, (clips, width); bad clips are NaN.

        Args:
            name: of the layer.
            stats: input statistics.
            seed: None for the windows of test clips; else of the random windows of training and validation clips, where
                there are such, and NaN for clips that are never either.
        """
        extraction = self.extractions[stats] if seed is None else self.cropped[seed][stats]
        is_there = self.usable & np.array([row is not None for row in extraction.rows])
        rows = [str(row) for row, ok in zip(extraction.rows, is_there, strict=True) if ok]
        if stats not in self._where:  # random windows are other rows of the same segment
            self._where[stats] = self.store.rows(extraction.key)
        known = self.store.load(extraction.key, rows, name, self._where[stats])
        every = np.full((self.n_clips, known.shape[1]), np.nan, np.float32)
        every[is_there] = known
        return every

    def frames_of(self, selection: Selection, stats: norm_stats.Statistics) -> StoredFrames:
        """Return frames of the selected layers of every clip; a bad clip has none, and reading it is an error."""
        if stats not in self._frames:
            extraction = self.extractions[stats]
            known = FrameStore.beside(self.store).places(extraction.key)
            usable = zip(extraction.rows, self.usable, strict=True)
            places = [known[row] if row is not None and ok else None for row, ok in usable]
            widths = {name: width for name, (width, _) in self.frames.items()}
            periods = {name: period for name, (_, period) in self.frames.items()}
            self._frames[stats] = StoredFrames(widths, places, periods)
        return self._frames[stats].of_layers(selection.layers)

    def width(self, selection: Selection) -> int:
        """Count the features of a clip, at most."""
        return sum(self.widths[name] for name in selection.layers)

    def fuse_layers(
        self, selection: Selection, stats: norm_stats.Statistics, train: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Compute one vector a clip of the selected layers, (clips, width); bad clips are NaN.

        Args:
            selection: layers, and how they become one.
            stats: input statistics.
            train: positions of usable training clips, for fusions that are fitted.
        """
        return fuse({name: self.layer(name, stats) for name in selection.layers}, selection.fusion, train)

    def read_rounds(
        self,
        selection: Selection,
        seed: int,
        train: Sequence[NDArray[np.int64]],
        valid: Sequence[NDArray[np.int64]] = (),
    ) -> list[Any]:
        """Return the features of each round, or its frames if the probe reads frames; rounds share an array if they can.

        Single layers and concatenations that take more than `BYTES_IN_MEMORY` come as `Rows`, which read parts.

        Args:
            selection: layers, and how they become one.
            seed: of the validation draw.
            train: of each round, (clips,) positions of its usable training clips.
            valid: of each round, (clips,) positions of its validation clips; needed where clips are cropped by their role.

        Returns:
            For each round (clips, width) features, or `Frames`.
        """
        stats_of_rounds = self.of_rounds[seed]
        if self.frames:
            return [self.frames_of(selection, stats) for stats in stats_of_rounds]
        if selection.fusion in ("none", "concat") and 4 * self.n_clips * self.width(selection) > BYTES_IN_MEMORY:
            if seed in self.cropped:
                return [
                    self._open_on_disk(selection, stats, seed, np.concatenate(fitted))
                    for stats, *fitted in zip(stats_of_rounds, train, valid, strict=True)
                ]
            found = {stats: self._open_on_disk(selection, stats) for stats in dict.fromkeys(stats_of_rounds)}
            return [found[stats] for stats in stats_of_rounds]
        if seed in self.cropped:
            return [
                self._fuse_by_role(selection, stats, seed, fitted, np.concatenate([fitted, checked]))
                for stats, fitted, checked in zip(stats_of_rounds, train, valid, strict=True)
            ]
        if selection.fusion == "pca":  # fitted on the training clips of each round
            return [
                self.fuse_layers(selection, stats, fitted) for stats, fitted in zip(stats_of_rounds, train, strict=True)
            ]
        by_stats = {stats: self.fuse_layers(selection, stats) for stats in dict.fromkeys(stats_of_rounds)}
        return [by_stats[stats] for stats in stats_of_rounds]

    def _open_on_disk(
        self,
        selection: Selection,
        stats: norm_stats.Statistics,
        seed: int = 0,
        cropped: NDArray[np.int64] | Sequence[int] = (),
    ) -> RowsOnDisk:
        """Find the features of every clip in the store; clips in `cropped` have the random windows of `seed`."""
        extraction = self.extractions[stats]
        rows = [row if ok else None for row, ok in zip(extraction.rows, self.usable, strict=True)]
        for position in cropped:
            rows[position] = self.cropped[seed][stats].rows[position]
        if stats not in self._where:
            self._where[stats] = self.store.rows(extraction.key)
        return self.store.on_disk(extraction.key, rows, selection.layers, self._where[stats])

    def _fuse_by_role(
        self,
        selection: Selection,
        stats: norm_stats.Statistics,
        seed: int,
        train: NDArray[np.int64],
        cropped: NDArray[np.int64],
    ) -> NDArray[np.float32]:
        """`fuse_layers`, where the clips `cropped` have the windows of training and the others those of testing."""
        layers = {}
        for name in selection.layers:
            layers[name] = self.layer(name, stats)
            layers[name][cropped] = self.layer(name, stats, seed)[cropped]
        return fuse(layers, selection.fusion, train)


def request_frames(cell: Cell, layers: Iterable[str], store: FeatureStore, resources: Resources) -> FrameRequest | None:
    """Return the frames that the probes of these layers read; None if they read pooled vectors.

    Where frames of these and more layers are stored already, these are requested.

    Args:
        cell: encoder, task and protocol.
        layers: names of the layers of its rows.
        store: where frames are looked for.
        resources: how much may be put on disk.
    """
    if cell.protocol.frame_seconds is None:
        return None
    encoder, wanted = cell.encoder, set(layers)
    names = tuple(layer.name for layer in encoder.layer_infos if layer.name in wanted)
    request = FrameRequest(names, cell.protocol.frame_seconds, 1e9 * resources.frames_gb)
    stored = FrameStore.beside(store).wider(feature_key(encoder, cell.task.policy(), request))
    every = wanted | stored
    return replace(request, layers=tuple(layer.name for layer in encoder.layer_infos if layer.name in every))


def encode_cell(
    cell: Cell, store: FeatureStore, resources: Resources, seeds: set[int], layers: Iterable[str] = ()
) -> Vectors:
    """Put every vector that the rounds of a cell need into the store; report the work and the bad clips.

    Args:
        cell: encoder, task and protocol.
        store: where vectors are kept.
        resources: clips a batch, and how many frames may be put on disk.
        seeds: of the rows.
        layers: of the rows, where the protocol's probe reads frames.

    Raises:
        OSError: if the vectors or frames would take too much of the disk.
    """
    encoder, task, batch_size = cell.encoder, cell.task, resources.batch_size
    frames = request_frames(cell, layers, store, resources)
    of_rounds = norm_stats.of_task(encoder, task, cell.statistics, sorted(seeds), store, batch_size)
    distinct = list(dict.fromkeys(stats for seed in sorted(seeds) for stats in of_rounds[seed]))
    if len(distinct) > 1:
        tell(
            f"{cell.label}: {sum(map(len, of_rounds.values()))} rounds have {len(distinct)} different input statistics "
            f"(norm_stats {cell.statistics}): every clip is decoded once and encoded {len(distinct)} times",
        )
    needed = find_needed_clips(cell, seeds)
    paths = [task.paths[position] for position in needed]
    heads = extract_each(encoder, distinct, paths, task.policy(), store, batch_size, cell.label, frames)
    for head in heads:
        _spread(head, needed, len(task))
    cropped = {}
    if cell.is_cropped:
        cropped = {seed: _encode_windows(cell, distinct, seed, store, batch_size) for seed in sorted(seeds)}
    every = [*heads, *(extraction for one in cropped.values() for extraction in one.values())]
    vectors = Vectors(
        store,
        of_rounds,
        dict(zip(distinct, heads, strict=True)),
        {position: reason for extraction in every for position, reason in sorted(extraction.bad.items())},
        len(task),
        cropped,
        {layer.name: count_pooled_features(layer.width, layer.pooling) for layer in encoder.layer_infos},
        {name: (encoder.layer(name).width, frames.period(encoder, name)) for name in frames.layers} if frames else {},
        frozenset(range(len(task))) - set(needed.tolist()),
    )
    _report_encoding(cell, vectors, heads)
    return vectors


def find_needed_clips(cell: Cell, seeds: Iterable[int]) -> NDArray[np.int64]:
    """Return the clips that the rows of a cell look at: all, but for probes that compare clips with texts or each other.

    Those of texts learn nothing from training clips; prompts are chosen on validation clips, and captions are ranked on test
    clips. A probe that compares test clips as they are looks at no others, and one of published pairs only at theirs.

    Args:
        cell: task and protocol.
        seeds: of the rows.

    Returns:
        (clips,) positions, sorted.
    """
    task = cell.task
    if compares_clips(cell.protocol):
        return find_compared_clips(cell, list(seeds))
    if not needs_text(cell.protocol):
        return np.arange(len(task))
    rounds = [a_round for seed in seeds for a_round in task.rounds(seed)]
    sets = [a_round.test for a_round in rounds]
    if task.config.kind != "captions":
        sets += [a_round.valid for a_round in rounds]
    return np.unique(np.concatenate(sets))


def _spread(extraction: Extraction, positions: NDArray[np.int64], n_clips: int) -> None:
    """Put what was extracted of some clips of a task into the places that they have in the task."""
    rows: list[str | None] = [None] * n_clips
    for position, row in zip(positions, extraction.rows, strict=True):
        rows[position] = row
    extraction.rows = rows
    extraction.bad = {int(positions[place]): reason for place, reason in extraction.bad.items()}


def _report_encoding(cell: Cell, vectors: Vectors, heads: Sequence[Extraction]) -> None:
    """Print how many clips were encoded, and the first of those that cannot be used."""
    cropped = vectors.cropped
    every = [*heads, *(extraction for one in cropped.values() for extraction in one.values())]
    seconds = heads[0].seconds + sum(next(iter(one.values())).seconds for one in cropped.values())
    speed = f" at {vectors.n_encoded / seconds:.1f} clips/s" if vectors.n_encoded else ""
    tell(
        f"{cell.label}: encoded {vectors.n_encoded} clips ({sum(one.audio_seconds for one in every):.0f} s of audio) in "
        f"{seconds:.1f} s{speed}; {sum(one.n_stored for one in heads)} were stored already",
    )
    if cropped:
        n_other = sum(one.n_encoded for part in cropped.values() for one in part.values())
        tell(f"  training and validation clips are cropped at random, by seed: {n_other} further windows")
    for position, reason in list(vectors.bad.items())[:5]:
        tell(f"  bad clip {cell.task.index['path'][position]}: {reason}")
    if len(vectors.bad) > 5:
        tell(f"  ... and {len(vectors.bad) - 5} more bad clips, all named in the result files")


def _encode_windows(
    cell: Cell, distinct: Sequence[norm_stats.Statistics], seed: int, store: FeatureStore, batch_size: int | None
) -> dict[norm_stats.Statistics, Extraction]:
    """Random windows of the clips that train or validate in some round, under each of the input statistics."""
    task = cell.task
    fitted = np.unique(np.concatenate([rows for one in task.rounds(seed) for rows in (one.train, one.valid)]))
    paths = [task.paths[position] for position in fitted]
    policy = task.policy(seed, crop="seeded_random")
    parts = extract_each(cell.encoder, distinct, paths, policy, store, batch_size, f"{cell.label}, seed {seed}")
    for part in parts:
        _spread(part, fitted, len(task))
    return dict(zip(distinct, parts, strict=True))
