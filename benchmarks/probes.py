"""Time the linear probe against a loop over scikit-learn, on distinct problems of real shapes.

    python benchmarks/probes.py [esc10] [layers13] [wide] [--reference=N] [--threads=N]

A problem is one layer in one round: standardise, fit 8 strengths on the training clips, choose on the validation
clips, refit on both. scikit-learn solves the N widest problems (default 1) too, and the ratios compare those only: at
tol=1e-8 in float64, where its probabilities come nearest the probe's (they still differ by 1e-3 for large C), and at
its default tol=1e-4 in float32, where it stops early and they differ by up to 0.9. Features are synthetic but shaped
like pooled ReLU layers: correlated, of low effective rank, with noise. Processor seconds stand beside wall seconds: on
a busy machine, compare those, with OMP_NUM_THREADS=1 set for both.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from evar.probes.checks import STRENGTHS
from evar.probes.linear import LinearProbe

N_CLASSES = 10


@dataclass(frozen=True)
class Job:
    """How many clips, and the width of each layer; every round has its own clips."""

    n_train: int
    n_valid: int
    widths: tuple[int, ...]
    n_rounds: int


JOBS = {
    # ESC-10: 5 folds of 80 clips, 8 layers of a convolutional network.
    "esc10": Job(256, 64, (256, 512, 1024, 1024, 2048, 2048, 4096, 4096), 5),
    # 13 layers of a transformer on 2,000 clips in 5 folds.
    "layers13": Job(1280, 320, (768,) * 13, 5),
    # One wide layer of a task with a published split.
    "wide": Job(2400, 600, (2048,), 1),
}


@dataclass(frozen=True)
class Problem:
    """Training and validation clips of one layer in one round."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_valid: NDArray[np.float32]
    y_valid: NDArray[np.int64]


def make_problem(n_train: int, n_valid: int, width: int, seed: int, rank: int = 40) -> Problem:
    """Classes differ in a low-rank latent space with a decaying spectrum, seen through a random ReLU layer."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_train + n_valid) % N_CLASSES
    latent = 0.5 * rng.normal(size=(N_CLASSES, rank))[labels] + rng.normal(size=(len(labels), rank))
    latent *= 5 / np.arange(1, rank + 1)
    mixed = latent @ rng.normal(size=(rank, width)) / np.sqrt(rank) + 0.3 * rng.normal(size=(len(labels), width))
    features = np.maximum(mixed, 0).astype(np.float32)
    return Problem(features[:n_train], labels[:n_train], features[n_train:], labels[n_train:])


def fit_probe(problem: Problem) -> float:
    """The probe's chosen strength."""
    probe = LinearProbe().fit(problem.X, problem.y, problem.X_valid, problem.y_valid)
    if not probe.converged_:
        raise RuntimeError("the probe did not converge, so its time means nothing")
    return probe.strength_


def fit_scikit_learn(problem: Problem, tol: float, dtype: type[np.floating]) -> float:
    """The same search as a loop, without the tie-break: the strength with the best validation accuracy."""
    scaler = StandardScaler().fit(problem.X.astype(dtype))
    X, X_valid = scaler.transform(problem.X.astype(dtype)), scaler.transform(problem.X_valid.astype(dtype))
    scores = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, tol=tol, max_iter=5000).fit(X, problem.y)
        scores.append(model.score(X_valid, problem.y_valid))
    best = STRENGTHS[int(np.argmax(scores))]
    both, labels = np.concatenate([X, X_valid]), np.concatenate([problem.y, problem.y_valid])
    LogisticRegression(C=best, tol=tol, max_iter=5000).fit(both, labels)
    return best


@dataclass(frozen=True)
class Seconds:
    """Time on the clock, and time that this process kept processors busy."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.2f} s wall, {self.processor:.2f} s processor"


def clock(fit: Callable[[Problem], float], problem: Problem) -> tuple[Seconds, float]:
    """Run and time one fit."""
    wall, processor = time.perf_counter(), time.process_time()
    strength = fit(problem)
    return Seconds(time.perf_counter() - wall, time.process_time() - processor), strength


def report(name: str, job: Job, n_reference: int) -> None:
    """Run one job and print its times."""
    problems = [
        make_problem(job.n_train, job.n_valid, width, seed=100 * a_round + at)
        for a_round in range(job.n_rounds)
        for at, width in enumerate(job.widths)
    ]
    fit_probe(make_problem(40, 20, 30, seed=0))  # thread pools and lazy imports are no part of the time
    timed = [clock(fit_probe, problem) for problem in problems]
    total = Seconds(sum(one.wall for one, _ in timed), sum(one.processor for one, _ in timed))
    n_fits = len(problems) * len(STRENGTHS)
    print(
        f"{name}: {len(problems)} problems ({job.n_train} + {job.n_valid} clips, widths {sorted(set(job.widths))}), "
        f"{n_fits} fits + {len(problems)} refits: probe {total}; "
        f"strengths chosen {sorted({strength for _, strength in timed})}"
    )
    for at in sorted(range(len(problems)), key=lambda at: -problems[at].X.shape[1])[:n_reference]:
        own, strength = timed[at]
        print(f"{name}: problem {at}, width {problems[at].X.shape[1]}: probe {own} (C={strength:g})")
        for tol, dtype in ((1e-8, np.float64), (1e-4, np.float32)):
            reference, other = clock(partial(fit_scikit_learn, tol=tol, dtype=dtype), problems[at])
            print(
                f"  scikit-learn loop, tol={tol:g}, {dtype.__name__}: {reference} (C={other:g}), "
                f"ratio {reference.wall / own.wall:.1f} wall, {reference.processor / own.processor:.1f} processor"
            )


def main() -> None:
    """Parse the command line and run the jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", help=f"any of {', '.join(JOBS)}; default: all")
    parser.add_argument("--reference", type=int, default=1, help="problems that scikit-learn solves too; 0 for none")
    parser.add_argument("--threads", type=int, help="of torch; default: as torch finds them")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.jobs if name not in JOBS]
    if unknown:
        parser.error(f"no job {unknown[0]!r}; there are {', '.join(JOBS)}")
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{torch.get_num_threads()} torch thread(s)")
    for name in arguments.jobs or JOBS:
        report(name, JOBS[name], arguments.reference)


if __name__ == "__main__":
    main()
