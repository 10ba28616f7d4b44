"""The state of a training on disk, so that an interrupted run goes on from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from evar.config.messages import tell
from evar.storage.atomic import remove, remove_dead_parts, report_change


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state completely or not at all; half-written files of a killed process are removed.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_dead_parts(path.parent)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        torch.save(state, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        raise OSError(
            f"{path} cannot be written ({' '.join(str(error).split())[:200]}); free some space, or name another folder "
            "with --out"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    report_change(path)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the state in a file, or None if there is none; a damaged file is named and removed."""
    remove_dead_parts(path.parent)
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(state, dict) or not {"best", "epoch", "in_epoch", "history"} <= state.keys():
            raise ValueError("it holds no state of a training")
    except Exception as error:  # zip, pickle and tensor errors of many types: each means that the file is damaged
        tell(f"  {path} is damaged ({' '.join(str(error).split())[:120]}); training starts again from the beginning")
        remove(path)
        return None
    return state
