"""Check features and targets before a probe is fitted."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets

from evar.numeric.rows import Rows, RowsJoined


def check_labels(y: Any, n_clips: int, which: str) -> NDArray[np.uint8]:
    """Return labels of clips that may have several, as (clips, labels) of 0 and 1.

    Args:
        y: (clips, labels) of 0 and 1, or what becomes that.
        n_clips: how many clips there must be.
        which: split they belong to, for the error message: "training", "validation" or "given".

    Returns:
        (clips, labels) uint8.

    Raises:
        ValueError: if they are of another shape or hold anything else.

    Example:
        >>> check_labels([[0, 1], [1, 0]], 2, "training").tolist()
        [[0, 1], [1, 0]]
    """
    labels = np.asarray(y)
    if labels.ndim != 2 or len(labels) != n_clips or not labels.shape[1]:
        raise ValueError(f"the {which} labels must be ({n_clips}, labels) of 0 and 1, got shape {labels.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"the {which} labels must be 0 or 1, got {np.unique(labels)[:5].tolist()}; are they scores?")
    return labels.astype(np.uint8)


# Wide layers (2048 features) do best near 1e-4..1e-2, narrow ones (64) near 0.1..10; a decade to spare either side.
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)


def check_features(X: Any, which: str) -> NDArray[Any]:
    """Return vectors as a floating-point array; rows that are read in parts stay as they are, and are checked when read.

    Args:
        X: (clips, width) numbers, or `evar.numeric.rows.Rows`.
        which: split they belong to, for the error message.

    Returns:
        (clips, width) float32 if X is that already, else float64; or the rows.

    Raises:
        ValueError: if X is empty, sparse, complex, of another shape, or holds NaN or infinity.

    Example:
        >>> check_features([[1, 2], [3, 4]], "training").dtype
        dtype('float64')
    """
    if isinstance(X, Rows):
        if 0 in X.shape:
            raise ValueError(f"the {which} embeddings are empty, of shape {X.shape}")
        return cast(Any, X)
    if hasattr(X, "toarray"):
        raise ValueError(f"the {which} embeddings are a sparse matrix, but a dense array is needed; use X.toarray()")
    array = np.asarray(X)
    if array.ndim != 2:
        raise ValueError(
            f"the {which} embeddings must be (clips, width), got shape {array.shape}. Reshape your data: a single clip "
            "is X[None], a single feature X[:, None]"
        )
    if 0 in array.shape:
        raise ValueError(
            f"the {which} embeddings are empty: 0 {'sample(s)' if array.shape[0] == 0 else 'feature(s)'} "
            f"(shape={array.shape}) while a minimum of 1 is required."
        )
    if np.iscomplexobj(array):
        raise ValueError(f"Complex data not supported: the {which} embeddings must be real numbers")
    if array.dtype != np.float32:
        array = array.astype(np.float64)
    is_bad = ~np.isfinite(array)
    if is_bad.any():
        clip, feature = np.argwhere(is_bad)[0]
        raise ValueError(
            f"the {which} embeddings hold {int(is_bad.sum())} NaN or infinite value(s), the first at clip {clip}, "
            f"feature {feature}; did the encoder overflow in half precision?"
        )
    return array


def check_width(X: Any, n_features: int, probe: object) -> None:
    """Refuse vectors of another width than those that a probe was fitted on.

    Args:
        X: (clips, width) vectors, or rows that are read in parts.
        n_features: width of the vectors in `fit`.
        probe: whose class the message names.

    Raises:
        ValueError: if the widths differ.

    Example:
        >>> check_width(np.zeros((2, 3)), 3, object())
    """
    if X.shape[1] != n_features:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(probe).__name__} is expecting {n_features} features as input; "
            "is it another layer?"
        )


def join_splits(X: Any, y: NDArray[Any], X_valid: Any, y_valid: NDArray[Any]) -> tuple[Any, NDArray[Any]]:
    """Put the validation clips after the training clips.

    Args:
        X, X_valid: (clips, width) vectors, checked, or rows that are read in parts.
        y, y_valid: (clips,) labels.

    Returns:
        The vectors and the labels of both.

    Raises:
        ValueError: if the labels of one are names and those of the other are numbers.

    Example:
        >>> join_splits(np.zeros((1, 2)), np.array([0]), np.ones((1, 2)), np.array([1]))[1].tolist()
        [0, 1]
    """
    if (y.dtype.kind in "OUS") != (y_valid.dtype.kind in "OUS"):
        raise ValueError(
            f"training and validation labels must be of one type, got {y.dtype} and {y_valid.dtype}; "
            "are some of them names and others numbers?"
        )
    joined = RowsJoined(X, X_valid) if isinstance(X, Rows) else np.concatenate([X, X_valid])
    return joined, np.concatenate([y, y_valid])


def check_pair(X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the vectors and the classes of one split, checked.

    Args:
        X: (clips, width) numbers.
        y: (clips,) classes.
        which: split they belong to, for the error message.

    Returns:
        What `check_features` and `check_classes` return.

    Raises:
        ValueError: as these two do.

    Example:
        >>> X, y = check_pair([[1.0], [2.0]], ["cat", "dog"], "training")
        >>> X.shape, y.tolist()
        ((2, 1), ['cat', 'dog'])
    """
    if y is None:
        raise ValueError(f"a probe requires y to be passed, but the target y is None ({which} labels)")
    features = check_features(X, which)
    return features, check_classes(y, len(features), which)


def check_classes(y: Any, n_clips: int, which: str) -> NDArray[Any]:
    """Return the class of each clip as an array.

    Args:
        y: (clips,) integers or names; a column (clips, 1) is flattened with a warning.
        n_clips: how many clips there must be.
        which: split they belong to, for the error message.

    Returns:
        (clips,) labels.

    Raises:
        ValueError: if they are of another shape or are no classes.

    Example:
        >>> check_classes(["cat", "dog"], 2, "training").tolist()
        ['cat', 'dog']
    """
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        message = "A column-vector y was passed when a 1d array was expected; it is flattened, pass y[:, 0] instead"
        warnings.warn(message, DataConversionWarning, stacklevel=4)
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != n_clips:
        raise ValueError(f"the {which} labels must be ({n_clips},), one per clip, got shape {labels.shape}")
    check_classification_targets(labels)
    return labels


def check_numbers(y: Any, n_clips: int, which: str) -> NDArray[np.float64]:
    """Return the number of each clip as an array.

    Args:
        y: (clips,) numbers.
        n_clips: how many clips there must be.
        which: split they belong to, for the error message.

    Returns:
        (clips,) float64.

    Raises:
        ValueError: if they are of another shape or not finite.

    Example:
        >>> check_numbers([1, 2.5], 2, "training").tolist()
        [1.0, 2.5]
    """
    numbers = np.asarray(y, dtype=np.float64)
    if numbers.shape != (n_clips,) or not np.isfinite(numbers).all():
        raise ValueError(f"the {which} labels must be ({n_clips},) finite numbers, got shape {numbers.shape}")
    return numbers
