"""Choose the device that tensors are on, and describe it."""

from __future__ import annotations

import platform
from typing import Any


def pick_device(device: str) -> str:
    """Choose the device that tensors are on, and check that it is there.

    Args:
        device: "auto" takes cuda, mps or cpu, whichever is there first; "cpu", "cuda", "cuda:1", "mps" must be there.

    Returns:
        The device's name, without "auto".

    Raises:
        ValueError: if the device is unknown or absent.

    Example:
        >>> pick_device("cpu")
        'cpu'
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device {device!r} is not known; it is auto, cpu, cuda, cuda:NUMBER or mps") from None
    if kind == "cuda" and not torch.cuda.is_available():
        built_for = f"built for CUDA {torch.version.cuda}, and found no driver or card" if torch.version.cuda else (
            "a build without CUDA, see pytorch.org for another")  # fmt: skip
        raise ValueError(f"device {device!r} is not available here: torch {torch.__version__} is {built_for}; try auto")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} is not available here ({str(error).splitlines()[0]}); try auto") from error
    return device


def describe_device(device: Any) -> tuple[str, int]:
    """Describe the device of a network, for comparisons of times.

    Args:
        device: a torch device, or its name.

    Returns:
        Its kind with the name of the card or the kind of processor, and the processor's threads that torch may use.

    Example:
        >>> describe_device("cpu")[0].startswith("cpu")
        True
    """
    import torch

    kind = torch.device(device).type
    name = torch.cuda.get_device_name(device) if kind == "cuda" else platform.machine()
    return (f"{kind} ({name})" if name else kind), torch.get_num_threads()
