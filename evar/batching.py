"""Which clips share a batch: clips of about equal length, bounded by seconds of audio."""

from __future__ import annotations

from collections.abc import Sequence


def in_batches(
    order: Sequence[int], lengths: Sequence[int], max_samples: int, *, batch_size: int | None, equal_lengths: bool
) -> list[list[int]]:
    """Cut positions, sorted by falling length, into batches; the first clip of a batch is its longest.

    Args:
        order: positions of the clips, longest first.
        lengths: samples of the clip at each position.
        max_samples: of a batch with its padding (a longer clip has a batch of its own).
        batch_size: clips a batch instead, where not None.
        equal_lengths: never mix lengths (encoders whose vectors depend on padding).

    Example:
        >>> in_batches([2, 0, 1], [5, 4, 6], 12, batch_size=None, equal_lengths=False)
        [[2, 0], [1]]
    """
    batches: list[list[int]] = []
    for position in order:
        last = batches[-1] if batches else []
        full = not last or (len(last) >= batch_size if batch_size else (len(last) + 1) * lengths[last[0]] > max_samples)
        if full or (equal_lengths and lengths[position] != lengths[last[0]]):
            batches.append([position])
        else:
            last.append(position)
    return batches
