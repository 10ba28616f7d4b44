"""Overhead of a whole linear evaluation over the encoder's own arithmetic, in one run.

    python benchmarks/overhead.py --data_root=DIR [--encoders=crepe.tiny,aisfx] [--task=esc10] [--repeats=2]

For each encoder, alternately and `repeats` times:

- `bare`: `encoder.forward` over the task's clips, decoded and batched in memory beforehand, without pooling or storing;
- `job`: `python lineval.py ENCODER TASK --layers=all` in a fresh process with an empty store and results folder: imports,
  decoding, resampling, encoding, pooling, storing, all folds and layers, tables and plots.

Printed: both times, their ratio, the difference in seconds, and where the difference goes (measured in this process).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evar.audio.reading import read_clip
from evar.data.task import Task, load_task
from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.extraction.extract import extract
from evar.extraction.plan import plan
from evar.lineval.evaluate import evaluate
from evar.report import write_tables_and_plots
from evar.storage.feature_store import FeatureStore

LINEVAL = Path(__file__).resolve().parent.parent / "lineval.py"


def clips_in_memory(encoder: Encoder, task: Task) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], float]:
    """The batches that `extract` would make, as (waveform, lengths), and the seconds that decoding took in one thread."""
    with tempfile.TemporaryDirectory() as folder:
        planned = plan(encoder, task.paths, task.policy(), FeatureStore(folder))
    began = time.perf_counter()
    clips = {p: read_clip(task.paths[p], planned.infos[p], task.policy(), encoder.sample_rate) for p in planned.todo}
    seconds = time.perf_counter() - began
    batches = []
    for positions in planned.batches:
        lengths = torch.tensor([len(clips[position]) for position in positions])
        waveform = torch.zeros(len(positions), int(lengths.max()))
        for row, position in zip(waveform, positions, strict=True):
            row[: len(clips[position])] = torch.from_numpy(clips[position])
        batches.append((waveform, lengths))
    return batches, seconds


def bare(encoder: Encoder, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Seconds of the forward alone."""
    began = time.perf_counter()
    with torch.inference_mode():
        for waveform, lengths in batches:
            encoder.forward(waveform, lengths)
    return time.perf_counter() - began


def job(encoder: str, task: str, data_root: str) -> float:
    """Seconds of the whole command in a fresh process with nothing stored."""
    with tempfile.TemporaryDirectory() as folder:
        words = [encoder, task, "--layers=all", f"--data_root={data_root}", f"--store={folder}/s", f"--out={folder}/r"]
        began = time.perf_counter()
        subprocess.run([sys.executable, str(LINEVAL), *words], check=True, capture_output=True)
        return time.perf_counter() - began


def breakdown(name: str, encoder: Encoder, task: Task, data_root: str) -> dict[str, float]:
    """Seconds of each part of the job, in this process."""
    parts: dict[str, float] = {}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import evar.lineval.run, evar.report"], check=True)
    parts["start and imports"] = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        began = time.perf_counter()
        extract(encoder, task.paths, task.policy(), FeatureStore(f"{folder}/s"))
        parts["one pass: read, decode, encode, pool, store"] = time.perf_counter() - began
        began = time.perf_counter()
        evaluate(name, task.name, layers="all", data_root=data_root, out=f"{folder}/r", store=f"{folder}/s")
        parts["probes of all layers and folds"] = time.perf_counter() - began
        began = time.perf_counter()
        write_tables_and_plots(Path(folder) / "r")
        parts["tables and plots"] = time.perf_counter() - began
    return parts


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_root", required=True)
    parser.add_argument("--encoders", default="crepe.tiny,aisfx")
    parser.add_argument("--task", default="esc10")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; {arguments.task}, {arguments.repeats} repeats"
    )
    for name in arguments.encoders.split(","):
        encoder, task = load_encoder(name), load_task(arguments.task, arguments.data_root)
        batches, decode_seconds = clips_in_memory(encoder, task)
        bare(encoder, batches[:1])  # warm up
        times = [(bare(encoder, batches), job(name, task.name, arguments.data_root)) for _ in range(arguments.repeats)]
        for bare_seconds, job_seconds in times:
            print(
                f"{name}: bare forward {bare_seconds:.1f} s, whole job {job_seconds:.1f} s, "
                f"ratio {job_seconds / bare_seconds:.2f}, overhead {job_seconds - bare_seconds:.1f} s"
            )
        ratio = float(np.median([job_seconds / bare_seconds for bare_seconds, job_seconds in times]))
        print(f"{name}: median ratio {ratio:.2f}; decoding alone, one thread: {decode_seconds:.1f} s")
        for part, seconds in breakdown(name, encoder, task, arguments.data_root).items():
            print(f"{name}:   {seconds:6.1f} s  {part}")


if __name__ == "__main__":
    main()
