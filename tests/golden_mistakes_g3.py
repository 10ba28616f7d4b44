"""Known mistakes in the encoders of the golden set g3, each of which its arrays must show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from evar.encoders import _fbsp, _mobile, _preemphasised_mel, _swin, esresnext_fbsp, yamnet
from evar.encoders._logmel import mel_filterbank

CPU = torch.device("cpu")

Mistake = Callable[[Any, pytest.MonkeyPatch], None]


def other_module(kind: type[nn.Module], **changed: Any) -> Mistake:
    """Attributes of all modules of a kind set to other values."""

    def apply(encoder: Any, patch: pytest.MonkeyPatch) -> None:
        for module in encoder.modules():
            if type(module) is kind:
                for name, value in changed.items():
                    patch.setattr(module, name, value)

    apply.__name__ = f"{kind.__name__} with {changed}"
    return apply


tanh_gelu = other_module(nn.GELU, approximate="tanh")
not_repeated = partial(lambda encoder, patch: patch.setattr(encoder, "input", "padded"))


def no_mask(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, _swin.SwinBlock):
            patch.setitem(module._buffers, "mask", None)


def no_shift(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    no_mask(encoder, patch)
    for module in encoder.modules():
        if isinstance(module, _swin.SwinBlock):
            patch.setattr(module, "shift", 0)


def no_relative_bias(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, _swin.WindowAttention):
            table = nn.Parameter(torch.zeros_like(module.relative_position_bias_table))
            patch.setitem(module._parameters, "relative_position_bias_table", table)


def corners_not_aligned(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = nn.functional.interpolate
    patch.setattr(
        nn.functional, "interpolate", lambda *given, **options: real(*given, **options | {"align_corners": False})
    )


def bands_slow_in_the_image(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_swin, "fold", lambda frames: frames.unflatten(1, (4, -1)).permute(0, 3, 1, 2).flatten(1, 2))


def columns_first_in_merging(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for stage in encoder.network.layers:
        if stage.downsample is not None:
            order = stage.downsample.reduction.weight.unflatten(1, (4, -1))[:, [0, 2, 1, 3]].flatten(1)
            norm = stage.downsample.norm
            patch.setitem(stage.downsample.reduction._parameters, "weight", nn.Parameter(order))
            for name in ("weight", "bias"):
                moved = getattr(norm, name).detach().unflatten(0, (4, -1))[[0, 2, 1, 3]].flatten()
                patch.setitem(norm._parameters, name, nn.Parameter(moved))


def other_window(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    """A periodic window in place of a symmetric one, and the other way round."""
    mel = getattr(encoder.mel, "mel", encoder.mel)
    window, filters = mel._double[CPU]
    was_periodic = bool(window[1] == window[-1])
    window = torch.hann_window(mel.win_length, periodic=not was_periodic, dtype=torch.float64)
    patch.setattr(mel, "_double", {CPU: (window, filters)})


def povey_window(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    mel = encoder.mel.mel
    window, filters = mel._double[CPU]
    patch.setattr(mel, "_double", {CPU: (window**0.85, filters)})


def upper_edge_of_16_kilohertz(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    mel = encoder.mel.mel
    filters = mel_filterbank(32000, 1024, 128, 0.0, 16000.0, "htk", "none", "mel")
    patch.setattr(mel, "_double", {CPU: (mel._double[CPU][0], torch.from_numpy(filters.T.copy()))})


def no_preemphasis(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_preemphasised_mel, "PREEMPHASIS", 0.0)


def columns_from_the_middle(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    moved = nn.Parameter(encoder.time_new_pos_embed.detach().roll(-10, dims=3))
    patch.setitem(encoder._parameters, "time_new_pos_embed", moved)


def no_final_norm(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.norm, "forward", lambda tokens: tokens)


usual_epsilon = other_module(nn.BatchNorm2d, eps=1e-5)


def hard_sigmoid_weighs(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.Tensor, "sigmoid", nn.functional.hardsigmoid)


def hard_swish_everywhere(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.ReLU):
            patch.setattr(module, "forward", nn.functional.hardswish)


def silu_for_hard_swish(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Hardswish):
            patch.setattr(module, "forward", nn.functional.silu)


def statistics_of_ast(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "norm_stats", (-4.2677393, 4.5689974))


def two_deviations(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder, "norm_stats", (encoder.norm_stats[0], 2 * encoder.norm_stats[1]))


def same_zeros_on_all_sides(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if type(module) is _mobile._ConvolutionWithZerosBehind:
            patch.setattr(module, "forward", partial(around, module))


def around(convolution: nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
    return nn.functional.conv2d(maps, convolution.weight, None, 2, 1, groups=convolution.groups)


def relu_for_swish(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(nn.functional, "silu", nn.functional.relu)


def larger_epsilon(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    other_module(nn.BatchNorm2d, eps=1e-3)(encoder, patch)


def power_spectrum(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(encoder.mel, "power", 2)


def offset_of_vggish(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(yamnet, "LOG_OFFSET", 0.01)


def patches_without_overlap(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(yamnet, "PATCH_STEP", 96)
    patch.setattr(yamnet, "PATCH_HOP", 2 * yamnet.PATCH_HOP)


def larger_epsilon_in_attention(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, esresnext_fbsp._Attention):
            patch.setattr(module.bn, "eps", 1e-3)


def not_scaled_to_16_bits(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(esresnext_fbsp, "FULL_SCALE", 1.0)


def symmetric_blackman_harris(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    window = torch.signal.windows.general_cosine(1654, a=[abs(term) for term in _fbsp.TERMS], sym=True)
    patch.setattr(_fbsp, "make_window", lambda: window)


def plain_fourier_kernels(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    plain = _fbsp.WaveletSpectrum()
    for name, value in plain.named_parameters():
        patch.setitem(encoder.fbsp._parameters, name, nn.Parameter(value.detach().double()))


#: golden model -> encoder, options that make it fast, layer, the set's array of that layer where it has one, wave, and what
#: each mistake changes at least. Where only a part of the network is run whose layers the set has not by themselves, all of
#: the network is held against the set above, and this shows what a mistake changes beyond the tolerance.
MISTAKES: dict[str, tuple[str, dict[str, Any], str, str | None, str, list[tuple[Mistake, float]]]] = {
    "htsat": (
        "htsat",
        {"n_blocks": 4},
        "block4",
        "block4",
        "D",
        [
            (tanh_gelu, 1e-4),
            (corners_not_aligned, 5e-4),
            (no_relative_bias, 1e-2),
            (no_mask, 1e-2),
            (no_shift, 1e-2),
            (columns_first_in_merging, 1e-2),
            (bands_slow_in_the_image, 1e-2),
            (not_repeated, 1e-2),
        ],
    ),
    "passt": (
        "passt",
        {"n_blocks": 2},
        "scene",
        None,
        "A",
        [
            (tanh_gelu, 4e-5),
            (other_window, 4e-5),
            (upper_edge_of_16_kilohertz, 1e-2),
            (columns_from_the_middle, 1e-2),
            (no_preemphasis, 1e-2),
            (no_final_norm, 0.3),
        ],
    ),
    "mn10_as": (
        "efficientat.mn10",
        {},
        "head",
        "emb",
        "B",
        [
            (other_window, 1e-4),
            (usual_epsilon, 9e-3),
            (hard_sigmoid_weighs, 0.02),
            (silu_for_hard_swish, 0.02),
            (upper_edge_of_16_kilohertz, 0.03),
            (no_preemphasis, 0.1),
            (hard_swish_everywhere, 0.1),
        ],
    ),
    "psla": (
        "psla",
        {},
        "head",
        "emb",
        "A",
        [
            (usual_epsilon, 5e-3),
            (povey_window, 5e-3),
            (statistics_of_ast, 5e-3),
            (same_zeros_on_all_sides, 0.1),
            (two_deviations, 0.05),
            (relu_for_swish, 0.3),
        ],
    ),
    "yamnet": (
        "yamnet",
        {},
        "layer14",
        "emb",
        "B",
        [
            (usual_epsilon, 5e-4),
            (larger_epsilon, 5e-3),
            (other_window, 2e-3),
            (offset_of_vggish, 0.02),
            (patches_without_overlap, 0.04),
            (same_zeros_on_all_sides, 0.1),
            (power_spectrum, 0.3),
        ],
    ),
    "esresnext_fbsp": (
        "esresnext_fbsp",
        {"precision": "double"},
        "emb",
        "f64_emb",
        "A",
        [
            (larger_epsilon_in_attention, 1e-4),
            (symmetric_blackman_harris, 1e-4),
            (plain_fourier_kernels, 0.01),
            (not_scaled_to_16_bits, 0.05),
        ],
    ),
}
