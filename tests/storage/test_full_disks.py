"""A full or read-only disk costs what was to be written there; the message has the path and what to do."""

from __future__ import annotations

import errno
import io
import shutil
from pathlib import Path

import pytest

from evar import cli, results
from evar.cli import run
from evar.storage import atomic, segments


class FullFile(io.FileIO):
    """A file that takes nothing."""

    def write(self, data):
        raise OSError(self.number, "refused by the test")

    number = errno.ENOSPC


class ReadOnlyFile(FullFile):
    """A file of a disk that is read-only."""

    number = errno.EROFS


@pytest.fixture
def refuse(monkeypatch):
    """A function: from then on, files whose paths hold all of some texts take nothing."""

    def begin(kind: type[FullFile], *texts: str) -> None:
        def open_or_refuse(path, mode="r", *args, **kwargs):
            if all(text in str(path) for text in texts) and set(mode) & set("wax+"):
                return kind(path, mode)
            return open(path, mode, *args, **kwargs)

        for module in (segments, atomic):
            monkeypatch.setattr(module, "open", open_or_refuse, raising=False)

    return begin


def find_rests(folder: Path) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.suffix in (".part", ".tmp")]


@pytest.mark.parametrize(
    ("place", "kind", "cause"),
    [
        ("bands.f32", FullFile, "the disk is full; free some space"),
        ("rows.jsonl", ReadOnlyFile, "the disk is read-only; choose a folder"),
        ("key.json", FullFile, "the disk is full; free some space"),
    ],
)
def test_a_store_that_takes_nothing_costs_its_own_cell(tones, refuse, capsys, place, kind, cause):
    root = tones()
    shutil.copy(root / "config" / "encoders" / "toy.yaml", root / "config" / "encoders" / "toy_b.yaml")
    refuse(kind, "/store/toy/", place)
    assert run(["lineval", "toy,toy_b", "tones", f"--out={root / 'results'}"]) == cli.SOME_FAILED
    (failure,) = results.load_failures(root / "results")
    assert failure.cell["encoder"] == "toy" and str(root / "store" / "toy") in failure.reason
    assert f"cannot be written: {cause}" in failure.reason and cause in capsys.readouterr().out
    assert [row.encoder for row in results.load_all(root / "results")] == ["toy_b"] and not find_rests(root)


@pytest.mark.parametrize("place", ["/predictions/", "/runs/", "/failures/", "table.md"])
def test_results_that_take_nothing_are_named_and_the_table_is_shown(tones, refuse, capsys, place):
    root = tones()
    shutil.copy(root / "config" / "encoders" / "toy.yaml", root / "config" / "encoders" / "toy_b.yaml")
    if place == "/failures/":
        refuse(FullFile, "/results/")
    else:
        refuse(FullFile, "/results/", place, "" if place == "table.md" else "toy__")
    assert run(["lineval", "toy,toy_b", "tones", f"--out={root / 'results'}"]) == cli.SOME_FAILED
    said = capsys.readouterr().out
    assert "cannot be written: the disk is full; free some space" in said and "toy_b" in said
    assert "default" in said or "bands" in said  # the table
    assert len(results.load_all(root / "results")) == {"table.md": 2, "/failures/": 0}.get(place, 1)
    assert not find_rests(root)


def test_a_folder_that_is_shared_read_only_can_still_be_compared(tones, refuse, capsys):
    root = tones()
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    capsys.readouterr()
    refuse(ReadOnlyFile, "/results/")
    assert run(["compare", f"--out={root / 'results'}"]) == cli.SOME_FAILED
    said = capsys.readouterr().out
    assert "bands" in said and "the disk is read-only" in said
