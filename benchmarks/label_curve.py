"""Time a label-efficiency curve against one row of the protocol linear: 2,000 clips of width 768.

    python benchmarks/label_curve.py [--classes=10,50] [--threads=N]

1,600 clips are fitted on (1,280 for training and 320 for validation) and 400 are tested. The curve holds all draws, their
choice of a strength, the predictions of every draw and the intervals over draws and test clips; the linear row holds the
search for a strength, the final fit and its predictions. Features are those of `benchmarks/probes.py`. Processor seconds are
compared: on a busy machine, wall seconds say little.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import probes
import torch

from evar.metrics.draws import estimate_draw_intervals, resample_draws
from evar.probes.label_curve import LabelCurveProbe
from evar.probes.linear import LinearProbe

N_TRAIN, N_VALID, N_TEST, WIDTH = 1280, 320, 400, 768
T = TypeVar("T")


def clock(work: Callable[[], T]) -> tuple[float, T]:
    """Processor seconds of some work, and what it returns."""
    began = time.process_time()
    found = work()
    return time.process_time() - began, found


def compare(n_classes: int, seed: int) -> str:
    """Time both on one problem."""
    probes.N_CLASSES = n_classes
    problem = probes.make_problem(N_TRAIN, N_VALID + N_TEST, WIDTH, seed)
    valid, test = slice(0, N_VALID), slice(N_VALID, None)
    split = (problem.X, problem.y, problem.X_valid[valid], problem.y_valid[valid])
    X_test, y_test = problem.X_valid[test], problem.y_valid[test]

    def fit_row() -> float:
        return float(np.mean(LinearProbe().fit(*split).predict(X_test) == y_test))

    def fit_curve() -> tuple[LabelCurveProbe, list[float]]:
        probe, scores = LabelCurveProbe().fit(*split), []
        for predicted in probe.predict_draws(X_test):
            of_draws = (predicted == y_test).mean(axis=1)
            estimate_draw_intervals(
                "accuracy", of_draws, resample_draws("accuracy", y_test, predicted, range(N_TEST), [0] * N_TEST)
            )
            scores.append(float(of_draws.mean()))
        return probe, scores

    row_seconds, row_score = clock(fit_row)
    curve_seconds, (probe, scores) = clock(fit_curve)
    points = ", ".join(
        f"{point.n or 'all'}: {len(point.draws)} draws, {100 * score:.1f} %"
        for point, score in zip(probe.points_, scores, strict=True)
    )
    return (
        f"{n_classes} classes: one linear row {row_seconds:.2f} s ({100 * row_score:.1f} %), a curve {curve_seconds:.2f} s "
        f"of processor, {curve_seconds / row_seconds:.2f} times as long ({points})"
    )


def main() -> None:
    """Parse the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="10,50", help="numbers of classes")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch finds them")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    probes.fit_probe(probes.make_problem(40, 20, 30, seed=0))  # thread pools and lazy imports are no part of the time
    for n_classes in map(int, arguments.classes.split(",")):
        print(compare(n_classes, seed=n_classes), flush=True)


if __name__ == "__main__":
    main()
