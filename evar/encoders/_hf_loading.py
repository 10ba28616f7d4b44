"""Read a model of transformers from a folder: its settings, its front-end, and its weights, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from evar.encoders import _hf_codecs as codecs
from evar.encoders import _hf_mert as mert
from evar.encoders.weights import read_checkpoint, state_dict_of

AUDIO_PARTS = ("audio_model", "audio_tower", "audio_encoder")  # of models of sound and text
# Heads whose names look like parts of the body: the linear layer of speaker verification.
HEADS = ("feature_extractor.weight", "feature_extractor.bias")


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without reports and bars: what they say becomes an error here, or is of no consequence."""
    logging = transformers.utils.logging
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def read_config(transformers: Any, folder: Path) -> Any:
    """Read the model's settings, without what would make training or a forward a matter of chance.

    Args:
        transformers: the package.
        folder: with config.json.

    Returns:
        The settings object of transformers.

    Raises:
        FileNotFoundError: if there is no config.json.
        ValueError: if transformers does not know the model, or the model brings code of its own.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"the folder {folder} has no config.json; is it a transformers model's folder?")
    try:
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        with quiet(transformers):
            if isinstance(settings, dict) and settings.get("model_type") == mert.MODEL_TYPE:
                config = mert.hubert_config(transformers, settings)
            else:
                config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except mert.NotSupported as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    except Exception as error:  # JSON, unknown types, settings that contradict each other
        raise ValueError(
            f"{folder / 'config.json'} is none that transformers {transformers.__version__} knows "
            f"({' '.join(str(error).split())[:200]}); models that bring their own code are not run"
        ) from error
    for part in (config, getattr(config, "audio_config", None)):
        # Layers dropped at random would leave hidden states out; masks over time are an aid of pre-training.
        for key, value in (("layerdrop", 0.0), ("encoder_layerdrop", 0.0), ("apply_spec_augment", False)):
            if hasattr(part, key):
                setattr(part, key, value)
        for key in ("mask_time_prob", "mask_feature_prob"):
            if hasattr(part, key):
                setattr(part, key, 0.0)
    return config


def read_extractor(transformers: Any, folder: Path, config: Any) -> Any:
    """Read the model's own front-end; without a description its class's defaults, or None for waveforms."""
    try:
        with quiet(transformers):
            if any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
                return transformers.AutoFeatureExtractor.from_pretrained(
                    folder, trust_remote_code=False, local_files_only=True
                )
            kind = transformers.FEATURE_EXTRACTOR_MAPPING.get(type(config), None)
            return kind() if kind is not None else None
    except Exception as error:
        raise ValueError(
            f"the feature extractor of {folder} cannot be built ({' '.join(str(error).split())[:200]}); "
            "it needs the preprocessor_config.json of an audio model"
        ) from error


@dataclass
class AudioPart:
    """The part of a model that hears.

    Attributes:
        network: the module that runs.
        prefixes: how the names of its tensors begin inside the whole model; "" where that is all of it.
        projection: what turns the network's own clip embedding into the space that sound and text share (CLAP), or None.
    """

    network: Any
    prefixes: tuple[str, ...]
    projection: Any = None


def build_audio_part(transformers: Any, config: Any, weights: str | Path | None) -> AudioPart:
    """Build the part of a model that hears, with random or loaded weights, float32.

    Args:
        transformers: the package.
        config: what `read_config` gave.
        weights: None for random ones, the folder of a whole model, or a checkpoint file.

    Raises:
        ValueError: if the checkpoint cannot be read or does not fit.
    """
    if weights is None:
        with quiet(transformers):
            model = transformers.AutoModel.from_config(config, trust_remote_code=False)
        return _audio_part(model.float())
    path = Path(weights)
    how: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    try:
        if not path.is_dir():  # the file of a model whose settings lie elsewhere
            how["state_dict"] = state_dict_of(read_checkpoint(path))
        with quiet(transformers):
            model, report = transformers.MODEL_MAPPING[type(config)].from_pretrained(
                path if path.is_dir() else None, **how, ignore_mismatched_sizes=True, local_files_only=True
            )
    except Exception as error:  # cut off files, pickles that hold code, types without a model
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} cannot be loaded as a transformers model ({type(error).__name__}: {reason})"
        ) from error
    own = {name for name, _ in model.named_children()} | {name for name, _ in model.named_parameters(recurse=False)}
    part = _audio_part(model)
    _check_report(report, model, own, part.prefixes, path)
    return part


def _audio_part(model: Any) -> AudioPart:
    """A model's encoder or audio half, with its name inside the model; the whole where it is nothing else."""
    kind = model.config.model_type
    if kind in codecs.DECODING_PARTS:
        codecs.remove_decoder(model)
        return AudioPart(model, tuple(f"{name}." for name, _ in model.named_children()))
    if getattr(model.config, "deepnorm", False):
        mert.scale_residuals(model)
    part = model
    for name in AUDIO_PARTS:
        if isinstance(getattr(model, name, None), nn.Module):
            part = getattr(model, name)
    if part is model and getattr(model.config, "is_encoder_decoder", False):
        part = model.get_encoder()
    name = next(name for name, module in model.named_modules() if module is part)
    projection = getattr(model, "audio_projection", None) if kind == "clap" else None
    prefixes = (f"{name}." if name else "", *(("audio_projection.",) if projection is not None else ()))
    return AudioPart(part, prefixes, projection)


def _check_report(report: dict[str, Any], model: Any, own: set[str], prefixes: tuple[str, ...], path: Path) -> None:
    """Refuse a checkpoint that lacks tensors of the audio part, or has others than heads beyond the model.

    Args:
        report: what transformers says about loading.
        model: the whole model.
        own: names of the model's children and own parameters, before any part was removed.
        prefixes: how the names of the audio part's tensors begin.
        path: the checkpoint, for the message.
    """
    base = f"{model.base_model_prefix}."

    def is_head(name: str) -> bool:
        if name.rpartition(".")[2] in ("masked_spec_embed", "num_batches_tracked") or name in HEADS:
            return True
        return not name.startswith(base) and name.partition(".")[0] not in own

    missing = sorted(name for name in report["missing_keys"] if name.startswith(prefixes))
    unexpected = sorted(name for name in report["unexpected_keys"] if not is_head(name))
    unlike = sorted(
        f"{entry[0]} {tuple(entry[1])} instead of {tuple(entry[2])}"
        for entry in report["mismatched_keys"]
        if entry[0].startswith(prefixes)
    )
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("tensors missing", missing), ("unexpected", unexpected), ("of another shape", unlike))
        if names
    ]
    if problems:
        raise ValueError(
            f"{path.name} does not fit {type(model).__name__}: {', '.join(problems)}; "
            "is its config.json that of another model, or the checkpoint incomplete?"
        )
