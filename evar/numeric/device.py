"""Choose the device that tensors are on."""

from __future__ import annotations


def pick_device(device: str) -> str:
    """ "auto" becomes cuda, mps or cpu, whichever is there; anything else must be there.

    Raises:
        ValueError: if the device is unknown or absent.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not available here ({str(error).splitlines()[0]}); try auto") from error
    return device
