"""One row again, from its result file alone."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from evar import config as configs
from evar import results
from evar.config.encoder import UNTRAINED, names_own_code
from evar.config.messages import tell
from evar.experiment.cell import Cell
from evar.experiment.loading import load_spec_encoder
from evar.experiment.resolving import resolve_request
from evar.experiment.settings import Settings
from evar.experiment.sources import describe_difference, hash_sources
from evar.experiment.spec import RowSpec, Selection
from evar.lineval.cells import evaluate_row
from evar.lineval.run import open_workplace
from evar.numeric.device import pick_device
from evar.results import Result, plain


def rerun(
    path: str | Path,
    data_root: str | None = None,
    store: str | None = None,
    device: str = "auto",
    out: str | None = None,
    anyway: bool = False,
    trust_code: bool = False,
) -> tuple[Result, Result, int | None]:
    """Compute a row again.

    Args:
        path: of its result file.
        data_root: folder that holds the task's folder.
        store: folder of the feature store; an empty one makes the encoder run again, too.
        device: as for `Settings`.
        out: results folder for the new row; None keeps nothing.
        anyway: compute it although the encoder's own Python file is another one now.
        trust_code: import the code that the file names (an encoder or a probe as "module:name"). A file is data, perhaps a
            stranger's: without this nothing that it names is imported.

    Returns:
        The old row, the new row, and the number of test clips whose prediction differs; None if the old
        predictions are not beside the file.

    Raises:
        FileNotFoundError: if there is no such file, or clips are missing.
        ValueError: if the file is no result, names code that is not trusted, or what it was made with is no longer what is
            here; the first difference is named, with both values.
    """
    old = results.load(Path(path))
    if not trust_code and (named := list_named_code(old)):
        raise ValueError(
            f"{old.id} names code to be imported: {'; '.join(named)}; if you trust whoever wrote the file, say --trust_code"
        )
    _check_sources(old, Path(path).parent.parent, anyway)
    protocol = str(old.settings.get("protocol", old.protocol))
    if ":" not in protocol and configs.is_tuning(configs.find("protocols", protocol)):  # else an own probe
        return _tune_again(old, Path(path), data_root, store, device, out, anyway)
    with tempfile.TemporaryDirectory() as folder:
        settings = dataclasses.replace(make_request(old, data_root, store, device), out=out or folder)
        grid = resolve_request(settings)
        for rejection in grid.rejections:
            raise ValueError(rejection.reason)
        (spec,) = grid.cells
        encoder = load_spec_encoder(spec, pick_device(device))
        cell = Cell(encoder, grid.tasks[spec.task], spec)
        row = cell.specify_row(Selection(tuple(old.layers), old.fusion), old.seed)
        if not anyway:
            _check_sources(old, Path(path).parent.parent, anyway)  # the modules beside the file are known now
        _compare(old, row, ("weights_sha256",) if anyway and old.settings.get("sources") else ())
        new = evaluate_row(cell, row, open_workplace(grid))
        return old, new, _count_changed(Path(path).parent.parent, old.id, Path(out or folder), new.id)


def list_named_code(row: Result) -> list[str]:
    """List what of a row would be imported, if it were computed again, from outside of this package.

    Args:
        row: of any origin.

    Returns:
        "encoder module:Class" and so on; empty where names lead to encoders and protocols of this package, of the user's
        own configuration, or to files of numbers. A SavedModel is a program.
    """
    names = {
        "encoder": str(row.settings.get("encoder", row.encoder)),
        "protocol": str(row.settings.get("protocol", row.protocol)),
    }
    return [f"{what} {name.removeprefix(UNTRAINED)}" for what, name in names.items() if names_own_code(name)]


def _tune_again(
    old: Result, path: Path, data_root: str | None, store: str | None, device: str, out: str | None, anyway: bool
) -> tuple[Result, Result, int | None]:
    """`rerun` of a fine-tuning: it is trained again, in a results folder of its own."""
    from evar.finetune.run import TuningSettings, resolve_tuning, run_tuning

    request = old.settings
    given = request.get("norm_stats")
    with tempfile.TemporaryDirectory() as folder:
        settings = TuningSettings(
            (request.get("encoder", old.encoder),),
            (old.task,),
            protocol=request["protocol"],
            given=dict(request.get("given", {})),
            data_root=data_root,
            weights=request.get("weights"),
            norm_stats=tuple(given) if isinstance(given, list | tuple) else given,
            device=device,
            limit=old.limit,
            out=out or folder,
            store=store,
            skip_bad=bool(request.get("skip_bad", False)),
            resume=False,
            only_seed=old.seed,
        )
        outcome = run_tuning(resolve_tuning(settings))
        if outcome.failures:
            raise ValueError(outcome.failures[0].reason)
        (new,) = outcome.rows
        if new.id != old.id and not (anyway and old.settings.get("sources")):
            raise ValueError(
                f"{old.id}: the row was made with another checkpoint, index or protocol than the one here, which makes "
                f"{new.id}"
            )
        return old, new, _count_changed(path.parent.parent, old.id, Path(out or folder), new.id)


def make_request(row: Result, data_root: str | None, store: str | None, device: str) -> Settings:
    """Return what to request to get that row."""
    request = row.settings
    given = request.get("norm_stats")
    return Settings(
        (request.get("encoder", row.encoder),),
        (row.task,),
        layers=tuple(row.layers),
        fusion=row.fusion,
        protocol=request.get("protocol", row.protocol),
        learning_rate=request.get("learning_rate"),
        seeds=row.seed + 1,
        data_root=data_root,
        weights=request.get("weights"),
        norm_stats=tuple(given) if isinstance(given, list | tuple) else given,
        device=device,
        batch_size=request.get("batch_size"),
        limit=row.limit,
        skip_bad=bool(request.get("skip_bad", False)),
        frames_gb=1e9,  # whoever made the row allowed what it takes
        store=store,
    )


def _check_sources(old: Result, out: Path, anyway: bool) -> None:
    """Say that the encoder's own code is another one now, and raise unless the row is wanted anyway."""
    then = old.settings.get("sources")
    if not isinstance(then, Mapping):
        return
    encoder = str(old.settings.get("encoder", old.encoder))
    known = {Path(encoder.rpartition(":")[0]).name, *hash_sources(encoder)}
    # Modules beside the file are known only once it has been imported.
    said = describe_difference(encoder, {name: str(then[name]) for name in then if name in known}, out)
    if said and not anyway:
        raise ValueError(f"{old.id}: {said}; --anyway runs the current file")
    if said:
        tell(f"{old.id}: {said}")


def _compare(old: Result, row: RowSpec, ignored: Collection[str] = ()) -> None:
    """Raise an error at the first input of the row that has changed since; `ignored` ones are not compared.

    A row made before specs were kept in results has the values of its spec in other keys, or is silent of them.
    """
    now = row.to_plain()
    spec = old.settings.get("spec")
    is_old = not isinstance(spec, Mapping)
    then: dict[str, Any] = dict(spec) if isinstance(spec, Mapping) else {}
    if is_old:
        then = {key: plain(getattr(old, key), key) for key in now if hasattr(old, key) and key != "params"}
        then["protocol_version"], then["refit"] = old.params.get("protocol_version"), old.params.get("refit", row.refit)
        then["params"] = {key: old.params.get(key) for key in row.params}
        then["skip_bad"] = bool(old.settings.get("skip_bad", False))
        if parts := _read_validation_parts(old):
            then["validation_parts"] = parts
    for key in dict.fromkeys([*now, *then]):
        if key in ignored or (is_old and key not in then):
            continue
        before, here = then.get(key, _DEFAULTS.get(key)), now.get(key, _DEFAULTS.get(key))
        if before != here:
            raise ValueError(
                f"{old.id}: the row was made with {key} {_shorten(before)}, but here it is {_shorten(here)}; two scores "
                "can be compared only if it is the same"
            )


#: values of a spec that stand in a row only where they are chosen
_DEFAULTS = {entry.name: entry.default for entry in dataclasses.fields(RowSpec)}


def _read_validation_parts(old: Result) -> int | None:
    """One of how many parts of the training clips is validation, from the row's sentence; None if it is published."""
    found = re.match(r"1/(\d+) of the training clips", str(old.params.get("validation", "")))
    return int(found[1]) if found else None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _count_changed(old_out: Path, old_id: str, new_out: Path, new_id: str) -> int | None:
    """Test clips whose prediction is another one."""
    try:
        before = results.load_predictions(old_out, old_id)
    except (FileNotFoundError, ValueError):
        return None
    after = results.load_predictions(new_out, new_id)
    if before["y_pred"].shape != after["y_pred"].shape:
        return len(after["y_pred"])
    is_other = before["y_pred"] != after["y_pred"]
    return int(is_other.reshape(len(is_other), -1).any(axis=1).sum())
