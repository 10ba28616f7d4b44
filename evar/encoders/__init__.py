"""Encoders by name: `load_encoder` builds one from its YAML, with published, given or random weights."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar import config as configs
from evar.config.encoder import UNTRAINED
from evar.config.graph_files import split_graph_name
from evar.config.own_code import list_neighbours
from evar.config.registry import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from evar.encoders.base import Encoder
    from evar.encoders.locating import Located

RANDOM_SEED = 0

#: torch has one random generator for all threads
_BUILDING = threading.RLock()


def load_encoder(
    name: str,
    weights: str | Path | None = None,
    *,
    norm_stats: tuple[float, float] | None = None,
    device: str = "cpu",
    **options: Any,
) -> Encoder:
    """Build an encoder, in eval mode. Several threads may do so at the same time.

    Args:
        name: as `evar encoders` lists them ("crepe.tiny"); the path of an encoder's YAML; "module:Class" of a subclass
            of `Encoder`; or "hf:organisation/name": any audio model of `transformers` that returns hidden states;
            "random:NAME" is any of them with random weights.
        weights: None for the checkpoint that the encoder's YAML names (fetched at first use), "random" for random
            parameters (any encoder, offline, seeded), else a path, an http(s) url or "hf:org/name".
        norm_stats: (mean, std) of the input normalisation, for encoders that have one.
        device: where to put it: "cpu", "cuda", "cuda:1", "mps", or "auto" for the first of cuda, mps and cpu that is there.
        **options: override the YAML's options.

    Returns:
        The encoder; its `weights_label` and `weights_sha256` tell what it holds.

    Raises:
        ValueError: if the name or an option is unknown, the checkpoint does not fit, or the device is not there.
        OSError: if a checkpoint is missing or cannot be fetched.
        ImportError: if the encoder needs a package that is not installed.

    Example:
        >>> encoder = load_encoder("logmel")
        >>> encoder.sample_rate, [layer.name for layer in encoder.layer_infos]
        (16000, ['logmel'])
    """
    import torch

    from evar.encoders.base import Encoder
    from evar.encoders.locating import locate
    from evar.encoders.weights import own_state
    from evar.numeric.device import pick_device

    config = configs.load_encoder_config(name)
    config = dataclasses.replace(config, options={**config.options, **options})
    encoder_class = resolve(config.implementation)
    if not (isinstance(encoder_class, type) and issubclass(encoder_class, Encoder)):
        raise ValueError(
            f"{config.implementation} must be a subclass of evar.encoders.base.Encoder, got {encoder_class!r}"
        )
    place = pick_device(device)  # before a checkpoint is fetched for nothing
    is_random = str(weights) == "random" or (weights is None and name.startswith(UNTRAINED))
    if name.startswith(UNTRAINED) and not is_random:
        raise ValueError(f"{name} has random weights, got {weights}; load them as {name.removeprefix(UNTRAINED)}")
    found = None if is_random or (weights is None and config.weights is None) else locate(config, weights)
    with _BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        own = own_state(found.path) if found else None
        encoder: Encoder = encoder_class.from_config(config, weights=found.path if found and own is None else None)
        if is_random:
            encoder.randomise()
    if found and own is not None:
        _load_own_state(encoder, own, found.path)
    file = config.implementation.rpartition(":")[0]
    if file.endswith(".py"):  # an edited file is another encoder
        source = Path(file).expanduser()
        encoder.extra_files = (*encoder.extra_files, source, *list_neighbours(source))
    _apply_config(encoder, config, name)
    if norm_stats is not None:
        if encoder.norm_stats is None:
            raise ValueError(f"{name} does not normalise its input by statistics, so norm_stats cannot be set")
        encoder.norm_stats = (float(norm_stats[0]), float(norm_stats[1]))
    _label_weights(encoder, config, found, is_random)
    return encoder.eval().to(place)


def describe_encoder(name: str, **options: Any) -> Encoder:
    """Build an encoder without memory for its weights, to read its layers and count its parameters.

    It lies on torch's "meta" device, so that networks of any size are built in a moment; it cannot encode. Models by
    "hf:" name are run once to learn their layers and are built in full, with random weights, and so are classes that need
    the values of their own tensors when they are built.

    Args:
        name: as for `load_encoder`.
        **options: override the YAML's options.

    Returns:
        The encoder; its `default_layers` are those of the YAML.

    Raises:
        ValueError: if the name or an option is unknown.
        ImportError: if the encoder needs a package that is not installed.

    Example:
        >>> encoder = describe_encoder("cnn14.16k")
        >>> encoder.layer_infos[-1].name, sum(parameter.numel() for parameter in encoder.parameters()) // 1_000_000
        ('fc1', 80)
    """
    import torch

    if name.removeprefix(UNTRAINED).startswith("hf:"):
        return load_encoder(name, "random", **options)
    if split_graph_name(name)[0]:
        return load_encoder(name, **options)
    config = configs.load_encoder_config(name)
    config = dataclasses.replace(config, options={**config.options, **options})
    try:
        encoder_class = resolve(config.implementation)
        with torch.device("meta"):
            encoder: Encoder = encoder_class.from_config(config, weights=None)
    except (NotImplementedError, RuntimeError, TypeError, AttributeError):  # a class that reads its own tensors
        return load_encoder(name, "random", **options)
    _apply_config(encoder, config, name)
    return encoder.eval()


def _apply_config(encoder: Encoder, config: configs.EncoderConfig, name: str) -> None:
    """Set what the YAML says of an encoder; `name` is how the caller named it."""
    encoder.name, encoder.store_name = config.name, configs.display_name(config.base) or config.name
    encoder.options, encoder.asked_as, encoder.trained_on = dict(config.options), name, config.trained_on
    if config.default_layers:
        encoder.default_layers = tuple(encoder.layer(layer).name for layer in config.default_layers)
    if config.pooling:
        infos = (dataclasses.replace(info, pooling=config.pooling) for info in encoder.layer_infos)
        encoder.layer_infos = tuple(infos)


def _load_own_state(encoder: Encoder, state: dict[str, Tensor], path: Path) -> None:
    """Load a checkpoint that evar wrote: the tensors, a filterbank that was trained, and the input statistics."""
    from evar.encoders._logmel import MelSpectrogram
    from evar.encoders.weights import load_strict

    stats = state.pop("norm_stats", None)
    for name, module in encoder.named_modules():
        if isinstance(module, MelSpectrogram) and f"{name}.filterbank" in state:
            module.make_trainable()
    load_strict(encoder, state, path)
    if stats is not None:
        encoder.norm_stats = (float(stats[0]), float(stats[1]))


def _label_weights(encoder: Encoder, config: configs.EncoderConfig, found: Located | None, is_random: bool) -> None:
    """Set the label and the hash of the weights; files that belong to the encoder are part of the hash."""
    from evar import download

    if found:
        encoder.weights_label, encoder.weights_sha256 = found.label, found.sha256
    elif encoder.brings_weights and not is_random:
        encoder.weights_label, encoder.weights_sha256 = encoder.brings_weights, _parameters_sha256(encoder)
    elif config.weights is None and not is_random and next(encoder.parameters(), None) is None:
        encoder.weights_label, encoder.weights_sha256 = "none", "none"
    else:
        encoder.weights_label, encoder.weights_sha256 = "random", _parameters_sha256(encoder)
    if encoder.extra_files:
        hashes = [encoder.weights_sha256, *(download.sha256_of(file) for file in encoder.extra_files)]
        encoder.weights_sha256 = hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _parameters_sha256(encoder: Encoder) -> str:
    """Hash of all parameters and buffers: two machines that draw other random numbers never share a cache entry."""
    digest = hashlib.sha256()
    for key, tensor in sorted(encoder.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).numpy().tobytes())
    return digest.hexdigest()
