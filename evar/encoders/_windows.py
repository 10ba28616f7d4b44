"""Clips of any length for networks that take a fixed length or see a whole clip: windows, and groups of equal length.

A transformer compares all tokens of what it is given, so padding would change a clip's vector. Here every clip is cut into
windows, windows of the same size go through the network together, and nothing else shares a forward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from evar.encoders._packing import in_chunks

Network = Callable[[Tensor], dict[str, Tensor]]


def window_lengths(length: int, unit: int) -> list[int]:
    """List the frames of each window of a clip: full windows, then the rest.

    Args:
        length: frames of the clip, >= 1.
        unit: frames of a full window; 0: the whole clip is one window.

    Example:
        >>> window_lengths(1231, 608), window_lengths(608, 608), window_lengths(1231, 0)
        ([608, 608, 15], [608], [1231])
    """
    if not unit:
        return [length]
    full, rest = divmod(int(length), int(unit))
    return [unit] * full + ([rest] if rest else [])


def count_steps(lengths: Tensor, unit: int, steps: Callable[[int], int]) -> Tensor:
    """Time steps of whole clips that go through a network in windows.

    Args:
        lengths: (batch,) frames of each clip.
        unit: as in `window_lengths`.
        steps: frames of a window -> time steps that it gives.

    Returns:
        (batch,) time steps.

    Example:
        >>> count_steps(torch.tensor([1001, 1002]), 1001, lambda n: min(-(-n // 16), 62)).tolist()
        [62, 63]
    """
    counts = [sum(map(steps, window_lengths(length, unit))) for length in lengths.tolist()]
    return torch.tensor(counts, device=lengths.device)


def cut_waveform(waveform: Tensor, lengths: Tensor, unit: int, least: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Cut clips into pieces of `unit` samples; the last piece of a clip is shorter.

    Args:
        waveform: (batch, samples).
        lengths: (batch,) valid samples of each clip, at least `least`.
        unit: samples of a piece.
        least: samples that a last piece must have; a shorter one is left out.

    Returns:
        (piece, samples) zero beyond a piece's own, (piece,) samples of each, and (batch,) pieces of each clip.

    Example:
        >>> pieces, sizes, counts = cut_waveform(torch.ones(2, 7), torch.tensor([7, 2]), unit=3, least=2)
        >>> pieces.tolist(), sizes.tolist(), counts.tolist()
        ([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], [3, 3, 2], [2, 1])
    """
    cuts = [[size for size in window_lengths(length, unit) if size >= least] for length in lengths.tolist()]
    sizes = [size for cut in cuts for size in cut]
    pieces = waveform.new_zeros(len(sizes), max(sizes))
    row = 0
    for clip, cut in enumerate(cuts):
        for number, size in enumerate(cut):
            pieces[row, :size] = waveform[clip, number * unit : number * unit + size]
            row += 1
    as_tensor = partial(torch.tensor, device=lengths.device)
    return pieces, as_tensor(sizes), as_tensor([len(cut) for cut in cuts])


def average_pieces(values: Tensor, counts: Tensor) -> Tensor:
    """Average what the pieces of each clip give, with equal weight.

    Args:
        values: (piece, ...), the pieces of a clip one after the other.
        counts: (batch,) pieces of each clip.

    Returns:
        (batch, ...).

    Example:
        >>> average_pieces(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 1])).tolist()
        [2.0, 5.0]
    """
    return torch.stack([part.mean(dim=0) for part in values.split(counts.tolist())])


def run_windows(
    network: Network,
    frames: Tensor,
    lengths: Tensor,
    *,
    unit: int,
    size: Callable[[int], int],
    steps: Callable[[int], int],
    chunk_frames: int = 2**16,
    per_window: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Run a network on the windows of every clip and put their time steps in a row.

    Args:
        network: (window, frames, ...), all of one size -> layer name -> (window, time step, feature). It gives at least
            `steps` time steps; more of them are left out.
        frames: (batch, time, ...) spectrograms, or samples.
        lengths: (batch,) frames of each clip; frames beyond are replaced by zeros.
        unit: frames of a full window, 0 for none.
        size: frames of a window -> frames that the network is given of it: the same number, more (the rest is zeros),
            or less (a cut, where the network would leave the end out anyway).
        steps: frames of a window -> time steps to keep of it; 0 for a window that is not run at all.
        chunk_frames: frames, over all windows, that share a forward at most; bounds memory.
        per_window: layers of one vector a window (a cls token): averaged over the clip's windows.

    Returns:
        layer name -> (batch, time step, feature), zeros beyond a clip's own; (batch, 1, feature) for `per_window`.

    Example:
        >>> sums = lambda x: {"sums": x.unflatten(1, (-1, 2)).sum(2)}
        >>> out = run_windows(sums, torch.ones(1, 7, 1), torch.tensor([7]), unit=4, size=lambda n: -(-n // 2) * 2,
        ...                   steps=lambda n: -(-n // 2))
        >>> out["sums"].flatten().tolist()
        [2.0, 2.0, 2.0, 1.0]
    """
    if torch.jit.is_tracing():
        return _run_equal_clips(network, frames, window_lengths(int(lengths[0]), unit), size, steps, per_window)
    begins: dict[int, list[tuple[int, int, int, int]]] = {}  # size -> (clip, first frame, frames, first time step)
    totals, n_windows = [], []
    for clip, length in enumerate(lengths.tolist()):
        first = step = 0
        kept = 0
        for count in window_lengths(length, unit):
            if steps(count):
                begins.setdefault(size(count), []).append((clip, first, count, step))
                kept += 1
            first, step = first + count, step + steps(count)
        totals.append(step)
        n_windows.append(kept)
    result: dict[str, Tensor] = {}
    for given, windows in begins.items():
        packed = _cut(frames, windows, given)
        outputs = in_chunks(network, packed, max(1, chunk_frames // given))
        for name, value in outputs.items():
            if name in per_window:
                share = torch.tensor([1.0 / n_windows[clip] for clip, *_ in windows], device=value.device)
                rows = torch.tensor([clip for clip, *_ in windows], device=value.device)
                total = result.get(name, value.new_zeros(len(lengths), *value.shape[1:]))
                result[name] = total.index_add(0, rows, value * share[:, None, None])
                continue
            if len(windows) == len(lengths) and len(begins) == 1 and min(totals) == max(totals):
                result[name] = value[:, : totals[0]]  # one window a clip, all alike
                continue
            clips = torch.tensor([clip for clip, _, count, _ in windows for _ in range(steps(count))])
            places = torch.tensor([step + i for _, _, count, step in windows for i in range(steps(count))])
            kept_steps = torch.cat([row[: steps(count)] for row, (_, _, count, _) in zip(value, windows, strict=True)])
            out = result.get(name)
            if out is None:
                out = value.new_zeros(len(lengths), max(totals), value.shape[2])
            result[name] = out.index_put((clips.to(value.device), places.to(value.device)), kept_steps)
    return result


def _cut(frames: Tensor, windows: list[tuple[int, int, int, int]], given: int) -> Tensor:
    """(window, given frames, ...): each window's own frames, then zeros."""
    packed = frames.new_zeros(len(windows), given, *frames.shape[2:])
    for row, (clip, first, count, _) in enumerate(windows):
        n = min(count, given)
        packed[row, :n] = frames[clip, first : first + n]
    return packed


def _run_equal_clips(
    network: Network,
    frames: Tensor,
    windows: list[int],
    size: Callable[[int], int],
    steps: Callable[[int], int],
    per_window: tuple[str, ...],
) -> dict[str, Tensor]:
    """Run a network on the windows of clips of one length, whose number nothing may depend on: for `evar export`."""
    parts: dict[str, list[Tensor]] = {}
    first = 0
    for count in windows:
        if steps(count):
            given = size(count)
            own = frames[:, first : first + min(count, given)]
            padding = (0, 0) * (frames.dim() - 2) + (0, given - min(count, given))
            for name, value in network(torch.nn.functional.pad(own, padding)).items():
                parts.setdefault(name, []).append(value if name in per_window else value[:, : steps(count)])
        first += count
    return {
        name: torch.stack(values).mean(dim=0) if name in per_window else torch.cat(values, dim=1)
        for name, values in parts.items()
    }
