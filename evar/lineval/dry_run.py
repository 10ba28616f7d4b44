"""`--dry_run`: what a grid would compute, what is stored already, and an estimate of time and disk. Computes no row."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evar import config as configs
from evar import results
from evar.audio.reading import clip_length
from evar.encoders import load_encoder
from evar.encoders.weights import is_local, locate
from evar.experiment.identity import wanted_rows
from evar.experiment.request import checked
from evar.experiment.settings import Settings
from evar.extraction import input_statistics as norm_stats
from evar.extraction.plan import Plan, plan, vector_bytes
from evar.lineval.cell_features import frames_wanted
from evar.numeric.device import pick_device
from evar.storage.feature_store import FeatureStore
from evar.storage.mirror import at_hand

if TYPE_CHECKING:
    from evar.data.task import Task
    from evar.encoders.base import Encoder
    from evar.extraction.frame_request import FrameRequest

#: audio that the encoder's speed is measured on: clips x seconds
_SAMPLE = (4, 5.0)


def describe(settings: Settings) -> str:
    """One line per cell, and totals.

    The encoder's speed is measured here and now on a few seconds of noise with random weights, so nothing is fetched.

    Raises:
        ValueError: if a name or setting is not legal.
    """
    protocol, tasks, absent = checked(settings)
    settings = replace(settings, out=at_hand(settings.out))
    store = FeatureStore(settings.store)
    lines, total_seconds, total_bytes, new_rows = [f"will fail: {error}" for _, error in absent], 0.0, 0, 0
    for name in settings.encoders:
        encoder = _without_fetching(name, settings, pick_device(settings.device))
        speed = None
        for task in tasks:
            rows = wanted_rows(encoder, task, protocol, settings)
            seeds = sorted({seed for _, seed, id in rows if not results.run_path(Path(settings.out), id).is_file()})
            missing_rows = sum(not results.run_path(Path(settings.out), id).is_file() for *_, id in rows)
            new_rows += missing_rows
            text = f"{name} x {task.name}: {missing_rows} of {len(rows)} rows to compute"
            if missing_rows:
                mode = norm_stats.mode(encoder, settings.norm_stats, protocol.norm_stats)
                layers = [name for selection, *_ in rows for name in selection.layers]
                frames = frames_wanted(encoder, task, protocol, settings, layers, store)
                n_clips, audio_seconds, n_bytes, note = _to_encode(encoder, task, settings, store, mode, seeds, frames)
                if frames and n_bytes > frames.limit_bytes:
                    note += f" (above --frames_gb={settings.frames_gb:g}: will be refused)"
                if protocol.crop == "by_role" and task.config.clip_seconds is not None:
                    n_windows, seconds_more = _random_windows(encoder, task, settings, store, mode, seeds)
                    audio_seconds, n_bytes = audio_seconds + seconds_more, n_bytes + vector_bytes(encoder, n_windows)
                    note += f" and {n_windows} random windows of training and validation clips"
                speed = speed or _measured_speed(encoder)
                seconds = audio_seconds / speed
                total_seconds, total_bytes = total_seconds + seconds, total_bytes + n_bytes
                text += (
                    f"; {n_clips} of {len(task)} clips to encode{note}, {audio_seconds:.0f} s of audio, "
                    f"about {_duration(seconds)}, {n_bytes / 1e6:.1f} MB"
                )
            lines.append(text)
    return "\n".join(
        [
            *lines,
            f"in all: {new_rows} rows; about {_duration(total_seconds)} of encoding (without decoding and probes), "
            f"{total_bytes / 1e6:.1f} MB under {store.folder}",
        ]
    )


def _without_fetching(name: str, settings: Settings, device: str) -> Encoder:
    """The encoder with random parameters under the identity of its checkpoint, so that stored features are found."""
    config = configs.load_encoder_config(name)
    weights = settings.weights_of(name)
    asked = weights not in (None, "random") or (weights is None and config.weights is not None)
    found = locate(config, weights) if asked and is_local(config, weights) else None
    given = settings.norm_stats if isinstance(settings.norm_stats, tuple) else None
    encoder = load_encoder(name, "random", norm_stats=given, device=device)
    if found:
        encoder.weights_label, encoder.weights_sha256 = found.label, found.sha256
    elif asked:
        published = config.weights.sha256 if config.weights and weights is None else None
        encoder.weights_label, encoder.weights_sha256 = str(weights or "published"), published or "unknown"
    elif weights is None and next(encoder.parameters(), None) is None:
        encoder.weights_label, encoder.weights_sha256 = "none", "none"
    return encoder


def _to_encode(
    encoder: Encoder,
    task: Task,
    settings: Settings,
    store: FeatureStore,
    mode: str | tuple[float, float] | None,
    seeds: Sequence[int],
    frames: FrameRequest | None,
) -> tuple[int, float, int, str]:
    """Clips that are not stored, seconds of audio to encode, the bytes of their vectors (or frames), and a remark."""

    def n_bytes_of(lengths: Sequence[int]) -> int:
        return frames.n_bytes(encoder, lengths) if frames else vector_bytes(encoder, len(lengths))

    n_clips = len(task)
    rounds = [tuple(a_round.train.tolist()) for seed in seeds for a_round in task.rounds(seed)]
    n_times = len(set(rounds)) if mode == "train" else 1  # at most: rounds of equal statistics share features
    times = f" ({n_times} times, for the input statistics of each round)" if n_times > 1 else ""
    if len(task.missing()) == n_clips:
        seconds = n_times * n_clips * (task.config.clip_seconds or 1.0)
        why = "sounds are rendered at first use" if task.config.builder else f"no clip is under {task.folder} yet"
        why += f"; {task.config.clip_seconds or 1.0:g} s a clip"
        samples = round((task.config.clip_seconds or 1.0) * encoder.sample_rate)
        return n_clips, seconds, n_times * n_bytes_of([samples] * n_clips), f"{times} ({why})"
    known = norm_stats.stored(encoder, task, mode, seeds, store)
    if known is None:
        planned = plan(encoder, task.paths, task.policy(), store, settings.batch_size)
        n_usable, note = n_clips - len(planned.bad), _unusable(planned)
        lengths = [clip_length(i, task.policy(), encoder.sample_rate) for i in planned.infos if i is not None]
        seconds = n_times * sum(lengths) / encoder.sample_rate
        return n_usable, seconds, n_times * n_bytes_of(lengths), times + note
    plans = []
    for stats in dict.fromkeys(stats for of_rounds in known.values() for stats in of_rounds):
        with encoder.normalising_by(stats):
            plans.append(plan(encoder, task.paths, task.policy(), store, settings.batch_size, frames))
    times = f" (under {len(plans)} input statistics)" if len(plans) > 1 else ""
    todo: set[int] = set().union(*(planned.todo for planned in plans))
    seconds, n_bytes = sum(planned.audio_seconds for planned in plans), sum(planned.n_bytes for planned in plans)
    return len(todo), seconds, n_bytes, times + _unusable(plans[0])


def _random_windows(
    encoder: Encoder,
    task: Task,
    settings: Settings,
    store: FeatureStore,
    mode: str | tuple[float, float] | None,
    seeds: Sequence[int],
) -> tuple[int, float]:
    """Windows beside the heads of the clips that are not stored, at most, and their seconds of audio."""
    n_windows, n_samples = 0, 0
    for seed in seeds:
        rounds = task.rounds(seed)
        fitted = np.unique(np.concatenate([rows for one in rounds for rows in (one.train, one.valid)]))
        paths = [task.paths[position] for position in fitted]
        policy = task.policy(seed, crop="seeded_random")
        found = plan(encoder, paths, policy, store, settings.batch_size)
        head_rows = set(plan(encoder, paths, task.policy(), store, settings.batch_size).rows)
        others = [position for position in found.todo if found.rows[position] not in head_rows]
        n_times = len({tuple(one.train.tolist()) for one in rounds}) if mode == "train" else 1
        n_windows += n_times * len(others)
        infos = [info for position in others if (info := found.infos[position]) is not None]
        n_samples += n_times * sum(clip_length(info, policy, encoder.sample_rate) for info in infos)
    return n_windows, n_samples / encoder.sample_rate


def _unusable(planned: Plan) -> str:
    return f" ({len(planned.bad)} clips missing or unreadable)" if planned.bad else ""


def _measured_speed(encoder: Encoder) -> float:
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


def _duration(seconds: float) -> str:
    """Example: 4000 -> "1 h 07 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
