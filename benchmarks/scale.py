"""How a grid of 9 tasks x 30 encoders would spread over many workers: a simulation from measured costs.

    python benchmarks/scale.py [--speedup=100] [--bandwidth=2.0] [--probesup=20]

Nothing is encoded. Costs of one core come from measurements on this kind of machine: seconds per second of audio of each
encoder (docs/encoders.md, "What they cost") and 0.4 s for the probe's nine fits of one problem of 1,600 clips x 768
features x 10 classes (`benchmarks/probes.py layers13`), which grow with clips x features x classes. Three numbers are
assumptions, not measurements, and flags: how much faster an accelerator encodes than one core, how much faster it or a
whole node fits probes, and how many gigabytes a second the shared file system gives to all workers together (audio as
16-bit samples at 16 kHz). A unit is a cell, as `evar.lineval.engine` cuts a grid; whoever is free takes the next, and a cell
never takes less time than its share of the file system. Layers and vectors are counted as they are; validation costs
nothing extra.
"""

from __future__ import annotations

import argparse
import heapq
from dataclasses import dataclass

#: task -> clips, seconds a clip, classes, rounds (spec of the reference protocol; surge: 88 clips of each of 2,084 tones)
TASKS = {
    "esc50": (2_000, 5.0, 50, 5),
    "us8k": (8_732, 4.0, 10, 10),
    "spcv2": (105_829, 1.0, 35, 1),
    "vc1": (153_516, 8.2, 1_251, 1),
    "voxforge": (176_428, 5.8, 6, 1),
    "cremad": (7_438, 2.5, 6, 1),
    "gtzan": (930, 30.0, 10, 1),
    "nsynth": (305_979, 4.0, 11, 1),
    "surge": (183_392, 4.0, 88, 1),
}
#: encoder -> seconds of one core for a second of audio, layers, mean width of a layer's vector
ENCODERS = {
    "vggish": (0.048, 9, 1024),
    "cnn14.16k": (0.087, 7, 2048),
    "cnn14.32k": (0.094, 7, 2048),
    "ast": (0.37, 12, 768),
    "wav2vec2.base": (0.27, 15, 768),
    "wav2vec2.large": (0.69, 27, 1024),
    "byol_a.d512": (0.011, 5, 512),
    "byol_a.d1024": (0.014, 5, 1024),
    "byol_a2": (0.017, 5, 3072),
    "msm_mae.208": (0.09, 12, 3840),
}
N_ENCODERS = 30  # the ten above, three times: other checkpoints of these architectures
PROBE_SECONDS = 0.4 / (1_600 * 768 * 10)  # of one core, for each clip x feature x class of one round of one layer
BYTES_PER_SECOND = 2 * 16_000  # of audio


@dataclass(frozen=True)
class Cell:
    """Cost of an encoder on a task, in seconds of one worker, and the bytes of audio that it reads."""

    name: str
    encode: float
    probe: float
    n_bytes: float


def cells(speedup: float, probesup: float, layers: bool) -> list[Cell]:
    """All cells of the grid; `layers`: a row for every layer instead of the default one."""
    found = []
    for number in range(N_ENCODERS):
        name = list(ENCODERS)[number % len(ENCODERS)]
        cost, n_layers, width = ENCODERS[name]
        for task, (n_clips, seconds, n_classes, n_rounds) in TASKS.items():
            rows = n_layers if layers else 1
            probe = PROBE_SECONDS * n_clips * width * n_classes * n_rounds * rows / probesup
            audio = n_clips * seconds
            found.append(Cell(f"{name} x {task}", audio * cost / speedup, probe, audio * BYTES_PER_SECOND))
    return found


def makespan(grid: list[Cell], n_workers: int, bandwidth: float) -> float:
    """Seconds until the last cell is done, the longest cells first."""
    each = bandwidth / n_workers  # bytes a second that a worker may read while all of them read
    free = [0.0] * n_workers
    for seconds in sorted((max(one.encode, one.n_bytes / each) + one.probe for one in grid), reverse=True):
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=100.0, help="of an accelerator's encoding over one core")
    parser.add_argument("--probesup", type=float, default=20.0, help="of fitting probes over one core")
    parser.add_argument("--bandwidth", type=float, default=2.0, help="of the shared file system, GB/s")
    flags = parser.parse_args()
    for layers in (False, True):
        grid = cells(flags.speedup, flags.probesup, layers)
        encode, probe = (sum(getattr(one, part) for one in grid) / 3600 for part in ("encode", "probe"))
        print(
            f"{'all layers' if layers else 'default layers'}: {len(grid)} cells, {encode:.1f} h encode, {probe:.1f} h probe"
        )
        alone = makespan(grid, 1, flags.bandwidth * 1e9)
        for n_workers in (1, 2, 5, 10, 20, 50, 100, 200):
            took = makespan(grid, n_workers, flags.bandwidth * 1e9)
            print(f"  {n_workers:4d} workers: {took / 3600:8.2f} h, {alone / took / n_workers:6.1%} of perfect")
        for one in sorted(grid, key=lambda one: -(one.encode + one.probe))[:2]:
            print(f"  longest: {one.name}: encode {one.encode / 3600:.2f} h, probe {one.probe / 3600:.2f} h")


if __name__ == "__main__":
    main()
