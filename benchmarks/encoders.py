"""Cost of each encoder: parameters, speed, share of its front-end, peak memory.

    python benchmarks/encoders.py [--encoders=NAME,NAME] [--device=cpu|cuda] [--seconds=N] [--repeats=N] [--threads=N]
                                  [--clock=wall|processor] [--without_yardstick]

Each encoder runs in a Python process of its own, with random weights (speed does not depend on them) and noise cut into
clips of 10 s. One batch is what `extract` would make, `batch_seconds` of audio, unless --seconds says otherwise. After a
warm-up, `frontend` (what the network sees) and `encode` (front-end and every layer) take turns `repeats` times. Printed,
as a Markdown table:

- parameters in millions, classifier head included; layers; width of a clip's vector at the default layers;
- median seconds of `encode` for a second of audio, and how many times faster than real time that is;
- share of the front-end in `encode`, from the shortest times of both;
- peak memory beyond a Python that has imported torch (resident on CPU, allocated on CUDA), of building and encoding;
- the front-end against CNN14's forward at 16 kHz on the same seconds of audio, timed in turns in one process, from the
  shortest times. The goal on CPU is less than 15 %. Once against the whole forward, which holds CNN14's own front-end
  too, and once, more strictly, against the forward without that. --without_yardstick leaves this out.

Without --encoders, every encoder of `config/encoders/` is measured once: variants that read other layers of the same
network, or other weights of it, are left out.

The shortest times bear other load on the machine best. Where others compute too, --threads=1 --clock=processor counts
the processor seconds of one thread, whoever else runs; seconds of a second of audio are then those of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evar.config.encoder import load_encoder_config
from evar.config.folders import names
from evar.config.registry import resolve

# torch is imported by the measuring processes only: Linux counts the parent's peak memory as its children's.
if TYPE_CHECKING:
    import torch

    from evar.encoders.base import Encoder

YARDSTICK = "cnn14.16k"
GOAL = 0.15
CLIP_SECONDS = 10.0


@dataclass(frozen=True)
class Cost:
    """What one encoder costs.

    Attributes:
        encoder: name.
        n_parameters, n_layers, vector: parameters; layers; width of a clip's vector at the default layers.
        batch_seconds: audio in one batch.
        encode_seconds: median time of `encode` on one batch.
        share: front-end's part of `encode`, 0..1; None where the encoder has no front-end apart from its network.
        of_forward, of_network: front-end over CNN14's forward with, and without, CNN14's own front-end.
        peak_bytes: peak memory beyond the import of torch.
    """

    encoder: str
    n_parameters: int
    n_layers: int
    vector: int
    batch_seconds: float
    encode_seconds: float
    share: float | None
    of_forward: float | None
    of_network: float | None
    peak_bytes: int


def peak_resident() -> int:
    """Bytes of the largest resident set that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def noise(encoder: Encoder, seconds: float) -> torch.Tensor:
    """(clips, samples) seeded noise on the encoder's device: clips of 10 s, together about `seconds`."""
    import torch

    n_clips = max(1, round(seconds / CLIP_SECONDS))
    generator = torch.Generator().manual_seed(0)
    waveform = 0.1 * torch.randn(n_clips, int(CLIP_SECONDS * encoder.sample_rate), generator=generator)
    return waveform.to(encoder.device)


def taking_turns(calls: Sequence[Callable[[], object]], repeats: int, clock: str) -> list[list[float]]:
    """Seconds of each call by that clock, `repeats` times in turn after one warm-up, on whichever device."""
    import torch

    def finished() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.process_time() if clock == "processor" else time.perf_counter()

    seconds: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for call, taken in zip(calls, seconds, strict=True):
                began = finished()
                call()
                if turn:  # the first is the warm-up
                    taken.append(finished() - began)
    return seconds


def measure(name: str, asked: argparse.Namespace) -> Cost:
    """All figures of one encoder, in this process, which must have done nothing else before."""
    import torch

    from evar.encoders import load_encoder
    from evar.encoders.pooling import count_pooled_features

    if asked.threads:
        torch.set_num_threads(asked.threads)
    before = peak_resident()
    encoder = load_encoder(name, "random", device=asked.device)
    waveform = noise(encoder, asked.seconds or encoder.batch_seconds)
    try:
        with torch.inference_mode():
            encoder.frontend(waveform[:1])
    except NotImplementedError:
        fronts, share = [], None
        (encodes,) = taking_turns([lambda: encoder.encode(waveform)], asked.repeats, asked.clock)
    else:
        calls = [lambda: encoder.frontend(waveform), lambda: encoder.encode(waveform)]
        fronts, encodes = taking_turns(calls, asked.repeats, asked.clock)
        share = min(fronts) / min(encodes)
    on_cuda = encoder.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_cuda else peak_resident() - before
    has_yardstick = bool(fronts) and not asked.without_yardstick
    of_forward, of_network = against_yardstick(encoder, asked) if has_yardstick else (None, None)
    chosen = [encoder.layer(layer) for layer in encoder.default_layers]
    return Cost(
        encoder=name,
        n_parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        n_layers=len(encoder.layer_infos),
        vector=sum(count_pooled_features(layer.width, layer.pooling) for layer in chosen),
        batch_seconds=waveform.shape[0] * CLIP_SECONDS,
        encode_seconds=statistics.median(encodes),
        share=share,
        of_forward=of_forward,
        of_network=of_network,
        peak_bytes=peak,
    )


def against_yardstick(encoder: Encoder, asked: argparse.Namespace) -> tuple[float, float]:
    """The front-end's time over that of CNN14's forward, with and without CNN14's own front-end."""
    import torch

    from evar.encoders import load_encoder

    yardstick = load_encoder(YARDSTICK, "random", device=str(encoder.device))
    theirs = noise(yardstick, asked.seconds or yardstick.batch_seconds)
    ours = noise(encoder, len(theirs) * CLIP_SECONDS)  # the same seconds of audio
    lengths = torch.full((len(theirs),), theirs.shape[1], device=theirs.device)
    calls = [
        lambda: encoder.frontend(ours),
        lambda: yardstick.frontend(theirs),
        lambda: yardstick.forward(theirs, lengths),
    ]
    front, their_front, forward = (min(taken) for taken in taking_turns(calls, asked.repeats, asked.clock))
    return front / forward, front / (forward - their_front)


def table(costs: Sequence[Cost]) -> str:
    """The costs as a Markdown table, one row an encoder."""
    header = [
        "encoder",
        "parameters (M)",
        "layers",
        "vector",
        "batch (s of audio)",
        "s / s of audio",
        "x real time",
        "front-end in encode",
        *(["front-end / CNN14 forward"] if any(cost.of_forward is not None for cost in costs) else []),
        "peak memory (MB)",
    ]
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    for cost in costs:
        rate = cost.encode_seconds / cost.batch_seconds
        cells = [
            f"`{cost.encoder}`",
            f"{cost.n_parameters / 1e6:.1f}",
            str(cost.n_layers),
            str(cost.vector),
            f"{cost.batch_seconds:g}",
            f"{rate:.2g}",
            f"{1 / rate:.{0 if rate < 0.1 else 1}f}",
            percent(cost.share),
            *([percent(cost.of_forward)] if len(header) == 10 else []),
            f"{cost.peak_bytes / 1e6:.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """A share as text; a dash where the encoder has no front-end of its own."""
    return "-" if value is None else f"{100 * value:.1f} %"


def verdict(costs: Sequence[Cost]) -> str:
    """Which front-ends meet the goal, dearest first."""
    lines = [
        f"Front-end as % of CNN14's forward (`{YARDSTICK}`) on the same seconds of audio; goal < {GOAL:.0%} on CPU:"
    ]
    ranked = sorted((cost for cost in costs if cost.of_forward is not None), key=lambda cost: -(cost.of_forward or 0.0))
    for cost in ranked:
        met = "met" if (cost.of_forward or 0.0) < GOAL else "MISSED"
        lines.append(
            f"- {cost.encoder}: {percent(cost.of_forward)}, {met} "
            f"({percent(cost.of_network)} of the forward without CNN14's own front-end)"
        )
    return "\n".join(lines)


def processor() -> str:
    """Name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def in_own_process(name: str, arguments: argparse.Namespace) -> Cost | None:
    """Measure one encoder in a fresh process; None, with the reason on stderr, where that fails."""
    words = [f"--one={name}", f"--device={arguments.device}", f"--repeats={arguments.repeats}"]
    words += [f"--clock={arguments.clock}", *(["--without_yardstick"] if arguments.without_yardstick else [])]
    environment = dict(os.environ)
    if arguments.seconds:
        words.append(f"--seconds={arguments.seconds}")
    if arguments.threads:
        words.append(f"--threads={arguments.threads}")
        environment["OMP_NUM_THREADS"] = str(arguments.threads)
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{name}: not measured, exit status {done.returncode}: {reason}", file=sys.stderr)
        return None
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def machine(device: str) -> str:
    """One line about where this was measured, from a process that may import torch."""
    code = (
        "import sys, torch; cuda = sys.argv[1].startswith('cuda'); "
        "print(torch.__version__, torch.get_num_threads(), torch.cuda.get_device_name() if cuda else '', sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code, device], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"encoders.py: device {device!r} cannot be used here ({reason}); try --device=cpu")
    version, threads, accelerator = done.stdout.strip().split("|")
    return f"{accelerator or processor()}, torch {version}, {threads} threads by default, {os.cpu_count()} cores"


def networks() -> list[str]:
    """Names of the encoders, one for each network: of those that differ in layers or weights only, one."""
    entries = {name: load_encoder_config(name) for name in names("encoders")}
    known = [name for name, entry in entries.items() if not getattr(resolve(entry.implementation), "runs_file", False)]
    keys = {name: f"{entries[name].implementation} {sorted(entries[name].options.items())}" for name in known}
    found: dict[str, str] = {}
    for name in sorted(known, key=lambda name: bool(entries[name].base)):  # variants after all others
        found.setdefault(keys[name], name)
    return sorted(found.values())


def main() -> int:
    """Measure and print; 1 where an encoder could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(networks()), help="names with commas between (default: all)")
    parser.add_argument("--without_yardstick", action="store_true", help="do not time CNN14 beside each front-end")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--seconds",
        type=float,
        help="of audio in a batch of 10 s clips (default: as extract batches)",
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: torch's own choice)")
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall", help="what is counted")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # how this script calls itself
    arguments = parser.parse_args()
    for option in ("seconds", "repeats", "threads"):
        value = getattr(arguments, option)
        if value is not None and not value > 0:
            parser.error(f"--{option} must be above 0, got {value:g}")
    if arguments.clock == "processor" and arguments.device != "cpu":
        parser.error("--clock=processor counts nothing that an accelerator does; use it with --device=cpu")
    if arguments.one:
        cost = measure(arguments.one, arguments)
        print(json.dumps(asdict(cost)))
        return 0
    asked = arguments.encoders.split(",")
    try:
        for name in asked:
            load_encoder_config(name)
    except ValueError as error:
        parser.error(str(error))
    threads = f"{arguments.threads or 'default'} threads, {arguments.clock} clock, {arguments.repeats} repeats"
    print(f"{time.strftime('%Y-%m-%d')}: {machine(arguments.device)}; measured with {threads}\n")
    costs = []
    for name in asked:
        print(f"measuring {name}", file=sys.stderr)
        cost = in_own_process(name, arguments)
        if cost:
            costs.append(cost)
    print(table(costs))
    if any(cost.of_forward is not None for cost in costs):
        print("\n" + verdict(costs))
    return 0 if len(costs) == len(asked) else 1


if __name__ == "__main__":
    sys.exit(main())
