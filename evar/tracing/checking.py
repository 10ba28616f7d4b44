"""Does a file give the encoder's own numbers? It is run on noise of other batch sizes and lengths, and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.tracing.network import WaveformNetwork

#: (clips, samples) float32 -> outputs, in the order of the network's
Runner = Callable[[NDArray[np.float32]], list[NDArray[Any]]]

#: largest difference from the encoder's own numbers, as a share of the largest number of the output
TOLERANCE = 1e-4
#: a length that is far from the traced one, and longer than the windows of most encoders, in seconds
_LONG_SECONDS = 11.3
_OTHER_SHARE = 1.63


@dataclass(frozen=True)
class Check:
    """What a file was found to be able to do.

    Attributes:
        any_batch: it takes any number of clips, else one.
        any_length: it takes clips of any length, else of `n_samples`.
        n_samples: that it was traced with.
        error: largest difference from the encoder on everything that it can do, as a share of the largest number.
    """

    any_batch: bool
    any_length: bool
    n_samples: int
    error: float


def measure_error(network: WaveformNetwork, run: Runner, n_clips: int, n_samples: int) -> tuple[float, str]:
    """Compare a file with the network on noise.

    Args:
        network: of which the file was made.
        run: runs the file.
        n_clips, n_samples: of the noise.

    Returns:
        Largest difference over all outputs, each as a share of the output's largest number; infinite, with the reason, if
        the file cannot run or gives another shape.
    """
    generator = torch.Generator().manual_seed(n_clips * 1_000_003 + n_samples)
    waveform = 0.1 * torch.randn(n_clips, n_samples, generator=generator)
    with torch.no_grad():
        own = network(waveform)
    wanted = [one.numpy() for one in (own if isinstance(own, tuple) else (own,))]
    try:
        found = run(waveform.numpy())
    except Exception as error:  # each runtime has errors of its own
        return float("inf"), " ".join(str(error).split())[-200:]
    worst = 0.0
    for name, one, other in zip(network.output_names, wanted, found, strict=True):
        if one.shape != other.shape:
            return float("inf"), f"{name} has the shape {other.shape} in place of {one.shape}"
        scale = max(float(np.abs(one).max()), 1e-9)
        difference = float(np.abs(one - other).max()) / scale
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst, "" if worst <= TOLERANCE else f"its numbers differ by {worst:.2g} of the largest"


def list_lengths(network: WaveformNetwork, n_samples: int) -> list[int]:
    """List the other lengths at which a file is tried: a part of the traced length, and a long sound.

    Args:
        network: of which the file was made.
        n_samples: length that it was traced with.

    Returns:
        Two lengths in samples, at the encoder's sample rate.
    """
    rate, least = network.encoder.sample_rate, network.encoder.min_samples
    return [max(least, round(n_samples * _OTHER_SHARE)), max(least, round(_LONG_SECONDS * rate))]


def check_batch(network: WaveformNetwork, run: Runner, n_samples: int) -> tuple[float, str]:
    """Compare a file with the network at other numbers of clips than the traced one: 1 and 3.

    Args:
        network: of which the file was made.
        run: runs the file.
        n_samples: length of the clips.

    Returns:
        The larger difference, as for `measure_error`, and its reason.
    """
    return max((measure_error(network, run, n_clips, n_samples) for n_clips in (1, 3)), key=lambda found: found[0])


def check_lengths(network: WaveformNetwork, run: Runner, n_samples: int, n_clips: int) -> tuple[float, str]:
    """Compare a file with the network at other lengths than the traced one, those of `list_lengths`.

    Args:
        network: of which the file was made.
        run: runs the file.
        n_samples: length that it was traced with.
        n_clips: number of clips.

    Returns:
        The larger difference, as for `measure_error`, and its reason.
    """
    found = [measure_error(network, run, n_clips, other) for other in list_lengths(network, n_samples)]
    return max(found, key=lambda one: one[0])
