"""Networks built without random numbers, for those whose every parameter a checkpoint then gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# What fills a tensor with random numbers. The functions of nn.init hand over to a mode themselves, or call the methods.
_DRAWS = frozenset(
    (
        *(torch.Tensor.uniform_, torch.Tensor.normal_, nn.init.uniform_, nn.init.normal_),
        *(nn.init.kaiming_uniform_, nn.init.kaiming_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_),
    )
)


class undrawn(TorchFunctionMode):
    """Draw no random parameters inside a `with` block, because drawing 85 million numbers takes a second.

    For code that afterwards sets every parameter, or raises, as `load_strict` does.

    Example:
        >>> with undrawn():
        ...     linear = nn.Linear(3, 2)
        >>> linear.weight.shape
        torch.Size([2, 3])
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DRAWS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
