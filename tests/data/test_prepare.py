"""`evar prepare` against a local server: the catalogue's archives, tiny, from address to row; and what goes wrong."""

from __future__ import annotations

import bisect
import csv
import functools
import hashlib
import http.server
import io
import os
import shutil
import stat
import struct
import subprocess
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
import soundfile
import yaml
from more_copies import MORE_COPIES
from test_catalogue import CATALOGUE, COPIES
from toy import RATE, tone

from evar import cli, config, results
from evar.cli import run
from evar.data.task import load_task
from evar.data.task_config import load_task_config
from evar.download import archives
from evar.download.archives import unpack_archive

#: lists that the user brings
YOURS = {"librispeech_speaker": ["train_split.txt", "test_split.txt"], "musan": ["musan_split.csv"]}
FETCHED = [name for name in CATALOGUE if load_task_config(name).archives]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function that makes a tiny copy of a task, packs it as its archives, and serves them; returns the YAML's path."""
    folder = tmp_path / "server"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("evar.download.addresses.RETRY_SECONDS", 0.01)
    monkeypatch.delenv("EVAR_OFFLINE", raising=False)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))

    def make(name: str) -> Path:
        write, classes, parts = COPIES[name]
        entry = yaml.safe_load(config.find("tasks", name).read_text(encoding="utf-8"))
        write(tmp_path / "copy")
        for file in YOURS.get(name, ()):
            (tmp_path / "yours").mkdir(exist_ok=True)
            shutil.move(tmp_path / "copy" / file, tmp_path / "yours" / file)
        if name == "bird_detection":
            for half in ("ff1010bird", "warblrb10k"):
                shutil.move(tmp_path / "copy" / half / "labels.csv", tmp_path / "copy" / f"{half}_labels.csv")
        parts_last = sorted(
            entry["archives"], key=lambda archive: bool(archive.get("part_of"))
        )  # they are made with it
        for archive in parts_last:
            target = folder / archive["file"]
            if not archive.get("unpack", True):
                shutil.move(tmp_path / "copy" / archive["file"], target)
            which = archive["file"].partition(".")[0] if name == "nsynth_instrument" else ""
            if name == "fsd50k":
                which = archive["file"].rpartition(".")[0]
                n_parts = sum(other.get("part_of") == archive["file"] for other in entry["archives"])
            if archive.get("unpack", True) and not archive.get("part_of"):
                pack(tmp_path / "copy" / archive.get("into", ""), target, which)
                if name == "fsd50k" and n_parts:
                    in_parts(target, n_parts)
            archive["urls"] = [f"http://127.0.0.1:{server.server_port}/{archive['file']}"]
            archive.pop("sha256", None)
            archive["size"] = target.stat().st_size
            archive["md5"] = hashlib.md5(target.read_bytes()).hexdigest()
        entry["expected"] = {"clips": sum(parts.values()), "classes": len(classes), "parts": parts}
        if not entry.get("classes_from_index"):
            entry["classes"] = classes
        path = tmp_path / "config" / "tasks" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(entry))
        return path

    make.address = f"http://127.0.0.1:{server.server_port}"
    yield make
    server.shutdown()


def pack(folder: Path, target: Path, only: str = "") -> None:
    """All below a folder, or one of its top entries, as the kind of archive that the name says."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in files]
    chosen = [(path, name) for path, name in zip(files, names, strict=True) if not only or name.startswith(only)]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, name in chosen:
                archive.write(path, name)
    else:
        with tarfile.open(target, "w:gz") as archive:
            for path, name in chosen:
                archive.add(path, f"./{name}")


def in_parts(path: Path, n_parts: int) -> list[Path]:
    """Cut a zip into .z01, ..., .zip as archivers do: a mark in front, and places that count from the part's own start."""
    data = bytearray(b"PK\x07\x08" + path.read_bytes())
    starts = [len(data) * number // (n_parts + 1) for number in range(n_parts + 1)]
    end = data.rindex(b"PK\5\6")
    at = 4 + struct.unpack_from("<L", data, end + 16)[0]

    def place(absolute: int) -> tuple[int, int]:
        part = bisect.bisect_right(starts, absolute) - 1
        return part, absolute - starts[part]

    directory = place(at)
    while data[at : at + 4] == b"PK\1\2":
        part, offset = place(4 + struct.unpack_from("<L", data, at + 42)[0])
        struct.pack_into("<H", data, at + 34, part)
        struct.pack_into("<L", data, at + 42, offset)
        at += 46 + sum(struct.unpack_from("<3H", data, at + 28))
    struct.pack_into("<2H", data, end + 4, n_parts, directory[0])
    struct.pack_into("<L", data, end + 16, directory[1])
    paths = [*(path.with_suffix(f".z{number + 1:02d}") for number in range(n_parts)), path]
    for part, start, stop in zip(paths, starts, [*starts[1:], len(data)], strict=True):
        part.write_bytes(data[start:stop])
    return paths


@pytest.mark.parametrize("n_parts", [1, 2, 5])
def test_a_split_zip_is_read_as_one(tmp_path, n_parts):
    folder = tmp_path / "sounds"
    for number in range(9):
        (folder / "deep" / f"{number}.bin").parent.mkdir(parents=True, exist_ok=True)
        (folder / "deep" / f"{number}.bin").write_bytes(os.urandom(1000 * number))
    pack(folder, tmp_path / "all.zip")
    *parts, last = in_parts(tmp_path / "all.zip", n_parts)
    assert unpack_archive(last, tmp_path / "out", parts) == 9
    for number in range(9):
        one, other = (top / "deep" / f"{number}.bin" for top in (folder, tmp_path / "out"))
        assert one.read_bytes() == other.read_bytes()
    with pytest.raises(OSError, match="not a whole archive"):
        unpack_archive(last, tmp_path / "less", parts[:-1])
    with pytest.raises(OSError, match="not a whole archive"):
        unpack_archive(last, tmp_path / "less", [*parts[:-1], tmp_path / "sounds" / "deep" / "8.bin"])
    assert not (tmp_path / "less" / "deep").exists()


@pytest.mark.skipif(shutil.which("zip") is None, reason="zip is not installed")
def test_what_the_zip_program_splits_is_read_as_one(tmp_path):
    (tmp_path / "sounds").mkdir()
    for number in range(6):
        (tmp_path / "sounds" / f"{number}.bin").write_bytes(os.urandom(50_000))
    words = ["zip", "-q", "-r", "-s", "64k", str(tmp_path / "all.zip"), "sounds"]
    subprocess.run(words, cwd=tmp_path, check=True, env={"PATH": os.environ["PATH"]})
    parts = sorted(tmp_path.glob("all.z[0-9]*"))
    assert len(parts) > 2
    assert unpack_archive(tmp_path / "all.zip", tmp_path / "out", parts) == 6
    for number in range(6):
        one, other = (tmp_path / top / "sounds" / f"{number}.bin" for top in (".", "out"))
        assert one.read_bytes() == other.read_bytes()


def test_a_split_zip_that_leads_outside_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.bin", os.urandom(500))
        archive.writestr("../evil.bin", os.urandom(500))
    *parts, last = in_parts(tmp_path / "all.zip", 2)
    with pytest.raises(OSError, match="leads outside"):
        unpack_archive(last, tmp_path / "out", parts)
    assert not (tmp_path / "evil.bin").exists()


def server_file(path: Path, name: str) -> Path:
    return path.parent.parent.parent / "server" / load_task_config(name).archives[0].file


@pytest.mark.parametrize("name", [name for name in FETCHED if name not in MORE_COPIES])
def test_from_the_address_to_a_row(served, name, tmp_path, capsys):
    served(name)
    if name in YOURS:  # a list that nobody may fetch: what could be fetched is kept, and the same command goes on
        assert run(["prepare", name]) == cli.WRONG
        said = capsys.readouterr().err
        assert YOURS[name][0] in said and "then run the same command again" in said
        for file in YOURS[name]:
            shutil.copy(tmp_path / "yours" / file, tmp_path / "data" / load_task_config(name).folder / file)
    assert run(["prepare", name]) == cli.DONE
    said = capsys.readouterr().out
    n = load_task_config(name).expected.clips
    assert f"{n} of {n} clips are whole" in said and not list((tmp_path / "data" / ".downloads").glob("*.gz"))
    assert run(["verify", name]) == cli.DONE
    protocol = "events" if load_task_config(name).kind == "events" else "linear"
    assert run(["lineval", "logmel", name, f"--protocol={protocol}", f"--out={tmp_path / 'results'}"]) == cli.DONE
    (row,) = results.load_all(tmp_path / "results")
    assert row.task == name
    capsys.readouterr()
    assert run(["prepare", name]) == cli.DONE and "was there already" in capsys.readouterr().out


def test_more_archives_are_fetched_and_whole(served, tmp_path, capsys):
    """One of each set of archives; rows of the metrics that are new with them are made in test_more_tasks."""
    archives_of = {name: load_task_config(name).archives for name in FETCHED if name in MORE_COPIES}
    names = list({archives: name for name, archives in archives_of.items()}.values())
    assert len(names) >= 9
    for name in names:
        served(name)
        assert run(["prepare", name]) == cli.DONE, capsys.readouterr().err
        n = sum(MORE_COPIES[name][2].values())
        assert f"{n} of {n} clips are whole" in capsys.readouterr().out
        shutil.rmtree(tmp_path / "copy")


@pytest.mark.parametrize("name", ["esc10", "fsdd_digit"])
def test_an_archive_with_a_top_folder_serves_an_index_of_ours(tones, name, tmp_path, monkeypatch, served):
    """A tiny index in place of the real one, whose hashes only the real sounds have."""
    entry = yaml.safe_load(config.find("tasks", name).read_text(encoding="utf-8"))
    real = list(csv.DictReader(config.find("tasks", name).with_suffix(".csv").open(newline="")))
    part = "fold" if entry["splits"] == "folds" else "split"
    rows = [row for which in sorted({row[part] for row in real}) for row in _of_two_classes(real, part, which)]
    top = tmp_path / "pack" / "top-master"
    for number, row in enumerate(rows):
        (top / row["path"]).parent.mkdir(parents=True, exist_ok=True)
        kind = "OGG" if row["path"].endswith("ogg") else "WAV"
        soundfile.write(top / row["path"], tone(number % 2, number), RATE, format=kind)
        row["sha256"] = hashlib.sha256((top / row["path"]).read_bytes()).hexdigest()[:16]
    (archive,) = entry["archives"]
    folder = tmp_path / "server"
    pack(tmp_path / "pack", folder / archive["file"])
    archive["urls"] = [f"{served.address}/{archive['file']}"]
    entry |= {"expected": {"clips": len(rows), "classes": 2}, "classes": sorted({row["label"] for row in rows})}
    tasks = tmp_path / "config" / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    (tasks / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    with open(tasks / f"{name}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "fetched"))
    assert run(["prepare", name]) == cli.DONE and run(["verify", name]) == cli.DONE
    assert run(["lineval", "logmel", name, f"--out={tmp_path / 'results'}"]) == cli.DONE
    (row,) = results.load_all(tmp_path / "results")
    assert row.task == name and not row.skipped


def _of_two_classes(rows, part, which):
    """Two clips of each of two classes in a split or fold."""
    of_part = [row for row in rows if row[part] == which]
    classes = list(dict.fromkeys(row["label"] for row in sorted(rows, key=lambda row: row["path"])))[:2]
    return [row for label in classes for row in [row for row in of_part if row["label"] == label][:2]]


def test_a_wrong_checksum_is_told_and_fetched_again(served, tmp_path, capsys):
    path = served("urbansound8k")
    good = path.read_text()
    entry = yaml.safe_load(good)
    entry["archives"][0]["md5"] = "0" * 32
    path.write_text(yaml.safe_dump(entry))
    assert run(["prepare", "urbansound8k"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "has md5" in said and "expected 00000000" in said and len(said.strip().splitlines()) == 1
    path.write_text(good)
    assert run(["prepare", "urbansound8k"]) == cli.DONE


def test_a_truncated_archive_is_told_and_leaves_nothing_behind(served, tmp_path, capsys):
    path = served("urbansound8k")
    archive = server_file(path, "urbansound8k")
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    entry = yaml.safe_load(path.read_text())
    del entry["archives"][0]["md5"], entry["archives"][0]["size"]
    path.write_text(yaml.safe_dump(entry))
    assert run(["prepare", "urbansound8k"]) == cli.WRONG
    assert "is not a whole archive" in capsys.readouterr().err
    assert not [entry for entry in (tmp_path / "data" / "urbansound8k").iterdir() if not entry.name.startswith(".evar")]


def test_an_interrupted_preparation_goes_on(served, tmp_path, monkeypatch):
    served("nsynth_instrument")
    plain, calls = archives.unpack_archive, []

    def breaks(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr("evar.data.prepare.unpack_archive", breaks)
    assert run(["prepare", "nsynth_instrument"]) == 130
    assert run(["prepare", "nsynth_instrument"]) == cli.DONE
    assert len(calls) == 4  # the first archive was unpacked once


def test_a_missing_split_file_and_changed_counts_are_one_sentence(served, tmp_path, capsys):
    served("speech_commands_v2")
    assert run(["prepare", "speech_commands_v2", "--verify=false"]) == cli.DONE
    (tmp_path / "data" / "speech_commands_v2" / "testing_list.txt").unlink()
    capsys.readouterr()
    assert run(["prepare", "speech_commands_v2"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "testing_list.txt" in said and len(said.strip().splitlines()) == 1
    path = served("urbansound8k")
    entry = yaml.safe_load(path.read_text())
    entry["expected"]["clips"] += 1
    path.write_text(yaml.safe_dump(entry))
    assert run(["prepare", "urbansound8k"]) == cli.WRONG
    assert "expected 21 clips, got 20; is it another version?" in capsys.readouterr().err


def test_a_task_that_needs_you_says_what_to_get(served, capsys, tmp_path):
    assert run(["prepare", "voxceleb1"]) == cli.WRONG
    said = capsys.readouterr().err
    assert "cannot be fetched without you" in said and "--from=FOLDER" in said


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_copy_that_is_there_is_linked_and_not_copied(name, tmp_path, monkeypatch):
    write, classes, parts = COPIES[name]
    entry = yaml.safe_load(config.find("tasks", name).read_text(encoding="utf-8"))
    entry["expected"] = {"clips": sum(parts.values()), "classes": len(classes), "parts": parts}
    if not entry.get("classes_from_index"):
        entry["classes"] = classes
    (tmp_path / "config" / "tasks").mkdir(parents=True)
    (tmp_path / "config" / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("EVAR_DATA", raising=False)
    write(tmp_path / "elsewhere")
    words = ["prepare", name, f"--from={tmp_path / 'elsewhere'}", f"--data_root={tmp_path / 'data'}"]
    assert run(words) == cli.DONE and run(words) == cli.DONE
    link = tmp_path / "data" / entry["folder"]
    assert link.is_symlink() and link.resolve() == tmp_path / "elsewhere"
    assert len(load_task(name, tmp_path / "data")) == sum(parts.values())


def test_a_folder_in_the_way_is_not_touched(tmp_path, capsys):
    (tmp_path / "data" / "esc50").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    assert run(["prepare", "esc50", f"--from={tmp_path / 'mine'}", f"--data_root={tmp_path / 'data'}"]) == cli.WRONG
    assert "is there already and is not" in capsys.readouterr().err
    assert run(["prepare", "esc50", "--from=/nowhere", f"--data_root={tmp_path}"]) == cli.WRONG


def test_published_addresses_and_hashes_are_well_formed():
    for name in FETCHED:
        for archive in load_task_config(name).archives:
            assert all(url.startswith(("http://", "https://")) for url in archive.urls)
            assert archive.md5 is None or len(archive.md5) == 32
            assert archive.sha256 is None or len(archive.sha256) == 64


# ---------------------------------------------------------------- unpacking


def tar_of(path: Path, *members: tarfile.TarInfo, content: bytes = b"x") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in members:
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("../escaped.wav"),
        member("/etc/escaped.wav"),
        member("a/../../escaped.wav"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("hard", tarfile.LNKTYPE, "good.wav"),
        member("device", tarfile.CHRTYPE),
    ],
    ids=lambda info: info.name,
)
def test_members_that_lead_outside_are_refused_and_nothing_is_left(bad, tmp_path):
    archive = tar_of(tmp_path / "x.tar.gz", member("good.wav"), bad)
    with pytest.raises(OSError, match="x.tar.gz is refused"):
        unpack_archive(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "escaped.wav").exists()


def test_zip_members_are_looked_at_too(tmp_path):
    for name, mode in (("../escaped.wav", 0), ("link", stat.S_IFLNK << 16)):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode
            archive.writestr(info, "x")
        with pytest.raises(OSError, match="is refused"):
            unpack_archive(tmp_path / "x.zip", tmp_path / "out")


def test_bombs_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "SPARE_BYTES", 1000)
    archive = tar_of(tmp_path / "x.tar.gz", member("zeros"), content=bytes(10_000_000))
    with pytest.raises(OSError, match="is it a bomb"):
        unpack_archive(archive, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    archive = tar_of(tmp_path / "y.tar.gz", *(member(f"{n}.wav") for n in range(3)))
    with pytest.raises(OSError, match="more than 2 files"):
        unpack_archive(archive, tmp_path / "out")


def test_archives_share_a_folder_and_a_second_one_adds(tmp_path):
    for name in ("a", "b"):
        assert unpack_archive(tar_of(tmp_path / f"{name}.tar.gz", member(f"top/{name}.wav")), tmp_path / "out") == 1
    assert sorted(os.listdir(tmp_path / "out" / "top")) == ["a.wav", "b.wav"]
    (tmp_path / "out" / ".unpacking-dead").mkdir()
    unpack_archive(tar_of(tmp_path / "c.tar.gz", member("top/c.wav")), tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["top"]


def test_what_is_no_archive_is_told(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(OSError, match="is not a whole archive"):
        unpack_archive(tmp_path / "x.tar.gz", tmp_path / "out")


def test_commands_that_prepare_the_same_folder_wait_for_each_other(served, tmp_path):
    """Several at once: each ends well, and none takes the other's work away."""
    from concurrent.futures import ThreadPoolExecutor

    from evar.data.prepare import prepare_task

    served("esc50")
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: prepare_task("esc50", tmp_path / "data", verify=False), range(4)))
    assert len({len(one.task) for one in done}) == 1 and not done[0].task.missing()
    assert sum("fetched esc" in one.what.lower() or one.what.startswith("fetched") for one in done) == 1
    assert not list((tmp_path / "data").rglob(".unpacking-*"))


def test_a_folder_in_which_another_run_has_just_begun_is_no_copy(served, tmp_path):
    """Between the making of the folder and its first stamp there is only the stamp's unfinished file."""
    from evar.data.prepare import prepare_task

    served("esc50")
    folder = tmp_path / "data" / load_task_config("esc50").folder
    folder.mkdir(parents=True)
    (folder / "..evar_prepared.json.1a2b.tmp").write_bytes(b"")
    done = prepare_task("esc50", tmp_path / "data", verify=False)
    assert done.what.startswith("fetched") and not done.task.missing()


def test_what_a_live_neighbour_unpacks_is_left_alone(tmp_path):
    from filelock import FileLock

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.wav", b"x" * 100)
    folder = tmp_path / "out"
    for name in ("dead", "live"):
        (folder / f".unpacking-{name}").mkdir(parents=True)
    with FileLock(folder / ".unpacking-live.lock"):
        unpack_archive(tmp_path / "a.zip", folder)
        assert (folder / ".unpacking-live").is_dir() and not (folder / ".unpacking-dead").exists()
