"""Everything can be printed everywhere, obeys nobody, and never decides a result."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evar import cli
from evar.config.messages import show_messages, silence, tell, warn, write_text

ROOT = Path(__file__).parents[2]


def _run(*words: str, encoding: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "evar", *words], capture_output=True, env=environment, cwd=cwd)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_lists_and_help_fit_every_code_page(encoding: str, tmp_path: Path) -> None:
    script = (
        "from evar.cli import run\nfor words in (['encoders'], ['lineval', '--help'], [], ['nothing \\u72ac\\u2026']): "
    )
    script += "print(run(words))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, cwd=tmp_path)
    lines = done.stdout.decode(encoding).splitlines()
    assert [line for line in lines if line in ("0", "1", "2")] == ["0", "0", "0", "2"], done.stderr
    assert b"u72ac" in done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_strange_names_cost_nothing(encoding: str, tmp_path: Path) -> None:
    done = _run("lineval", "\u72ac\x1b[2J\x07\u202e", "esc10", encoding=encoding, cwd=tmp_path)
    said = done.stderr.decode(encoding)
    assert done.returncode == cli.WRONG and "no encoder" in said and "Traceback" not in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)


def test_a_closed_pipe_is_no_failure(tmp_path: Path) -> None:
    command = f"{sys.executable} -m evar encoders | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "0" and "Traceback" not in done.stderr


def test_messages_reach_the_terminal_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    with show_messages():
        tell("dog\x1b[31m.wav")
        warn("a cell FAILED\u202e")
        with silence():
            tell("nothing")
    tell("nobody listens")
    assert capsys.readouterr().out == "dog\\x1b[31m.wav\na cell FAILED\\u202e\n"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", b"a... x2 \\u72ac\n"), ("cp1252", b"a\x85 \xd72 \\u72ac\n")])
def test_what_an_encoding_lacks_is_replaced(encoding: str, shown: bytes) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    write_text("a\u2026 \u00d72 \u72ac", stream)
    assert raw.getvalue() == shown


def test_a_full_disk_behind_the_output_ends_nothing() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    write_text("text", Full())
    closed = io.StringIO()
    closed.close()
    write_text("text", closed)
