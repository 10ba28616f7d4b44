"""Run the units of a grid in processes of this machine."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, cast

from evar.config.messages import tell
from evar.experiment.outcome import Outcome, explain_error
from evar.experiment.spec import GridSpec, Resources
from evar.lineval.run import encode_grid, run_grid
from evar.lineval.units import label_unit


def choose_device(slot: int, device: str, n_gpus: int) -> str:
    """Return the device of a worker: "auto" and "cuda" take the GPUs in turn, any other value is kept.

    Example:
        >>> [choose_device(slot, "auto", 2) for slot in range(3)], choose_device(1, "cpu", 2), choose_device(1, "auto", 0)
        (['cuda:0', 'cuda:1', 'cuda:0'], 'cpu', 'auto')
    """
    return f"cuda:{slot % n_gpus}" if n_gpus and device in ("auto", "cuda") else device


def count_cores() -> int:
    """Return how many cores this process may use: fewer than the machine has on a cluster's node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def run_unit(unit: Mapping[str, Any], n_threads: int) -> Outcome:
    """Run one unit, in a process of its own.

    Args:
        unit: a `GridSpec` as plain data.
        n_threads: that the process may use.
    """
    _settle(n_threads)
    return run_grid(GridSpec.from_plain(unit))


def encode_unit(unit: Mapping[str, Any], n_threads: int) -> int:
    """Put the vectors that a unit's rows need into the store, in a worker that has a GPU.

    Returns:
        Clips that were encoded.
    """
    _settle(n_threads)
    return encode_grid(GridSpec.from_plain(unit))


def _settle(n_threads: int) -> None:
    """Prepare a process that shares the machine with others."""
    import torch

    os.environ["TQDM_DISABLE"] = "1"  # bars of several workers overwrite each other
    torch.set_num_threads(n_threads)


def _answer(unit: Mapping[str, Any], n_threads: int, answers: Connection, lifeline: Connection) -> None:
    """Send the outcome of a unit, or the reason why there is none, to the parent; end when the parent ends."""
    threading.Thread(target=_end_with_parent, args=(lifeline,), daemon=True).start()
    try:
        answer: Outcome | str = run_unit(unit, n_threads)
    except Exception as error:  # for any error, the user must see the reason and not only that a process ended
        answer = explain_error(error)
    answers.send(answer)
    answers.close()


def _end_with_parent(lifeline: Connection) -> None:
    """Wait for the end of a pipe that the parent holds open as long as it lives, even if it is killed."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        os._exit(1)


@dataclass
class _Worker:
    """A process that runs a unit, and its place among the workers."""

    at: int
    slot: int
    process: Any
    lifeline: Connection


def run_in_processes(units: Sequence[GridSpec], resources: Resources) -> dict[int, Outcome | str]:
    """Run each unit in a process of its own; at most `resources.jobs` at a time share the cores.

    The workers end when this process ends, even if it is killed.

    Returns:
        Position of each unit -> its outcome, or the reason why there is none.
    """
    n_workers = min(resources.jobs, len(units))
    n_threads = max(1, count_cores() // n_workers)
    n_gpus = _count_gpus()
    waiting = list(enumerate(units))
    found: dict[int, Outcome | str] = {}
    free = list(range(n_workers))
    running: dict[Connection, _Worker] = {}
    with _end_by_signal():
        try:
            while waiting or running:
                while waiting and free:
                    at, unit = waiting.pop(0)
                    slot = free.pop(0)
                    device = choose_device(slot, unit.resources.device, n_gpus)
                    unit = dataclasses.replace(unit, resources=dataclasses.replace(unit.resources, device=device))
                    answers, worker = _start(at, slot, unit, n_threads)
                    running[answers] = worker
                for answers in cast(list[Connection], wait(list(running))):
                    worker = running.pop(answers)
                    found[worker.at] = _receive(answers, worker)
                    free.append(worker.slot)
                    tell(f"[{len(found)}/{len(units)}] {label_unit(units[worker.at])}")
        finally:
            for worker in running.values():
                worker.process.terminate()
    return found


def _start(at: int, slot: int, unit: GridSpec, n_threads: int) -> tuple[Connection, _Worker]:
    """Start the process of a unit; gives the end of the pipe that its answer comes out of."""
    context = multiprocessing.get_context("spawn")  # a forked process must not use a library that already has threads
    here, there = context.Pipe(duplex=False)
    inner, lifeline = context.Pipe(duplex=False)
    arguments = (unit.to_plain(), n_threads, there, inner)
    process = context.Process(target=_answer, args=arguments, name=label_unit(unit), daemon=True)
    with _set_environment({"OMP_NUM_THREADS": str(n_threads)}):
        process.start()
    there.close()  # so that the end of the process is the end of the pipe
    inner.close()
    return here, _Worker(at, slot, process, lifeline)


def _receive(answers: Connection, worker: _Worker) -> Outcome | str:
    """The answer of a worker, or how its process ended without one."""
    try:
        answer = answers.recv()
    except EOFError:
        worker.process.join()
        return describe_end(worker.process.exitcode)
    worker.process.join()
    worker.lifeline.close()
    return answer


def describe_end(exit_code: int | None) -> str:
    """Return how a worker process ended, in a sentence; nothing is claimed that is not known.

    Example:
        >>> describe_end(1)
        'its worker process ended with status 1; the same command goes on with this cell'
    """
    if not exit_code or exit_code > 0:
        how = f"ended with status {exit_code}"
    else:
        known = {int(one): one.name for one in signal.Signals}
        name = known.get(-exit_code, "")
        how = f"was killed by signal {-exit_code}{f' ({name})' if name else ''}"
        if name == "SIGKILL":
            how += ", by hand or by a system short of memory (its log tells)"
    return f"its worker process {how}; the same command goes on with this cell"


@contextmanager
def _end_by_signal() -> Iterator[None]:
    """Make SIGTERM an exception for a while, so that workers are ended before this process is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _set_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside a `with` block, for processes that are started there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
