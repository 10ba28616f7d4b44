"""Time and memory of the linear probe in memory, and in passes over features on disk.

    python benchmarks/streaming.py [--clips=20000,80000] [--width=768] [--classes=50] [--threads=N]

Synthetic features (correlated, low effective rank) lie in a file as the feature store keeps them. Each fit runs in a
process of its own: 8 strengths on three quarters of the clips, chosen on the rest, fitted again on both. Memory is the
largest amount that the process itself holds beyond what it held before the fit (RssAnon, Linux); pages of the file do not
count, since the system drops them when it needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np


def held() -> int:
    """Bytes of this process that are no pages of files."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1])


def write(folder: Path, n_clips: int, width: int, n_classes: int) -> np.ndarray:
    """Write features part by part; returns the labels."""
    random = np.random.default_rng(0)
    mix = random.normal(size=(64, width)).astype(np.float32)
    centres = random.normal(size=(n_classes, 64)).astype(np.float32)
    y = random.integers(n_classes, size=n_clips)
    with open(folder / "layer.f32", "wb") as file:
        for start in range(0, n_clips, 5000):
            hidden = 0.5 * centres[y[start : start + 5000]] + random.normal(size=(len(y[start : start + 5000]), 64))
            noise = 0.3 * random.normal(size=(len(hidden), width))
            file.write(np.maximum(hidden @ mix + noise, 0).astype("<f4").tobytes())
    return y


def fit(folder: Path, n_clips: int, width: int, streamed: bool, threads: int) -> dict[str, float]:
    """Fit in this process, and say what it took."""
    import torch

    from evar.probes import linear as probes
    from evar.probes.linear import LinearProbe
    from evar.storage.rows_on_disk import RowsOnDisk

    torch.set_num_threads(threads)
    probes.BYTES_IN_MEMORY = 0 if streamed else 2**60  # type: ignore[misc]
    y = np.load(folder / "y.npy")
    rows = RowsOnDisk(
        {"layer": [folder / "layer.f32"]}, {"layer": width}, np.zeros(n_clips, np.int64), np.arange(n_clips)
    )
    n_train = 3 * n_clips // 4
    LinearProbe().fit(np.eye(4, dtype=np.float32), [0, 1, 0, 1], np.eye(4, dtype=np.float32), [0, 1, 0, 1])  # warm
    before, most, is_over = held(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(0.02):
            most = max(most, held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    parts = [rows[:n_train], rows[n_train:]]
    X, X_valid = parts if streamed else [part.read() for part in parts]
    probe = LinearProbe().fit(X, y[:n_train], X_valid, y[n_train:])
    seconds = time.perf_counter() - began
    is_over.set()
    watcher.join()
    return {"seconds": seconds, "bytes": most - before, "strength": probe.strength_, "score": probe.valid_score_ or 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", default="20000,80000")
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        folder, n_clips, how = asked.one.split("::")
        print(json.dumps(fit(Path(folder), int(n_clips), asked.width, how == "streamed", asked.threads)))
        return
    for n_clips in map(int, asked.clips.split(",")):
        with tempfile.TemporaryDirectory() as name:
            np.save(Path(name) / "y.npy", write(Path(name), n_clips, asked.width, asked.classes))
            n_bytes = (Path(name) / "layer.f32").stat().st_size
            print(f"{n_clips} clips x {asked.width}, {asked.classes} classes, {n_bytes / 1e6:.0f} MB on disk")
            for how in ("in memory", "streamed"):
                words = [f"--one={name}::{n_clips}::{how}", f"--width={asked.width}", f"--threads={asked.threads}"]
                done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"  {how:10} {found['seconds']:7.1f} s {found['bytes'] / 1e6:8.0f} MB   C={found['strength']:g}, "
                    f"validation {100 * found['score']:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
