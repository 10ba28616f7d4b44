"""Names of columns and rows: short where that is enough, and longer where two would look the same."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from evar.config.plain_text import make_printable
from evar.results import Result

# What may differ between two rows of one encoder and is no property of the task.
_EXTRACTION_KEYS = ("sample_rate", "resampler", "precision", "revision", "norm_stats")

# First words of tasks that are words of the language and no data set's name.
_ORDINARY = ("audio", "music", "sound", "sounds", "speech", "spoken")
# Data set -> another that holds all its clips.
_PART_OF = {"esc10": "esc50"}

ColumnKey = tuple[str, str, str, str]
RowKey = tuple[str, tuple[str, ...], str, str]


def make_column_key(result: Result) -> ColumnKey:
    """Return (task, version, metric, hash of the index): results that differ in one of them never share a column."""
    return result.task, result.task_version, result.metric, result.index_sha256


def make_row_key(result: Result) -> RowKey:
    """Return (encoder, layers, fusion, and as JSON everything else that makes it another encoder)."""
    variant = {**_describe_variant(result), "weights_sha256": result.weights_sha256, "pooling": dict(result.pooling)}
    return result.encoder, tuple(result.layers), result.fusion, json.dumps(variant, sort_keys=True)


def make_variant_key(result: Result) -> str:
    """Return the facts that make it another encoder, as JSON: weights, options and extraction, but not layers."""
    return json.dumps({**_describe_variant(result), "weights_sha256": result.weights_sha256}, sort_keys=True)


def _describe_variant(result: Result) -> dict[str, str]:
    variant = {"weights": result.weights, "weights_sha256": result.weights_sha256[:8]}
    variant |= {key: str(value) for key, value in sorted(result.encoder_options.items())}
    return variant | {key: str(result.extraction[key]) for key in _EXTRACTION_KEYS if key in result.extraction}


def label_limit(name: str, limit: int | None) -> str:
    """Add the limit on the clips, if there is one, in brackets to a name.

    Example:
        >>> label_limit("esc10", 50)
        'esc10 (limit 50)'
    """
    shown = make_printable(name, one_line=True)
    return f"{shown} (limit {limit})" if limit else shown


def label_column(key: ColumnKey, keys: Sequence[ColumnKey], limit: int | None) -> str:
    """Write a task's name, and in brackets the difference from another column of the same task.

    Example:
        >>> keys = [("esc10", "1", "accuracy", ""), ("esc10", "2", "accuracy", "")]
        >>> label_column(keys[1], keys, limit=None)
        'esc10 (version 2)'
    """
    task, version, metric, index = key
    same = [other for other in keys if other[0] == task]
    differing = []
    if len({other[1] for other in same}) > 1:
        differing.append(f"version {version}")
    if len({other[2] for other in same}) > 1:
        differing.append(metric)
    if len({other[3] for other in same if other[1] == version}) > 1:
        differing.append(f"index {index[:8] or 'unknown'}")
    if limit:
        differing.append(f"limit {limit}")
    return make_printable(f"{task} ({', '.join(differing)})" if differing else task, one_line=True)


def label_encoder(result: Result, others: Sequence[Result]) -> str:
    """Write an encoder's name, and in brackets the difference from another row of the same encoder.

    Args:
        result: any result of the row.
        others: one result of each row of the table, this one among them.
    """
    own = _describe_variant(result)
    variants = [_describe_variant(other) for other in others if other.encoder == result.encoder]
    differing = _find_differing(own, variants)
    shown = [f"{key.removesuffix('_sha256')} {own[key]}" for key in differing]
    # Layers of one encoder may well differ in pooling: that only matters where the same layers were pooled otherwise.
    this = (result.encoder, result.layers, result.fusion, own)
    same = [other for other in others if (other.encoder, other.layers, other.fusion, _describe_variant(other)) == this]
    if len({str(other.pooling) for other in same}) > 1:
        shown.append(f"pooling {'+'.join(result.pooling[layer] for layer in result.layers)}")
    return make_printable(f"{result.encoder} ({', '.join(shown)})" if shown else result.encoder, one_line=True)


def _find_differing(own: dict[str, str], variants: Sequence[dict[str, str]]) -> list[str]:
    """Return the keys whose values tell a variant of an encoder from the others."""
    differing = [key for key in own if len({variant.get(key) for variant in variants}) > 1]
    distinct = {tuple(variant.items()) for variant in variants}
    if "weights" in differing and len({variant["weights"] for variant in variants}) == len(distinct):
        return ["weights"]  # other files have other hashes and often other options: their name says enough
    return differing


def label_layers(layers: Sequence[str], fusion: str) -> str:
    """Write the layers of a row; the middle of a long list is left out.

    Example:
        >>> label_layers(["conv1", "conv2", "conv3", "conv4"], "concat")
        'conv1+...+conv4 (4 layers)'
    """
    text = "+".join(layers) if len(layers) <= 3 else f"{layers[0]}+...+{layers[-1]} ({len(layers)} layers)"
    text = make_printable(text, one_line=True)
    how = {"average": "average of", "pca": "PCA of", "weighted": "weighted sum of", "attention": "attention over"}
    return f"{how[fusion]} {text}" if fusion in how else text


def is_trained_on(result: Result) -> bool:
    """Does the encoder's card name the task's data set among what its weights have seen? Untrained weights saw nothing.

    By name, whatever its spelling ("Speech Commands" is in speech_commands_v2): it finds what the card says, not what it
    leaves out, and cannot tell which clips were seen.
    """
    if result.is_random or not result.trained_on:
        return False
    parts = result.task.lower().split("_")
    runs = ("".join(parts[:end]) for end in range(1, len(parts) + 1))
    names = [name for name in runs if len(name) >= 5 and name not in _ORDINARY]
    names += [_PART_OF[name] for name in names if name in _PART_OF]
    card = re.sub("[^a-z0-9]", "", result.trained_on.lower())
    return any(name in card for name in names)
