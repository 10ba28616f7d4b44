"""Clusters of test clips: do they agree with the classes? Nothing is trained, and no label is seen but their number."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evar.metrics.clusters import name_clusters
from evar.probes.comparing import Compared, ComparedClips, ComparingProbe
from evar.probes.protocol import ProbeTraits
from evar.probes.spaces import SPACES

#: cluster of clips that could not be read
_UNREADABLE = -1


class ClusteringProbe(ComparingProbe):
    """k-means of directions, with as many clusters as the clips have classes.

    Args:
        spaces, metric, valid_clips: as for `ComparingProbe`.
        n_starts: k-means++ starts, at least 1; the one with the smallest sum of squared distances is kept.
        max_iter: steps of a start, at most.
        random_state: seed of the starts.

    Source: Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007; scikit-learn's `KMeans`. On
        directions, squared distance is 2 - 2 x cosine.

    Example:
        >>> X, y = np.float32([[1, 0], [2, 0.1], [-1, 0], [-2, 0.1]]), [0, 0, 1, 1]
        >>> probe = ClusteringProbe(spaces=("raw",)).fit(X, y, None, None)
        >>> probe.compare(X, ComparedClips.of(y, ["a", "b", "c", "d"], ["a", "b", "c", "d"])).y_pred.tolist()
        [0, 0, 1, 1]
    """

    traits = ProbeTraits(compares_clips=True)

    def __init__(
        self,
        spaces: Sequence[str] = SPACES,
        metric: str = "nmi",
        valid_clips: ComparedClips | None = None,
        n_starts: int = 10,
        max_iter: int = 300,
        random_state: int = 0,
    ) -> None:
        self.spaces = spaces
        self.metric = metric
        self.valid_clips = valid_clips
        self.n_starts = n_starts
        self.max_iter = max_iter
        self.random_state = random_state

    def _compare(self, directions: NDArray[np.float32], clips: ComparedClips) -> Compared:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning

        readable = clips.is_readable
        n_clusters = len(np.unique(clips.y))
        if n_clusters < 2 or int(readable.sum()) < n_clusters:
            raise ValueError(
                f"{n_clusters} clusters need at least 2 classes and as many clips, got {int(readable.sum())} clips"
            )
        means = KMeans(n_clusters, n_init=self.n_starts, max_iter=self.max_iter, random_state=self.random_state)
        with warnings.catch_warnings():  # fewer different vectors than clusters: the score tells
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = means.fit_predict(directions[readable])
        found = np.full(len(clips), _UNREADABLE, np.int64)
        # Labels are used only to give the clusters numbers that people can read; no score depends on them.
        present = np.unique(clips.y)
        found[readable] = _name(clips.y[readable], clusters, present)
        return Compared(clips.names, clips.groups, clips.y, found, {"n_clusters": n_clusters})


def _name(y: NDArray[np.int64], clusters: NDArray[np.int64], classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the clusters as `name_clusters` does, or in their order where some class has no readable clip."""
    if len(np.unique(clusters)) <= len(np.unique(y)):
        return name_clusters(y, clusters)
    return classes[np.unique(clusters, return_inverse=True)[1]]
