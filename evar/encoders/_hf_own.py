"""Folders of the hub whose model brings code of its own, which is not run: a class of ours takes their tensors.

`model_type` of config.json selects the class: "ced" (mispeech/ced-tiny and its kin), "dasheng" (mispeech/dasheng-base, -0.6B
and -1.2B) and "eat" (worstchan/EAT-*, and SSLAM's ta012/SSLAM_pretrain and ta012/SSLAM_AS2M_Finetuned).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.encoders.weights import load_strict, read_checkpoint

if TYPE_CHECKING:
    from evar.encoders.base import Encoder

#: settings with which these models were published: other values make another network than our class computes
CED_SETTINGS = {
    "patch_size": 16, "patch_stride": 16, "target_length": 1012, "n_mels": 64, "n_fft": 512, "hop_size": 160, "f_min": 0,
    "f_max": 8000, "pooling": "mean", "mlp_ratio": 4.0,
}  # fmt: skip
DASHENG_SETTINGS = {"target_length": 1008, "patch_size": [64, 4], "patch_stride": [64, 4], "mlp_ratio": 4.0}
EAT_SETTINGS = {
    "patch_size": 16, "stride": 16, "in_chans": 1, "mel_bins": 128, "norm_eps": 1e-6, "layer_norm_first": False,
    "fixed_positions": True, "mlp_ratio": 4.0,
}  # fmt: skip
CED_NAMES = {"ced-tiny": 192, "ced-mini": 256, "ced-small": 384, "ced-base": 768}
DASHENG_NAMES = {"dasheng-base": 768, "dasheng-0.6B": 1280, "dasheng-1.2B": 1536}


def build_own_encoder(
    settings: Mapping[str, Any], folder: Path, weights: str | Path | None, options: Mapping[str, Any]
) -> Encoder:
    """Build our own encoder that a folder's config.json describes.

    Args:
        settings: the content of config.json; its `model_type` is one of `OWN_CLASSES`.
        folder: where that lies, for messages.
        weights: a model's folder, a checkpoint file, or None for random ones.
        options: of the class, such as `readout`; they win over the settings.

    Raises:
        ValueError: if the settings are of a network that our class does not compute, or the checkpoint does not fit.

    Example:
        >>> settings = {"model_type": "ced", "name": "ced-tiny", "depth": 1}
        >>> [info.name for info in build_own_encoder(settings, Path(), None, {}).layer_infos]
        ['block1', 'norm']
    """
    encoder_class, own_options = OWN_CLASSES[settings["model_type"]]()
    try:
        encoder = encoder_class(**{**own_options(settings), **options})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    if weights is not None:
        load_strict(encoder, encoder.convert(read_checkpoint(weights)), weights, ignore=encoder_class.ignored_tensors)
    return encoder


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the content of a folder's config.json.

    Args:
        folder: of a model.

    Returns:
        The settings; an empty dictionary if the file cannot be read (other code reports that).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "config.json").write_text('{"model_type": "ced"}')
        ...     read_settings(Path(folder)), read_settings(Path(folder, "nowhere"))
        ({'model_type': 'ced'}, {})
    """
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _describe_ced() -> tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    from evar.encoders.ced import SIZES, Ced

    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        _require_same(settings, CED_SETTINGS)
        width = CED_NAMES.get(settings.get("name", ""), settings.get("embed_dim", 768))
        return {"size": _find_size(width, settings, SIZES), "n_blocks": int(settings.get("depth", 12))}

    return Ced, options


def _describe_dasheng() -> tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    from evar.encoders.dasheng import SIZES, Dasheng

    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        settings = {**settings, **(settings.get("encoder_kwargs") or {})}
        _require_same(settings, DASHENG_SETTINGS)
        width = settings.get("embed_dim", DASHENG_NAMES.get(settings.get("name", ""), 768))
        return {
            "size": _find_size(width, settings, SIZES),
            "n_classes": int(settings.get("outputdim") or 0),
            "n_blocks": int(settings.get("depth", 0)),
        }

    return Dasheng, options


def _describe_eat() -> tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]:
    from evar.encoders.eat import SIZES, Eat

    def options(settings: Mapping[str, Any]) -> dict[str, Any]:
        _require_same(settings, EAT_SETTINGS)
        is_tuned = settings.get("model_variant", "pretrain") == "finetune"
        return {
            "size": _find_size(settings.get("embed_dim", 768), settings, SIZES),
            "n_classes": int(settings.get("num_classes", 527)) if is_tuned else 0,
            "n_blocks": int(settings.get("depth", 0)),
        }

    return Eat, options


def _find_size(width: Any, settings: Mapping[str, Any], sizes: Mapping[str, tuple[int, ...]]) -> str:
    """The size of that width; where a folder names no published size, its number of heads must be that of the size."""
    heads = settings.get("num_heads")
    for size, (own, *rest) in sizes.items():
        if own == width and (settings.get("name") or heads in (None, rest[-1])):
            return size
    known = ", ".join(f"{own} wide with {rest[-1]} heads" for own, *rest in sizes.values())
    raise ValueError(f"no published network is {width} wide with {heads} heads; there are {known}")


def _require_same(settings: Mapping[str, Any], published: Mapping[str, Any]) -> None:
    """Raises ValueError where a setting is another than in the published models."""
    for key, value in published.items():
        found = settings.get(key, value)
        if (list(found) if isinstance(found, (list, tuple)) else found) != value:
            raise ValueError(f"{key} is {found}, but only models with {value} are supported; is it another model?")


#: model_type -> a function that imports our class and says how its options follow from the settings
OWN_CLASSES: dict[str, Callable[[], tuple[Any, Callable[[Mapping[str, Any]], dict[str, Any]]]]] = {
    "ced": _describe_ced,
    "dasheng": _describe_dasheng,
    "eat": _describe_eat,
}
