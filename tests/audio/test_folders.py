"""The one walk over folders, names that are no UTF-8, what a file is that is no audio, and the cache of known files."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evar import audio
from evar.audio.folders import LeftOut, find_audio
from evar.audio.known_files import AudioIndex
from evar.audio.not_audio import name_content
from evar.config.tables import real_path, show_path


def test_the_walk_follows_links_but_no_loops_and_counts_what_it_leaves_out(tmp_path):
    top = tmp_path / "top"
    for name in ("a/1.wav", "a/2.OGA", "b/3.3gp", "b/notes.txt", "b/._3.wav", ".git/x.wav", "__MACOSX/y.wav", "README"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "4.sph").write_bytes(b"x")
    os.symlink(tmp_path / "elsewhere", top / "c")
    os.symlink(top, top / "b" / "loop")
    os.symlink(top / "b", top / "b" / "self")
    os.symlink("nowhere", top / "broken.wav")
    os.symlink("circle.wav", top / "circle.wav")
    left = LeftOut()
    found = [os.path.relpath(path, top) for path in find_audio(top, left)]
    assert found == ["a/1.wav", "a/2.OGA", "b/3.3gp", "c/4.sph"]
    assert (
        left.suffixes == {".txt": 1, "": 1} and left.n_loops == 2 and left.n_hidden == 3 and len(left.unreadable) == 2
    )
    assert "1 .txt" in left.describe() and "2 links that lead back" in left.describe()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names must be UTF-8 there")
def test_names_that_are_no_utf8_are_shown_and_found_again(tmp_path):
    name = os.fsdecode(b"b\xe9b\xe9 \x85.wav")
    soundfile.write(tmp_path / "plain.wav", np.zeros(800), 8000)
    os.rename(tmp_path / "plain.wav", tmp_path / name)
    (path,) = find_audio(tmp_path)
    text = show_path(os.path.relpath(path, tmp_path))
    assert text == "b\\udce9b\\udce9 \\udc85.wav" and text.encode("utf-8")
    assert real_path(tmp_path, text) == Path(path)
    assert len(audio.read(real_path(tmp_path, text), 8000)) == 800 and audio.inspect(path).n_samples == 800


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s3--00.wav\n", "git annex get"),
        (b"<!DOCTYPE html><html>403 Forbidden</html>", "web page"),
        (b"\n <html><body>moved</body></html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
        (b'{"message": "Not Found", "status": 404}', "JSON"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "PNG"),
        (b"PK\x03\x04" + bytes(60), "zip archive"),
        (b"MThd\x00\x00\x00\x06" + bytes(20), "MIDI"),
        ("Dies ist ein Text über Töne.".encode(), "text that begins with 'Dies ist"),
        (bytes(5000), "zero bytes"),
    ],
)
def test_a_file_that_is_no_audio_is_called_what_it_is(tmp_path, data, said):
    assert said in name_content(data)
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(audio.AudioError, match="not decodable as audio .it is ") as error:
        audio.inspect(tmp_path / "a.flac")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_missing_path_does_not_sound_as_if_ffmpeg_were_missing(tmp_path):
    os.symlink("gone.wav", tmp_path / "link.wav")
    for path, said in (
        (tmp_path / "no.wav", "missing"),
        (tmp_path, "folder"),
        (tmp_path / "link.wav", "leads nowhere"),
    ):
        for call in (audio.inspect, lambda path: audio.read(path, 8000), lambda path: audio.length(path, 8000)):
            with pytest.raises(audio.AudioError, match=said):
                call(path)


# ---------------------------------------------------------------- the cache of known files


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 1600), 16000)
    past = path.stat().st_mtime_ns - 10**10
    os.utime(path, ns=(past, past))
    return path


def test_another_file_with_the_same_size_and_time_is_another_file(tmp_path, sound):
    index = AudioIndex(tmp_path / "store")
    index.remember([index.inspect(sound)])
    (known,) = index.lookup([sound])
    times = sound.stat()
    other = tmp_path / "b.wav"
    soundfile.write(other, np.random.default_rng(1).uniform(-0.5, 0.5, 1600), 16000)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.replace(other, sound)  # as rsync and unpacking do
    assert sound.stat().st_mtime_ns == times.st_mtime_ns and sound.stat().st_size == times.st_size
    (again,) = index.lookup([sound])
    assert known is not None and again is None


@pytest.mark.parametrize("harm", ["cut", "rubbish", "other", "folder"])
def test_a_damaged_cache_is_made_anew_or_left_alone(tmp_path, sound, harm, caplog):
    index = AudioIndex(tmp_path / "store")
    index.remember([index.inspect(sound)])
    index.close()
    file = tmp_path / "store" / "audio.sqlite"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    elif harm == "rubbish":
        file.write_bytes(os.urandom(5000))
    elif harm == "other":
        file.unlink()
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE files (something_else TEXT)")
        database.close()
    else:
        file.unlink()
        file.mkdir()
    index = AudioIndex(tmp_path / "store")
    assert index.lookup([sound]) == [None]
    index.remember([index.inspect(sound)])
    assert "audio.sqlite" in caplog.text
    if harm in ("cut", "rubbish"):
        assert index.lookup([sound])[0] is not None


def test_a_locked_cache_costs_a_moment_and_nothing_else(tmp_path, sound, monkeypatch, caplog):
    monkeypatch.setattr("evar.audio.known_files._PATIENCE", 0.1)
    AudioIndex(tmp_path / "store").close()
    locked, done = threading.Event(), threading.Event()

    def lock() -> None:
        database = sqlite3.connect(tmp_path / "store" / "audio.sqlite", isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        locked.set()
        done.wait(20)
        database.close()

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait()
    index = AudioIndex(tmp_path / "store")
    assert index.lookup([sound]) == [None]
    index.remember([index.inspect(sound)])
    done.set()
    thread.join()
    assert "cannot be used" in caplog.text
