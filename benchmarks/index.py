"""Time and memory of an index with very many clips: loading and checking it, its rounds, and looking for missing files.

    python benchmarks/index.py [--clips=1000000] [--folds]

The clips have names only. An index is one table in memory (a CSV of about 60 bytes a clip): what it takes grows with the
number of clips, and nothing of their sound is read.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from evar.tasks import Expected, Task, TaskConfig


def timed(what: str, run: Callable[[], object]) -> object:
    """Run and print seconds, and the peak memory of the process so far."""
    began = time.perf_counter()
    found = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - began:.2f} s, peak {peak:.0f} MiB", flush=True)
    return found


def main() -> None:
    """Make the table, then time each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--folds", action="store_true")
    chosen = parser.parse_args()
    numbers = pd.Series(range(chosen.clips))
    groups = numbers // 20
    part = (groups % 10).map({0: "test", 1: "valid"}).fillna("train")
    table = pd.DataFrame(
        {
            "path": numbers.map("audio/{:07d}.wav".format),
            "label": (numbers % 50).map("class{:02d}".format),
            "fold" if chosen.folds else "split": (groups % 5).astype(str) if chosen.folds else part,
            "group": groups.map("source{:06d}".format),
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.csv"
        table.to_csv(path, index=False)
        del table
        config = TaskConfig(
            name="many", title="many clips", version="1", kind="multiclass", metric="accuracy",
            classes=tuple(f"class{n:02d}" for n in range(50)), clip_seconds=1.0, pad="none", crop="head", folder="many",
            splits="folds" if chosen.folds else "published", source="made here", licence="none", citation="none",
            access="free", expected=Expected(chosen.clips, 50), index="many.csv",
        )  # fmt: skip
        index = timed("read the CSV", lambda: pd.read_csv(path, dtype=str, keep_default_na=False))
        assert isinstance(index, pd.DataFrame)
        task = timed(
            "check it (paths, labels, splits, groups, counts, hash)", lambda: Task(config, index, Path(folder))
        )
        assert isinstance(task, Task)
        timed("rounds", lambda: task.rounds())
        timed("look for missing files", lambda: len(task.missing()))


if __name__ == "__main__":
    main()
