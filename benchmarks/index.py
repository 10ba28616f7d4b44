"""Time and memory of an index with very many clips: verifying it, or loading and checking it, its rounds, and missing files.

    python benchmarks/index.py [--clips=1000000] [--folds] [--verify]

The clips have names only, in a CSV of about 60 bytes a clip; nothing of their sound is read. With --verify the index is
checked and its files are looked for as `evar verify` does it, part by part: memory does not grow with the clips. Without,
it is loaded as an evaluation needs it, as one table: memory grows with the number of clips.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import yaml

from evar.data.index_verification import verify_index
from evar.data.task import Task
from evar.data.task_config import Expected, TaskConfig
from evar.data.verification import Verification


def timed(what: str, run: Callable[[], object]) -> object:
    """Run and print seconds, and the peak memory of the process so far."""
    began = time.perf_counter()
    found = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - began:.2f} s, peak {peak:.0f} MiB", flush=True)
    return found


def write(path: Path, n_clips: int, folds: bool) -> None:
    """Write the index a row at a time: 20 clips a source, one source in ten for test and one for validation."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "fold" if folds else "split", "group"])
        for row in range(n_clips):
            group = row // 20
            part = str(group % 5) if folds else {0: "test", 1: "valid"}.get(group % 10, "train")
            writer.writerow([f"audio/{row:07d}.wav", f"class{row % 50:02d}", part, f"source{group:06d}"])


def main() -> None:
    """Make the table, then time each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--folds", action="store_true")
    parser.add_argument("--verify", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tasks = Path(folder) / "tasks"
        tasks.mkdir()
        path = tasks / "many.csv"
        write(path, chosen.clips, chosen.folds)
        config = TaskConfig(
            name="many", title="many clips", version="1", kind="multiclass", metric="accuracy",
            classes=tuple(f"class{n:02d}" for n in range(50)), clip_seconds=1.0, pad="none", crop="head", folder="many",
            splits="folds" if chosen.folds else "published", source="made here", licence="none", citation="none",
            access="free", expected=Expected(chosen.clips, 50), index="many.csv",
        )  # fmt: skip
        if chosen.verify:
            told = {**dataclasses.asdict(config), "expected": {"clips": chosen.clips, "classes": 50}}
            kept = {key: list(value) if isinstance(value, tuple) else value for key, value in told.items() if value}
            del kept["name"]
            (tasks / "many.yaml").write_text(yaml.safe_dump(kept))
            os.environ["EVAR_CONFIG"] = folder
            found = timed("verify", lambda: verify_index("many"))
            assert isinstance(found, Verification) and found.n_missing == chosen.clips
            return
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
