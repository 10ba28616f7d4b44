"""One broken YAML of a user's is named, and does not hide the others."""

from __future__ import annotations

import pytest

from evar import cli
from evar.cli import run


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("encoders", "implementation: [toy", "is not valid YAML"),
        ("encoders", "implementaton: toy:Bands\n", "did you mean 'implementation'?"),
        ("tasks", "title: no more than a title\n", "lacks the key"),
        ("tasks", "- a\n- list\n", "must hold 'key: value' lines"),
    ],
)
def test_the_others_are_listed_and_the_broken_file_is_named_in_one_line(tones, capsys, kind, text, said):
    root = tones()
    broken = root / "config" / kind / "my_broken.yaml"
    broken.write_text(text)
    assert run([kind]) == cli.SOME_FAILED
    out, err = capsys.readouterr()
    assert {"encoders": "toy_twins", "tasks": "tones"}[kind] in out and "my_broken" not in out
    (line,) = err.strip().splitlines()
    assert str(broken) in line and said in line


def test_a_broken_index_of_one_task_does_not_hide_the_others(tones, capsys):
    root = tones()
    (root / "config" / "tasks" / "mine.yaml").write_text((root / "config" / "tasks" / "tones.yaml").read_text())
    (root / "config" / "tasks" / "tones.csv").write_text("path,label\na.wav,low\n")
    assert run(["tasks"]) == cli.SOME_FAILED
    out, err = capsys.readouterr()
    assert "esc50" in out and "tones.csv" in err


def test_a_broken_protocol_does_not_hide_the_others(tones):
    from evar.config import probe_protocols

    root = tones()
    (root / "config" / "protocols").mkdir()
    (root / "config" / "protocols" / "my_broken.yaml").write_text("probe: [")
    assert "linear" in probe_protocols() and "my_broken" not in probe_protocols()
