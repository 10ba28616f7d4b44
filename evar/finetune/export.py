"""A fine-tuned encoder as an encoder: its weights as safetensors, and the YAML that makes it a name for every command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from evar import config as configs
from evar.encoders.weights import OWN_PREFIX
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from evar.data.task import Task
    from evar.encoders.base import Encoder
    from evar.results import Result


def export(encoder: Encoder, name: str, task: Task, result: Result, folder: Path) -> Path:
    """Write `folder/ENCODER_TASK.safetensors` and the YAML beside it.

    Args:
        encoder: fine-tuned.
        name: of the encoder that it started from.
        task: that it was fine-tuned on.
        result: its row.
        folder: where to; made if need be.

    Returns:
        The YAML: `evar lineval PATH.yaml TASKS` evaluates the encoder frozen.
    """
    import torch
    from safetensors.torch import save

    stem = f"{name.rpartition('/')[2].removesuffix('.yaml').replace(':', '_')}_{task.name}"
    state = {f"{OWN_PREFIX}{key}": value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    if encoder.norm_stats is not None:
        state[f"{OWN_PREFIX}norm_stats"] = torch.tensor(encoder.norm_stats, dtype=torch.float64)
    write_atomic(folder / f"{stem}.safetensors", save(state))
    config = configs.load_encoder_config(name)
    last = result.rounds[-1]["name"]
    entry = {
        "implementation": configs.make_absolute(config.implementation),
        "description": f"{name}, fine-tuned on {task.name} ({last}) under {result.protocol}, seed {result.seed}",
        "trained_on": f"{config.trained_on}; fine-tuned on {task.name}",
        "citation": config.citation,
        "weights": {
            "kind": "file",
            "file": f"{stem}.safetensors",
            "licence": "that of the encoder's own checkpoint and of the task's data"
            + (f" ({config.weights.licence})" if config.weights else ""),
        },
        "options": dict(config.options),
        "default_layers": list(encoder.default_layers),
    }
    path = folder / f"{stem}.yaml"
    write_atomic(path, yaml.safe_dump(entry, sort_keys=False, allow_unicode=True).encode())
    return path
