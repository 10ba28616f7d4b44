"""What a GPU gives: agreement with the CPU, the contract, speed at each precision, probes, fine-tuning, halved batches.

    sh benchmarks/gpu.sh [--device=cuda|cpu] [--clips=FOLDER] [--out=FILE.json] [--minutes=8] [--parts=NAME,NAME]

Each part runs in a Python process of its own, so that one that fails or hangs costs its own part only, and the JSON file is
written again after each. Parts, in this order:

- `machine`: card, driver, memory, versions.
- `golden`: the tests hold the encoders on the CPU against arrays of the official code; here every layer of every encoder,
  with random weights, on the GPU is held against the CPU (relative L2 below 1e-4, TF32 off).
- `throughput`: clips per second of the bare forward at float32, TF32, bfloat16 and float16, with what each does to the
  vectors; the whole job (decode, encode, pool, store) at float32; how busy the card was meanwhile.
- `probes`: 13 layers of 2,000 clips x 768 with the linear protocol.
- `tuning`: a fine-tuning step of AST in float32 and bfloat16, with its peak memory.
- `halving`: a fine-tuning run that does not fit into a tenth of a card halves its batch and ends.
- `contract`: the contract of the encoders, from small to large, until the time is over.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

ENCODERS = ("crepe.tiny", "cnn14.16k", "ast", "dasheng.base")
LIMIT = 1e-4
SOUNDS = (".wav", ".ogg", ".flac", ".mp3")


class Busy:
    """How busy the card is while a block runs: `nvidia-smi` asked four times a second."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self._ended = threading.Event()

    def __enter__(self) -> Busy:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        if shutil.which("nvidia-smi") is None:
            return
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self._ended.wait(0.25):
            told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
            self.seen += [float(value) for value in told[:1] if value.isdigit()]

    @property
    def percent(self) -> float | None:
        """The mean over the block; None where nobody could tell."""
        return round(statistics.mean(self.seen), 1) if self.seen else None


def wait_for(device: str) -> None:
    """Wait until the card has done its work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@contextlib.contextmanager
def computing_in(precision: str, device: str) -> Iterator[None]:
    """Compute in float32, tf32, bfloat16 or float16 inside the block."""
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kinds = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    try:
        if precision in kinds:
            with torch.autocast(device.split(":")[0], dtype=kinds[precision]):
                yield
        else:
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def describe_machine(asked: argparse.Namespace) -> dict[str, Any]:
    """Card, driver, memory, versions."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "processors": torch.get_num_threads()}
    if asked.device.startswith("cuda"):
        card = torch.cuda.get_device_properties(0)
        found |= {"card": card.name, "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda}
    for package in ("transformers", "torchaudio"):
        with contextlib.suppress(ImportError):
            found[package] = __import__(package).__version__
    return found


def compare_with_cpu(asked: argparse.Namespace) -> dict[str, Any]:
    """Largest relative L2 over the layers of each encoder, smallest encoders first, until the part's time is over."""
    from encoders import networks

    from evar.encoders import load_encoder
    from evar.encoders.contract import relative_l2

    ends = time.monotonic() + asked.seconds
    found: dict[str, Any] = {}
    failed = {}
    for name in networks():
        if time.monotonic() > ends:
            break
        if name in ("dasheng.0_6b", "dasheng.1_2b", "openl3.env_mel128"):
            continue
        try:
            encoder = load_encoder(name, "random")
            n_samples = max(2 * encoder.sample_rate, encoder.min_samples)
            waveform = 0.1 * torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0))
            lengths = torch.tensor([n_samples, max(encoder.min_samples, n_samples // 2)])
            if encoder.norm_stats is None and encoder.default_norm_stats == "train":
                encoder.norm_stats = (-7.0, 5.0)
            with torch.inference_mode():
                here = encoder.encode(waveform, lengths)
                there = encoder.to(asked.device).encode(waveform, lengths)
            found[name] = max(
                relative_l2(there[layer][row, : int(n)].float().cpu(), here[layer][row, : int(n)])
                for layer in here.frames
                for row, n in enumerate(here.frames[layer].tolist())
            )
        except Exception as error:  # the next encoder may work; this one is named
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    above = {name: value for name, value in found.items() if not value <= LIMIT}
    return {"limit": LIMIT, "n_encoders": len(found), "above": above, "errors": failed, "largest_by_encoder": found}


def measure_throughput(asked: argparse.Namespace) -> dict[str, Any]:
    """Bare forward at each precision, and the whole job, of four encoders."""
    from evar.encoders import load_encoder

    found: dict[str, Any] = {}
    for name in asked.encoders.split(","):
        encoder = load_encoder(name, "random").to(asked.device)
        waveform = 0.1 * torch.randn(asked.batch, 5 * encoder.sample_rate, generator=torch.Generator().manual_seed(0))
        waveform, lengths = waveform.to(asked.device), torch.full((asked.batch,), 5 * encoder.sample_rate)
        lengths = lengths.to(asked.device)
        exact: dict[str, torch.Tensor] = {}
        rows: dict[str, Any] = {}
        for precision in ("float32", "tf32", "bfloat16", "float16"):
            try:
                with torch.inference_mode(), computing_in(precision, asked.device), Busy() as busy:
                    layers = encoder(waveform, lengths)
                    rate = clips_per_second(lambda: encoder(waveform, lengths), asked.batch, asked.device)  # noqa: B023
                means = {layer: value.float().mean(dim=1) for layer, value in layers.items()}
                exact = exact or means
                moved = {layer: float((means[layer] - exact[layer]).norm() / exact[layer].norm()) for layer in means}
                rows[precision] = {
                    "clips_per_second": rate, "utilisation_percent": busy.percent, "moves_vectors_by": max(moved.values()),
                }  # fmt: skip
            except Exception as error:  # an operation that a precision does not have
                rows[precision] = f"{type(error).__name__}: {error}"[:300]
        if asked.clips is not None:
            rows["whole_job"] = measure_job(name, asked)
        found[name] = rows
    return found


def clips_per_second(call: Callable[[], object], n_clips: int, device: str) -> float:
    """Of at least three calls and one second, after a warm-up."""
    call()
    wait_for(device)
    began, n_calls = time.perf_counter(), 0
    while n_calls < 3 or time.perf_counter() - began < 1.0:
        call()
        wait_for(device)
        n_calls += 1
    return round(n_calls * n_clips / (time.perf_counter() - began), 1)


def measure_job(name: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Decode, encode, pool and store the clips, into an empty store."""
    from evar.audio.reading import ClipPolicy
    from evar.encoders import load_encoder
    from evar.extraction.extract import extract
    from evar.storage.feature_store import FeatureStore

    encoder = load_encoder(name, "random").to(asked.device)
    paths = sorted(path for path in asked.clips.rglob("*") if path.suffix in SOUNDS)[:100]
    with tempfile.TemporaryDirectory() as folder, Busy() as busy:
        took = extract(encoder, paths, ClipPolicy(seconds=None), FeatureStore(Path(folder)))
    return {
        "clips": took.n_encoded, "clips_per_second": round(took.n_encoded / took.seconds, 1),
        "of_which_encoding": round(took.encode_seconds / took.seconds, 3), "utilisation_percent": busy.percent,
    }  # fmt: skip


def measure_probes(asked: argparse.Namespace) -> dict[str, Any]:
    """Thirteen layers of 2,000 clips: fits of the linear protocol on this machine's processors."""
    from probes import Job, fit_probe, make_problem

    job = Job(1280, 320, (768,) * 13, 1)
    problems = [make_problem(job.n_train, job.n_valid, width, seed=at) for at, width in enumerate(job.widths)]
    began = time.perf_counter()
    for problem in problems:
        fit_probe(problem)
    return {"layers": len(problems), "rounds": 1, "seconds_on_processors": round(time.perf_counter() - began, 2)}


def measure_tuning(asked: argparse.Namespace) -> dict[str, Any]:
    """Forward, backward and step of AST on 8 clips of 5 s."""
    from evar.encoders import load_encoder
    from evar.finetune.network import Network

    found: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        encoder = load_encoder("ast", "random")
        network = Network(encoder, "default", 10).to(asked.device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)
        waveform = 0.1 * torch.randn(8, 5 * encoder.sample_rate).to(asked.device)
        lengths, labels = torch.full((8,), 5 * encoder.sample_rate), torch.arange(8).to(asked.device) % 10

        def step(network: Any = network, optimizer: Any = optimizer, precision: str = precision) -> None:
            with computing_in(precision, asked.device):
                loss = torch.nn.functional.cross_entropy(network(waveform, lengths).float(), labels)  # noqa: B023
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        if asked.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
        rate = clips_per_second(step, 8, asked.device)
        peak = torch.cuda.max_memory_allocated() / 2**30 if asked.device.startswith("cuda") else None
        found[precision] = {"clips_per_second": rate, "peak_memory_gib": peak and round(peak, 2)}
    return found


def watch_halving(asked: argparse.Namespace) -> dict[str, Any]:
    """A batch that does not fit: `finetune` on a card of which only a small part may be used."""
    if not asked.device.startswith("cuda"):
        return {"left_out": "memory of a processor is not limited"}
    if asked.data_root is None:
        return {"left_out": "no --data_root with esc10"}
    torch.cuda.set_per_process_memory_fraction(0.05)
    import evar

    with tempfile.TemporaryDirectory() as folder:
        outcome = evar.fine_tune(
            "ast", "esc10", protocol="finetune_quick", weights="random", limit=10, device=asked.device,
            data_root=str(asked.data_root), out=folder, store=f"{folder}/store",
        )  # fmt: skip
    return {"outcome": str(outcome)[:1500]}


def check_contracts(asked: argparse.Namespace) -> dict[str, Any]:
    """The whole contract on the card, until the part's time is over."""
    from encoders import networks

    from evar.encoders import load_encoder
    from evar.encoders.contract import check_encoder

    ends, found, n_done = time.monotonic() + asked.seconds, {}, 0
    small = [name for name in networks() if "large" not in name and "_6b" not in name and "_2b" not in name]
    for name in small:
        if time.monotonic() > ends:
            break
        try:
            problems = [str(problem) for problem in check_encoder(load_encoder(name, "random").to(asked.device))]
        except Exception as error:  # the next encoder may work; this one is named
            problems = [f"{type(error).__name__}: {error}"[:300]]
        n_done += 1
        if problems:
            found[name] = problems
    return {"checked": n_done, "of": len(small), "findings": found}


#: part -> what it does, and the share of the time that it may take
PARTS: dict[str, tuple[Callable[[argparse.Namespace], dict[str, Any]], float]] = {
    "machine": (describe_machine, 0.05),
    "golden": (compare_with_cpu, 0.25),
    "throughput": (measure_throughput, 0.25),
    "probes": (measure_probes, 0.1),
    "tuning": (measure_tuning, 0.1),
    "halving": (watch_halving, 0.1),
    "contract": (check_contracts, 0.2),
}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal (default: %(default)s)")
    parser.add_argument("--clips", type=Path, default=Path(".clips"), help="folder of sounds (default: %(default)s)")
    parser.add_argument("--data_root", type=Path, help="folder that holds esc10, for the part that halves batches")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="names with commas between (default: all)")
    parser.add_argument("--encoders", default=",".join(ENCODERS), help="of the part throughput (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="clips of 5 s in the bare forward (default: %(default)s)")
    parser.add_argument("--part", help=argparse.SUPPRESS)  # this process does one part and prints its JSON
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.clips.is_dir():
        asked.clips = None
    if unknown := set(asked.parts.split(",")) - set(PARTS):
        parser.error(f"no part {sorted(unknown)[0]!r}; there are {', '.join(PARTS)}")
    return asked


def run_in_own_process(part: str, asked: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """The part's JSON, or why there is none."""
    command = [sys.executable, __file__, *sys.argv[1:], f"--part={part}", f"--seconds={0.8 * seconds}"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {seconds:.0f} s"}
    try:
        return dict(json.loads(ended.stdout.splitlines()[-1]))
    except (IndexError, ValueError):
        return {"failed": (ended.stderr or "printed nothing")[-1500:]}


def main() -> int:
    """Run the parts, write the JSON file, and print a line for each part; 1 if one failed."""
    asked = parse_arguments()
    if asked.part:
        print(json.dumps(PARTS[asked.part][0](asked)))
        return 0
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"--device={asked.device} is not available here: torch {torch.__version__}; rehearse with --device=cpu")
        return 2
    ends = time.monotonic() + 60 * asked.minutes
    found: dict[str, Any] = {"device": asked.device, "date": time.strftime("%Y-%m-%d")}
    for part in asked.parts.split(","):
        seconds = min(60 * asked.minutes * PARTS[part][1] * 1.5, ends - time.monotonic())
        began = time.monotonic()
        found[part] = run_in_own_process(part, asked, seconds) if seconds > 5 else {"failed": "no time was left"}
        asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        told = found[part].get("failed", "done")
        print(f"{part}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"everything is in {asked.out}")
    return int(any("failed" in value for value in found.values() if isinstance(value, dict)))


if __name__ == "__main__":
    sys.exit(main())
