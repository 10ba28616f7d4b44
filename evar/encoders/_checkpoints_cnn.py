"""What a checkpoint of a convolutional network is, by its tensors; `_checkpoints` asks here as well."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

#: tensors that only one family has together -> kind, in words, the encoders that take it
_SIGNS: tuple[tuple[tuple[str, ...], tuple[str, str, str]], ...] = (
    (("audio_encoder.conv1.weight", "audio_transform.sequential.0.weight"), ("wav2clip", "a Wav2CLIP", "wav2clip")),
    (("audio_encoder.16.weight", "fc_audio.0.weight"), ("coala", "a COALA", "coala or coala.encoders_only")),
    (
        ("layers.0.2.layers.0.0.fn.to_q.net.0.weight", "layers.2.0.weight"),
        ("byol_s.cvt", "a BYOL-S with the CvT", "byol_s.cvt"),
    ),
    (
        ("encoder/stem_conv/kernel", "encoder/top_conv/kernel"),
        ("cola", "an EfficientNet-B0 with Keras's names, as COLA's is", "cola"),
    ),
    (
        ("features_1.0.weight", "features_3.0.weight"),
        ("delores.ntt", "a DeLoRes on BYOL-A's network", "delores.ntt"),
    ),
)


def recognise_cnn(state: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """Find the kind of checkpoint that these tensors belong to.

    Args:
        state: tensor name -> tensor.

    Returns:
        Kind, what it is in words, and the encoders that take it; None where no rule knows it.

    Example:
        >>> import torch
        >>> recognise_cnn({"features.0.weight": torch.zeros(1), "fc.0.weight": torch.zeros(512, 512)})[2]
        'byol_a.d512'
    """
    for names, found in _SIGNS:
        if all(name in state for name in names):
            return found
    return _recognise_openl3(state) or _recognise_byol(state) or _recognise_b0(state)


def _recognise_openl3(state: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """Find the number of bands in the mel filters of the file; the networks are the same."""
    if "audio_embedding_layer.weight" not in state or "conv2d_1.weight" not in state:
        return None
    filters = state.get("speclayer.mel_basis")
    if filters is None:
        return (
            "openl3.linear",
            "an OpenL3 on linear spectra",
            "a file of 128 or 256 mel bands with openl3.env or openl3.music",
        )
    suffix = "" if len(filters) == 256 else f"_mel{len(filters)}"
    encoders = f"openl3.env{suffix} or openl3.music{suffix}"
    return f"openl3.{len(filters)}", f"an OpenL3 on {len(filters)} mel bands", encoders


def _recognise_byol(state: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """BYOL-A and BYOL-S have the same names; those of width 2048 cannot be told apart."""
    first, linear = state.get("conv1.weight"), state.get("fc.0.weight")
    if first is not None and first.shape[1:] == (1, 7, 7) and "layer3.5.bn2.weight" in state:
        return "byol_s.resnetish", "a BYOL-S with ResNet-34", "byol_s.resnetish"
    if "features.0.weight" not in state or linear is None or linear.dim() != 2:
        return None
    if linear.shape[1] == 1024:
        return "byol_a2", "a BYOL-A of 2022", "byol_a2"
    if linear.shape[1] != 512:
        return None
    width = len(linear)
    also = " or byol_s.default" if width == 2048 else ""
    return f"byol_a.{width}", f"a BYOL-A{' or BYOL-S' if also else ''} of width {width}", f"byol_a.d{width}{also}"


def _recognise_b0(state: Mapping[str, Tensor]) -> tuple[str, str, str] | None:
    """The package efficientnet_pytorch with one input channel and 16 blocks."""
    stem = next((value for name, value in state.items() if name.endswith("_conv_stem.weight")), None)
    blocks = {name.partition("_blocks.")[2].partition(".")[0] for name in state if "_blocks." in name}
    if stem is None or stem.shape[1] != 1 or len(blocks) != 16:
        return None
    return "decar", "an EfficientNet-B0 on one channel, as DECAR and DeLoRes have it", "decar or delores"
