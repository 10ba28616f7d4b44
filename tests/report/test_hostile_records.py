"""Whatever a record file holds: no traceback, the bad file is named, and the others are shown."""

from __future__ import annotations

import copy
import json
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_hints_report
import test_report_fusion
from test_report import layer_rows, row
from test_tables_golden import save_with_predictions

from evar import report, results
from evar.report.comparing import compare
from evar.results import save_hints, save_search

HEALTHY = "healthy"


def nest(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


#: what a value may be replaced by: numbers, types, depths and texts that nobody expects
VALUES: list[Any] = [
    *(10**400, -(10**30), -1, 0, 3, 0.5, 1e308, -0.1, True, None, "", "x" * 3000, "2026", [], {}, [[]], [1, "a", None]),
    *({"a": {}}, [[0.5], ["b"]], nest(20), nest(150), "\ud800", "a$b$c", "$\\frac{1}$", "=cmd|'/C calc'!A0"),
    *("\x1b[31mred\x07", "evil\u202egnp.exe", "line\nbreak\ttab", "%s {x} \\", "漢字", "<script>alert(1)</script>"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small folder of every kind of record, with rows that nothing is done to."""
    out = tmp_path_factory.mktemp("records")
    for number, encoder in enumerate((HEALTHY, "other")):
        for task in ("t", "u"):
            save_with_predictions(out, row(encoder, task, 0.6 + 0.1 * number), number)
    for one in layer_rows("a", "t", [0.3, 0.5, 0.45, 0.6], default=1):
        results.save(one, out)
    for layers in test_report_fusion.RIGHT:
        test_report_fusion.saved(out, layers)
    fused = ["layer1", "layer2"]
    weighted = row("a", "t", 0.5, fused, fusion="weighted", default=False, params={"layer_weights": [[0.2, 0.8]]})
    results.save(weighted, out)
    save_hints(out, test_hints_report.record("a", "t"))
    save_search(test_report_fusion.record(), out)
    for seed in (None, 3):
        more = {} if seed is None else {"seed": seed, "layers": ["x"], "limit": None, "fusion": "none"}
        results.save_failure(out, {"encoder": "b", "task": "t", "protocol": "linear", **more}, "it broke")
    return out


def list_places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place below a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, item in inner for found in list_places(item, (*place, key)))]


def mutate(data: Any, chance: random.Random) -> Any:
    """A copy in which one or two values are replaced, removed or repeated."""
    changed = copy.deepcopy(data)
    for _ in range(chance.choice((1, 1, 2))):
        places = [place for place in list_places(changed) if place]
        if not places:
            return changed
        *outer, last = chance.choice(places)
        owner = changed
        for key in outer:
            owner = owner[key]
        kind = chance.random()
        if kind < 0.1:
            del owner[last]
        elif kind < 0.15 and isinstance(owner, list):
            owner.append(owner[last])
        else:
            owner[last] = copy.deepcopy(chance.choice(VALUES))
    return changed


def write_mutants(folder: Path, out: Path, seed: int, n_mutants: int) -> list[Path]:
    """Copy the folder and add mutated records to it."""
    shutil.copytree(folder, out)
    chance = random.Random(seed)
    written = []
    for kind in ("runs", "runs", "runs", "hints", "searches", "failures"):
        originals = sorted((folder / kind).glob("*.json"))
        for number in range(n_mutants):
            data = mutate(json.loads(chance.choice(originals).read_text("utf-8")), chance)
            if isinstance(data, dict) and isinstance(data.get("id"), str):
                data["id"] = f"{data['id'][:80]}-{seed}-{len(written)}"  # a copy of a known id is left out at once
            path = out / kind / f"mutant{seed}-{len(written)}-{number}.json"
            path.write_text(json.dumps(data), encoding="utf-8")
            written.append(path)
    for path in sorted((out / "predictions").glob("*.npz"))[2::3]:
        mutate_predictions(path, chance)
    return written


def mutate_predictions(path: Path, chance: random.Random) -> None:
    """Change the shape, type or content of one array, or the bytes of the file."""
    with np.load(path) as found:
        arrays = {name: found[name] for name in found.files}
    name = chance.choice(sorted(arrays))
    one = arrays[name]
    ways = [
        lambda: one[:-1], lambda: one[None], lambda: one.astype("U8"), lambda: one[:0], lambda: np.array(3),
        lambda: np.stack([one] * 3, axis=1), lambda: np.full(one.shape, np.nan), lambda: np.full(one.shape, 2**62),
    ]  # fmt: skip
    arrays[name] = chance.choice(ways)()
    np.savez(path, **arrays)
    if chance.random() < 0.3:
        data = bytearray(path.read_bytes())
        for _ in range(8):
            data[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(bytes(data))


@pytest.mark.parametrize("seed", range(2))
def test_no_record_stops_tables_or_plots(folder: Path, tmp_path: Path, seed: int) -> None:
    out = tmp_path / "out"
    mutants = write_mutants(folder, out, seed, 16)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        written = report.write_tables_and_plots(out)
        found = compare(out)
        report.format_fusion_tables(out)
        rows = results.load_all(out)
    messages = [str(one.message) for one in caught]
    assert not [message for message in messages if "could not be made" in message]
    accepted = {one.id for one in rows}
    for path in mutants:
        if path.parent.name == "runs" and not any(path.name in message for message in messages):
            assert json.loads(path.read_text())["id"] in accepted, f"{path.name} is neither shown nor named"
    names = {path.name for path in written}
    assert {"table.md", "table.csv", "table.tex", "table.json", "layers.png", "hints.md", "fusion.md"} <= names
    assert HEALTHY in (out / "table.md").read_text("utf-8") and HEALTHY in found.text
    for text in (
        *messages,
        found.text,
        *(path.read_text("utf-8") for path in written if path.suffix in (".md", ".csv")),
    ):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_hundreds_of_mutants_are_records_or_named(folder: Path, tmp_path: Path) -> None:
    """Every mutant is a record, or a `ValueError` that names its file: nothing else."""
    readers = {"runs": results.load, "hints": results.hints.read_hints, "searches": results.load_search}
    n_refused = 0
    for path in write_mutants(folder, tmp_path / "out", 99, 150):
        if path.parent.name == "failures":
            continue
        try:
            readers[path.parent.name](path)
        except ValueError as error:
            n_refused += 1
            assert path.name in str(error) and len(str(error)) < 2000
    assert n_refused > 300
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert results.load_failures(tmp_path / "out")


def test_a_failing_plot_is_a_warning(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no ink\x1b[2J")

    shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(report, "plot_layers", fail)
    with pytest.warns(UserWarning, match=r"layers\.png could not be made.*no ink\\x1b") as caught:
        names = {path.name for path in report.write_tables_and_plots(tmp_path / "out")}
    assert len(caught) == 1 and "layers.png" not in names and {"table.md", "heatmap.png", "fusion.md"} <= names


def test_formulas_in_names_are_text(tmp_path: Path) -> None:
    results.save(row("=HYPERLINK(1)", "@task", 0.5, ["-x", "+y"]), tmp_path)
    report.write_tables_and_plots(tmp_path)
    (line,) = (tmp_path / "table.csv").read_text().splitlines()[1:]
    assert "'=HYPERLINK(1)" in line and "'@task" in line and "'-x++y" in line and ",0.5," in line
