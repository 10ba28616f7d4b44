"""Run the units of a grid in processes of this machine."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from evar.experiment.outcome import Outcome
from evar.experiment.settings import Settings
from evar.lineval.run import encode_grid, run_grid
from evar.lineval.units import label_unit


def device_of(slot: int, device: str, n_gpus: int) -> str:
    """The device of a worker: "auto" and "cuda" take the GPUs in turn, whatever else is asked for stays.

    Example:
        >>> [device_of(slot, "auto", 2) for slot in range(3)], device_of(1, "cpu", 2), device_of(1, "auto", 0)
        (['cuda:0', 'cuda:1', 'cuda:0'], 'cpu', 'auto')
    """
    return f"cuda:{slot % n_gpus}" if n_gpus and device in ("auto", "cuda") else device


def count_cores() -> int:
    """Cores that this process may use: fewer than the machine has on a cluster's node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def run_unit(unit: Settings, n_threads: int) -> Outcome:
    """One unit, in a process of its own."""
    _settle(n_threads)
    return run_grid(unit)


def encode_unit(unit: Settings, n_threads: int) -> int:
    """What a unit's rows are computed from, into the store, by a worker that has a GPU; clips that were encoded."""
    _settle(n_threads)
    return encode_grid(unit)


def _settle(n_threads: int) -> None:
    """What a process does first that shares the machine with others."""
    import torch

    os.environ["TQDM_DISABLE"] = "1"  # bars of several workers overwrite each other
    torch.set_num_threads(n_threads)


def _answer(unit: Settings, n_threads: int, connection: Connection) -> None:
    connection.send(run_unit(unit, n_threads))
    connection.close()


def run_in_processes(cut: Sequence[Settings], settings: Settings) -> dict[int, Outcome | str]:
    """Outcome of each unit, or the reason why there is none; at most `jobs` processes at a time share the cores."""
    context = multiprocessing.get_context("spawn")  # a forked process must not use a library that already has threads
    n_threads = max(1, count_cores() // min(settings.jobs, len(cut)))
    n_gpus = _n_gpus()
    waiting = list(enumerate(cut))
    found: dict[int, Outcome | str] = {}
    free = list(range(min(settings.jobs, len(cut))))
    running: dict[Connection, tuple[int, int, Any]] = {}  # connection -> unit, slot, process
    try:
        while waiting or running:
            while waiting and free:
                at, unit = waiting.pop(0)
                slot = free.pop(0)
                unit = dataclasses.replace(unit, device=device_of(slot, unit.device, n_gpus))
                here, there = context.Pipe(duplex=False)
                process = context.Process(
                    target=_answer, args=(unit, n_threads, there), name=label_unit(unit), daemon=True
                )
                with _environment({"OMP_NUM_THREADS": str(n_threads)}):
                    process.start()
                there.close()  # so that the end of the process is the end of the pipe
                running[here] = at, slot, process
            for connection in cast(list[Connection], wait(list(running))):
                at, slot, process = running.pop(connection)
                try:
                    found[at] = connection.recv()
                except EOFError:
                    process.join()
                    found[at] = _died(process.exitcode)
                process.join()
                free.append(slot)
                print(f"[{len(found)}/{len(cut)}] {label_unit(cut[at])}", flush=True)
    finally:
        for _, _, process in running.values():
            process.terminate()
    return found


def _died(exit_code: int | None) -> str:
    how = f"was killed by signal {-exit_code}" if exit_code and exit_code < 0 else f"ended with status {exit_code}"
    cause = " (out of memory?)" if exit_code == -9 else ""
    return f"its worker process {how}{cause}; the same command goes on with this cell"


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that a process started meanwhile inherits."""
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
