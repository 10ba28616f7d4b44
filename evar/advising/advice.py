"""From a task or a results folder to advice: the one function of the command and of Python."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from evar.advising.answer import Advice
from evar.advising.many_tasks import advise_over_tasks
from evar.advising.one_task import Source, TaskAdvice, advise_on_task, choose_rows
from evar.advising.picture import plot_advice
from evar.advising.sentences import describe_ranks, describe_task
from evar.advising.similar import find_similar_tasks
from evar.advising.unmeasured import list_unmeasured
from evar.advising.wishes import Wishes, parse_count
from evar.advising.writing import format_json_text, format_markdown, format_text
from evar.config import cache_folder, names
from evar.config.advise_flags import ADVISE_FLAGS
from evar.config.flags import read_flags
from evar.config.registry import near_miss
from evar.report.guard import try_to_make
from evar.results import load_all
from evar.results.costs import load_costs
from evar.storage.atomic import remove, write_atomic

#: encoders that a command for measuring a new task names
_SHORTLIST = 5


def advise(task: str | Path, *, write: bool = True, **flags: Any) -> Advice:
    """Say which encoder, and which layer or fusion of it, to read for a task, among those that fit.

    Args:
        task: name of a task, whose rows lie in the results folder `out`; or a results folder.
        write: `advice.md`, `advice.json`, and where costs were measured `advice.png` and `.svg`, into the results folder.
        **flags: those of `evar advise`: licence, max_seconds_per_second, max_width, max_parameters, labels, tie, protocol,
            like, out, store.

    Returns:
        The advice; `answer` says it in plain words.

    Raises:
        ValueError: if a flag is not legal, or the word is neither a task nor a results folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = advise("esc10", licence="commercial", out=folder, write=False)
        >>> found.new_task, found.tasks, found.commands[0].startswith("evar lineval")
        ('esc10', (), True)
    """
    given = read_flags(ADVISE_FLAGS, flags, "evar.advise")
    wishes = Wishes(
        given["licence"],
        given["max_seconds_per_second"],
        given["max_width"],
        parse_count(given["max_parameters"], "max_parameters"),
        given["labels"],
        given["tie"] / 100,
    )
    word = os.fspath(task)
    is_folder = (Path(word) / "runs").is_dir()
    out = Path(word if is_folder else given["out"])
    source = _load_source(out, given)
    request = {
        "task": "" if is_folder else word,
        **asdict(wishes),
        "protocol": source.protocol,
        "like": [name.strip() for name in (given["like"] or "").split(",") if name.strip()],
    }
    found = _advise_on_folder(source, wishes, request) if is_folder else _advise(source, word, wishes, request)
    found = replace(found, text=format_text(found), markdown=format_markdown(found))
    return replace(found, files=_write_files(found, out)) if write else found


def _load_source(out: Path, given: Mapping[str, Any]) -> Source:
    store = Path(given["store"] or os.environ.get("EVAR_STORE") or cache_folder() / "store")
    rows = load_all(out) if (out / "runs").is_dir() else []
    costs = load_costs(out) if rows else []
    return Source(out, rows, costs, store if store.is_dir() else None, given["protocol"] or "")


def _advise_on_folder(source: Source, wishes: Wishes, request: Mapping[str, Any]) -> Advice:
    """Answer for each task of a folder, and over all"""
    tasks = sorted({row.task for row in source.rows})
    if not tasks:
        raise ValueError(f"no results below {source.out}/runs; run `evar lineval` first or name a task")
    if source.protocol:
        tasks = [
            task for task in tasks if any((row.task, row.protocol) == (task, source.protocol) for row in source.rows)
        ]
        if not tasks:
            known = sorted({row.protocol for row in source.rows})
            raise ValueError(f"no rows of the protocol {source.protocol!r}; {near_miss(source.protocol, known)}")
    each = [advise_on_task(source, task, wishes) for task in tasks]
    over = advise_over_tasks(source, tasks, wishes) if len(tasks) > 1 else None
    sentences = [" ".join(describe_ranks(over))] if over else []
    sentences += [" ".join(describe_task(each[0]))] if len(each) == 1 else [describe_task(one)[0] for one in each]
    commands = [line for one in each for line in _list_commands(source, one)]
    notes = _describe_rows(source, each)
    if over and (dropped := [task for task in tasks if task not in over.tasks]):
        notes += (f"Fewer than half of the encoders were measured on {', '.join(dropped)}, which the ranks leave out.",)
    return Advice(
        request, "\n".join(sentences), tuple(each), over, notes=notes, commands=tuple(dict.fromkeys(commands))
    )


def _advise(source: Source, task: str, wishes: Wishes, request: Mapping[str, Any]) -> Advice:
    """Answer for one task: from its own rows, from rows of similar tasks, or with a command."""
    if any(row.task == task for row in source.rows):
        one = advise_on_task(source, task, wishes)
        commands = tuple(_list_commands(source, one))
        return Advice(
            request, " ".join(describe_task(one)), (one,), notes=_describe_rows(source, [one]), commands=commands
        )
    if task not in names("tasks"):
        measured = sorted({row.task for row in source.rows})
        known = list(dict.fromkeys([*measured, *names("tasks")]))
        raise ValueError(
            f"expected a results folder (with runs/ in it) or the name of a task, got {task!r}; {near_miss(task, known)}"
        )
    similar, why = find_similar_tasks(task, source.rows, request["like"])
    if similar:
        over = advise_over_tasks(source, similar, wishes)
        sentences = describe_ranks(over, task)
        sentences.insert(1, why)
        shortlist = [_name_encoder(source, one.facts.encoder) for one in over.fitting[:_SHORTLIST]]
        lines = tuple(_list_measuring(source, shortlist, task))
        return Advice(request, " ".join(sentences), (), over, task, commands=lines)
    unmeasured = list_unmeasured(wishes)
    fitting = [one.encoder for one in unmeasured if not one.misfits]
    answer = (
        f"Nothing was measured on {task}, nor on a task like it in {source.out}. {why if source.rows else ''}".strip()
    )
    answer += (
        f" Of {len(unmeasured)} encoders, {len(fitting)} fit by the licence of their checkpoint: measure some of them."
    )
    start = [name for name in _FIRST_TRIES if name in fitting]
    lines = tuple(_list_measuring(source, start or fitting[:_SHORTLIST], task))
    return Advice(request, answer, (), None, task, tuple(unmeasured), commands=lines)


#: small encoders whose checkpoints come with packages, and a floor, so that a first answer takes minutes
_FIRST_TRIES = ("logmel", "silero_vad", "crepe.tiny", "aisfx", "vggish")


def _list_measuring(source: Source, encoders: Sequence[str], task: str) -> list[str]:
    if not encoders:
        return []
    names_ = shlex.quote(",".join(encoders))
    out = shlex.quote(str(source.out))
    return [
        f"evar lineval {names_} {shlex.quote(task)} --layers=all --out={out}",
        f"evar advise {shlex.quote(task)} --out={out}",
    ]


def _name_encoder(source: Source, label: str) -> str:
    """Return the name by which a command line takes an encoder of the rows."""
    name = label.partition(" (")[0]
    row = next((row for row in source.rows if row.encoder == name), None)
    return str(row.settings.get("encoder", name)) if row else name


def _list_commands(source: Source, advice: TaskAdvice) -> list[str]:
    """List the command lines that would tell more about a task."""
    rows = choose_rows(source, advice.task)
    out, task = shlex.quote(str(source.out)), shlex.quote(advice.task)
    commands = []
    layers = {row.encoder: {one.layers for one in rows if one.encoder == row.encoder} for row in rows}
    n_layers = {row.encoder: row.n_layers or 1 for row in rows if not row.is_random}
    shallow = [name for name, n in n_layers.items() if n > 1 and len(layers[name]) == 1]
    if shallow:
        shown = shlex.quote(",".join(_name_encoder(source, name) for name in shallow))
        commands.append(f"evar lineval {shown} {task} --layers=all --out={out}")
    fits = {one.facts.encoder for one in advice.fitting}
    missing = sorted({row.encoder for row in source.rows if not row.is_random} - set(layers))
    if missing:
        shown = shlex.quote(",".join(_name_encoder(source, name) for name in missing))
        commands.append(f"evar lineval {shown} {task} --layers=all --out={out}")
    choice = advice.choice
    if choice and choice.at_labels is not None and choice.at_labels.score is None:
        protocol = "curve" if "curve" in names("protocols") else "fewshot"
        shown = shlex.quote(",".join(_name_encoder(source, name) for name in sorted(fits)[:_SHORTLIST]))
        commands.append(f"evar lineval {shown} {task} --layers=all --protocol={protocol} --out={out}")
    return commands


def _describe_rows(source: Source, advice: Sequence[TaskAdvice]) -> tuple[str, ...]:
    """Say which rows were used where there were others."""
    used = dict.fromkeys((one.protocol, one.protocol_version, one.limit) for one in advice)
    shown = [
        f"{protocol} version {version}" + (f", limit {limit}" if limit else "") for protocol, version, limit in used
    ]
    return (f"The rows are of the protocol {' and '.join(shown)}, in {source.out}.",)


def _write_files(found: Advice, out: Path) -> tuple[Path, ...]:
    files = [out / "advice.md", out / "advice.json"]
    pictures = try_to_make("advice.png", lambda: plot_advice(found.tasks, out / "advice"))
    write_atomic(files[0], format_markdown(found, picture=bool(pictures)).encode("utf-8"))
    write_atomic(files[1], format_json_text(found).encode("utf-8"))
    for name in ("advice.png", "advice.svg"):  # of an earlier question
        if out / name not in pictures:
            remove(out / name)
    return (*files, *pictures)
