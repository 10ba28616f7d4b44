"""Which run a file holds: plain data and the id that is made from it."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: Parts of a result's own id, if the run gave it none: everything that can change a number.
IDENTITY_KEYS = (
    *("encoder", "weights_sha256", "encoder_options", "extraction", "layers", "fusion", "pooling"),
    *("task", "task_version", "index_sha256", "limit", "protocol", "params", "metric", "seed"),
)

#: lists and objects within each other: far more than any record needs
DEEPEST = 32

_SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,159}")
# Windows gives these names to devices, with any ending after the first dot.
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(?=$|\.)", re.IGNORECASE)


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Copy a value as plain JSON data: dicts with text keys, lists, text, whole and finite numbers, booleans, None.

    Args:
        value: what to copy; numpy and torch scalars become Python numbers.
        where: name of the value, for messages.
        depth: how many dicts and lists the value lies in; more than `DEEPEST` are refused.

    Raises:
        ValueError: if something else is in it, such as a path, an array, NaN, or text that cannot be written as
            UTF-8.

    Example:
        >>> plain({"grid": (0.1, 1.0)}, "params")
        {'grid': [0.1, 1.0]}
    """
    if depth > DEEPEST:
        raise ValueError(f"{where[:80]} must hold at most {DEEPEST} lists and objects within each other, got more")
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:  # a numpy or torch scalar, without importing either
        value = value.item()
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} must have text keys, got {key!r}")
            _check_text(key, where)
        return {key: plain(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, where, depth + 1) for item in value]
    if isinstance(value, str):
        _check_text(value, where)
        return value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} must be finite, got {value}")
        return float(value)
    raise ValueError(f"{where} must be text, numbers, lists or dicts of these, got {type(value).__name__}")


def _check_text(text: str, where: str) -> None:
    """Refuse halves of surrogate pairs, which no file and no terminal can hold."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{where[:80]!a} must be text that UTF-8 can hold, got {text[:80]!a}") from error


def run_id(settings: Mapping[str, Any]) -> str:
    """Make a file stem for the run of these settings: readable, the same on every machine, safe on every system.

    Put in everything that can change a number (`IDENTITY_KEYS` and what else the run knows), and nothing that cannot,
    such as a folder or a batch size. Key order, tuple or list, and 5 or 5.0 make no difference.

    Args:
        settings: at least encoder, layers (a list or text), task, protocol and seed; plain data.

    Returns:
        ENCODER__LAYERS__TASK__PROTOCOL__sSEED__HASH, at most 140 characters; HASH is the start of the SHA-256 of all
        settings as JSON, so that long or unusual names may be shortened before it.

    Raises:
        ValueError: if one of the five is missing, or a value is not plain data.

    Example:
        >>> run_id({"encoder": "crepe.tiny", "layers": ["conv5"], "task": "gm_pitch", "protocol": "linear", "seed": 0})
        'crepe.tiny__conv5__gm_pitch__linear__s0__6553fad523'
    """
    missing = [key for key in ("encoder", "layers", "task", "protocol", "seed") if key not in settings]
    if missing:
        raise ValueError(f"a run's id needs encoder, layers, task, protocol and seed, but lacks {', '.join(missing)}")
    values = _make_whole(plain(settings, "settings"))
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    layers = values["layers"] if isinstance(values["layers"], list) else [str(values["layers"])]
    named = "+".join(layers)
    if len(named) > 32 and len(layers) > 1:
        named = f"{layers[0][:20]}+{len(layers) - 1}more"
    parts = (str(values["encoder"])[:32], named[:32], str(values["task"])[:28], str(values["protocol"])[:16])
    readable = "__".join(re.sub(r"[^A-Za-z0-9._+-]", "-", part) for part in parts)
    if _DEVICE_NAME.match(readable) or readable[0] in ".-+":
        readable = f"_{readable[1:]}" if readable[0] in ".-+" else f"_{readable}"
    seed = str(values["seed"])[:10]
    return f"{readable}__s{seed}__{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _make_whole(value: Any) -> Any:
    """5.0 as 5: a command line and a YAML may write the same number differently."""
    if isinstance(value, dict):
        return {key: _make_whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_make_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def check_id(id: str) -> str:
    """Return the id if it is a plain file stem.

    Raises:
        ValueError: if it could leave its folder or is no legal file name everywhere.

    Example:
        >>> check_id("logmel__esc10")
        'logmel__esc10'
        >>> check_id("../a")
        Traceback (most recent call last):
        ...
        ValueError: a run's id must be a plain file name of letters, digits and . _ + -, got '../a'
    """
    if not _SAFE_ID.fullmatch(id) or _DEVICE_NAME.match(id):
        raise ValueError(f"a run's id must be a plain file name of letters, digits and . _ + -, got {id!r}")
    return id
