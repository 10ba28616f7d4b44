"""Run the cells of a grid on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from evar.experiment.outcome import Outcome
from evar.experiment.settings import Settings
from evar.lineval.processes import count_cores, encode_unit, run_unit
from evar.lineval.units import join_weights, label_unit
from evar.storage.mirror import is_address

#: environment variables that name folders, which a worker needs as well
_FOLDERS = ("EVAR_CONFIG", "EVAR_CACHE", "EVAR_DATA", "EVAR_STORE")


def run_on_ray(cut: Sequence[Settings], settings: Settings) -> dict[int, Outcome | str]:
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
        alone: dict[str, Any] = {} if settings.address else {"num_cpus": count_cores(), "include_dashboard": False}
        ray.init(address=settings.address or "local", runtime_env={"env_vars": told}, **alone)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise OSError("no node of the Ray cluster offers a CPU; see `ray status`")
        n_threads = max(1, int(min(node["CPU"] for node in nodes)) // settings.jobs)
        n_gpus = 1 if settings.device in ("auto", "cuda") and any(node.get("GPU") for node in nodes) else 0
        # Ray would run a task again whose worker died; out of memory it would die again and again.
        encode = ray.remote(num_cpus=n_threads, num_gpus=n_gpus, max_retries=0)(encode_unit)
        work = ray.remote(num_cpus=n_threads, max_retries=0)(run_unit)
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
            print(f"[{len(found)}/{len(cut)}] {label_unit(cut[at])}", flush=True)
        return found
    finally:
        if began_here:
            ray.shutdown()


def _everywhere(unit: Settings) -> Settings:
    """The unit with absolute folders: a worker has another working folder."""
    from evar.storage.feature_store import FeatureStore

    root = unit.data_root or os.environ.get("EVAR_DATA") or "data"
    store = FeatureStore(unit.store)
    return dataclasses.replace(
        unit,
        out=unit.out if is_address(unit.out) else os.path.abspath(unit.out),
        data_root=os.path.abspath(root),
        store=store.mirror.address if store.mirror else os.path.abspath(store.folder),
        weights=join_weights(unit, unit.encoders, absolute=True),
    )
