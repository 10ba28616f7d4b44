"""A classifier file: safetensors with the arrays of its probes, and JSON for all else. Nothing in it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evar.classifiers.record import FORMAT, ClassifierRecord
from evar.probes.saved import SavedProbe
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: ending of the file, and key of its metadata
SUFFIX, KEY = ".safetensors", "evar"


def require_name(path: str | Path) -> Path:
    """Return the path of a classifier file; its ending must say what it is.

    Raises:
        ValueError: if it ends in anything but .safetensors.

    Example:
        >>> require_name("birds.pkl")
        Traceback (most recent call last):
        ValueError: a classifier is written to a file that ends in .safetensors, got 'birds.pkl'; say birds.safetensors
    """
    found = Path(path)
    if found.suffix.lower() != SUFFIX:
        raise ValueError(
            f"a classifier is written to a file that ends in {SUFFIX}, got {str(path)!r}; say {found.with_suffix(SUFFIX)}"
        )
    return found


def write_classifier(path: Path, record: ClassifierRecord, probes: Sequence[SavedProbe]) -> Path:
    """Write a classifier file, whole or not at all.

    Args:
        path: ends in .safetensors.
        record: what it says.
        probes: as data, in the order of `record.heads`.

    Returns:
        The path.

    Raises:
        OSError: if it cannot be written.
    """
    from safetensors.numpy import save

    arrays = {
        f"{number}.{name}": np.array(array, order="C")
        for number, probe in enumerate(probes)
        for name, array in probe.arrays.items()
    }
    write_atomic(require_name(path), save(arrays, metadata={KEY: record.to_text()}))
    return path


def read_classifier(path: str | Path) -> tuple[ClassifierRecord, list[SavedProbe]]:
    """Read a classifier file of any origin: arrays and JSON only.

    Returns:
        What it says, and its probes as data.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no classifier of evar, or not whole.
    """
    record, arrays = _read(Path(path))
    probes = []
    for number, head in enumerate(record.heads):
        start = f"{number}."
        own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        probes.append(SavedProbe(head.kind, head.settings, own))
    return record, probes


def read_record(path: str | Path) -> ClassifierRecord:
    """Read what a classifier file says, and none of its arrays.

    Raises:
        FileNotFoundError, ValueError: as `read_classifier`.
    """
    return _read(Path(path), with_arrays=False)[0]


def _read(path: Path, with_arrays: bool = True) -> tuple[ClassifierRecord, Mapping[str, NDArray[Any]]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(
            f"no classifier {path} here; `evar train TASK --encoder=NAME -o {path.name}` writes one"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()} if with_arrays else {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path} is no {FORMAT}, or not whole: {error}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} holds arrays, but is no {FORMAT}; `evar train` writes such files")
    return ClassifierRecord.from_text(metadata[KEY], str(path)), arrays
