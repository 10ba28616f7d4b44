"""Check features and targets before a probe is fitted."""

from __future__ import annotations

import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import DataConversionWarning
from sklearn.utils.multiclass import check_classification_targets

from evar.numeric.rows import Rows


def check_labels(y: Any, n_clips: int, which: str) -> NDArray[np.uint8]:
    """(clips, labels) of 0 and 1.

    Raises:
        ValueError: if they are of another shape or hold anything else.
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
    """(clips, width) floating point, finite; rows that are read in parts are checked when they are."""
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


def check_pair(X: Any, y: Any, which: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features and labels (clips,) of one split."""
    if y is None:
        raise ValueError(f"a probe requires y to be passed, but the target y is None ({which} labels)")
    features = check_features(X, which)
    return features, check_classes(y, len(features), which)


def check_classes(y: Any, n_clips: int, which: str) -> NDArray[Any]:
    """(clips,) labels of classes.

    Raises:
        ValueError: if they are of another shape or are no classes.
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
    """(clips,) finite numbers.

    Raises:
        ValueError: if they are of another shape or not finite.
    """
    numbers = np.asarray(y, dtype=np.float64)
    if numbers.shape != (n_clips,) or not np.isfinite(numbers).all():
        raise ValueError(f"the {which} labels must be ({n_clips},) finite numbers, got shape {numbers.shape}")
    return numbers
