"""Decoding: what comes out has the right length, rate and content, and bad files are named in one sentence."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from evar import audio
from evar.audio.reading import AudioError, AudioInfo, ClipPolicy, clip_length, inspect, read, read_clip


def sine(rate: int, seconds: float, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_any_format_and_rate_gives_the_same_tone(tmp_path, extension, rate):
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, np.stack([sine(rate, 1.0), sine(rate, 1.0)], axis=1), rate)
    wave = read(path, 16000)
    assert wave.dtype == np.float32 and abs(len(wave) - 16000) <= 1200  # mp3 and ogg pad their ends
    spectrum = np.abs(np.fft.rfft(wave[:15000] * np.hanning(15000)))
    assert abs(spectrum.argmax() * 16000 / 15000 - 440) < 2
    rms = np.sqrt(np.mean(wave[2000:12000] ** 2))  # a lossy codec may overshoot, but keeps the power
    assert abs(rms - 0.5 / np.sqrt(2)) < 0.01


def test_mono_is_the_mean_of_the_channels(tmp_path):
    left, right = sine(16000, 0.5), np.zeros(8000, np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read(tmp_path / "a.wav", 16000), left / 2, atol=1e-7)


def test_a_window_equals_the_same_part_of_the_whole_file(tmp_path):
    """Cutting before resampling must not change the samples near the cut."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 88200).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    info = inspect(tmp_path / "a.wav")
    part = read_clip(tmp_path / "a.wav", info, ClipPolicy(0.5), 16000)
    whole = read(tmp_path / "a.wav", 16000)
    assert len(part) == 8000
    np.testing.assert_allclose(part, whole[:8000], atol=1e-6)


def test_policy_pads_and_crops_to_the_exact_length(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(22050, 1.0), 22050)
    info = inspect(tmp_path / "a.wav")
    for policy, expected in (
        (ClipPolicy(2.0, "zero_end"), 32000),
        (ClipPolicy(2.0, "none"), 16000),
        (ClipPolicy(0.25, "zero_end"), 4000),
        (ClipPolicy(None), 16000),
    ):
        clip = read_clip(tmp_path / "a.wav", info, policy, 16000)
        assert len(clip) == expected == clip_length(info, policy, 16000)
    assert not clip[16000:].any()


def test_random_crop_depends_on_seed_and_content_only():
    info = AudioInfo("ab" * 32, 48000, 16000)
    starts = {ClipPolicy(1.0, crop="seeded_random", seed=seed).window(info)[0] for seed in range(20)}
    assert len(starts) > 15 and all(0 <= start <= 32000 for start in starts)
    again = ClipPolicy(1.0, crop="seeded_random", seed=3)
    assert again.window(info) == again.window(info) != again.window(AudioInfo("cd" * 32, 48000, 16000))


def bad_files(folder):
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_bytes(b"this is no audio at all, but a text")
    soundfile.write(folder / "nothing.wav", np.zeros(0, np.float32), 16000)
    soundfile.write(folder / "short.wav", np.zeros(20, np.float32), 16000)
    wave = sine(16000, 0.5)
    wave[100] = np.nan
    soundfile.write(folder / "nan.wav", wave, 16000, subtype="FLOAT")
    return {
        "missing.wav": "missing", "empty.wav": "empty", "text.wav": "not decodable", "nothing.wav": "too short",
        "short.wav": "too short", "nan.wav": "NaN",
    }  # fmt: skip


def test_bad_files_are_explained(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(AudioError, match=reason):
            read_clip(tmp_path / name, inspect(tmp_path / name), ClipPolicy(None), 16000)


def test_absurdly_long_whole_clips_are_refused_but_windows_of_them_are_read(tmp_path):
    path = tmp_path / "long.wav"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_U8") as file:
        for _ in range(31):
            file.write(np.zeros(60 * 8000, np.float32))
    info = inspect(path)
    with pytest.raises(AudioError, match="too long"):
        read_clip(path, info, ClipPolicy(None), 8000)
    assert len(read_clip(path, info, ClipPolicy(1.0), 8000)) == 8000


def test_impossible_policies_are_refused():
    for arguments in ({"seconds": -1.0}, {"seconds": None, "pad": "zero_end"}, {"seconds": 1.0, "crop": "tail"}):
        with pytest.raises(ValueError, match="clip_seconds|crop"):
            ClipPolicy(**arguments)


@pytest.mark.parametrize("extension", ["wav", "flac", "mp3"])
def test_an_id3_tag_in_front_costs_nothing_and_lengths_agree(tmp_path, extension):
    path, plain = tmp_path / f"tagged.{extension}", tmp_path / f"plain.{extension}"
    soundfile.write(plain, sine(16000, 1.0), 16000)
    path.write_bytes(b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128) + plain.read_bytes())
    info = inspect(path)
    policy = ClipPolicy(None)
    clip = read_clip(path, info, policy, 8000)
    assert len(clip) == clip_length(info, policy, 8000) and abs(len(clip) - 8000) <= 64
    assert np.abs(clip - read(plain, 8000)[: len(clip)]).max() < 1e-4


# ---------------------------------------------------------------- what libsndfile does not read


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A stand-in for ffmpeg that gives a stereo sine of 2 s at 22,050 Hz for every file whose first byte is m."""
    wave = np.sin(2 * np.pi * 440 * np.arange(44100) / 22050).astype(np.float32)
    soundfile.write(tmp_path / "sine.au", np.stack([wave, 0 * wave], axis=1), 22050, subtype="FLOAT")
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nfor word in "$@"; do case "$word" in file:*) path="${word#file:}";; esac; done\n'
        f'if [ "$(head -c 1 "$path")" = m ]; then cat {tmp_path / "sine.au"}; exit; fi\n'
        'echo "x: Invalid data found" >&2; exit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_what_libsndfile_does_not_read_goes_to_ffmpeg(ffmpeg):
    path = ffmpeg / "clip.m4a"
    path.write_bytes(b"m4a")
    info = audio.inspect(path)
    assert (info.n_samples, info.sample_rate) == (44100, 22050) and info.sha256 == hashlib.sha256(b"m4a").hexdigest()
    whole, part = audio.read(path, 22050), audio.read(path, 22050, start=100, n_samples=1000)
    assert len(whole) == 44100 and np.array_equal(part, whole[100:1100])
    assert abs(np.abs(whole).max() - 0.5) < 1e-3  # the mean of both channels
    assert audio.length(path, 16000) == 32000 == len(audio.read(path, 16000))
    assert audio.describe(path).channels == 2
    (ffmpeg / "bad.m4a").write_bytes(b"nothing")
    with pytest.raises(
        audio.AudioError, match=r"not decodable as audio \(Format not recognised; ffmpeg: Invalid data found"
    ):
        audio.inspect(ffmpeg / "bad.m4a")


def test_without_ffmpeg_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "clip.m4a").write_bytes(b"m4a")
    with pytest.raises(audio.AudioError, match="install ffmpeg for .m4a"):
        audio.inspect(tmp_path / "clip.m4a")
    (tmp_path / "clip.wav").write_bytes(b"m4a")
    with pytest.raises(audio.AudioError, match=r"^not decodable as audio \([^;]*\)$"):
        audio.inspect(tmp_path / "clip.wav")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_itself(tmp_path):
    wave = (0.4 * np.sin(2 * np.pi * 440 * np.arange(48000) / 16000)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16000, subtype="FLOAT")
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "flac", tmp_path / "a.mka"], check=True)
    assert np.abs(audio.read(tmp_path / "a.mka", 16000) - wave).max() < 1e-4
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(audio.AudioError, match="not decodable"):
        audio.inspect(tmp_path / "a.m3u8")
