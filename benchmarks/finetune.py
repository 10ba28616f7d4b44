"""Time a fine-tuning step against the bare forward and backward of the same network on the same batches in memory.

    python benchmarks/finetune.py [crepe.tiny cnn14.16k ...] [--clips=64] [--batch=16] [--seconds=2] [--threads=2]

The step of `evar.finetune` reads clips from the memory-mapped file, draws crops and mixup, sets the schedule, steps the
optimiser and checks the loss; the bare loop makes forward, cross-entropy and backward of batches that are tensors
already, and steps the same optimiser. Both see random weights and noise. The two are timed in turn, several times, and the
ratio of their medians is printed (goal: at most 1.15), so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from evar.encoders import load_encoder
from evar.finetune.network import Network
from evar.finetune.protocol import change_protocol, load_tuning_protocol
from evar.finetune.training import Clips, Training
from evar.finetune.waveforms import Waveforms


def measured(name: str, n_clips: int, batch_size: int, seconds: float, n_rounds: int) -> tuple[float, float]:
    """Median seconds of an epoch by the engine and by the bare loop."""
    encoder = load_encoder(name, "random")
    n_samples = round(seconds * encoder.sample_rate)
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(n_clips * n_samples).astype(np.float32)
    path = Path("/tmp") / f"evar_benchmark_{name}.f32"
    noise.tofile(path)
    waveforms = Waveforms(
        np.memmap(path, np.float32, "r"), np.arange(n_clips + 1) * n_samples, {}, n_samples, pads=False
    )
    y = np.arange(n_clips) % 10
    clips = Clips(waveforms, np.arange(n_clips), np.arange(2), y, "accuracy", 10)
    given = {"epochs": 1000, "batch_size": batch_size, "mixup": 0.3, "frozen_norms": True}
    protocol = change_protocol(load_tuning_protocol("finetune_quick"), given, "benchmark")
    network = Network(encoder, "default", 10, frozen_norms=True)
    training = Training(network, clips, protocol, 0)
    batches = [waveforms.batch(np.arange(at, min(n_clips, at + batch_size))) for at in range(0, n_clips, batch_size)]
    labels = [torch.from_numpy(y[at : at + batch_size]) for at in range(0, n_clips, batch_size)]

    def engine() -> None:
        network.train()
        training.in_epoch = 0
        for step, batch in training._list_batches():
            training._step(step, batch)

    def bare() -> None:
        network.train()
        for (waveform, lengths), told in zip(batches, labels, strict=True):
            loss = torch.nn.functional.cross_entropy(network(waveform, lengths), told)
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad(set_to_none=True)

    times: dict[str, list[float]] = {"engine": [], "bare": []}
    for number in range(n_rounds + 1):  # the first warms up
        for kind, run in (("engine", engine), ("bare", bare)):
            began = time.perf_counter()
            run()
            if number:
                times[kind].append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times["engine"]), statistics.median(times["bare"])


def main() -> None:
    """Print a line for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoders", nargs="*", default=["crepe.tiny", "cnn14.16k"])
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for name in chosen.encoders:
        engine, bare = measured(name, chosen.clips, chosen.batch, chosen.seconds, chosen.rounds)
        print(
            f"{name}: {chosen.clips / engine:.1f} clips/s by the engine, {chosen.clips / bare:.1f} bare: ratio "
            f"{engine / bare:.3f} ({chosen.seconds:g} s clips, batches of {chosen.batch}, {chosen.threads} threads)"
        )


if __name__ == "__main__":
    main()
