"""Predictions of every draw of a label-efficiency curve: `curves/ID.npz` below a results folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evar.results.identity import check_id
from evar.storage.atomic import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def save_draws(out: Path, id: str, predictions: Sequence[Any]) -> Path:
    """Write `out/curves/ID.npz`.

    Args:
        out: results folder.
        id: of the result.
        predictions: (draws, clips) predicted class numbers, -1 for a clip that could not be read, for each point of the
            curve that the result lists in `params["curve"]`; clips in the order of its `predictions/ID.npz`.

    Raises:
        ValueError: if they are no whole numbers, or differ in their clips.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     path = save_draws(out, "a", [[[1, 0], [1, 1]], [[1, 0]]])
        ...     [one.tolist() for one in load_draws(out, "a")]
        [[[1, 0], [1, 1]], [[1, 0]]]
    """
    import io

    import numpy as np

    arrays = _check([np.asarray(one) for one in predictions])
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"point_{at}": one.astype(np.int32) for at, one in enumerate(arrays)}
    np.savez_compressed(buffer, **named)
    path = Path(out) / "curves" / f"{check_id(id)}.npz"
    write_atomic(path, buffer.getvalue())
    return path


def load_draws(out: Path, id: str) -> list[NDArray[np.int64]]:
    """Read the arrays of `save_draws`.

    Args:
        out: results folder.
        id: of the result.

    Returns:
        (draws, clips) for each point of the curve.

    Raises:
        FileNotFoundError: if they were never saved.
        ValueError: if the file is torn or holds something else.
    """
    import zipfile
    import zlib

    import numpy as np

    path = Path(out) / "curves" / f"{check_id(id)}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [one.astype(np.int64) for one in _check([arrays[f"point_{at}"] for at in range(len(arrays.files))])]
    except FileNotFoundError:
        raise
    except (
        *(ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OverflowError, MemoryError, OSError),
        *(SyntaxError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error),
    ) as error:  # damaged bytes can raise any of these, in the zip file or in its arrays
        raise ValueError(f"{path} does not hold the draws of a curve: {error}; run the row again") from error


def _check(arrays: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
    if not arrays or any(one.ndim != 2 or not one.size or one.dtype.kind not in "iu" for one in arrays):
        shapes = [(one.shape, str(one.dtype)) for one in arrays]
        raise ValueError(f"each point of a curve must be (draws, clips) whole numbers, got {shapes}")
    if len({one.shape[1] for one in arrays}) > 1 or min(int(one.min()) for one in arrays) < -1:
        raise ValueError("all points of a curve must be predictions >= -1 for the same clips")
    return arrays
