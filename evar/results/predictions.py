"""Predictions of a run for every test clip: `predictions/ID.npz` below a results folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.results.identity import check_id
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

_TEXTS = ("clip", "group")
#: bytes of arrays that `keep_predictions` holds at most; what comes after them is read anew each time
_KEPT_BYTES = 2**29
#: path of a file -> its arrays, inside of `keep_predictions`
_kept: ContextVar[dict[Path, dict[str, np.ndarray]] | None] = ContextVar("kept", default=None)


@contextmanager
def keep_predictions() -> Iterator[None]:
    """Keep what `load_predictions` reads, so that several checks of the same rows read each file once.

    The arrays are kept until the end of the block, up to 512 MiB, and are read-only. A file that `save_predictions` writes
    meanwhile is read anew.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out, keep_predictions():
        ...     path = save_predictions(out, "a", clip=["x.wav"], round=[0], group=["x"], y_true=[1], y_pred=[0])
        ...     load_predictions(out, "a")["clip"] is load_predictions(out, "a")["clip"]
        True
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def save_predictions(
    out: Path,
    id: str,
    *,
    clip: ArrayLike,
    round: ArrayLike,
    group: ArrayLike,
    y_true: ArrayLike,
    y_pred: ArrayLike,
    confidence: ArrayLike | None = None,
) -> Path:
    """Write `out/predictions/ID.npz`: the predictions for every test clip of every round.

    Args:
        out: results folder.
        id: of the result.
        clip: (clips,) text, the clip's path in the index.
        round: (clips,) whole numbers, the round in which it was tested.
        group: (clips,) text; clips of one recording share a group.
        y_true: (clips,) whole numbers >= 0, index of the class; (clips, labels) whole numbers 0 and 1, where a clip has
            several; (clips, 3) counts of events; (queries, 4) counts of retrieval; or (clips,) numbers. Where clips are
            compared in pairs, `clip` and `group` name both.
        y_pred: (clips,) whole numbers, index of the class predicted, -1 for a clip that could not be read; (clips, labels)
            scores; or (clips,) numbers.
        confidence: (clips,) probability of the predicted class, 0..1, NaN for a clip that could not be read; None where
            there is none. Tables and tests do without it.

    Raises:
        ValueError: if the arrays differ in length, are empty or hold another type.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     path = save_predictions(out, "a", clip=["x.wav"], round=[0], group=["x"], y_true=[1], y_pred=[-1])
        ...     load_predictions(out, "a")["y_pred"].tolist()
        [-1]
    """
    import io

    import numpy as np

    arrays = {"clip": clip, "round": round, "group": group, "y_true": y_true, "y_pred": y_pred}
    buffer = io.BytesIO()
    checked: dict[str, Any] = _check_arrays(arrays)
    if confidence is not None:
        checked["confidence"] = _check_confidence(confidence, len(checked["clip"]))
    np.savez_compressed(buffer, **checked)
    path = Path(out) / "predictions" / f"{check_id(id)}.npz"
    write_atomic(path, buffer.getvalue())
    (_kept.get() or {}).pop(path, None)
    return path


def load_predictions(out: Path, id: str) -> dict[str, np.ndarray]:
    """Read the arrays of `save_predictions`, and check them as `save_predictions` does.

    Args:
        out: results folder.
        id: of the result.

    Returns:
        clip, round, group, y_true and y_pred, each of shape (clips,) or, for kinds with several numbers a clip, (clips, n).

    Raises:
        FileNotFoundError: if they were never saved.
        ValueError: if the file is torn or holds something else.
    """
    import zipfile
    import zlib

    import numpy as np

    path = Path(out) / "predictions" / f"{check_id(id)}.npz"
    kept = _kept.get()
    if kept is not None and path in kept:
        return dict(kept[path])
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = _check_arrays({name: arrays[name] for name in ("clip", "round", "group", "y_true", "y_pred")})
    except FileNotFoundError:
        raise
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, MemoryError, OSError),
        *(SyntaxError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ) as error:  # damaged bytes can raise any of these, in the zip file or in its arrays
        raise ValueError(f"{path} does not hold a run's predictions: {error}; run the row again") from error
    if kept is not None:
        _keep(kept, path, found)
    return found


def _keep(kept: dict[Path, dict[str, np.ndarray]], path: Path, found: dict[str, np.ndarray]) -> None:
    n_bytes = sum(array.nbytes for arrays in (*kept.values(), found) for array in arrays.values())
    if n_bytes <= _KEPT_BYTES:
        for array in found.values():
            array.flags.writeable = False
        kept[path] = dict(found)


def load_confidence(out: Path, id: str) -> np.ndarray | None:
    """Read how sure a run was of each of its predictions.

    Args:
        out: results folder.
        id: of the result.

    Returns:
        (clips,) float32, 0..1 and NaN, in the order of `load_predictions`; None if the run has none, or the file
        cannot be read.
    """
    import zipfile
    import zlib

    import numpy as np

    path = Path(out) / "predictions" / f"{check_id(id)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return _check_confidence(arrays["confidence"], len(arrays["clip"]))
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, MemoryError, OSError),
        *(SyntaxError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ):  # as for predictions; nothing but the report shows it
        return None


def _check_confidence(values: ArrayLike, n_clips: int) -> np.ndarray:
    """Check that each clip has a probability or NaN."""
    import numpy as np

    array = np.asarray(values)
    known = array[~np.isnan(array)] if array.dtype.kind == "f" else array
    if (
        array.dtype.kind != "f"
        or array.shape != (n_clips,)
        or (known.size and not 0 <= known.min() <= known.max() <= 1)
    ):
        raise ValueError(
            f"confidence must be {n_clips} numbers in 0..1 or NaN, got shape {array.shape} of {array.dtype}"
        )
    return array.astype(np.float32)


def _check_arrays(arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the arrays of predictions in the types that they are stored in.

    Raises:
        ValueError: if they differ in length, are empty or hold another type.
    """
    import numpy as np

    true, predicted = np.asarray(arrays["y_true"]), np.asarray(arrays["y_pred"])
    has_one_class = true.ndim == 1 and true.dtype.kind in "iu"
    checked: dict[str, np.ndarray] = {}
    for name in ("clip", "round", "group", *(("y_true", "y_pred") if has_one_class else ())):
        checked[name] = _check_column(name, arrays[name], len(checked["clip"]) if checked else None)
    if has_one_class:
        if checked["y_true"].min() < 0 or checked["y_pred"].min() < -1:
            raise ValueError("y_true must be >= 0 and y_pred >= -1 (-1 = unreadable clip), got smaller values")
        return checked
    return {**checked, **_check_values(true, predicted, len(checked["clip"]))}


def _check_column(name: str, values: Any, n_clips: int | None) -> np.ndarray:
    """Check one value a clip: text, or whole numbers."""
    import numpy as np

    is_text = name in _TEXTS
    array = np.asarray(list(values) if is_text else values)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in ("U" if is_text else "iu"):
        wanted = "text" if is_text else "whole numbers"
        raise ValueError(f"{name} must be {wanted}, one per clip, got shape {array.shape} of {array.dtype}")
    if n_clips is not None and len(array) != n_clips:
        raise ValueError(f"{name} must be {n_clips} values, one per clip, got {len(array)}")
    return array if is_text else array.astype(np.int64)


def _check_values(true: np.ndarray, predicted: np.ndarray, n_clips: int) -> dict[str, np.ndarray]:
    """Check several labels a clip, counts of events, or one number a clip."""
    import numpy as np

    is_fitting = true.dtype.kind in "biuf" and predicted.dtype.kind == "f" and true.shape == predicted.shape
    if not is_fitting or len(true) != n_clips:
        raise ValueError(
            f"y_true and y_pred must be {n_clips} rows of one shape, y_pred floating point, got "
            f"{true.shape} and {predicted.shape} of {predicted.dtype}"
        )
    is_labels = true.ndim == 2 and np.isin(true, (0, 1)).all()
    is_counts = true.ndim == 2 and true.shape[1] in (3, 4) and true.dtype.kind in "iu" and true.min() >= 0
    if np.isnan(predicted).any() or not (is_labels or is_counts or (true.ndim == 1 and np.isfinite(true).all())):
        raise ValueError("y_true must be finite numbers, or 0 and 1 for each label, and y_pred never NaN")
    return {"y_true": true.astype(np.uint8) if is_labels else true, "y_pred": predicted}
