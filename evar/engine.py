"""Where the cells of a grid run: one after another here, in several processes of this machine, or on a Ray cluster.

A grid is cut into units that do not need each other: a cell (encoder x task), or all cells of an encoder where a fusion
search looks at its tasks at once. Units share nothing but the feature store and the results folder, which several
processes may use at once, so a worker that is killed costs its own unit only, and the same command goes on with it.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from evar import config as configs
from evar.grid import Outcome, Settings, checked
from evar.linear import encode_grid, pick_device, record_failure, run_grid
from evar.remote import at_hand, is_address
from evar.tasks import load_task_config

#: environment variables that name folders, which a worker needs as well
_FOLDERS = ("EVAR_CONFIG", "EVAR_CACHE", "EVAR_DATA", "EVAR_STORE")


def run(settings: Settings) -> Outcome:
    """Run a grid by the engine that its settings name.

    Returns:
        All rows of the grid, and the cells that failed with their reasons; rows stand in the order of the grid, whatever
        finished first.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done.
        ImportError: if the engine is ray and ray is not installed.
    """
    if settings.engine == "local" and settings.jobs == 1:
        return run_grid(settings)
    checked(settings)
    pick_device(settings.device)
    cut = units(settings)
    found = _on_ray(cut, settings) if settings.engine == "ray" else _in_processes(cut, settings)
    return _joined(cut, found)


def units(settings: Settings) -> list[Settings]:
    """Parts of a grid that may run at the same time, in the grid's order.

    An encoder and its variants stay together, since a variant beside its base shows its own feature only.

    Example:
        >>> grid = Settings(("logmel", "ge2e"), ("esc10", "gm_pitch"))
        >>> [(*one.encoders, *one.tasks) for one in units(grid)][:2]
        [('logmel', 'esc10'), ('logmel', 'gm_pitch')]
    """
    families: dict[str, list[str]] = {}
    for name in settings.encoders:
        base = configs.load_encoder_config(name).base
        families.setdefault(base if base in settings.encoders else name, []).append(name)
    cut = []
    for family in families.values():
        export = settings.export
        if export and len(settings.encoders) > 1 and len(family) == 1:
            export = f"{family[0]}.{export}"  # the name that it has in the whole grid
        tasks = [settings.tasks] if settings.fusion == "search" else [(task,) for task in settings.tasks]
        for of_unit in tasks:
            cells = [f"{encoder}:{task}" for encoder in family for task in of_unit if settings.wants(encoder, task)]
            if cells:
                cut.append(
                    dataclasses.replace(
                        settings,
                        encoders=tuple(family),
                        tasks=of_unit,
                        weights=_joined_weights(settings, family),
                        export=export,
                        only=tuple(cells) if settings.only else (),
                        engine="local",
                        jobs=1,
                        address=None,
                    )
                )
    return cut


def device_of(slot: int, device: str, n_gpus: int) -> str:
    """The device of a worker: "auto" and "cuda" take the GPUs in turn, whatever else is asked for stays.

    Example:
        >>> [device_of(slot, "auto", 2) for slot in range(3)], device_of(1, "cpu", 2), device_of(1, "auto", 0)
        (['cuda:0', 'cuda:1', 'cuda:0'], 'cpu', 'auto')
    """
    return f"cuda:{slot % n_gpus}" if n_gpus and device in ("auto", "cuda") else device


def _label(unit: Settings) -> str:
    return f"{', '.join(unit.encoders)} x {', '.join(unit.tasks)}"


def _n_cores() -> int:
    """Cores that this process may use: fewer than the machine has on a cluster's node."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _work(unit: Settings, n_threads: int) -> Outcome:
    """One unit, in a process of its own."""
    _settle(n_threads)
    return run_grid(unit)


def _encode(unit: Settings, n_threads: int) -> int:
    """What a unit's rows are computed from, into the store, by a worker that has a GPU; clips that were encoded."""
    _settle(n_threads)
    return encode_grid(unit)


def _settle(n_threads: int) -> None:
    """What a process does first that shares the machine with others."""
    import torch

    os.environ["TQDM_DISABLE"] = "1"  # bars of several workers overwrite each other
    torch.set_num_threads(n_threads)


def _answer(unit: Settings, n_threads: int, connection: Connection) -> None:
    connection.send(_work(unit, n_threads))
    connection.close()


def _in_processes(cut: Sequence[Settings], settings: Settings) -> dict[int, Outcome | str]:
    """Outcome of each unit, or the reason why there is none; at most `jobs` processes at a time share the cores."""
    context = multiprocessing.get_context("spawn")  # a forked process must not use a library that already has threads
    n_threads = max(1, _n_cores() // min(settings.jobs, len(cut)))
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
                process = context.Process(target=_answer, args=(unit, n_threads, there), name=_label(unit), daemon=True)
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
                print(f"[{len(found)}/{len(cut)}] {_label(cut[at])}", flush=True)
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


def _on_ray(cut: Sequence[Settings], settings: Settings) -> dict[int, Outcome | str]:
    """Each unit as a Ray task; store and results are on a file system that all nodes share, or at an address.

    Where the cluster has GPUs, a unit is two tasks: one with a GPU encodes, then one without fits the probes from the store,
    so that no GPU waits for probes.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "--engine=ray needs the package ray; install it with `pip install 'evar-audio[ray]'`"
        ) from error

    began_here = not ray.is_initialized()
    if began_here:
        told = {
            name: value if is_address(value) else os.path.abspath(value)
            for name, value in os.environ.items()
            if name in _FOLDERS
        }
        alone: dict[str, Any] = {} if settings.address else {"num_cpus": _n_cores(), "include_dashboard": False}
        ray.init(address=settings.address or "local", runtime_env={"env_vars": told}, **alone)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise OSError("no node of the Ray cluster offers a CPU; see `ray status`")
        n_threads = max(1, int(min(node["CPU"] for node in nodes)) // settings.jobs)
        n_gpus = 1 if settings.device in ("auto", "cuda") and any(node.get("GPU") for node in nodes) else 0
        # Ray would run a task again whose worker died; out of memory it would die again and again.
        encode = ray.remote(num_cpus=n_threads, num_gpus=n_gpus, max_retries=0)(_encode)
        work = ray.remote(num_cpus=n_threads, max_retries=0)(_work)
        everywhere = [_everywhere(unit) for unit in cut]
        pending = {(encode if n_gpus else work).remote(unit, n_threads): at for at, unit in enumerate(everywhere)}
        found: dict[int, Outcome | str] = {}
        n_encoded: dict[int, int] = {}
        while pending:
            done, _ = ray.wait(list(pending))
            at = pending.pop(done[0])
            try:
                answer = ray.get(done[0])
                if not isinstance(answer, Outcome):
                    n_encoded[at] = answer
                    without = dataclasses.replace(everywhere[at], device="cpu")
                    pending[work.remote(without, n_threads)] = at
                    continue
                answer.n_encoded += n_encoded.get(at, 0)
                found[at] = answer
            except ray.exceptions.RayTaskError as error:
                found[at] = f"{type(error.cause).__name__}: {error.cause}"
            except ray.exceptions.RayError as error:
                found[at] = f"its Ray worker died ({type(error).__name__}); the same command goes on with this cell"
            print(f"[{len(found)}/{len(cut)}] {_label(cut[at])}", flush=True)
        return found
    finally:
        if began_here:
            ray.shutdown()


def _everywhere(unit: Settings) -> Settings:
    """The unit with absolute folders: a worker has another working folder."""
    from evar.store import FeatureStore

    root = unit.data_root or os.environ.get("EVAR_DATA") or "data"
    store = FeatureStore(unit.store)
    return dataclasses.replace(
        unit,
        out=unit.out if is_address(unit.out) else os.path.abspath(unit.out),
        data_root=os.path.abspath(root),
        store=store.mirror.address if store.mirror else os.path.abspath(store.folder),
        weights=_joined_weights(unit, unit.encoders, absolute=True),
    )


def _joined_weights(settings: Settings, encoders: Sequence[str], absolute: bool = False) -> str | None:
    """--weights for these encoders alone; files by absolute path where another working folder is to find them."""
    found = [(name, what) for name in encoders if (what := settings.weights_of(name)) is not None]
    said = [f"{name}={os.path.abspath(what) if absolute and os.path.exists(what) else what}" for name, what in found]
    return ",".join(said) or None


def _joined(cut: Sequence[Settings], found: Mapping[int, Outcome | str]) -> Outcome:
    """One outcome in the order of the grid; a unit without one fails with its reason, cell by cell."""
    whole = Outcome()
    folder_of = {out: at_hand(out) for out in {unit.out for unit in cut}}
    for at, asked in enumerate(cut):
        unit = dataclasses.replace(asked, out=folder_of[asked.out])
        of_unit = found[at]
        if isinstance(of_unit, str):
            for encoder in unit.encoders:
                for task in filter(partial(unit.wants, encoder), unit.tasks):
                    record_failure(whole, unit, encoder, load_task_config(task), OSError(of_unit))
            continue
        whole.rows += of_unit.rows
        whole.failures += of_unit.failures
        whole.n_new += of_unit.n_new
        whole.n_encoded += of_unit.n_encoded
    return whole
