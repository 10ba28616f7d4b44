"""Input statistics: the mean and standard deviation by which an encoder normalises its log-mel, and whose they are.

`--norm_stats` says which clips they are taken from: "train" (the training clips of each round; validation and test clips
have no say), "task" (all clips of the task, without labels), numbers, or "default" (what the encoder's paper does). One
pass of the front-end keeps count, sum and sum of squares of each clip; the statistics of any set of clips are sums of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo
from evar.extraction.extract import extract
from evar.extraction.plan import plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evar.data.task import Task
    from evar.storage.feature_store import FeatureStore
    from evar.storage.keys import FeatureKey

#: (mean, standard deviation), or None for an encoder that uses none
Statistics = tuple[float, float] | None

#: digits kept, so that the last bit of a sum does not make another feature of the same clip
DECIMALS = 6


def mode(encoder: Encoder, asked: str | tuple[float, float] | None, protocol: str) -> str | tuple[float, float] | None:
    """Resolve `--norm_stats` for one encoder.

    Args:
        encoder: as `load_encoder` gives it; if the user gave numbers, with these numbers.
        asked: value of the flag: "default", "train", "task", (mean, std), or None if the flag is not given.
        protocol: value of the protocol, which counts if the flag is not given.

    Returns:
        "train", "task", the (mean, std) that the encoder holds, or None for an encoder without input statistics.

    Example:
        >>> from evar.encoders import load_encoder
        >>> encoder = load_encoder("logmel")
        >>> mode(encoder, "train", "default") is None  # it normalises nothing
        True
        >>> with encoder.normalising_by((-7.0, 4.0)):
        ...     mode(encoder, None, "train"), mode(encoder, "default", "train")
        ('train', (-7.0, 4.0))
    """
    if encoder.norm_stats is None:
        return None
    word = asked or protocol
    if word == "default":
        word = encoder.default_norm_stats
    return word if word in ("train", "task") else encoder.norm_stats


class InputMoments(Encoder):
    """The front-end of an encoder as an encoder: a clip's count, sum and sum of squares as one frame.

    Features are float32, moments need float64: each is the sum of three float32 numbers, which hold all of its 53 bits.

    Args:
        encoder: whose front-end it is.
    """

    layer_infos = (LayerInfo("moments", 9, 0, "mean"),)
    default_layers = ("moments",)

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.sample_rate, self.min_samples = encoder.sample_rate, encoder.min_samples
        self.batch_seconds = encoder.batch_seconds  # type: ignore[misc]
        self.revision = encoder.revision  # type: ignore[misc]
        self.name = encoder.name
        self.store_name = f"{encoder.store_name or encoder.name}.input"
        self.weights_label = self.weights_sha256 = "none"  # a front-end has no weights
        self.options = encoder.options

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Return how many frames each clip has: one.

        Args:
            lengths: (batch,) samples.

        Returns:
            (batch,) ones.

        Example:
            >>> from evar.encoders import load_encoder
            >>> InputMoments(load_encoder("logmel")).valid_frames(torch.tensor([16000, 8000])).tolist()
            [1, 1]
        """
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Take the moments of each clip's front-end values.

        Args:
            waveform: (batch, samples) at the encoder's rate.
            lengths: (batch,) samples of each clip.

        Returns:
            "moments" -> (batch, 1, 9): high, middle and low part of count, of sum, of sum of squares.

        Raises:
            NotImplementedError: if the encoder has no front-end apart from its network.
        """
        return {"moments": _split_into_thirds(self.encoder.input_moments(waveform, lengths)).flatten(1)[:, None]}


def _split_into_thirds(values: Tensor) -> Tensor:
    """float64 of any shape -> (..., 3) float32 whose sum it is, to the last bit."""
    parts = []
    for _ in range(3):
        part = values.float()
        parts.append(part)
        values = values - part.double()
    return torch.stack(parts, dim=-1)


def of_task(
    encoder: Encoder,
    task: Task,
    what: str | tuple[float, float] | None,
    seeds: Iterable[int],
    store: FeatureStore,
    batch_size: int | None = None,
) -> dict[int, list[Statistics]]:
    """Statistics of every round of a task, after one pass of the front-end over the clips where they need it.

    Args:
        encoder: as `load_encoder` gives it.
        task: whose clips are there.
        what: as `mode` gives it.
        seeds: of the validation draws.
        store: where the moments of clips are kept.
        batch_size: clips a batch; None lets the encoder say.

    Returns:
        seed -> (mean, std) of each round; the same numbers in every round unless `what` is "train". Clips that cannot
        be read have no say.

    Raises:
        ValueError: if no clip is left to take them from, or all are silent.
        NotImplementedError: if the encoder has no front-end apart from its network.
    """
    if what is None or isinstance(what, tuple):
        return {seed: [what] * len(task.rounds(seed)) for seed in seeds}
    moments_of = InputMoments(encoder)
    label = f"{encoder.name} x {task.name} input statistics"
    extraction = extract(moments_of, task.paths, task.policy(), store, batch_size, label)
    moments = _load(store, extraction.key, extraction.rows)
    every = np.arange(len(task))
    return {
        seed: [
            pool_moments(moments, a_round.train if what == "train" else every, f"{task.name} {a_round.name}")
            for a_round in task.rounds(seed)
        ]
        for seed in seeds
    }


def read_stored(
    encoder: Encoder, task: Task, what: str | tuple[float, float] | None, seeds: Sequence[int], store: FeatureStore
) -> dict[int, list[Statistics]] | None:
    """Compute the same as `of_task`, only from stored moments.

    Args:
        encoder, task, what, seeds, store: as for `of_task`.

    Returns:
        As `of_task`; None if a clip's moments are missing.

    Raises:
        ValueError: if no clip is left to take them from, or all are silent.
    """
    if (
        what is None
        or isinstance(what, tuple)
        or not plan(InputMoments(encoder), task.paths, task.policy(), store).todo
    ):
        return of_task(encoder, task, what, seeds, store)
    return None


def pool_moments(moments: NDArray[np.float64], clips: NDArray[np.int64], where: str) -> tuple[float, float]:
    """Compute the mean and (population) standard deviation over all values of some clips, rounded to `DECIMALS`.

    Args:
        moments: (clips, 3) count, sum and sum of squares; NaN for clips that could not be read.
        clips: which of them count.
        where: task and round, for the error.

    Returns:
        (mean, standard deviation).

    Raises:
        ValueError: if no clip counts, or their values are all alike.

    Example:
        >>> pool_moments(np.array([[2.0, 6.0, 20.0], [1.0, 6.0, 36.0], [1.0, 99.0, 9801.0]]), np.array([0, 1]), "task")
        (4.0, 1.632993)
    """
    known = moments[clips]
    known = known[np.isfinite(known).all(axis=1)]
    if not len(known):
        raise ValueError(f"{where}: no usable clip is left to take input statistics from")
    count, total, squares = known.sum(axis=0)  # in the order of the index
    mean = total / count
    std = np.sqrt(max(0.0, squares / count - mean**2))
    if std < 10.0**-DECIMALS:
        raise ValueError(
            f"{where}: the log-mel of all {len(known)} clips is {mean:.6g} throughout; are they silent? "
            "Give --norm_stats=MEAN,STD"
        )
    return round(float(mean), DECIMALS), round(float(std), DECIMALS)


def _load(store: FeatureStore, key: FeatureKey, rows: Sequence[str | None]) -> NDArray[np.float64]:
    """(clips, 3) moments, NaN where a clip has none."""
    moments = np.full((len(rows), 3), np.nan)
    usable = [position for position, row in enumerate(rows) if row is not None]
    if usable:
        parts = store.load(key, [str(rows[position]) for position in usable], "moments").astype(np.float64)
        moments[usable] = parts.reshape(len(usable), 3, 3).sum(axis=2)
    return moments
