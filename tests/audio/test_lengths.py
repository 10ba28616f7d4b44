"""A declared length is a claim: joined streams, headers that were never closed, estimates, and files that were cut."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from evar import audio
from evar.audio import AudioError, ClipPolicy, inspect, read, read_clip, reading
from evar.audio.containers import find_layout

RATE = 22050


def make_sound(seconds: float, hz: float = 330.0) -> np.ndarray:
    noise = 0.02 * np.random.default_rng(int(hz)).standard_normal(int(RATE * seconds))
    return (0.4 * np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE) + noise).astype(np.float32)


def encode(seconds: float, format_: str, hz: float = 330.0, rate: int = RATE, channels: int = 1, **more: str) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([make_sound(seconds, hz)] * channels, axis=1), rate, format=format_, **more)
    return buffer.getvalue()


def seconds_of(path) -> float:
    return len(read(path, 16000)) / 16000


@pytest.mark.parametrize("ending", ["mp3", "ogg", "flac", "wav", "aiff", "rf64", "caf", "w64", "au"])
def test_all_streams_of_a_joined_file_are_read(tmp_path, ending):
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(encode(1.0, ending.upper()) + encode(1.5, ending.upper(), hz=800.0))
    assert abs(seconds_of(path) - 2.5) < 0.12
    second = read(path, 16000)[-16000:-4000]
    assert abs(np.abs(np.fft.rfft(second * np.hanning(len(second)))).argmax() * 16000 / len(second) - 800) < 5


@pytest.mark.parametrize("ending", ["ogg", "wav", "flac"])
def test_joined_streams_of_other_rates_and_channels(tmp_path, ending):
    path = tmp_path / f"joined.{ending}"
    path.write_bytes(encode(1.0, ending.upper()) + encode(1.0, ending.upper(), rate=RATE * 2, channels=2))
    assert abs(seconds_of(path) - 1.5) < 0.05  # the second lasts half as long at twice the rate


@pytest.mark.parametrize("size", [0, 40_000, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_header_that_was_never_closed(tmp_path, size):
    whole = encode(2.0, "WAV")
    at = whole.index(b"data")
    (tmp_path / "a.wav").write_bytes(whole[: at + 4] + struct.pack("<I", size) + whole[at + 8 :])
    assert inspect(tmp_path / "a.wav").n_samples == 2 * RATE == len(read(tmp_path / "a.wav", RATE))


@pytest.mark.parametrize("size", [0, 0xFFFFFFFFFFFFFFFF])
@pytest.mark.parametrize("ending", ["rf64", "w64"])
def test_a_long_header_that_was_never_closed(tmp_path, ending, size):
    whole = encode(2.0, ending.upper())
    at = whole.index(b"ds64") + 16 if ending == "rf64" else whole.index(b"data\xf3\xac") + 16
    (tmp_path / f"a.{ending}").write_bytes(whole[:at] + struct.pack("<Q", size) + whole[at + 8 :])
    assert inspect(tmp_path / f"a.{ending}").n_samples == 2 * RATE == len(read(tmp_path / f"a.{ending}", RATE))


@pytest.mark.parametrize("ending", ["rf64", "caf", "w64", "au"])
def test_other_formats_that_are_cut_off_are_named(tmp_path, ending):
    whole = encode(2.0, ending.upper())
    (tmp_path / "a").write_bytes(whole[: len(whole) // 3])
    for look in (inspect, lambda path: read(path, RATE), audio.describe):
        with pytest.raises(AudioError, match=r"decoded 0\.[67] of 2\.0 s|cut off, 3\d% of its sound"):
            look(tmp_path / "a")


def test_an_mp3_whose_bytes_are_all_there_is_whole_whatever_it_counts(tmp_path):
    whole = encode(2.0, "MP3")
    at = whole.index(b"Xing" if b"Xing" in whole else b"Info")
    (tmp_path / "a.mp3").write_bytes(whole[: at + 8] + struct.pack(">I", 90_000) + whole[at + 12 :])
    assert abs(seconds_of(tmp_path / "a.mp3") - 2.0) < 0.1
    cut = (whole[: at + 8] + struct.pack(">I", 90_000) + whole[at + 12 :])[: len(whole) // 2]
    (tmp_path / "b.mp3").write_bytes(cut)
    with pytest.raises(AudioError, match="cut off"):
        inspect(tmp_path / "b.mp3")


def test_a_usual_wav_is_read_the_quick_way_and_never_after_a_change(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    path.write_bytes(encode(2.0, "WAV", channels=2))
    info = inspect(path)
    settled = replace(info, is_settled=True)
    for policy in (ClipPolicy(None), ClipPolicy(0.5, crop="seeded_random", seed=3), ClipPolicy(3.0, "zero_end")):
        start, n_samples = policy.window(info)
        wanted = None if policy.seconds is None else n_samples
        quick = reading._read_plain(path, settled, 16000, start, wanted)
        assert quick is not None and np.array_equal(quick, reading._read_known(path, info, 16000, start, wanted))
    path.write_bytes(encode(2.0, "WAV", hz=800.0, channels=2))
    assert reading._read_plain(path, replace(settled, state=(0, 0, 0, 0)), 16000, 0, None) is None
    with pytest.raises(AudioError, match="the file changed"):
        read_clip(path, replace(info, is_settled=False), ClipPolicy(1.0), 16000)


def test_chunks_behind_the_sound_are_no_sound(tmp_path):
    whole = encode(1.0, "WAV") + b"LIST" + struct.pack("<I", 2000) + b"INFO" + bytes(range(1, 250)) * 8 + bytes(4)
    (tmp_path / "a.wav").write_bytes(whole)
    assert inspect(tmp_path / "a.wav").n_samples == RATE
    for tag in (b"TAG" + b"x" * 700, b"ID3\x03" + b"y" * 900, bytes(4000)):
        (tmp_path / "a.wav").write_bytes(encode(1.0, "WAV") + tag)
        assert inspect(tmp_path / "a.wav").n_samples == RATE


def test_an_mp3_whose_first_frame_counts_too_few(tmp_path):
    data = bytearray(encode(3.0, "MP3"))
    at = max(data.find(b"Xing"), data.find(b"Info"))
    data[at + 8 : at + 12] = struct.pack(">I", 20)
    (tmp_path / "a.mp3").write_bytes(data)
    assert abs(seconds_of(tmp_path / "a.mp3") - 3.0) < 0.1


def test_an_mp3_without_a_count_and_with_a_changing_bit_rate(tmp_path):
    loud = np.random.default_rng(0).uniform(-0.8, 0.8, RATE * 3).astype(np.float32)
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", RATE, 1, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE", compression_level=0.3
    ) as file:
        file.write(np.concatenate([loud, np.zeros(RATE * 3, np.float32), make_sound(3.0)]))
    data = buffer.getvalue()
    at = max(data.find(b"Xing"), data.find(b"Info"))
    start = data.rfind(b"\xff", 0, at - 3)
    first = audio.opening.find_layout(data)
    assert not first.pieces  # as it is, its count is right
    from evar.audio import mpeg

    frame = mpeg.read_header(data[start : start + 4]) or mpeg.read_header(data[:4])
    (tmp_path / "a.mp3").write_bytes(data[frame.n_bytes :] if start <= 0 else data[start + frame.n_bytes :])
    assert abs(seconds_of(tmp_path / "a.mp3") - 9.0) < 0.2


@pytest.mark.parametrize("ending", ["wav", "aiff", "au", "flac", "mp3"])
def test_a_file_that_was_cut_is_named_with_both_lengths(tmp_path, ending):
    whole = encode(5.0, ending.upper())
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: int(len(whole) * 0.26)])
    for call in (lambda: inspect(path), lambda: read(path, 16000), lambda: audio.describe(path)):
        with pytest.raises(AudioError, match=r"decoded \d\.\d of 5\.\d s|not decodable"):
            call()
    if ending in ("wav", "aiff", "au"):
        with pytest.raises(AudioError, match=r"decoded 1\.3 of 5\.0 s: the file is cut off"):
            inspect(path)


def list_page_starts(data: bytes) -> list[int]:
    starts, at = [], 0
    while at < len(data):
        assert data[at : at + 4] == b"OggS"
        starts.append(at)
        n_segments = data[at + 26]
        at += 27 + n_segments + sum(data[at + 27 : at + 27 + n_segments])
    return starts


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_file_that_was_cut_is_named_wherever_the_cut_lies(tmp_path, subtype):
    """Between two pages nothing looks wrong: only the flag of the last page is missing."""
    whole = encode(3.0, "OGG", rate=24000, subtype=subtype)  # Opus has no 22,050 Hz
    path, starts = tmp_path / "a.ogg", list_page_starts(whole)
    path.write_bytes(whole)
    n_whole = inspect(path).n_samples
    assert len(starts) > 3 and n_whole == 3 * RATE
    for cut in (*starts[3:], *(start + 11 for start in starts[3:]), len(whole) - 1):
        path.write_bytes(whole[:cut])
        for look in (inspect, lambda path: read(path, RATE), audio.describe):
            with pytest.raises(
                AudioError, match=r"decoded \d\.\d s, and the end of the sound is missing: the file is cut"
            ):
                look(path)
        path.write_bytes(whole[:cut] + whole)  # the cut is inside of a joined file
        with pytest.raises(AudioError, match="the end of the sound is missing"):
            inspect(path)
    for data in (whole * 3, whole + b"OggS", whole + b"TAG" + bytes(400)):  # joined, or with something behind the end
        path.write_bytes(data)
        assert inspect(path).n_samples == n_whole * (3 if data == whole * 3 else 1)


def test_an_ogg_file_without_any_sound_before_the_cut(tmp_path):
    whole = encode(1.0, "OGG")
    for cut in list_page_starts(whole)[1:3]:
        (tmp_path / "a.ogg").write_bytes(whole[:cut])
        with pytest.raises(AudioError, match="no sound was decoded, and the end of the sound is missing"):
            inspect(tmp_path / "a.ogg")


def test_a_random_window_lies_inside_what_is_there(tmp_path):
    """Joined mp3s whose header tells the first: windows reach the second, and none lies behind the end."""
    path = tmp_path / "a.mp3"
    path.write_bytes(encode(1.0, "MP3") * 4)
    info = inspect(path)
    starts = set()
    for seed in range(12):
        policy = ClipPolicy(0.5, crop="seeded_random", seed=seed)
        starts.add(policy.window(info)[0])
        assert len(read_clip(path, info, policy, 16000)) == 8000
    assert max(starts) > 1.5 * RATE


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff", "au", "caf", "w64"])
def test_healthy_files_are_decoded_as_they_are(ending):
    data = encode(1.0, ending.upper())
    layout = find_layout(data)
    assert not layout.pieces and layout.n_present == layout.n_declared


def test_mp3_in_wav_is_measured_by_what_decodes(tmp_path):
    frames = encode(2.0, "MP3")
    head = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 1152, 1, 1393)
    body = b"fmt " + struct.pack("<I", len(head)) + head + b"fact" + struct.pack("<II", 4, RATE * 4)
    data = body + b"data" + struct.pack("<I", len(frames)) + frames
    (tmp_path / "a.wav").write_bytes(b"RIFF" + struct.pack("<I", len(data) + 4) + b"WAVE" + data)
    sound = audio.describe(tmp_path / "a.wav")
    assert abs(sound.seconds - 2.0) < 0.15 and -20 < sound.rms_db < 0 and sound.peak_db < 3 and sound.is_finite


def test_a_file_that_changes_after_it_was_hashed_is_refused(tmp_path):
    import os

    path = tmp_path / "a.wav"
    soundfile.write(path, make_sound(0.5), RATE)
    info, times = inspect(path), path.stat()
    soundfile.write(path, make_sound(0.5, 900.0), RATE)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    with pytest.raises(AudioError, match="changed after it was looked at"):
        read_clip(path, info, ClipPolicy(None), RATE)
