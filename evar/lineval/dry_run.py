"""`--dry_run`: the rows that a grid would compute, the vectors that are stored, and an estimate of time and disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar import config as configs
from evar import results
from evar.audio.reading import clip_length
from evar.encoders import load_encoder
from evar.encoders.locating import is_local, locate
from evar.experiment.cell import Cell
from evar.experiment.loading import find_task
from evar.extraction import input_statistics as norm_stats
from evar.extraction.plan import Plan, plan, vector_bytes
from evar.lineval.cell_features import find_needed_clips, request_frames
from evar.numeric.device import pick_device
from evar.probes.making import needs_text
from evar.storage.feature_store import FeatureStore
from evar.storage.mirror import at_hand

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.experiment.spec import CellSpec, GridSpec, Resources
    from evar.extraction.frame_request import FrameRequest

#: audio that the encoder's speed is measured on: clips x seconds
_SAMPLE = (4, 5.0)


def describe(grid: GridSpec) -> str:
    """Return one line per cell, and totals.

    The encoder's speed is measured here and now on a few seconds of noise with random weights, so nothing is fetched.

    Args:
        grid: as `evar.experiment.resolving.resolve_request` makes it.

    Raises:
        ValueError: if the device is not there.
    """
    resources, store, out = grid.resources, FeatureStore(grid.resources.store), Path(at_hand(grid.resources.out))
    lines = [f"will fail: {reason}" for reason in dict.fromkeys(one.reason for one in grid.rejections)]
    total_seconds, total_bytes, new_rows = 0.0, 0.0, 0
    n_protocols = len({spec.protocol.name for spec in grid.cells})
    counted: set[tuple[str, ...]] = set()
    for name in grid.encoders:
        encoder, speed = None, None
        for spec in grid.list_cells(name):
            encoder = encoder or _load_without_fetching(spec, pick_device(resources.device))
            task = find_task(grid, spec)
            cell = Cell(encoder, task, spec)
            rows = cell.list_rows()
            missing = [row for row in rows if not results.run_path(out, row.id).is_file()]
            new_rows += len(missing)
            under = f" under {spec.protocol.name}" if n_protocols > 1 else ""
            text = f"{name} x {task.name}{under}: {len(missing)} of {len(rows)} rows to compute"
            if missing:
                layers = [layer for row in rows for layer in row.layers]
                seeds = sorted({row.seed for row in missing})
                todo = _measure_cell(cell, resources, store, seeds, layers, is_counted=_name_heads(cell) in counted)
                counted.add(_name_heads(cell))
                speed = speed or _measure_speed(encoder)
                seconds = todo.audio_seconds / speed
                total_seconds, total_bytes = total_seconds + seconds, total_bytes + todo.n_bytes
                text += (
                    f"; {todo.n_clips} of {len(task)} clips to encode{todo.note}, {todo.audio_seconds:.0f} s of audio, "
                    f"about {_format_duration(seconds)}, {todo.n_bytes / 1e6:.1f} MB"
                )
            lines.append(text)
    return "\n".join(
        [
            *lines,
            f"in all: {new_rows} rows; about {_format_duration(total_seconds)} of encoding (without decoding and probes), "
            f"{total_bytes / 1e6:.1f} MB under {store.folder}",
        ]
    )


@dataclass(frozen=True)
class _Todo:
    """The work of encoding for one cell.

    Attributes:
        n_clips: clips that are not stored.
        audio_seconds: of them, over all input statistics.
        n_bytes: that their vectors or frames take.
        note: a remark behind the number of clips.
    """

    n_clips: int
    audio_seconds: float
    n_bytes: int
    note: str = ""


def _measure_cell(
    cell: Cell,
    resources: Resources,
    store: FeatureStore,
    seeds: Sequence[int],
    layers: Sequence[str],
    *,
    is_counted: bool = False,
) -> _Todo:
    """Count the work of a cell; of one whose vectors another protocol needs too, only what is further."""
    frames = request_frames(cell, layers, store, resources)
    shared = _Todo(0, 0.0, 0, " (the same vectors as for the protocol above)")
    todo = shared if is_counted else _measure_heads(cell, resources, store, seeds, frames)
    seconds, n_bytes, note = todo.audio_seconds, todo.n_bytes, todo.note
    if frames and n_bytes > frames.limit_bytes:
        note += f" (above --frames_gb={resources.frames_gb:g}: will be refused)"
    if cell.is_cropped:
        n_windows, seconds_more = _measure_windows(cell, resources, store, seeds)
        seconds, n_bytes = seconds + seconds_more, n_bytes + vector_bytes(cell.encoder, n_windows)
        note += f" and {n_windows} random windows of training and validation clips"
    return _Todo(todo.n_clips, seconds, n_bytes, note)


def _name_heads(cell: Cell) -> tuple[str, ...]:
    """What two cells must share so that the vectors of the one serve the other: all but random windows."""
    frames = cell.protocol.frame_seconds
    return (cell.spec.encoder, cell.task.name, str(cell.statistics), str(frames), str(needs_text(cell.protocol)))


def _load_without_fetching(spec: CellSpec, device: str) -> Encoder:
    """The encoder with random parameters under the identity of its checkpoint, so that stored features are found."""
    config, weights = configs.load_encoder_config(spec.encoder), spec.weights
    has_checkpoint = weights not in (None, "random") or (weights is None and config.weights is not None)
    found = locate(config, weights) if has_checkpoint and is_local(config, weights) else None
    encoder = load_encoder(spec.encoder, "random", norm_stats=spec.given_statistics, device=device)
    if found:
        encoder.weights_label, encoder.weights_sha256 = found.label, found.sha256
        if encoder.text_layer:  # the tokenizer beside it is part of what names a row
            encoder.checkpoint = found.path
    elif has_checkpoint:
        published = config.weights.sha256 if config.weights and weights is None else None
        encoder.weights_label, encoder.weights_sha256 = str(weights or "published"), published or "unknown"
    elif weights is None and next(encoder.parameters(), None) is None:
        encoder.weights_label, encoder.weights_sha256 = "none", "none"
    return encoder


def _measure_heads(
    cell: Cell, resources: Resources, store: FeatureStore, seeds: Sequence[int], frames: FrameRequest | None
) -> _Todo:
    """Clips that are not stored, at the windows that test clips have."""
    encoder, task, mode = cell.encoder, cell.task, cell.statistics

    def count_bytes(lengths: Sequence[int]) -> int:
        return frames.n_bytes(encoder, lengths) if frames else vector_bytes(encoder, len(lengths))

    paths = [task.paths[position] for position in find_needed_clips(cell, seeds)]
    n_clips = len(paths)
    rounds = [tuple(a_round.train.tolist()) for seed in seeds for a_round in task.rounds(seed)]
    n_times = len(set(rounds)) if mode == "train" else 1  # at most: rounds of equal statistics share features
    times = f" ({n_times} times, for the input statistics of each round)" if n_times > 1 else ""
    if len(task.missing()) == len(task):
        clip_seconds = task.config.clip_seconds or 1.0
        why = "sounds are rendered at first use" if task.config.builder else f"no clip is under {task.folder} yet"
        n_bytes = count_bytes([round(clip_seconds * encoder.sample_rate)] * n_clips)
        note = f"{times} ({why}; {clip_seconds:g} s a clip)"
        return _Todo(n_clips, n_times * n_clips * clip_seconds, n_times * n_bytes, note)
    known = norm_stats.read_stored(encoder, task, mode, seeds, store)
    if known is None:
        planned = plan(encoder, paths, task.policy(), store, resources.batch_size)
        lengths = [clip_length(i, task.policy(), encoder.sample_rate) for i in planned.infos if i is not None]
        seconds = n_times * sum(lengths) / encoder.sample_rate
        note = times + _explain_unusable(planned)
        return _Todo(n_clips - len(planned.bad), seconds, n_times * count_bytes(lengths), note)
    plans = []
    for stats in dict.fromkeys(stats for of_rounds in known.values() for stats in of_rounds):
        with encoder.normalising_by(stats):
            plans.append(plan(encoder, paths, task.policy(), store, resources.batch_size, frames))
    times = f" (under {len(plans)} input statistics)" if len(plans) > 1 else ""
    todo: set[int] = set().union(*(planned.todo for planned in plans))
    seconds, n_bytes = sum(planned.audio_seconds for planned in plans), sum(planned.n_bytes for planned in plans)
    return _Todo(len(todo), seconds, n_bytes, times + _explain_unusable(plans[0]))


def _measure_windows(cell: Cell, resources: Resources, store: FeatureStore, seeds: Sequence[int]) -> tuple[int, float]:
    """Windows beside the heads of the clips that are not stored, at most, and their seconds of audio."""
    encoder, task, n_windows, n_samples = cell.encoder, cell.task, 0, 0
    for seed in seeds:
        rounds = task.rounds(seed)
        fitted = np.unique(np.concatenate([rows for one in rounds for rows in (one.train, one.valid)]))
        paths = [task.paths[position] for position in fitted]
        policy = task.policy(seed, crop="seeded_random")
        found = plan(encoder, paths, policy, store, resources.batch_size)
        head_rows = set(plan(encoder, paths, task.policy(), store, resources.batch_size).rows)
        others = [position for position in found.todo if found.rows[position] not in head_rows]
        n_times = len({tuple(one.train.tolist()) for one in rounds}) if cell.statistics == "train" else 1
        n_windows += n_times * len(others)
        infos = [info for position in others if (info := found.infos[position]) is not None]
        n_samples += n_times * sum(clip_length(info, policy, encoder.sample_rate) for info in infos)
    return n_windows, n_samples / encoder.sample_rate


def _explain_unusable(planned: Plan) -> str:
    return f" ({len(planned.bad)} clips missing or unreadable)" if planned.bad else ""


def _measure_speed(encoder: Encoder) -> float:
    """Seconds of audio encoded per second, the second of two passes over noise."""
    import torch

    n_clips, seconds = _SAMPLE
    waveform = 0.1 * torch.randn(
        n_clips, int(seconds * encoder.sample_rate), generator=torch.Generator().manual_seed(0)
    )
    elapsed = 1.0
    with torch.inference_mode():
        for _ in range(2):
            began = time.perf_counter()
            encoder.encode(waveform)
            elapsed = time.perf_counter() - began
    return n_clips * seconds / elapsed


def _format_duration(seconds: float) -> str:
    """Example: 4000 -> "1 h 07 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
