"""What a file says about itself, and the YAML beside it with which "onnx:FILE" reads it back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from evar.config import load_encoder_config
from evar.config.licences import allows_commercial_use
from evar.tracing.checking import Check
from evar.tracing.network import WaveformNetwork

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig


def collect_metadata(network: WaveformNetwork, check: Check) -> dict[str, Any]:
    """Collect the facts about a file: plain data.

    Args:
        network: of which it was made.
        check: what it was found to be able to do.
    """
    from evar import __version__

    encoder = network.encoder
    config = _find_config(network)
    licence = config.weights.licence if config and config.weights else "no checkpoint" if config else "not known"
    return {
        "evar": __version__,
        "encoder": encoder.name,
        "weights": encoder.weights_label,
        "weights_sha256": encoder.weights_sha256,
        "licence": licence,
        "commercial_use": allows_commercial_use(licence) if config and config.weights else "unknown",
        "sample_rate": encoder.sample_rate,
        "min_samples": encoder.min_samples,
        "n_samples": 0 if check.any_length else check.n_samples,
        "any_batch": check.any_batch,
        "pooled": network.pooled,
        "layers": [
            {"name": info.name, "width": info.width, "hop": info.hop, "pooling": info.pooling} for info in network.infos
        ],
        "outputs": network.widths,
        "norm_stats": None if encoder.norm_stats is None else list(encoder.norm_stats),
        "options": dict(encoder.options),
    }


def _find_config(network: WaveformNetwork) -> EncoderConfig | None:
    """Find the YAML of the encoder, which states licence and origin of the checkpoint; None where there is none."""
    try:
        return load_encoder_config(network.encoder.asked_as or network.encoder.name)
    except (ValueError, OSError):
        return None


def add_metadata(data: bytes, facts: dict[str, Any]) -> bytes:
    """Write facts into an ONNX file, each as a text; lists and tables as JSON.

    Args:
        data: bytes of the ONNX file.
        facts: name -> value, as `collect_metadata` gives them; the file holds them under "evar.NAME".

    Returns:
        Bytes of the file with the facts.

    Raises:
        ImportError: if the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f'evar export writes ONNX files with onnx ({error}); pip install "evar-audio[onnx]"'
        ) from error
    model = onnx.load_model_from_string(data)
    texts = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True) for key, value in facts.items()
    }
    onnx.helper.set_model_props(model, {f"evar.{key}": text for key, text in texts.items()})
    model.producer_name, model.producer_version = "evar", facts["evar"]
    return bytes(model.SerializeToString())


def format_settings(network: WaveformNetwork, check: Check, facts: dict[str, Any]) -> str:
    """Write the YAML beside an ONNX file, with which "onnx:FILE" reads it back as an encoder.

    Args:
        network: that was exported.
        check: what the file was found to be able to do; a file of one length is read in windows of that length.
        facts: as `collect_metadata` gives them.

    Returns:
        The text of the YAML file.
    """
    import yaml

    config = _find_config(network)
    encoder = network.encoder
    weights = "random weights" if encoder.weights_label == "random" else encoder.weights_label
    settings: dict[str, Any] = {
        "description": f"{encoder.name} as an ONNX file, made by evar export ({weights})",
        "trained_on": encoder.trained_on or "not stated",
        "citation": config.citation if config else "not stated",
        "licence": facts["licence"],
        "sample_rate": encoder.sample_rate,
        "input": "waveform",
        "layers": {
            name: {"pooling": "mean"} if info is None else {"pooling": info.pooling, "time_axis": 1, "hop": info.hop}
            for name, info in network.outputs.items()
        },
        "default_layers": list(network.outputs) if network.pooled else _list_defaults(network),
    }
    if check.any_length:
        settings["min_samples"] = encoder.min_samples
    else:
        settings["window"] = check.n_samples
    return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))


def _list_defaults(network: WaveformNetwork) -> list[str]:
    """List the encoder's default layers as far as the file has them, else the last layer."""
    names = [info.name for info in network.infos]
    return [name for name in network.encoder.default_layers if name in names] or names[-1:]
