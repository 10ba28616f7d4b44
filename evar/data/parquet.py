"""Sounds and labels of a Hugging Face data set in parquet form, written out as files and a table. Nothing is re-coded.

Source: how the `datasets` library stores audio: a struct of `bytes` and `path`; class names in the schema's metadata
under "huggingface" (https://huggingface.co/docs/datasets/audio_dataset). Files are named after their split.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evar.config.messages import progress_bar, tell
from evar.config.registry import near_miss
from evar.data.tables import SPLIT_WORDS, compose, is_missing, read_splits
from evar.data.task_config import LABEL_SEPARATOR
from evar.storage.atomic import write_atomic

_STARTS = (
    (b"RIFF", ".wav"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"\xff\xfb", ".mp3"),
    (b"FORM", ".aiff"),
)
_ROWS_AT_ONCE = 32


def unpack_parquet(source: str | Path, folder: str | Path, label: str = "label", group: str = "") -> Path:
    """Write the sounds of parquet files below a folder, and `index.csv` beside them.

    Args:
        source: a parquet file, or a folder of them (`train-00000-of-00002.parquet`, `test-...`), in any sub-folders.
        folder: where to; made if need be. Sounds that are there are left alone.
        label: column of the label: text, a number, a class of the schema, or a list of these.
        group: column of what must stay together in a split; "" for none.

    Returns:
        The table: path, label, and split where the files tell more than one, and group.

    Raises:
        FileNotFoundError: if there is no parquet file.
        ImportError: if pyarrow is not installed.
        ValueError: if a column is missing, or a row has no sound in it.
    """
    source, folder = Path(source).expanduser(), Path(folder).expanduser()
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(source.parent).parts)]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no parquet file at {source}")
    splits, odd = _read_split_names(files, source)
    rows: list[dict[str, str]] = []
    n_hidden = 0
    bar = progress_bar(desc="unpack", unit="clip", leave=False)
    for file in files:
        split = splits[file]
        stem = _name_shard(file, source)
        for at, (content, name, told, source_of) in enumerate(_read_rows(file, label, group)):
            bar.update()
            if told is None:
                n_hidden += 1
                continue
            # The name holds the content: a republished file of the same name and size is another one.
            digest = hashlib.sha256(content).hexdigest()
            path = f"{split or 'clips'}/{stem}-{at:06d}-{digest[:12]}{_choose_suffix(name, content)}"
            target = folder / path
            if not _has_bytes(target, content, digest):
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, content)
            rows.append({"path": path, "label": told, "split": split, "group": source_of})
    bar.close()
    if not rows:
        raise ValueError(f"no row of {source} has a label in column {label!r}; is it a copy without labels?")
    found = {row["split"] for row in rows}
    kept = ["path", "label", *(["split"] if len(found) > 1 else []), *(["group"] if group else [])]
    if "split" in kept and "" in found:
        raise ValueError(f"some files of {source} are named after a split and others are not; give one of the two")
    if n_hidden:
        tell(
            f"note: {n_hidden} rows of {source} have no label (missing, hidden or out of range) and are left out",
        )
    if odd:
        tell(f"note: {odd}")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "index.csv", buffer.getvalue().encode("utf-8"))
    return folder / "index.csv"


def _read_split_names(files: Sequence[Path], source: Path) -> tuple[dict[Path, str], str]:
    """File -> split, "" where its name tells none; and in words what was not literal."""
    words = {file: _split_of(file, source) for file in files}
    named = sorted({word for word in words.values() if word})
    meaning, odd = read_splits(named, str(source)) if named else ({}, "")
    return {file: meaning.get(word, "") for file, word in words.items()}, odd


def _name_shard(file: Path, source: Path) -> str:
    """A name that two files of the source never share: their folders (configurations, splits) are part of it."""
    parts = file.relative_to(source).with_suffix("").parts if source.is_dir() else (file.stem,)
    return (
        re.sub(r"[^\w.-]", "_", "-".join(parts))
        if len(parts) == 1
        else re.sub(r"[^\w.-]", "_", f"{'-'.join(parts)}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:6]}")
    )


def _has_bytes(target: Path, content: bytes, digest: str) -> bool:
    """Tell whether a file is there and has exactly these bytes."""
    try:
        if target.stat().st_size != len(content):
            return False
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def _read_rows(file: Path, label: str, group: str) -> Iterator[tuple[bytes, str, str | None, str]]:
    """Yield content, name, label (None: not given) and group of each row, in memory that does not grow with the file."""
    try:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowInvalid, types
    except ImportError as error:
        raise ImportError("parquet files need pyarrow: pip install 'evar-audio[export]'") from error
    try:
        table = parquet.ParquetFile(file)
    except ArrowInvalid as error:
        raise ValueError(f"{file} is no parquet file ({error}); is the download whole?") from error
    schema = table.schema_arrow
    for column in (label, *([group] if group else [])):
        if column not in schema.names:
            raise ValueError(f"{file} has no column {column!r}; {near_miss(column, schema.names)}")
    audio = [
        one.name for one in schema
        if types.is_struct(one.type) and {"bytes", "path"} <= {field.name for field in one.type}
    ]  # fmt: skip
    if not audio:
        raise ValueError(f"{file} has no column of sounds (a struct of bytes and path), got {', '.join(schema.names)}")
    names = _read_class_names(schema.metadata or {}, label)
    columns = list(dict.fromkeys([audio[0], label, *([group] if group else [])]))
    number = 0
    for batch in table.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
        for row in batch.to_pylist():
            sound = row[audio[0]] or {}
            if not sound.get("bytes"):
                raise ValueError(
                    f"{file} row {number}: no sound in it, only the path {sound.get('path')!r}; take its copy with sounds"
                )
            yield (
                sound["bytes"],
                str(sound.get("path") or ""),
                _format_label(row[label], names),
                str(row[group]) if group else "",
            )
            number += 1


def _read_class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Read the names of the classes of a column of numbers from the schema; none if it has none."""
    try:
        feature: Any = (
            json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {}).get(label) or {}
        )
    except (ValueError, AttributeError):
        return []
    for key in ("feature", 0):  # of a list of classes
        if isinstance(feature, dict) and "names" not in feature and key in feature:
            feature = feature[key]
        elif isinstance(feature, list) and feature:
            feature = feature[0]
    return list(feature.get("names", [])) if isinstance(feature, dict) else []


def _format_label(value: Any, names: list[str]) -> str | None:
    """The label as text; None for one that is missing, hidden (-1) or out of range."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        told = [_format_label(one, names) for one in value]
        return None if None in told else LABEL_SEPARATOR.join(str(one) for one in told)
    if names and isinstance(value, int):
        return str(names[value]) if 0 <= value < len(names) else None
    text = compose(str(value).strip())
    return None if is_missing(text) else text


def _split_of(file: Path, source: Path) -> str:
    """The word for a split in "test-00000-of-00001.parquet" or in a folder "test"; "" where neither tells."""
    inside = file.relative_to(source).parent.parts if source.is_dir() else file.parent.parts[-1:]
    for text in (file.stem, *reversed(inside), *((source.name,) if source.is_dir() and not inside else ())):
        found = re.match(r"([a-z]+)(?![a-z])", text.lower())
        if found and found[1] in SPLIT_WORDS and found[1] not in ("tr",):
            return found[1]
    return ""


def _choose_suffix(name: str, content: bytes) -> str:
    """Choose the ending by the content, and by the name only if the content is not recognised."""
    for start, suffix in _STARTS:
        if content.startswith(start):
            return suffix
    found = re.fullmatch(r".*(\.[A-Za-z0-9]{1,5})", name)
    return found[1].lower() if found else ".audio"
