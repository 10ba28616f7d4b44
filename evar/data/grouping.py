"""Clips that must stay together in a split: the same bytes always, and on request what sounds alike."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from evar.audio.segments import Segment, file_of, format_address, name_file
from evar.data.fingerprint import find_alike


@dataclass(frozen=True)
class AlikePair:
    """Two clips that a model would learn by heart from each other.

    Attributes:
        first, second: paths.
        kind: "identical" bytes, or sounds "alike" by fingerprint.
    """

    first: str
    second: str
    kind: str


def find_identical(paths: Sequence[str], files: Sequence[Path | Segment]) -> list[AlikePair]:
    """Find the pairs of clips of the same bytes, or the same part of them: each later one with the first of its content."""
    first_of: dict[str, str] = {}
    digest_of: dict[Path, str] = {}
    pairs = []
    for path, clip in zip(paths, files, strict=True):
        file = file_of(clip)
        try:
            if file not in digest_of:
                with file.open("rb") as opened:
                    digest_of[file] = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError:
            continue  # verify names it
        digest = digest_of[file] + (format_address("", clip.start, clip.end) if isinstance(clip, Segment) else "")
        first = first_of.setdefault(digest, path)
        if first != path:
            pairs.append(AlikePair(first, path, "identical"))
    return pairs


def find_sounding_alike(
    paths: Sequence[str],
    files: Sequence[Path | Segment],
    clip_seconds: float | None,
    parts: Sequence[object] | None,
    name: str,
) -> list[AlikePair] | None:
    """Find pairs of clips of other content that sound alike, of different parts if parts are given; None: too many clips."""
    found = find_alike(files, clip_seconds, parts, name)
    return None if found is None else [AlikePair(paths[one], paths[other], "alike") for one, other in found]


def join_groups(index: pd.DataFrame, pairs: Iterable[AlikePair]) -> list[str]:
    """Find the group of each row after clips of a pair were put into one group; the file where a clip has none.

    Example:
        >>> index = pd.DataFrame({"path": ["a", "b", "c"]})
        >>> join_groups(index, [AlikePair("a", "c", "identical")])
        ['a', 'b', 'a']
    """
    own = index["group"].tolist() if "group" in index else [""] * len(index)
    own = [group or name_file(path) for group, path in zip(own, index["path"], strict=True)]
    leader = {group: group for group in own}

    def find(group: str) -> str:
        while leader[group] != group:
            leader[group] = leader[leader[group]]
            group = leader[group]
        return group

    group_of = dict(zip(index["path"], own, strict=True))
    for pair in pairs:
        one, other = find(group_of[pair.first]), find(group_of[pair.second])
        leader[max(one, other)] = min(one, other)
    return [find(group) for group in own]


def tell_across(index: pd.DataFrame, part: str, pairs: Iterable[AlikePair]) -> list[AlikePair]:
    """Select the pairs whose clips are in different splits or folds; a copy is named once."""
    part_of = dict(zip(index["path"], index[part], strict=True))
    pairs = list(pairs)
    twins: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if pair.kind == "identical":
            twins[pair.first].append(pair.second)
    found = [pair for pair in pairs if part_of[pair.first] != part_of[pair.second]]
    for others in twins.values():
        for place, other in enumerate(others):
            earlier = next((one for one in others[:place] if part_of[one] != part_of[other]), None)
            if earlier is not None and not any(pair.second == other for pair in found):
                found.append(AlikePair(earlier, other, "identical"))
    return found


def write_pairs(index: pd.DataFrame, part: str, pairs: Iterable[AlikePair]) -> bytes:
    """Write all pairs as a CSV: first, second, kind, and in which split or fold each is."""
    part_of = dict(zip(index["path"], index[part], strict=True))
    label_of = dict(zip(index["path"], index["label"], strict=True))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["first", "second", "kind", f"first_{part}", f"second_{part}", "same_label"])
    for pair in pairs:
        same = "yes" if label_of[pair.first] == label_of[pair.second] else "no"
        writer.writerow([pair.first, pair.second, pair.kind, part_of[pair.first], part_of[pair.second], same])
    return buffer.getvalue().encode("utf-8")
