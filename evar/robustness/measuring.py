"""`evar.measure_robustness`: a grid of encoders and tasks, each probe tested on altered clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evar.config.alteration import choose_alterations
from evar.config.flags import read_flags
from evar.config.messages import silence, warn
from evar.config.own_code import may_call
from evar.config.robust_flags import ROBUST_FLAGS
from evar.experiment.cell import Cell
from evar.experiment.loading import load_spec_encoder, load_spec_task
from evar.experiment.outcome import EXPECTED_ERRORS, explain_error
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.extraction.conditions import Condition, list_conditions
from evar.extraction.plan import inspect_clips, make_plan, vector_bytes
from evar.lineval.run import open_workplace
from evar.numeric.device import pick_device
from evar.probes.making import needs_training
from evar.results import Failure, utc_now
from evar.robustness.cell import RobustnessOutcome, measure_cell

if TYPE_CHECKING:
    from evar.experiment.spec import CellSpec, GridSpec

#: flags that are no part of the request of clean rows
_OWN_FLAGS = ("alterations", "severities", "background")


@dataclass(frozen=True)
class RobustnessRequest:
    """A request, resolved.

    Attributes:
        grid: encoders x tasks, as for `evar lineval`.
        conditions: every alteration at every severity.
    """

    grid: GridSpec
    conditions: tuple[Condition, ...]


def measure_robustness(
    encoders: str | Sequence[str], tasks: str | Sequence[str] = "", **flags: Any
) -> RobustnessOutcome:
    """Fit probes on clean clips, and test them on altered ones; the command `evar robust` from Python.

    Args:
        encoders, tasks: names (a list or a comma list), "all", or a grid.
        **flags: as `evar robust --help` lists them, such as alterations="noise,mp3", layers="all", data_root="/data".

    Returns:
        Clean rows, a record for each row, alteration and severity, and the cells that failed; `table()` is all in one.

    Raises:
        ValueError: if a name or setting is unknown or contradicts another, before any work is done.

    Example:
        >>> outcome = measure_robustness("crepe.tiny", "fsdd_digit", alterations="telephone")  # doctest: +SKIP
        >>> outcome.table()[["layers", "clean", "score", "loss"]]  # doctest: +SKIP
        >>> measure_robustness("logmel", "esc10", alterations="telefone")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        ValueError: no alteration 'telefone'; it has ... did you mean 'telephone'?
    """
    words = read_flags([flag for flag in ROBUST_FLAGS if flag.name != "dry_run"], flags, "evar.measure_robustness")
    names, on = (value if isinstance(value, str) else ",".join(value) for value in (encoders, tasks))
    with silence(words.pop("quiet")):
        return run_robustness(parse_robustness(names, on, words))


def parse_robustness(encoders: str, tasks: str, flags: Mapping[str, Any]) -> RobustnessRequest:
    """Look up every name, try every alteration on a second of noise, and reject what cannot be done.

    Args:
        encoders, tasks: comma lists, "all", or a grid without tasks.
        flags: a value for every flag but quiet and dry_run, as `evar.config.flags.read_flags` gives them.

    Raises:
        ValueError: if a name is unknown, or a setting is not legal.
    """
    if not encoders:
        raise ValueError("expected ENCODERS and TASKS, or a grid; see `evar encoders` and `evar tasks`")
    alterations = choose_alterations(*(flags[name] or "" for name in _OWN_FLAGS))
    if flags.get("fusion") == "search":
        raise ValueError(
            "--fusion=search looks for layers with evar lineval; name the layers that it chose in --layers"
        )
    shared = {name: value for name, value in flags.items() if name not in _OWN_FLAGS}
    grid = resolve_request(parse_request(encoders, tasks, **shared))
    for spec in grid.cells:
        _require_rows(spec)
    return RobustnessRequest(grid, tuple(list_conditions(alterations)))


def _require_rows(spec: CellSpec) -> None:
    """Check that the probe predicts each clip from one vector."""
    protocol = spec.protocol
    if protocol.frame_seconds is not None:
        raise ValueError(
            f"evar robust tests probes that read one vector a clip, but protocol {protocol.name} reads frames; "
            "use --protocol=linear"
        )
    if not needs_training(protocol):
        raise ValueError(
            f"evar robust tests probes that are fitted on clips, but protocol {protocol.name} fits none; use "
            "--protocol=linear"
        )


def run_robustness(request: RobustnessRequest) -> RobustnessOutcome:
    """Test every cell of a request in this process.

    Args:
        request: as `parse_robustness` makes it.

    Returns:
        Rows, records and failures; a cell that fails does not keep the others from being computed.
    """
    workplace, outcome = open_workplace(request.grid), RobustnessOutcome()
    for rejection in request.grid.rejections:
        _record(outcome, rejection.spec, rejection.reason)
    for name in request.grid.encoders:
        specs = request.grid.list_cells(name)
        try:
            encoder = load_spec_encoder(specs[0], pick_device(workplace.resources.device))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            for spec in specs:
                _record(outcome, spec, explain_error(error))
            continue
        for spec in specs:
            try:
                task = request.grid.tasks.get(spec.task) or load_spec_task(spec, request.grid.resources.data_root)
                measure_cell(Cell(encoder, task, spec), workplace, outcome, request.conditions)
            except EXPECTED_ERRORS as error:
                _record(outcome, spec, explain_error(error))
    return outcome


def _record(outcome: RobustnessOutcome, spec: CellSpec, reason: str) -> None:
    """Note a failed cell in the outcome; the tables of clean rows do not show it, since those may well be there."""
    outcome.failures.append(Failure(spec.name_cell(), reason, utc_now()))
    warn(f"{spec.encoder} x {spec.task} FAILED: {reason}")


def describe_robustness(request: RobustnessRequest) -> str:
    """Say what a request would encode, without encoding: one line a cell, and the total.

    Args:
        request: as `parse_robustness` makes it.
    """
    workplace, total, n_bytes = open_workplace(request.grid), 0, 0
    severities: dict[str, list[str]] = {}
    for one in request.conditions:
        severities.setdefault(one.config.name, []).append(f"{one.severity:g}")
    named = "; ".join(f"{name} {', '.join(values)}" for name, values in severities.items())
    lines = [f"{len(request.conditions)} conditions: {named}"]
    for name in request.grid.encoders:
        specs = request.grid.list_cells(name)
        encoder = load_spec_encoder(specs[0], "cpu")
        for spec in specs:
            task = request.grid.tasks.get(spec.task) or load_spec_task(spec, request.grid.resources.data_root)
            tested = sorted({int(at) for one in task.rounds(0) for at in one.test})
            infos, bad = inspect_clips([task.paths[at] for at in tested], workplace.store)
            n_todo = 0
            for condition in request.conditions:
                known = may_call(condition.config.function)  # a dry run calls no function of the user's own
                if known and not bad:
                    key = condition.describe()
                    planned = make_plan(encoder, infos, bad, task.policy(), workplace.store, None, alteration=key)
                    n_todo += len(planned.todo)
                else:
                    n_todo += len(tested)
            total += n_todo
            n_bytes += vector_bytes(encoder, n_todo)
            lines.append(f"{encoder.name} x {task.name}: {len(tested)} test clips; {n_todo} altered clips to encode")
    lines.append(f"{total} altered clips, {n_bytes / 1e9:.3g} GB of vectors under {workplace.store.folder}")
    return "\n".join(lines)
