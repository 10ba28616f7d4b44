"""The protocol of a probe: an estimator with the conventions of scikit-learn, and traits that describe how to use it.

A protocol's YAML names a probe as "module:Class"; a class of your own works in the same way, as "my_package.module:Class" or
"path/to/my_probe.py:Class". The class must have

- a constructor whose parameters are stored under their own names, and `get_params` and `set_params` (inherit from
  `sklearn.base.BaseEstimator`);
- `fit(X, y, X_valid, y_valid)`, which sets `n_features_in_`, never changes what it is given, and returns the probe;
- `predict(X)`; for tasks with several labels a clip also `decision_function(X)`; for one class a clip, if it can,
  `predict_proba(X)` and then `classes_`;
- `traits`, a `ProbeTraits`, where the defaults do not fit.

A fitted probe may tell more about itself in the attributes of `FitReport`, each with "_" at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

#: (the probe, clips, features of a clip, classes or labels) -> bytes
CountBytes = Callable[[Any, int, int, int], int]


@dataclass(frozen=True)
class ProbeTraits:
    """Facts that decide how a probe is used.

    Args:
        kinds: of tasks that it is made for, of `evar.metrics.KINDS`.
        reads_frames: whether X is `evar.numeric.frames.Frames`, the frames of each clip, and not one vector a clip.
        reads_parts: whether X may be `evar.numeric.rows.Rows`, which hold more than memory does and are read in parts.
        fits_together: whether the class has `fit_together(probes, splits)`, which fits several probes faster side by side
            than one after another.
        count_bytes: estimates the memory that one fit holds, so that as many are fitted side by side as memory bears;
            None where company brings no gain, and each is fitted alone.
        takes_device: whether it has the parameter `device`, which the command line's `--device` then sets.
        reads_text: whether it compares clips with texts: it has the parameter `text`, which the run then sets to vectors of
            the task's prompts, (templates, classes, width), or to those of the captions of each clip.
        reads_clips: whether it has the parameter `clips`, which the run sets to the places and groups of the training clips
            and then of the validation clips, `evar.probes.draws.FittingClips`; it does without them too.
        compares_clips: whether it compares test clips with each other in place of predicting their classes: it has the
            parameter `valid_clips` and the method `compare`, see `evar.probes.comparing`.
        reads_pairs: whether it has the parameter `published`, which the run then sets to the task's published pairs.

    Example:
        >>> ProbeTraits().kinds, ProbeTraits(count_bytes=per_number(4)).count_bytes(None, 100, 768, 10)
        (('multiclass',), 307200)
    """

    kinds: tuple[str, ...] = ("multiclass",)
    reads_frames: bool = False
    reads_parts: bool = False
    fits_together: bool = False
    count_bytes: CountBytes | None = None
    takes_device: bool = False
    reads_text: bool = False
    reads_clips: bool = False
    compares_clips: bool = False
    reads_pairs: bool = False


class Probe(Protocol):
    """The methods that every probe has; see the top of this module."""

    n_features_in_: int

    def fit(self, X: Any, y: Any, X_valid: Any, y_valid: Any) -> Any:
        """Fit on training clips; choose settings on validation clips."""

    def predict(self, X: Any) -> Any:
        """Predict a class, labels, a number or events for each clip."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the constructor's parameters by name."""

    def set_params(self, **params: Any) -> Any:
        """Change parameters of an unfitted probe."""


@dataclass(frozen=True)
class FitReport:
    """Report of a fit; each value is the probe's attribute of the same name with "_" at the end.

    Args:
        strength: the chosen C of a regularised model; None for other models.
        chosen: other settings that were chosen, by name; None if there are none.
        valid_score: of the choice on the validation clips, in the metric's unit; None if nothing was chosen.
        valid_log_loss: likewise its mean loss a clip, in nats.
        converged: whether the final fit reached its tolerance.
        on_grid_edge: whether the smallest or largest of several settings was chosen, so that a wider grid may do better.
        layer_weights: (layers,) how much each layer counts; None for probes of one vector.

    Example:
        >>> FitReport(strength=0.1).valid_score is None
        True
    """

    strength: float | None = None
    chosen: Mapping[str, Any] | None = None
    valid_score: float | None = None
    valid_log_loss: float | None = None
    converged: bool = True
    on_grid_edge: bool = False
    layer_weights: Sequence[float] | None = None


def per_number(n_bytes: int) -> CountBytes:
    """Make an estimate of memory: a fixed number of bytes for each number of the training and validation vectors.

    Args:
        n_bytes: for one feature of one clip.

    Example:
        >>> per_number(48)(None, 2000, 768, 50)
        73728000
    """
    return lambda probe, n_clips, width, n_classes: n_bytes * n_clips * width


def get_traits(probe: Any) -> ProbeTraits:
    """Return the traits of a probe; the defaults for a class that declares none.

    Args:
        probe: a probe, or its class.

    Example:
        >>> from sklearn.linear_model import RidgeClassifier
        >>> get_traits(RidgeClassifier).reads_frames
        False
    """
    found = getattr(probe, "traits", None)
    return found if isinstance(found, ProbeTraits) else ProbeTraits()


def report_fit(probe: Any) -> FitReport:
    """Read the report of a fitted probe.

    Args:
        probe: fitted.

    Example:
        >>> from sklearn.linear_model import RidgeClassifier
        >>> report_fit(RidgeClassifier()).converged
        True
    """
    attributes = vars(probe)
    names = [entry.name for entry in fields(FitReport) if f"{entry.name}_" in attributes]
    return FitReport(**{name: attributes[f"{name}_"] for name in names})


def fit_probes(probes: Sequence[Any], splits: Sequence[tuple[Any, ...]]) -> None:
    """Fit each probe on its own split, side by side where the class knows how.

    Args:
        probes: unfitted, of one class.
        splits: (X, y, X_valid, y_valid) of each.

    Raises:
        ValueError: as the probe's `fit`.

    Example:
        >>> from evar.probes.few_shot import FewShotProbe
        >>> X, y = np.float32([[0], [1], [4], [5]]), [0, 0, 1, 1]
        >>> probes = [FewShotProbe(n_per_class=2), FewShotProbe(n_per_class=1)]
        >>> fit_probes(probes, [(X, y, None, None)] * 2)
        >>> [len(probe.drawn_) for probe in probes]
        [4, 2]
    """
    if probes and get_traits(probes[0]).fits_together:
        type(probes[0]).fit_together(probes, splits)
        return
    for probe, split in zip(probes, splits, strict=True):
        probe.fit(*split)


def check_probe(probe: Any) -> list[str]:
    """Try a probe of one vector a clip on two well separated classes, and name each broken promise.

    Args:
        probe: the class, or an unfitted probe of it.

    Returns:
        One sentence for each broken promise; empty if all are kept. A probe that reads frames or text, compares clips, or is
        not made for tasks of one class a clip, is only checked for its constructor and its methods.

    Example:
        >>> from sklearn.linear_model import RidgeClassifier
        >>> check_probe(RidgeClassifier())
        ['fit must take X, y, X_valid and y_valid, but it raised TypeError: it takes 2 arrays']
    """
    made, found = _make_for_check(probe)
    if found:
        return found
    traits = get_traits(made)
    params = made.get_params()
    if traits.takes_device and "device" not in params:
        found.append("traits say that it takes a device, but it has no parameter device")
    if traits.reads_clips and "clips" not in params:
        found.append("traits say that it reads facts about its clips, but it has no parameter clips")
    if traits.fits_together and not hasattr(type(made), "fit_together"):
        found.append("traits say that probes are fitted together, but there is no fit_together(probes, splits)")
    if traits.reads_frames or traits.reads_text or traits.compares_clips or "multiclass" not in traits.kinds:
        return found
    return found + _check_fit(made)


def _make_for_check(probe: Any) -> tuple[Any, list[str]]:
    try:
        made = probe() if isinstance(probe, type) else probe
    except TypeError as error:
        return None, [f"every parameter must have a default, but making it raised TypeError: {error}"]
    missing = [
        name for name in ("fit", "predict", "get_params", "set_params") if not callable(getattr(made, name, None))
    ]
    if missing:
        return made, [
            f"it has no {', '.join(missing)}; inherit from sklearn.base.BaseEstimator and write fit and predict"
        ]
    return made, []


def _check_fit(probe: Any) -> list[str]:
    rng, y = np.random.default_rng(0), np.arange(60) % 2
    X = (rng.normal(size=(60, 4)) + 6 * y[:, None]).astype(np.float32)
    kept, found = X.copy(), []
    try:
        fitted = probe.fit(X[:30], y[:30], X[30:45], y[30:45])
    except TypeError as error:
        n = "it takes 2 arrays" if "positional argument" in str(error) else str(error)
        return [f"fit must take X, y, X_valid and y_valid, but it raised TypeError: {n}"]
    except Exception as error:  # a user's probe may raise anything; the check reports it
        return [f"fit raised {type(error).__name__} on separable classes: {error}"]
    if fitted is not probe:
        found.append(f"fit must return the probe itself, got {type(fitted).__name__}")
    if vars(probe).get("n_features_in_") != 4:
        found.append(f"n_features_in_ must be the features of a clip, 4, got {vars(probe).get('n_features_in_')}")
    try:
        predicted = np.asarray(probe.predict(X[45:]))
    except Exception as error:
        return [*found, f"predict raised {type(error).__name__}: {error}"]
    if not np.array_equal(X, kept):
        found.append("fit and predict must leave the vectors that they are given as they are")
    if predicted.shape != (15,):
        found.append(f"predict must give one class for each of 15 clips, got shape {predicted.shape}")
    elif np.mean(predicted == y[45:]) < 0.8:
        share = np.mean(predicted == y[45:])
        found.append(f"two classes that lie far apart must be separated, but only {share:.0%} of 15 clips are right")
    return found
