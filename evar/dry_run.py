"""`--dry_run`: what a grid would compute, what is stored already, and an estimate of time and disk. Computes no row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from evar import config as configs
from evar import results
from evar.encoders import load_encoder
from evar.extract import plan, vector_bytes
from evar.grid import Settings, checked
from evar.linear import pick_device
from evar.rows import wanted_rows
from evar.store import FeatureStore

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.tasks import Task

#: audio that the encoder's speed is measured on: clips x seconds
_SAMPLE = (4, 5.0)


def describe(settings: Settings) -> str:
    """One line per cell, and totals.

    The encoder's speed is measured here and now on a few seconds of noise with random weights, so nothing is fetched.

    Raises:
        ValueError: if a name or setting is not legal.
    """
    protocol, tasks = checked(settings)
    store = FeatureStore(settings.store)
    lines, total_seconds, total_bytes, new_rows = [], 0.0, 0, 0
    for name in settings.encoders:
        encoder = _without_fetching(name, settings, pick_device(settings.device))
        speed = None
        for task in tasks:
            rows = [
                results.run_path(Path(settings.out), id) for *_, id in wanted_rows(encoder, task, protocol, settings)
            ]
            missing_rows = sum(not path.is_file() for path in rows)
            new_rows += missing_rows
            text = f"{name} x {task.name}: {missing_rows} of {len(rows)} rows to compute"
            if missing_rows:
                n_clips, audio_seconds, n_bytes, note = _to_encode(encoder, task, settings, store)
                speed = speed or _measured_speed(encoder)
                seconds = audio_seconds / speed
                total_seconds, total_bytes = total_seconds + seconds, total_bytes + n_bytes
                text += (
                    f"; {n_clips} of {len(task)} clips to encode, {audio_seconds:.0f} s of audio, "
                    f"about {_duration(seconds)}, {n_bytes / 1e6:.1f} MB{note}"
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
    encoder = load_encoder(name, "random", norm_stats=settings.norm_stats, device=device)
    if settings.weights is None and config.weights is not None:
        encoder.weights_label, encoder.weights_sha256 = "published", config.weights.sha256 or "unknown"
    elif settings.weights not in (None, "random"):
        encoder.weights_label, encoder.weights_sha256 = str(settings.weights), "unknown"
        if Path(str(settings.weights)).exists():  # an address would be fetched
            from evar.weights import locate

            found = locate(config, settings.weights)
            encoder.weights_label, encoder.weights_sha256 = found.label, found.sha256
    elif config.weights is None and settings.weights is None:
        encoder.weights_label, encoder.weights_sha256 = "none", "none"
    return encoder


def _to_encode(encoder: Encoder, task: Task, settings: Settings, store: FeatureStore) -> tuple[int, float, int, str]:
    """Clips that are not stored, their seconds of audio, the bytes of their vectors, and a remark."""
    absent = len(task.missing())
    if absent == len(task):
        seconds = task.config.clip_seconds or 1.0
        why = "sounds are rendered at first use" if task.config.builder else f"no clip is under {task.folder} yet"
        return len(task), len(task) * seconds, vector_bytes(encoder, len(task)), f" ({why}; {seconds:g} s a clip)"
    planned = plan(encoder, task.paths, task.policy(), store, settings.batch_size)
    note = f" ({len(planned.bad)} clips missing or unreadable)" if planned.bad else ""
    return len(planned.todo), planned.audio_seconds, planned.n_bytes, note


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
