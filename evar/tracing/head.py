"""The head of a classifier file as part of a network: pooled vectors -> probabilities of classes, or a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from evar.classifiers.file import read_classifier
from evar.classifiers.predicting import choose_heads, predict_vectors
from evar.probes.saved import SavedProbe, restore_probe

if TYPE_CHECKING:
    from evar.classifiers.record import ClassifierRecord

#: kinds of probes that are one product with a matrix
KINDS = ("linear", "multilabel", "ridge")
FUSIONS = ("none", "concat", "average")
#: largest difference from the probe's own predictions
_TOLERANCE = 1e-6


class LinearHead(nn.Module):
    """One or several linear probes, whose probabilities or numbers are averaged.

    Args:
        record: of the classifier file.
        probes: as data, all of one kind in `KINDS`.
    """

    def __init__(self, record: ClassifierRecord, probes: Sequence[SavedProbe]) -> None:
        super().__init__()
        self.kind, self.n_classes = record.task.kind, len(record.task.classes)
        self.known: list[list[int]] = []
        for number, probe in enumerate(probes):
            width = int(probe.settings["n_features"])
            if probe.kind == "ridge":
                weights, offsets = probe.arrays["coef_"].reshape(1, width), probe.arrays["intercept"].reshape(1)
            else:
                weights, offsets = np.atleast_2d(probe.arrays["coef_"]), np.atleast_1d(probe.arrays["intercept_"])
            self.register_buffer(f"weights_{number}", torch.from_numpy(np.array(weights, np.float64)))
            self.register_buffer(f"offsets_{number}", torch.from_numpy(np.array(offsets, np.float64)))
            self.known.append([int(one) for one in probe.arrays["classes_"]] if self.kind == "multiclass" else [])

    def forward(self, vectors: Tensor) -> Tensor:
        """Predict clips from their pooled vectors.

        Args:
            vectors: (batch, width) pooled vectors.

        Returns:
            (batch, classes) float32 probabilities, in the order of the task's classes; (batch, 1) numbers.
        """
        parts = []
        for number, known in enumerate(self.known):
            weights, offsets = getattr(self, f"weights_{number}"), getattr(self, f"offsets_{number}")
            scores = vectors.double() @ weights.T + offsets
            parts.append(self._make_shares(scores, known))
        return torch.stack(parts).mean(dim=0).float()

    def _make_shares(self, scores: Tensor, known: list[int]) -> Tensor:
        """Turn (batch, outputs) logits into (batch, classes) probabilities; numbers stay as they are."""
        if self.kind == "regression":
            return scores
        if self.kind == "multilabel":
            return scores.sigmoid()
        if len(known) == 2:
            positive = scores[:, :1].sigmoid()
            shares = torch.cat([1 - positive, positive], dim=1)
        else:
            shares = scores.softmax(dim=1)
        if known == list(range(self.n_classes)):
            return shares
        places = torch.zeros(len(known), self.n_classes, dtype=shares.dtype)
        places[torch.arange(len(known)), torch.tensor(known)] = 1.0  # a class without training clips has 0
        return shares @ places


@dataclass(frozen=True)
class ClassifierHead:
    """A classifier file, ready to be part of a network.

    Attributes:
        record: what the file says.
        network: of its heads.
        norm_stats: (mean, std) that the encoder's input is normalised by; None if it is not.
    """

    record: ClassifierRecord
    network: LinearHead
    norm_stats: tuple[float, float] | None

    @property
    def facts(self) -> dict[str, Any]:
        """What a user of the file must know, as plain data."""
        record = self.record
        thresholds = [head.thresholds for head in record.heads if head.thresholds]
        return {
            "classifier": record.id,
            "task": record.task.name,
            "kind": record.task.kind,
            "classes": list(record.task.classes),
            "unit": record.task.unit,
            "thresholds": np.mean(thresholds, axis=0).tolist() if thresholds else [],
            "clip_seconds": record.clip.seconds,
            "clip_pad": record.clip.pad,
            "score": record.score.score,
            "score_interval": list(record.score.interval),
            "score_of": record.score.of,
        }


def load_head(path: str | Path, round: str = "") -> ClassifierHead:
    """Read a classifier file whose probes are linear.

    Args:
        path: of the file.
        round: name of the head that predicts, such as "fold 1"; "" averages all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no classifier, or its probes, its fusion or its input statistics cannot be exported.
    """
    record, saved = read_classifier(path)
    heads = choose_heads(record, round)
    chosen = [saved[at] for at in heads]
    if other := [probe.kind for probe in chosen if probe.kind not in KINDS]:
        raise ValueError(
            f"only linear heads ({', '.join(KINDS)}) can be exported, and {path} has one of kind {other[0]}"
        )
    if record.feature.fusion not in FUSIONS:
        raise ValueError(
            f"only a head on one layer, or on layers by concat or average, can be exported; {path} has the fusion "
            f"{record.feature.fusion}"
        )
    statistics = {record.heads[at].norm_stats for at in heads}
    if len(statistics) > 1:
        names = ", ".join(record.heads[at].name for at in heads)
        raise ValueError(
            f"the heads of {path} normalise the input by different statistics, so that one network cannot hold them all; "
            f"--round=NAME takes one of {names}"
        )
    given = statistics.pop()
    network = LinearHead(record, chosen).eval()
    _check_head(record, chosen, heads, network)
    return ClassifierHead(record, network, None if given is None else (float(given[0]), float(given[1])))


def _check_head(
    record: ClassifierRecord, chosen: Sequence[SavedProbe], heads: Sequence[int], network: LinearHead
) -> None:
    """Compare the network with the probes on drawn vectors; a difference is a fault of this module."""
    vectors = np.random.default_rng(0).normal(size=(8, int(chosen[0].settings["n_features"]))).astype(np.float32)
    every = [restore_probe(probe) for probe in chosen]
    probes = dict(zip(heads, every, strict=True))
    ordered = [probes.get(at) for at in range(len(record.heads))]
    own = predict_vectors(record, ordered, heads, [vectors] * len(heads))
    wanted = own.shares if own.shares is not None else own.values[:, None]
    with torch.no_grad():
        found = network(torch.from_numpy(vectors)).numpy()
    scale = max(1.0, float(np.abs(wanted).max()))
    if float(np.abs(found - wanted).max()) > _TOLERANCE * scale:
        raise RuntimeError("the exported head differs from the probes of the classifier file")
