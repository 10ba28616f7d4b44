"""Parts of files: the same samples as in the whole file, each file opened once, and memory that does not grow with it."""

import shutil
import subprocess
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evar.audio import opening, reading, sound_pool
from evar.audio.reading import AudioError, ClipPolicy, inspect, read, read_clip, take_part
from evar.audio.segments import Segment, cut_windows, parse_address
from evar.audio.sound_pool import SoundPool

RATE = 22050
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


def write_noise(path, seconds, rate=RATE, channels=1):
    rng = np.random.default_rng(0)
    soundfile.write(
        path, 0.2 * rng.normal(size=(round(seconds * rate), channels)), rate, subtype=FORMATS[path.suffix[1:]]
    )
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_segments_are_slices_of_the_whole_file_after_resampling(tmp_path, suffix):
    """Sought or decoded forward, in any order, by threads or alone."""
    path = write_noise(tmp_path / f"a.{suffix}", 8.0, channels=2)
    whole = read(path, 16000)
    segments = [Segment(path, start, min(start + 1.25, 7.99)) for start in (0.0, 0.7, 1.9, 4.123, 6.5, 6.9, 0.3)]
    with SoundPool() as pool, ThreadPoolExecutor(4) as threads:
        turns = [pool.book(path) for _ in segments]
        infos = [inspect(segment) for segment in segments]
        jobs = [
            threads.submit(read_clip, segment, info, ClipPolicy(None), 16000, pool, turn)
            for segment, info, turn in zip(segments, infos, turns, strict=True)
        ]
        found = [job.result() for job in jobs]
    for segment, samples in zip(segments, found, strict=True):
        first = round(segment.start * RATE) * 16000 // RATE
        np.testing.assert_allclose(samples, whole[first : first + len(samples)], atol=2e-6)
        assert abs(len(samples) - 20000) <= (1 if segment.end < 7.9 else 4000)
        np.testing.assert_allclose(samples, read(segment, 16000), atol=1e-6 if suffix == "mp3" else 0)


def test_each_file_is_opened_once_and_forward_formats_are_decoded_once(tmp_path, monkeypatch):
    opened, decoded = [], []
    real_open, real_read = sound_pool.open_sound, sound_pool.Opened.read
    monkeypatch.setattr(sound_pool, "open_sound", lambda path, content: opened.append(path) or real_open(path, content))

    def read_and_note(self, start, n_samples):
        block = real_read(self, start, n_samples)
        decoded.append((start, len(block)))
        return block

    monkeypatch.setattr(sound_pool.Opened, "read", read_and_note)
    path = write_noise(tmp_path / "a.mp3", 12.0)
    with SoundPool() as pool:
        for start, end in cut_windows(12.0, 2.0, 1.0):
            pool.read(path, round(start * RATE), round((end - start) * RATE), 16000)
    assert len(opened) == 1
    assert all(a + n == b for (a, n), (b, _) in pairwise(decoded)), "no sample is decoded twice"


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_memory_does_not_grow_with_the_length_of_the_file(tmp_path, suffix):
    peaks = []
    for seconds in (9, 40):
        path = write_noise(tmp_path / f"{seconds}.{suffix}", seconds, 8000)
        with SoundPool() as pool:
            tracemalloc.start()
            pool.read(path, 0, 8000, 16000)
            tracemalloc.reset_peak()  # to open it, the compressed file was read
            for start, end in cut_windows(seconds, 3.0, 3.0):
                pool.read(path, round(start * 8000), round((end - start) * 8000), 16000)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    n_bytes = 4 * 40 * 8000
    assert peaks[1] < peaks[0] + n_bytes / 10 < n_bytes / 2, peaks


def test_segments_have_ids_of_their_own_and_whole_files_keep_theirs(tmp_path):
    from evar.storage.keys import row_id

    path = write_noise(tmp_path / "a.wav", 4.0)
    whole, part = inspect(path), inspect(Segment(path, 1.0, 3.0))
    assert row_id(whole, 0) == f"{whole.sha256[:32]}@0"
    assert row_id(part, RATE) == f"{whole.sha256[:32]}@{RATE}+{2 * RATE}"
    assert ClipPolicy(1.0).window(part) == (RATE, RATE) and ClipPolicy(None).window(part) == (RATE, 2 * RATE)
    drawn = {ClipPolicy(1.0, crop="seeded_random", seed=seed).window(part)[0] for seed in range(20)}
    assert len(drawn) > 10 and min(drawn) >= RATE and max(drawn) <= 2 * RATE


def test_a_segment_that_is_not_inside_its_file_is_named_with_its_times(tmp_path):
    path = write_noise(tmp_path / "a.wav", 4.0)
    with pytest.raises(AudioError, match=r"segment \(3 to 5 s\) is not inside the file, which lasts 4.00 s"):
        inspect(Segment(path, 3.0, 5.0))
    with pytest.raises(AudioError, match=r"segment \(from 4 s on\) is not inside"):
        inspect(Segment(path, 4.0))
    assert inspect(Segment(path, 3.0, 4.05)).part == (3 * RATE, RATE)  # times in tables are rounded
    with pytest.raises(ValueError, match="before its end, got 2.0 to 1.0"):
        Segment(path, 2.0, 1.0)
    assert parse_address("a#t=1.wav") is None and parse_address("a b.wav#t=1,2") == ("a b.wav", 1.0, 2.0)


def test_a_long_file_is_refused_as_a_whole_and_read_in_parts(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, np.zeros(1000 * 1801 + 1), 1000, subtype="PCM_16")
    with pytest.raises(
        AudioError, match=r"1801 s are too long for a whole clip .*encode it in windows \(evar embed or"
    ):
        read(path, 1000)
    assert len(read(Segment(path, 1800.5, 1801.0), 1000)) == 500
    with pytest.raises(AudioError, match="too long for a whole clip"):
        read(Segment(path, 0.5), 1000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_long_files_that_only_ffmpeg_reads_are_decoded_through_a_pipe(tmp_path, monkeypatch):
    write_noise(tmp_path / "a.wav", 6.0)
    path = tmp_path / "a.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "aac", path], check=True)
    whole = read(path, 16000)
    for module in (opening, reading, sound_pool):
        monkeypatch.setattr(module, "MAX_SECONDS", 2.0)  # no more is decoded at once
    with SoundPool() as pool:
        for start in (3.0, 4.5, 1.0):
            samples = pool.read(path, round(start * RATE), RATE, 16000)
            np.testing.assert_allclose(samples, whole[int(start * 16000) :][: len(samples)], atol=1e-6)
    assert inspect(Segment(path, 4.0, 5.0)).n_samples >= 6 * RATE


def test_infos_of_segments_come_from_those_of_their_file(tmp_path):
    path = write_noise(tmp_path / "a.wav", 4.0)
    info = inspect(path)
    assert take_part(info, Path("other")) is info
    assert take_part(info, Segment(path, 1.0)).part == (RATE, 3 * RATE)


def test_a_flac_that_ends_in_silence_is_whole(tmp_path):
    """Its last frame may take fewer bytes than the longest header of a frame."""
    soundfile.write(tmp_path / "a.flac", np.zeros(4096 + 2000), 8000, subtype="PCM_16")
    assert inspect(tmp_path / "a.flac").n_samples == 6096
