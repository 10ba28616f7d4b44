"""An encoder made by configuration alone: some layers of another, side by side, under a name of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evar import config as configs
from evar.config.encoder import display_name, make_absolute
from evar.storage.atomic import write_atomic


def write_variant(
    encoder: str, layers: Sequence[str], name: str, description: str = "", weights: str | None = None
) -> Path:
    """Write the YAML of an encoder that reads these layers of another; every command takes its name from then on.

    It goes to the first configuration folder of the user's own: EVAR_CONFIG where that is set, else the user's folder. A
    variant of the same encoder and name that is there is replaced.

    Args:
        encoder: name of the encoder whose layers these are; a class or YAML of your own by its path too.
        layers: their names, concatenated in this order.
        name: of the new encoder: letters, digits, "_", "-" and ".".
        description: for tables; empty: made from the layers.
        weights: path of a checkpoint in place of the encoder's own; None keeps that.

    Returns:
        The file.

    Raises:
        ValueError: if there is no such encoder or layer, or the name is not legal or taken by another encoder.

    Example:
        >>> import tempfile, unittest.mock
        >>> with tempfile.TemporaryDirectory() as folder, unittest.mock.patch.dict(os.environ, EVAR_CONFIG=folder):
        ...     print(write_variant("crepe.tiny", ["conv2", "conv5"], "crepe.general").name)
        ...     configs.load_encoder_config("crepe.general").default_layers
        crepe.general.yaml
        ('conv2', 'conv5')
    """
    import yaml

    from evar.encoders import describe_encoder

    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name) or name.endswith((".yaml", ".yml")):
        raise ValueError(f"the name of an encoder must be letters, digits, _, - and . (at most 64), got {name!r}")
    entry = configs.load_encoder_config(encoder)
    built = describe_encoder(encoder)
    names = list(built.layer_names(layers))
    base = entry.base or make_absolute(encoder)
    _require_free(name, base)
    data: dict[str, Any] = {
        "base": base,
        "description": description or f"{' and '.join(names)} of {display_name(base)}, side by side",
        "default_layers": names,
    }
    if weights is not None:
        data["weights"] = {
            "kind": "file",
            "file": str(Path(weights).resolve()),
            "licence": "that of your own checkpoint",
        }
    if entry.base and entry.options != configs.load_encoder_config(base).options:
        data["options"] = entry.options
    path = own_folder() / "encoders" / f"{name}.yaml"
    write_atomic(path, yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode("utf-8"))
    return path


def own_folder() -> Path:
    """Return where a user's own configuration is written: EVAR_CONFIG, else the user's folder.

    Example:
        >>> import unittest.mock
        >>> with unittest.mock.patch.dict(os.environ, EVAR_CONFIG="mine"):
        ...     own_folder().name
        'mine'
    """
    return Path(os.environ["EVAR_CONFIG"]) if os.environ.get("EVAR_CONFIG") else configs.user_folder()


def _require_free(name: str, base: str) -> None:
    if name not in configs.names("encoders"):
        return
    path, found = configs.find("encoders", name), configs.load_encoder_config(name)
    if found.base != base or path.resolve().parent != (own_folder() / "encoders").resolve():
        raise ValueError(f"there is an encoder {name!r} already ({path}), and it is no variant of {base} made here")
