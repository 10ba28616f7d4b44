"""Retrieval by sound: every test clip is a query, and clips of its class should be nearest; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evar.metrics.same_class import rank_sounds
from evar.probes.comparing import Compared, ComparedClips, ComparingProbe
from evar.probes.protocol import ProbeTraits
from evar.probes.spaces import SPACES


class SoundRetrievalProbe(ComparingProbe):
    """Ranks test clips for each test clip by cosine; see `evar.metrics.same_class` for what counts.

    Args, attributes: as for `ComparingProbe`.

    Example:
        >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), [0, 0, 1, 1]
        >>> probe = SoundRetrievalProbe(spaces=("raw",)).fit(X, y, None, None)
        >>> found = probe.compare(X, ComparedClips.of(y, ["a", "b", "c", "d"], ["a", "b", "c", "d"]))
        >>> found.y_pred[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """

    traits = ProbeTraits(compares_clips=True)

    def __init__(
        self,
        spaces: Sequence[str] = SPACES,
        metric: str = "sound_retrieval_map",
        valid_clips: ComparedClips | None = None,
    ) -> None:
        self.spaces = spaces
        self.metric = metric
        self.valid_clips = valid_clips

    def _compare(self, directions: NDArray[np.float32], clips: ComparedClips) -> Compared:
        y_true, y_pred, queries = rank_sounds(directions, clips.y, clips.groups, clips.is_readable)
        if not len(queries):
            raise ValueError("no clip has another of its class in another group, so that there is nothing to find")
        n_left_out = len(clips) - len(queries)
        return Compared(
            clips.names[queries], clips.groups[queries], y_true, y_pred, {"queries_without_right_clips": n_left_out}
        )
