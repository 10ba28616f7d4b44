"""Operations that ONNX lacks, or has only for fixed lengths, written with others while a network is traced.

ONNX knows no complex numbers, and its exporter cuts windows only from signals of a known length. While
`rewritten_operations` lasts, windows are gathered, and Fourier transforms are products with matrices of cosines and sines
in double precision, which are more exact than the transforms that they stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

#: version of the ONNX operators that files are written in
OPSET = 17


class Spectrum:
    """A complex tensor as its two parts, with the few operations that encoders apply to spectra.

    Args:
        real, imag: of one shape.

    Example:
        >>> Spectrum(torch.tensor([3.0]), torch.tensor([4.0])).abs().tolist()
        [5.0]
    """

    def __init__(self, real: Tensor, imag: Tensor) -> None:
        self.real, self.imag = real, imag

    @property
    def shape(self) -> Any:
        """Shape of either part."""
        return self.real.shape

    @property
    def mT(self) -> Spectrum:  # as torch calls it
        """The last two axes exchanged."""
        return Spectrum(self.real.mT, self.imag.mT)

    def abs(self) -> Tensor:
        """Return the magnitude of each value, 0 or more; any shape."""
        return (self.real * self.real + self.imag * self.imag).sqrt()

    def angle(self) -> Tensor:
        """Return the phase of each value in radians; any shape."""
        return torch.atan2(self.imag, self.real)

    def transpose(self, first: int, second: int) -> Spectrum:
        """Exchange two axes."""
        return Spectrum(self.real.transpose(first, second), self.imag.transpose(first, second))

    def __getitem__(self, index: Any) -> Spectrum:
        return Spectrum(self.real[index], self.imag[index])


@lru_cache(maxsize=16)
def _make_basis(n_fft: int, size: int) -> tuple[Tensor, Tensor]:
    """Compute cosines and sines, (size, bin) float64; of n_fft samples only the first `size` are not zero."""
    angles = -2 * torch.pi * torch.outer(torch.arange(size).double(), torch.arange(n_fft // 2 + 1).double()) / n_fft
    return angles.cos(), angles.sin()


def transform_frames(frames: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Spectrum:
    """Compute the Fourier transform of real frames, as `torch.fft.rfft` does along the last axis.

    Args:
        frames: (..., sample).
        n: samples of the transform; None for those of the frames.
        dim: must be the last axis.
        norm: must be None or "backward".

    Example:
        >>> frames = torch.randn(2, 8)
        >>> bool((transform_frames(frames).abs() - torch.fft.rfft(frames).abs()).abs().max() < 1e-6)
        True
    """
    if dim not in (-1, frames.dim() - 1) or norm not in (None, "backward"):
        raise NotImplementedError(f"only transforms along the last axis can be exported, got dim={dim}, norm={norm}")
    size = int(frames.shape[-1])
    n_fft = size if n is None else int(n)
    cosines, sines = _make_basis(n_fft, min(size, n_fft))
    kept = frames[..., :n_fft].double()
    return Spectrum((kept @ cosines).to(frames.dtype), (kept @ sines).to(frames.dtype))


def cut_windows(values: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Cut one axis into windows, as `Tensor.unfold` does: the samples of a window become the last axis.

    Args:
        values: any shape.
        dimension: the axis.
        size, step: of the windows, in samples.

    Example:
        >>> torch.equal(cut_windows(torch.arange(6.0)[None], 1, 3, 2), torch.arange(6.0)[None].unfold(1, 3, 2))
        True
    """
    axis = dimension % values.dim()
    n_windows = (values.shape[axis] - size) // step + 1
    index = torch.arange(n_windows)[:, None] * step + torch.arange(size)[None]  # (window, sample)
    taken = values.index_select(axis, index.flatten())
    shape = list(values.shape)
    return taken.reshape(*shape[:axis], -1, size, *shape[axis + 1 :]).movedim(axis + 1, -1)


def transform_signal(
    waveform: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    **others: Any,
) -> Spectrum:
    """Compute the short-time Fourier transform as `torch.stft` does: (batch, samples) -> (batch, bin, frame).

    Args:
        waveform: (batch, samples).
        n_fft, hop_length, win_length, window, center, pad_mode, normalized, onesided, return_complex: as for `torch.stft`.
        others: refused.
    """
    if normalized or onesided is False or not return_complex or any(others.values()):
        raise NotImplementedError("only plain one-sided transforms can be exported")
    size = win_length or n_fft
    shape = window if window is not None else torch.ones(size, dtype=waveform.dtype)
    left = (n_fft - size) // 2
    shape = torch.nn.functional.pad(shape, (left, n_fft - size - left))
    if center:
        waveform = torch.nn.functional.pad(waveform[:, None], (n_fft // 2, n_fft // 2), mode=pad_mode)[:, 0]
    return transform_frames(cut_windows(waveform, 1, n_fft, hop_length or n_fft // 4) * shape).transpose(1, 2)


def _write_floor_division(graph: Any, values: Any, other: Any) -> Any:
    """Write the nodes of ONNX for `//`; the exporter's own take the result for a fraction where a type is not known.

    For whole numbers (a - a mod b) / b, as a division of ONNX rounds towards zero.
    """
    if str(values.type().scalarType()) in ("Float", "Double", "Half"):
        return graph.op("Floor", graph.op("Div", values, other))
    return graph.op("Div", graph.op("Sub", values, graph.op("Mod", values, other)), other)


@contextmanager
def rewritten_operations() -> Iterator[None]:
    """Replace the operations that ONNX lacks, for as long as this lasts; calls outside of a trace are as before."""
    replaced: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, name: str, other: Callable[..., Any]) -> None:
        original = getattr(owner, name)
        replaced.append((owner, name, original))
        setattr(owner, name, lambda *args, **more: (other if torch.jit.is_tracing() else original)(*args, **more))

    try:
        replace(torch.Tensor, "unfold", cut_windows)
        replace(torch.fft, "rfft", transform_frames)
        replace(torch, "stft", transform_signal)
        replace(torch, "complex", Spectrum)
        torch.onnx.register_custom_op_symbolic("aten::floor_divide", _write_floor_division, OPSET)
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::floor_divide", OPSET)
        for owner, name, original in reversed(replaced):
            setattr(owner, name, original)
