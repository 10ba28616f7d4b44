"""The names that an encoder shares with its author: which are free, and what happens to the others.

`self.layers = nn.ModuleList(...)` and `self.head = nn.Linear(...)` are the most usual names in PyTorch, so both belong
to the author. The declared layers are `layer_infos`; a tuple of `LayerInfo` that is written as `layers` is taken for them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from evar.encoders.features import LayerInfo


def is_declaration(value: Any) -> bool:
    """Tell whether a value is a tuple or list of `LayerInfo`.

    Example:
        >>> is_declaration((LayerInfo("conv1", 64, 160, "mean"),)), is_declaration(nn.ModuleList())
        (True, False)
    """
    return isinstance(value, tuple | list) and len(value) > 0 and all(isinstance(one, LayerInfo) for one in value)


class NamedLayers:
    """The attribute `layers` of an encoder: its author's own modules where there are any, else the declared layers.

    Python asks this only where the instance itself holds no plain value of the name.
    """

    def __get__(self, encoder: Any, owner: type) -> Any:
        if encoder is None:
            return owner.layer_infos  # type: ignore[attr-defined]
        own = encoder.__dict__.get("_modules", {}).get("layers")
        return encoder.layer_infos if own is None else own


def move_declaration(encoder_class: Any) -> None:
    """Turn the declaration `layers` of a class into `layer_infos`, so that the name is free for its instances.

    Args:
        encoder_class: is changed in place; a class without such a declaration stays as it is.

    Example:
        >>> class Own:
        ...     layers = (LayerInfo("conv1", 64, 160, "mean"),)
        >>> move_declaration(Own)
        >>> hasattr(Own, "layers"), Own.layer_infos[0].name
        (False, 'conv1')
    """
    declared = encoder_class.__dict__.get("layers")
    if is_declaration(declared):
        encoder_class.layer_infos = tuple(declared)
        del encoder_class.layers
    elif isinstance(declared, property):
        encoder_class.layer_infos = declared
        del encoder_class.layers


def head_method(encoder_class: type) -> Callable[..., Any] | None:
    """Find the method `head(self, waveform, lengths)` of a class, which was the name of `classify` before.

    Args:
        encoder_class: the class.

    Returns:
        The method; None if the class has none with these arguments.

    Example:
        >>> class Own:
        ...     def head(self, waveform, lengths):
        ...         return waveform
        >>> head_method(Own) is Own.head, head_method(nn.Module)
        (True, None)
    """
    found = getattr(encoder_class, "head", None)
    is_method = inspect.isfunction(found) and list(inspect.signature(found).parameters)[1:] == ["waveform", "lengths"]
    return found if is_method else None


def refuse_taken_name(encoder: nn.Module, base: type, name: str, value: Any) -> None:
    """Refuse a module or parameter under a name that `base` needs itself; it would hide behind the other silently.

    Args:
        encoder: whose attribute is set.
        base: the class that every encoder comes from.
        name: of the attribute.
        value: of the attribute.

    Raises:
        AttributeError: if the name is taken.

    Example:
        >>> refuse_taken_name(nn.Identity(), nn.Module, "device", "cpu")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        AttributeError: Identity.device cannot be set, because 'device' is a part of every encoder; choose another name, ...
    """
    is_part = isinstance(value, nn.Module | nn.Parameter)
    if name != "layers" and (name == "device" or (is_part and hasattr(base, name))):
        who = type(encoder).__name__
        raise AttributeError(
            f"{who}.{name} cannot be set, because {name!r} is a part of every encoder; choose another name, "
            f"such as self.own_{name}"
        )
