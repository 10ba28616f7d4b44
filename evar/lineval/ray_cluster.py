"""Run the cells of a grid on a Ray cluster."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from evar.config.messages import tell
from evar.experiment.outcome import Outcome
from evar.experiment.spec import GridSpec, Resources
from evar.lineval.processes import count_cores, encode_unit, run_unit
from evar.lineval.units import label_unit, use_absolute_weights
from evar.storage.mirror import is_address

#: environment variables that name folders, which a worker needs as well
_FOLDERS = ("EVAR_CONFIG", "EVAR_CACHE", "EVAR_DATA", "EVAR_STORE")
#: seconds after which a cluster counts as unreachable
CONNECT_SECONDS = 10.0


def run_on_ray(units: Sequence[GridSpec], resources: Resources) -> dict[int, Outcome | str]:
    """Run each unit as a Ray task; store and results are on a file system that all nodes share, or at an address.

    Where the cluster has GPUs, a unit is two tasks: one with a GPU encodes, then one without fits the probes from the store,
    so that no GPU waits for probes.

    Returns:
        Position of each unit -> its outcome, or the reason why there is none.

    Raises:
        ImportError: if ray is not installed.
        OSError: if the cluster does not answer, or has no CPU to offer.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "--engine=ray needs the package ray; install it with `pip install 'evar-audio[ray]'`"
        ) from error

    began_here = not ray.is_initialized()
    if began_here:
        _connect(ray, resources.address)
    try:
        return _collect(ray, _Tasks.on_cluster(ray, resources), units)
    finally:
        if began_here:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    """Start Ray on this machine, or connect to a cluster that answers."""
    if address is not None:
        check_reachable(address)
    folders = {
        name: value if is_address(value) else os.path.abspath(value)
        for name, value in os.environ.items()
        if name in _FOLDERS
    }
    alone: dict[str, Any] = {} if address else {"num_cpus": count_cores(), "include_dashboard": False}
    ray.init(address=address or "local", runtime_env={"env_vars": folders}, **alone)


def check_reachable(address: str) -> None:
    """Raise unless something listens at the host and port of a cluster; "auto" and the like name none.

    Raises:
        OSError: naming the address, and what to check.

    Example:
        >>> check_reachable("auto")
    """
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise OSError(f"--address={address} must be auto or ray://HOST:PORT ({error})") from error
    if host is None or port is None:
        return
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(
            f"no Ray cluster answers at {address} ({error}); is it running (`ray status` there), and is the port open "
            "from here?"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Tasks:
    """The two kinds of Ray tasks; `encode` is None if no GPU is to be used."""

    encode: Any
    work: Any
    n_threads: int

    @classmethod
    def on_cluster(cls, ray: Any, resources: Resources) -> _Tasks:
        """Return the largest share of a machine that the smallest node allows."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
        if not nodes:
            raise OSError("no node of the Ray cluster offers a CPU; see `ray status`")
        n_threads = max(1, int(min(node["CPU"] for node in nodes)) // resources.jobs)
        has_gpus = resources.device in ("auto", "cuda") and any(node.get("GPU") for node in nodes)
        # Ray would run a task again whose worker died; out of memory it would die again and again.
        encode = ray.remote(num_cpus=n_threads, num_gpus=1, max_retries=0)(encode_unit) if has_gpus else None
        return cls(encode, ray.remote(num_cpus=n_threads, max_retries=0)(run_unit), n_threads)


def _collect(ray: Any, tasks: _Tasks, units: Sequence[GridSpec]) -> dict[int, Outcome | str]:
    """Start every unit and wait for the answers."""
    plain = [make_portable(unit).to_plain() for unit in units]
    first = tasks.encode or tasks.work
    pending = {first.remote(unit, tasks.n_threads): at for at, unit in enumerate(plain)}
    found: dict[int, Outcome | str] = {}
    n_encoded: dict[int, int] = {}
    while pending:
        done, _ = ray.wait(list(pending))
        at = pending.pop(done[0])
        answer = _get_answer(ray, done[0])
        if isinstance(answer, int):
            n_encoded[at] = answer
            pending[tasks.work.remote(_remove_gpu(plain[at]), tasks.n_threads)] = at
            continue
        if isinstance(answer, Outcome):
            answer.n_encoded += n_encoded.get(at, 0)
        found[at] = answer
        tell(f"[{len(found)}/{len(units)}] {label_unit(units[at])}")
    return found


def _get_answer(ray: Any, task: Any) -> Outcome | int | str:
    """Get the outcome of a task, or the reason why it has none."""
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except ray.exceptions.RayError as error:
        return f"its Ray worker died ({type(error).__name__}); the same command goes on with this cell"


def _remove_gpu(unit: Mapping[str, Any]) -> dict[str, Any]:
    return {**unit, "resources": {**unit["resources"], "device": "cpu"}}


def make_portable(unit: GridSpec) -> GridSpec:
    """Return the unit with absolute folders and files: a worker has another working folder."""
    from evar.storage.feature_store import FeatureStore

    own = unit.resources
    store = FeatureStore(own.store)
    resources = dataclasses.replace(
        own,
        out=own.out if is_address(own.out) else os.path.abspath(own.out),
        data_root=os.path.abspath(own.data_root or os.environ.get("EVAR_DATA") or "data"),
        store=store.mirror.address if store.mirror else os.path.abspath(store.folder),
    )
    return dataclasses.replace(unit, cells=tuple(map(use_absolute_weights, unit.cells)), resources=resources)
