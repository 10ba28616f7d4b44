"""Records of robustness as rows of tables: sections, corrected tests, and the layer that survives each alteration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config.plain_text import make_printable
from evar.report.tables.labels import label_layers, label_limit
from evar.results.robustness import RobustnessRecord, load_altered_predictions

#: columns of robustness.csv, keys of the rows of robustness.json
COLUMNS = (
    *("encoder", "layers", "depth", "task", "metric", "protocol", "limit", "alteration", "severity", "unit"),
    *("clean", "clean_low", "clean_high", "score", "low", "high", "loss", "loss_low", "loss_high"),
    *("p", "p_holm", "test", "n_test", "n_failed", "runs", "id"),
)
#: below this a loss is more than chance
LEVEL = 0.05


@dataclass(frozen=True)
class AlteredRow:
    """Some layers of an encoder on one task, under every alteration.

    Attributes:
        encoder, layers: labels.
        depth: of a single layer; None for several.
        means: alteration -> record of all severities together, of one severity where there is only one.
        single: alteration -> records of single severities, in their order.
        p_holm: alteration -> p of the mean loss, corrected over all of the section.
    """

    encoder: str
    layers: str
    depth: float | None
    means: dict[str, RobustnessRecord]
    single: dict[str, list[RobustnessRecord]]
    p_holm: dict[str, float]

    @property
    def first(self) -> RobustnessRecord:
        """Any record: encoder, task and clean score are the same in all."""
        return next(iter(self.means.values()))


@dataclass(frozen=True)
class RobustnessSection:
    """One task under one protocol: rows that may stand in one table.

    Attributes:
        title: task, metric, protocol.
        task: label, for names of files.
        alterations: name -> title, in the order of columns.
        encoders: label -> rows, shallow to deep.
    """

    title: str
    task: str
    alterations: dict[str, str]
    encoders: dict[str, list[AlteredRow]]


@dataclass(frozen=True)
class Survivor:
    """The layer of an encoder that scores best under an alteration, beside the one that clean validation clips choose.

    Attributes:
        best: the row with the best score, mean over severities.
        chosen: the row that clean validation clips choose; None where there is no validation score.
        gain: altered score of the best minus that of the chosen row, low and high end of its interval; None where both are
            the same row, or predictions are missing.
        p_holm: of the gain, corrected over all gains of the section; None where there is no gain.
    """

    best: AlteredRow
    chosen: AlteredRow | None
    gain: tuple[float, float, float] | None = None
    p_holm: float | None = None


def make_robustness_sections(records: Sequence[RobustnessRecord]) -> list[RobustnessSection]:
    """Group records into tables: one for each task, protocol and limit.

    Args:
        records: of a results folder, in any order.
    """
    tables: dict[tuple[Any, ...], list[RobustnessRecord]] = {}
    for one in records:
        key = (one.task, one.task_version, one.index_sha256, one.metric, one.protocol, one.limit or 0)
        tables.setdefault(key, []).append(one)
    return [_make_section(own) for _, own in sorted(tables.items())]


def _make_section(records: Sequence[RobustnessRecord]) -> RobustnessSection:
    from evar.metrics import holm
    from evar.metrics.named import get_display_name

    order = {name: place for place, name in enumerate(sorted({one.alteration for one in records}, key=_place))}
    rows: dict[str, list[RobustnessRecord]] = {}
    for one in records:
        rows.setdefault(json.dumps(_identify_row(one)), []).append(one)
    found = [(own[0], *_sort_records(own, order)) for own in rows.values()]
    tests = [(key, name, record.p) for key, (_, means, _) in enumerate(found) for name, record in means.items()]
    corrected = holm([p for *_, p in tests]).tolist()
    by_row: dict[int, dict[str, float]] = {}
    for (key, name, _), p in zip(tests, corrected, strict=True):
        by_row.setdefault(key, {})[name] = p
    labels = _label_encoders([first for first, *_ in found])
    encoders: dict[str, list[AlteredRow]] = {}
    for key, (first, means, single) in enumerate(found):
        label = labels[_identify_encoder(first)]
        row = AlteredRow(label, label_layers(first.layers, first.fusion), first.depth, means, single, by_row[key])
        encoders.setdefault(label, []).append(row)
    for own in encoders.values():
        own.sort(key=lambda row: (row.depth is None, row.depth or 0.0, row.layers))
    first = records[0]
    task = label_limit(first.task, first.limit)
    titles = {one.alteration: make_printable(one.title, one_line=True) for one in records}
    return RobustnessSection(
        f"{task} ({get_display_name(first.metric)}, {first.protocol})",
        task,
        {name: titles[name] for name in order},
        dict(sorted(encoders.items())),
    )


#: alterations of this package in the order of columns; others follow by name
_ORDER = (
    *("white_noise", "pink_noise", "background", "reverberation", "level", "clipping", "telephone", "low_pass"),
    *("resampling", "mp3", "opus", "crop", "time_shift"),
)


def _place(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _identify_encoder(one: RobustnessRecord) -> str:
    return json.dumps([one.encoder, one.weights_sha256, dict(one.encoder_options)], sort_keys=True)


def _identify_row(one: RobustnessRecord) -> list[Any]:
    return [_identify_encoder(one), list(one.layers), one.fusion, sorted(one.runs)[:1]]


def _label_encoders(firsts: Sequence[RobustnessRecord]) -> dict[str, str]:
    """Label each encoder; several of one name are told apart by their weights."""
    names: dict[str, dict[str, str]] = {}
    for one in firsts:
        names.setdefault(one.encoder, {})[_identify_encoder(one)] = one.weights
    labels = {}
    for name, variants in names.items():
        for key, weights in variants.items():
            shown = f"{name} ({weights})" if len(variants) > 1 or weights == "random" else name
            labels[key] = make_printable(shown, one_line=True)
    return labels


def _sort_records(
    records: Sequence[RobustnessRecord], order: dict[str, int]
) -> tuple[dict[str, RobustnessRecord], dict[str, list[RobustnessRecord]]]:
    """Sort records: the one with the most severities of each alteration, and those of single severities."""
    means: dict[str, RobustnessRecord] = {}
    single: dict[str, list[RobustnessRecord]] = {}
    for name in order:
        own = [one for one in records if one.alteration == name]
        if own:
            means[name] = max(own, key=lambda one: (len(one.seeds), len(one.severities), one.created))
            order_of = {value: place for place, value in enumerate(means[name].severities)}
            alone = [one for one in own if one.severity in order_of and one.seeds == means[name].seeds]
            single[name] = sorted(alone, key=lambda one: order_of[one.severities[0]])
    return means, single


def find_survivors(section: RobustnessSection, out: Path) -> dict[str, dict[str, Survivor]]:
    """Find for each encoder and alteration the layer with the best score on altered clips.

    The choice looks at test clips, so its lead over the layer of the clean validation clips is somewhat optimistic.

    Args:
        section: one task.
        out: results folder, for the predictions.

    Returns:
        Encoder -> alteration -> survivor.
    """
    from evar.metrics import METRICS, holm

    found: dict[str, dict[str, Survivor]] = {}
    tests: list[tuple[str, str, float]] = []
    for encoder, rows in section.encoders.items():
        for name in section.alterations:
            own = [row for row in rows if name in row.means]
            if not own:
                continue
            metric = METRICS[own[0].first.metric]
            judged = [row for row in own if row.first.valid_score is not None]
            chosen = max(judged, key=lambda row: metric.orient(row.first.valid_score)) if judged else None
            # Of equal scores, that of the layer which clean clips choose counts as the best.
            best = max(own, key=lambda row: (metric.orient(row.means[name].score), row is chosen))
            gain = None
            if chosen is not None and chosen is not best:
                compared = _compare_rows(best.means[name], chosen.means[name], out)
                if compared is not None:
                    *ends, p = compared
                    gain = (ends[0], ends[1], ends[2])
                    tests.append((encoder, name, p))
            found.setdefault(encoder, {})[name] = Survivor(best, chosen, gain)
    corrected = holm([p for *_, p in tests]).tolist() if tests else []
    for (encoder, name, _), p in zip(tests, corrected, strict=True):
        one = found[encoder][name]
        found[encoder][name] = Survivor(one.best, one.chosen, one.gain, p)
    return found


def _compare_rows(
    one: RobustnessRecord, other: RobustnessRecord, out: Path
) -> tuple[float, float, float, float] | None:
    """Compute `one`'s altered score less `other`'s, its interval, and p; None where predictions do not match."""
    from evar.metrics import METRICS
    from evar.metrics.significance import compare_pairs

    try:
        first, second = load_altered_predictions(out, one), load_altered_predictions(out, other)
    except (FileNotFoundError, ValueError):
        return None
    if not first or not second or first[0]["clip"].tolist() != second[0]["clip"].tolist():
        return None
    shared = first[0]
    ours, others = ([found["y_pred"] for found in side] for side in (first, second))
    difference = compare_pairs(one.metric, shared["y_true"], ours, others, shared["group"], shared["round"])
    sign = 1.0 if METRICS[one.metric].higher_is_better else -1.0
    low, high = sorted((sign * difference.low, sign * difference.high))
    return sign * difference.value, low, high, difference.p


def list_lines(records: Sequence[RobustnessRecord]) -> list[tuple[Any, ...]]:
    """Return one line for each record, as robustness.csv holds it: fractions, "mean" for the mean over severities.

    Args:
        records: in any order.

    Returns:
        Lines of `COLUMNS`; p_holm is corrected over the single severities, or the means, of one task and protocol.
    """
    from evar.metrics import holm

    families: dict[tuple[Any, ...], list[RobustnessRecord]] = {}
    for one in records:
        key = (one.task, one.task_version, one.index_sha256, one.protocol, one.limit or 0, len(one.severities) > 1)
        families.setdefault(key, []).append(one)
    p_holm = {
        one.id: p for own in families.values() for one, p in zip(own, holm([r.p for r in own]).tolist(), strict=True)
    }
    ordered = sorted(
        records,
        key=lambda r: (
            *(r.task, r.protocol, r.encoder, r.depth is None, r.depth or 0.0, list(r.layers)),
            *(_place(r.alteration), len(r.severities), list(r.severities), r.id),
        ),
    )
    return [_make_line(one, p_holm[one.id]) for one in ordered]


def _make_line(one: RobustnessRecord, p_holm: float) -> tuple[Any, ...]:
    clean = one.clean_interval or (None, None)
    severity: Any = "mean" if one.severity is None else one.severity
    return (
        *(one.encoder, label_layers(one.layers, one.fusion), one.depth, one.task, one.metric, one.protocol, one.limit),
        *(one.alteration, severity, one.unit, one.clean_score, clean[0], clean[1], one.score, *one.interval),
        *(one.loss, *one.loss_interval, one.p, p_holm, one.test, one.n_test, one.n_failed, " ".join(one.runs), one.id),
    )


def format_points(value: float) -> str:
    """Write a difference of fractions in points of percent, with its sign; nothing is written as 0.0.

    Example:
        >>> format_points(0.1234), format_points(-0.0001), format_points(-0.05)
        ('+12.3', '0.0', '−5.0')
    """
    points = round(100 * value, 1) + 0.0
    return f"{points:+.1f}".replace("-", "\N{MINUS SIGN}") if points else "0.0"
