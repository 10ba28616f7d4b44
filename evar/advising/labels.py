"""The score at a given number of labelled clips, from rows that were trained on few clips and on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evar.advising.features import Feature, fix_feature, group_features, make_feature_key
from evar.report.label_curves import read_points
from evar.report.tables.labels import make_column_key, make_variant_key
from evar.results import Result

#: two known numbers of labels, between which a score is read off, differ by this factor at most
_FARTHEST = 4.0


@dataclass(frozen=True)
class Point:
    """A score at a number of labelled clips.

    Attributes:
        n_labels: labelled clips, training and validation together.
        score: 0..1.
        low, high: ends of its interval; None where there is none.
        protocol: under which it was measured.
    """

    n_labels: int
    score: float
    low: float | None
    high: float | None
    protocol: str


@dataclass(frozen=True)
class LabelScore:
    """The score that is to be expected of a feature at a number of labels.

    Attributes:
        n_labels: that were asked for.
        score: 0..1; None where only a range is known, or nothing.
        low, high: interval, or the range; None where nothing is known.
        note: how it was found, a sentence without a full stop.
    """

    n_labels: int
    score: float | None
    low: float | None
    high: float | None
    note: str


def estimate_at_labels(rows: Sequence[Result], feature: Feature, n_labels: int, out: Path) -> LabelScore:
    """Estimate the score of a feature at a number of labelled clips.

    Args:
        rows: of the results folder, of any protocol.
        feature: encoder and layers on the task.
        n_labels: labelled clips, training and validation together.
        out: results folder, for the predictions.
    """
    return read_off(list_points(rows, feature, out), n_labels)


def list_points(rows: Sequence[Result], feature: Feature, out: Path) -> list[Point]:
    """List the known scores of a feature, the fewest labels first.

    Where a label-efficiency curve and another protocol have the same number of labels, the curve's score is taken.

    Args:
        rows: of the results folder, of any protocol.
        feature: encoder and layers on the task.
        out: results folder, for the predictions.
    """
    first = feature.first
    same = [
        row
        for row in rows
        if row.encoder == first.encoder
        and make_variant_key(row) == make_variant_key(first)
        and make_column_key(row) == make_column_key(first)
        and row.limit == first.limit
    ]
    found: dict[int, Point] = {}
    of_curves: dict[int, Point] = {}
    by_protocol: dict[tuple[str, str], list[Result]] = {}
    for row in same:
        if make_feature_key(row) == feature.key:
            of_curves |= {point.n_labels: point for point in list_curve_points(row)}
        by_protocol.setdefault((row.protocol, str(row.params.get("n_per_class", ""))), []).append(row)
    for (protocol, _), own in by_protocol.items():
        seeds = group_features(own).get(feature.key)
        if not seeds or (protocol != first.protocol and not next(iter(seeds.values())).params.get("n_per_class")):
            continue
        n_labels = count_labels(next(iter(seeds.values())))
        if n_labels is None:
            continue
        of_protocol = fix_feature(group_features(own), feature.key, out, "only")
        low, high = of_protocol.interval or (None, None)
        found[n_labels] = Point(n_labels, of_protocol.score, low, high, protocol)
    found |= of_curves  # draws of many numbers of labels tell more than those of one
    return [found[n] for n in sorted(found)]


def list_curve_points(row: Result) -> list[Point]:
    """List the points of a label-efficiency curve; the interval is that of a single draw, which is what a user has.

    Args:
        row: of any protocol; one without a curve has no points.
    """
    if not row.n_classes:
        return []
    return [
        Point(round(one.n_per_class * row.n_classes), one.score, *one.one_draw, row.protocol)
        for one in read_points(row)
    ]


def count_labels(row: Result) -> int | None:
    """Count the labelled clips that a row was trained and chosen with; None where it is not known."""
    per_class = row.params.get("n_per_class")
    if isinstance(per_class, int):
        return per_class * row.n_classes if row.n_classes else None
    return row.n_train + row.n_valid or None


def read_off(points: Sequence[Point], n_labels: int) -> LabelScore:
    """Estimate a score between known points: on the line between two near ones (logarithmic scale), else as a range.

    Args:
        points: known scores, the fewest labels first.
        n_labels: number of labels to estimate at.

    Returns:
        The score, or the range that it lies in, and how it was found.

    Example:
        >>> near = [Point(100, 0.5, 0.4, 0.6, "curve"), Point(400, 0.7, 0.6, 0.8, "curve")]
        >>> round(read_off(near, 200).score, 3), read_off(near, 50).score
        (0.6, None)
    """
    exact = next((one for one in points if one.n_labels == n_labels), None)
    if exact is not None:
        return LabelScore(n_labels, exact.score, exact.low, exact.high, f"measured under {exact.protocol}")
    below = [one for one in points if one.n_labels < n_labels]
    above = [one for one in points if one.n_labels > n_labels]
    if below and above:
        one, other = below[-1], above[0]
        where = f"between {one.n_labels} labels ({one.protocol}) and {other.n_labels} ({other.protocol})"
        if other.n_labels <= _FARTHEST * one.n_labels:
            share = math.log(n_labels / one.n_labels) / math.log(other.n_labels / one.n_labels)

            def mix(first: float | None, second: float | None) -> float | None:
                return None if first is None or second is None else first + share * (second - first)

            return LabelScore(
                n_labels,
                mix(one.score, other.score),
                mix(one.low, other.low),
                mix(one.high, other.high),
                f"interpolated {where}",
            )
        return LabelScore(
            n_labels, None, min(one.score, other.score), max(one.score, other.score), f"{where}, far apart"
        )
    if below:
        last = below[-1]
        note = f"the rows had only {last.n_labels} labels; with more, it is probably not lower"
        return LabelScore(n_labels, None, last.score, None, note)
    known = f"; the fewest labels measured are {above[0].n_labels}" if above else ""
    return LabelScore(n_labels, None, None, None, f"not measured{known}")
