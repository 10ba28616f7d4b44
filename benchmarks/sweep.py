"""Time of a whole sweep over one encode of the same clips, in one run.

    python benchmarks/sweep.py --data_root=DIR [--encoders=crepe.tiny] [--task=esc10] [--seeds=3] [--repeats=2]

For each encoder, alternately and `repeats` times, each with an empty store and results folder:

- `encode`: every clip is read, decoded, encoded and pooled once, and all its layers stored;
- `sweep`: the same, and then every layer on every fold with every seed, all pairs of layers (and what grows from them)
  ranked, the finalists probed, the choice tested, label-free hints, tables and plots.

Printed: both times, their ratio, the difference in seconds, and the seconds of the sweep's parts as they are run again on
what is stored.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evar.data.task import load_task
from evar.encoders import load_encoder
from evar.extraction.extract import extract
from evar.lineval.evaluate import evaluate
from evar.report import write_tables_and_plots
from evar.results import load_searches
from evar.storage.feature_store import FeatureStore


def encode(name: str, task_name: str, data_root: str) -> float:
    """Seconds of one pass over the clips."""
    encoder, task = load_encoder(name), load_task(task_name, data_root)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        began = time.perf_counter()
        extract(encoder, task.paths, task.policy(), FeatureStore(folder))
        return time.perf_counter() - began


def sweep(name: str, task: str, data_root: str, seeds: int) -> tuple[float, dict[str, float], str]:
    """Seconds of everything, seconds of its parts on stored vectors, and what was tried."""
    quiet = contextlib.ExitStack()
    with tempfile.TemporaryDirectory() as folder, quiet:
        quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
        quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
        flags = {"data_root": data_root, "store": f"{folder}/s", "layers": "all"}
        began = time.perf_counter()
        evaluate(name, task, fusion="search", seeds=seeds, out=f"{folder}/r", **flags)
        write_tables_and_plots(Path(folder) / "r")
        total = time.perf_counter() - began
        (record,) = load_searches(Path(folder) / "r")
        parts = {}
        began = time.perf_counter()
        evaluate(name, task, seeds=seeds, out=f"{folder}/again", **flags)
        parts[f"hints, and every layer, fold and seed ({seeds})"] = time.perf_counter() - began
        parts["search: ranker and finalists"] = record.seconds
        began = time.perf_counter()
        write_tables_and_plots(Path(folder) / "r")
        parts["tables and plots"] = time.perf_counter() - began
    said = f"{record.n_ranked} combinations ranked, {record.n_probed} probed, chosen {'+'.join(record.choice)}"
    return total, parts, said


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--encoders", default="crepe.tiny")
    parser.add_argument("--task", default="esc10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.task}, {arguments.repeats} repeats"
    )
    for name in arguments.encoders.split(","):
        encode(name, arguments.task, arguments.data_root)  # warm up
        ratios = []
        for _ in range(arguments.repeats):
            once = encode(name, arguments.task, arguments.data_root)
            total, parts, said = sweep(name, arguments.task, arguments.data_root, arguments.seeds)
            ratios.append(total / once)
            print(
                f"{name}: one encode {once:.1f} s, whole sweep {total:.1f} s, ratio {total / once:.2f}, overhead "
                f"{total - once:.1f} s ({said})"
            )
            for part, seconds in parts.items():
                print(f"{name}:   {seconds:6.1f} s  {part}")
        print(f"{name}: median ratio {float(np.median(ratios)):.2f}")


if __name__ == "__main__":
    main()
