"""The metrics of protocols that compare test clips with each other: retrieval of sounds, clusters, and pairs."""

from __future__ import annotations

from functools import partial
from typing import Any

from numpy.typing import ArrayLike, NDArray

from evar.metrics.clusters import compute_ari, compute_nmi, make_score, resample_agreement
from evar.metrics.named import METRICS, Metric
from evar.metrics.pairs import PAIR_SCORES, make_pair_score, resample_pairs
from evar.metrics.resampling import resample_mean
from evar.metrics.same_class import guess_queries, value_queries

_SHOWN_OF_PAIRS = {
    "pair_auc": "AUC",
    "pair_eer": "EER",
    "min_dcf_1_percent": "minDCF (p 0.01)",
    "min_dcf_5_percent": "minDCF (p 0.05)",
}


def _make_retrieval(what: str, shown: str) -> Metric:
    def score(y_true: ArrayLike, y_pred: ArrayLike) -> float:
        values = value_queries(y_pred, what)
        if not len(values) or len(values) != len(y_true):  # type: ignore[arg-type]
            raise ValueError("retrieval needs a query that has a clip of its class in another group, got none")
        return float(values.mean())

    score.__name__ = f"sound_retrieval_{what}"

    def resample(_: Any, y_pred: NDArray[Any], index: NDArray[Any], counts: NDArray[Any]) -> NDArray[Any]:
        return resample_mean(value_queries(y_pred, what)[:, None], index, counts)

    return Metric(
        score,
        "queries",
        resample,
        is_mean=True,
        chance=lambda y_true, _: guess_queries(y_true, what),
        display_name=shown,
        is_default=what == "map",
    )


def _make_metrics() -> dict[str, Metric]:
    found = {
        f"sound_retrieval_{what}": _make_retrieval(what, shown)
        for what, shown in {
            "map": "mAP",
            "recall_at_1": "R@1",
            "recall_at_5": "R@5",
            "recall_at_10": "R@10",
            "precision_at_5": "P@5",
            "precision_at_10": "P@10",
        }.items()
    }
    for name, agreement, shown in (
        ("nmi", compute_nmi, "NMI"),
        ("adjusted_rand_index", compute_ari, "ARI"),
        ("v_measure", compute_nmi, "V-measure"),
    ):
        found[name] = Metric(
            make_score(agreement, name),
            "clusters",
            partial(resample_agreement, agreement),
            bounds=(-1.0, 1.0) if name == "adjusted_rand_index" else (0.0, 1.0),
            n_resamples=1000,
            chance=0.0 if name == "adjusted_rand_index" else None,
            display_name=shown,
            is_default=name == "nmi",
        )
    for name, of_errors in PAIR_SCORES.items():
        found[name] = Metric(
            make_pair_score(of_errors, name),
            "pairs",
            partial(resample_pairs, of_errors),
            higher_is_better=name == "pair_auc",
            n_resamples=1000,
            chance=0.5 if name in ("pair_auc", "pair_eer") else 1.0,
            display_name=_SHOWN_OF_PAIRS[name],
            is_default=name == "pair_auc",
        )
    return found


METRICS.update(_make_metrics())
