"""Sounds and labels of a Hugging Face data set in parquet form, written out as files and a table. Nothing is re-coded.

Source: how the `datasets` library stores audio: a struct of `bytes` and `path`; class names in the schema's metadata
under "huggingface" (https://huggingface.co/docs/datasets/audio_dataset). Files are named after their split.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evar.config.registry import near_miss
from evar.data.task_config import LABEL_SEPARATOR
from evar.storage.atomic import write_atomic

_SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "dev": "valid", "test": "test"}
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
    from tqdm import tqdm

    source, folder = Path(source).expanduser(), Path(folder).expanduser()
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no parquet file at {source}")
    rows: list[dict[str, str]] = []
    bar = tqdm(desc="unpack", unit="clip", disable=None, leave=False)
    for file in files:
        split = _split_of(file)
        for at, (content, name, told, source_of) in enumerate(_rows(file, label, group)):
            path = f"{split or 'clips'}/{file.stem}-{at:06d}{_suffix(name, content)}"
            target = folder / path
            if not target.is_file() or target.stat().st_size != len(content):
                target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(target, content)
            rows.append({"path": path, "label": told, "split": split, "group": source_of})
            bar.update()
    bar.close()
    splits = {row["split"] for row in rows}
    kept = ["path", "label", *(["split"] if len(splits) > 1 else []), *(["group"] if group else [])]
    if "split" in kept and "" in splits:
        raise ValueError(f"some files of {source} are named after a split and others are not; give one of the two")
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, kept, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "index.csv", buffer.getvalue().encode("utf-8"))
    return folder / "index.csv"


def _rows(file: Path, label: str, group: str) -> Iterator[tuple[bytes, str, str, str]]:
    """Content, name, label and group of each row, in memory that does not grow with the file."""
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
    names = _class_names(schema.metadata or {}, label)
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
                _said(row[label], names),
                str(row[group]) if group else "",
            )
            number += 1


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Names of the classes that the schema tells for a column of numbers; none where it tells none."""
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


def _said(value: Any, names: list[str]) -> str:
    if isinstance(value, list):
        return LABEL_SEPARATOR.join(_said(one, names) for one in value)
    if names and isinstance(value, int) and 0 <= value < len(names):
        return str(names[value])
    return str(value)


def _split_of(file: Path) -> str:
    """From "test-00000-of-00001.parquet" or a folder "test"; "" where neither tells."""
    for text in (file.stem, file.parent.name):
        found = re.match(r"(train|validation|valid|dev|test)(?![a-z])", text)
        if found:
            return _SPLITS[found[1]]
    return ""


def _suffix(name: str, content: bytes) -> str:
    """By the content, whatever the name says; by the name where the content is not known."""
    for start, suffix in _STARTS:
        if content.startswith(start):
            return suffix
    found = re.fullmatch(r".*(\.[A-Za-z0-9]{1,5})", name)
    return found[1].lower() if found else ".audio"
