"""The embedded tasks: honest indexes, a SoundFont reader held against a hand-made font, and building that resumes."""

from __future__ import annotations

import collections
import json
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from evar import download
from evar.data.embedded import build, building, draw, is_built, speech
from evar.data.embedded.notes import render_note
from evar.data.embedded.soundfont import SoundFont
from evar.data.task import load_task

TASKS = ["gm_pitch", "gm_instrument", "gm_multi", "spoken_words", "spoken_language", "rendered_captions"]
RATE = 16000


# ---------------------------------------------------------------- indexes


@pytest.mark.parametrize("name", TASKS)
def test_committed_index_is_what_the_draw_gives(name):
    assert building.read_index(name) == draw.rows(name)


@pytest.mark.parametrize("name", TASKS)
def test_index_is_honest(name):
    task = load_task(name)
    assert len(task) == task.config.expected.clips
    assert len(task.config.classes) == task.config.expected.classes
    (one_round,) = task.rounds()
    groups = [set(task.groups[rows]) for rows in (one_round.train, one_round.valid, one_round.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    for rows in (one_round.train, one_round.valid, one_round.test):
        if task.config.kind == "captions":
            captions = [caption for own in task.y[rows] for caption in own]
            assert len(set(captions)) == len(captions) == 2 * len(rows), "no caption of a split fits two of its clips"
            continue
        if task.config.kind == "multilabel":
            counts = task.y[rows].sum(axis=0)
            assert counts.max() - counts.min() <= 2, "every label about equally often in every split"
            continue
        counts = np.bincount(task.y[rows], minlength=len(task.config.classes))
        assert len(set(counts)) == 1 and counts[0] > 0, "every class equally often in every split"


def test_pitch_labels_are_the_notes():
    for row in draw.rows("gm_pitch"):
        assert draw.PITCH_CLASSES[int(row["note"]) % 12] == row["label"]


def test_families_sound_the_same_notes():
    notes = collections.defaultdict(list)
    for row in draw.rows("gm_instrument"):
        notes[row["split"], row["label"]].append(int(row["note"]))
    for split in draw.SPLITS:
        assert len({tuple(sorted(found)) for (where, _), found in notes.items() if where == split}) == 1


def test_voice_and_number_do_not_tell_the_language():
    languages, splits = collections.defaultdict(list), collections.defaultdict(set)
    for row in draw.rows("spoken_language"):
        languages[row["voice"], row["text"]].append(row["label"])
        splits[row["text"]].add(row["split"])
    assert all(sorted(found) == sorted(draw.LANGUAGES) for found in languages.values())
    assert all(len(found) == 1 for found in splits.values())


def test_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"no embedded task 'gm_pich' to draw; it has gm_pitch"):
        draw.rows("gm_pich")


# ---------------------------------------------------------------- SoundFont


def small_font(path: Path, *, looped: bool = True, zone: dict[int, int] | None = None, program: int = 0) -> Path:
    """A SoundFont of one preset: keys 0 to 63 play a 500 Hz tone rooted at key 60, keys 64 to 100 noise.

    Args:
        zone: generators of the tone's zone besides those that it needs.
    """
    tone = np.rint(20000 * np.sin(2 * np.pi * 500 * np.arange(1600) / RATE)).astype("<i2")  # 50 periods of 32 samples
    noise = np.random.default_rng(0).integers(-9000, 9000, 3200).astype("<i2")
    pcm = np.concatenate([tone, np.zeros(46, "<i2"), noise, np.zeros(46, "<i2")]).tobytes()

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    def ranged(low: int, high: int) -> int:
        return low | high << 8

    # The instrument's global zone tunes 1200 cents up, which the tone's zone takes back: a zone overrides it.
    zones = [
        {52: 1200, 38: -12000},
        {43: ranged(0, 63), 52: 0, 54: int(looped), 58: 60, **(zone or {}), 53: 0},
        {43: ranged(64, 100), 54: 1, 58: 60, 53: 1},
    ]
    generators, bags = b"", b""
    for one in zones:
        bags += struct.pack("<HH", len(generators) // 4, 0)
        generators += b"".join(struct.pack("<HH", number, amount & 0xFFFF) for number, amount in one.items())
    bags += struct.pack("<HH", len(generators) // 4, 0)
    sample = "<20sIIIIIBbHH"
    tables = {
        b"phdr": struct.pack("<20sHHHIII", b"Toy", program, 0, 0, 0, 0, 0)
        + struct.pack("<20sHHHIII", b"EOP", 0, 0, 1, 0, 0, 0),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", 41, 0, 0, 0),
        b"inst": struct.pack("<20sH", b"Toy", 0) + struct.pack("<20sH", b"EOI", 3),
        b"ibag": bags,
        b"imod": bytes(10),
        b"igen": generators + bytes(4),
        b"shdr": struct.pack(sample, b"tone", 0, 1600, 320, 1280, RATE, 64, 0, 0, 1)
        + struct.pack(sample, b"noise", 1646, 4846, 1646, 4846, RATE, 60, 0, 0, 1)
        + struct.pack(sample, b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0),
    }
    body = b"sfbk" + chunk(b"LIST", b"sdta" + chunk(b"smpl", pcm))
    body += chunk(b"LIST", b"pdta" + b"".join(chunk(name, table) for name, table in tables.items()))
    path.write_bytes(chunk(b"RIFF", body))
    return path


def sound(path: Path, note: int = 60, seconds: float = 1.0, held_seconds: float = 1.0) -> np.ndarray:
    return render_note(SoundFont(path), 0, note, seconds=seconds, held_seconds=held_seconds, sample_rate=RATE)


def frequency(wave_: np.ndarray) -> float:
    """Strongest frequency in Hz, to a tenth of a bin."""
    spectrum = np.abs(np.fft.rfft(wave_ * np.hanning(len(wave_)), 16 * len(wave_)))
    return float(spectrum.argmax() * RATE / (16 * len(wave_)))


def rms(wave_: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(wave_, dtype=np.float64))))


def test_font_lists_presets_and_recordings(tmp_path):
    font = SoundFont(small_font(tmp_path / "toy.sf2"))
    assert font.presets() == {0: "Toy"}
    assert font.sample_names(0) == {"0 tone", "1 noise"}
    assert [voice.sample for voice in font.voices(0, 63, 90)] == ["0 tone"]
    assert [voice.sample for voice in font.voices(0, 64, 90)] == ["1 noise"]
    assert font.voices(0, 101, 90) == []


def test_zone_overrides_the_global_zone_which_fills_the_rest(tmp_path):
    font = SoundFont(small_font(tmp_path / "toy.sf2"))
    (tone,), (noise,) = font.voices(0, 60, 90), font.voices(0, 70, 90)
    assert tone.settings["fine_tune"] == 0 and noise.settings["fine_tune"] == 1200
    assert tone.root == 60 and tone.loop == (320, 1280) and len(tone.data) == 1600


@pytest.mark.parametrize(("note", "expected"), [(60, 500.0), (48, 250.0), (63, 500 * 2 ** (3 / 12))])
def test_note_sounds_at_its_pitch(tmp_path, note, expected):
    assert frequency(sound(small_font(tmp_path / "toy.sf2"), note)) == pytest.approx(expected, abs=0.1)


def test_untransposed_note_is_the_recording_itself(tmp_path):
    heard = sound(small_font(tmp_path / "toy.sf2"))
    expected = 20000 / 32768 * np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(heard[64:], expected[64:], atol=1e-4)


def test_loop_goes_on_and_no_loop_ends(tmp_path):
    assert rms(sound(small_font(tmp_path / "a.sf2"))[RATE // 2 :]) > 0.4
    assert rms(sound(small_font(tmp_path / "b.sf2", looped=False))[1700:]) == 0


def test_decay_is_straight_in_decibels(tmp_path):
    # 36: fall of 100 dB in 2 s (1200 timecents); 37: down to -100 dB
    heard = sound(small_font(tmp_path / "toy.sf2", zone={36: 1200, 37: 1000}))
    early, late = rms(heard[1600:3200]), rms(heard[9600:11200])
    assert 20 * np.log10(early / late) == pytest.approx(50 * 0.5, abs=0.3)


def test_release_starts_when_the_key_is_let_go(tmp_path):
    heard = sound(small_font(tmp_path / "toy.sf2"), held_seconds=0.5)
    assert rms(heard[6400:7680]) > 0.4 and rms(heard[8320:]) < 1e-4


def test_low_pass_takes_noise_and_leaves_a_low_tone(tmp_path):
    def filtered(cents: int) -> float:
        return rms(sound(small_font(tmp_path / f"{cents}.sf2", zone={8: cents})))

    # 500 Hz lies 7120 cents above 8.176 Hz: an octave below the cutoff it passes, two octaves above it loses 24 dB
    assert filtered(13500) == pytest.approx(0.4316, rel=0.01)
    assert 20 * np.log10(filtered(7120 + 1200) / filtered(13500)) == pytest.approx(0, abs=0.5)
    assert 20 * np.log10(filtered(7120 - 2400) / filtered(13500)) == pytest.approx(-24, abs=1)


def test_vibrato_moves_the_pitch(tmp_path):
    steady = small_font(tmp_path / "a.sf2")
    shaken = small_font(tmp_path / "b.sf2", zone={6: 100})
    assert np.abs(sound(steady) - sound(shaken))[2000:].max() > 0.3


def test_bad_fonts_and_programs_are_named(tmp_path):
    (tmp_path / "no.sf2").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    with pytest.raises(ValueError, match="must be a SoundFont 2 file"):
        SoundFont(tmp_path / "no.sf2")
    whole = small_font(tmp_path / "toy.sf2")
    (tmp_path / "cut.sf2").write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is the file cut off"):
        SoundFont(tmp_path / "cut.sf2")
    with pytest.raises(ValueError, match=r"no preset for program 5; it has \[0\]"):
        SoundFont(whole).voices(5, 60, 90)
    with pytest.raises(ValueError, match="sounds nothing at note 101"):
        sound(whole, 101)


# ---------------------------------------------------------------- building


@pytest.fixture
def toy_task(tmp_path, monkeypatch):
    """Writes an embedded task of n notes from a hand-made font, without any part fetched."""
    folder = tmp_path / "config" / "tasks"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    font = small_font(tmp_path / "toy.sf2")
    monkeypatch.setattr(download, "wheel_member", lambda **_: font)

    def prepare(notes=(55, 60, 70), levels=(-24, -30, -34), extra: str = "") -> str:
        lines = [f"test/n{note}.wav,x,test,g,0,{note},{level}" for note, level in zip(notes, levels, strict=False)]
        header = "path,label,split,group,program,note,level_db"
        (folder / "toy.csv").write_text("\n".join([header, *lines, ""]), encoding="utf-8")
        (folder / "toy.yaml").write_text(f"index: toy.csv\n{extra}\n", encoding="utf-8")
        return "toy"

    return prepare


def read(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, building.NOTE_RATE)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def stamp(folder: Path) -> dict:
    return json.loads((folder / building.STAMP).read_text(encoding="utf-8"))


def test_build_renders_what_the_index_lists(toy_task, tmp_path):
    name, out = toy_task(), tmp_path / "out"
    assert not is_built(name, out)
    build(name, out)
    assert is_built(name, out)
    assert sorted(path.name for path in out.rglob("*.wav")) == ["n55.wav", "n60.wav", "n70.wav"]
    assert not list(out.rglob("*.part"))
    for note, level in ((55, -24), (60, -30), (70, -34)):
        clip = read(out / f"test/n{note}.wav")
        assert len(clip) == building.NOTE_SECONDS * building.NOTE_RATE
        assert 20 * np.log10(rms(clip[: building.NOTE_RATE])) == pytest.approx(level, abs=0.5)


def test_two_builds_give_the_same_digest_and_other_rows_another(toy_task, tmp_path):
    name = toy_task()
    for folder in ("a", "b"):
        build(name, tmp_path / folder)
    assert stamp(tmp_path / "a") == stamp(tmp_path / "b")
    toy_task(notes=(55, 61, 70))
    build(name, tmp_path / "c")
    assert stamp(tmp_path / "a")["sha256"] != stamp(tmp_path / "c")["sha256"]


def test_only_missing_clips_are_rendered(toy_task, tmp_path, monkeypatch):
    name, out = toy_task(), tmp_path / "out"
    build(name, out)
    before = stamp(out)
    (out / "test/n60.wav").unlink()
    assert not is_built(name, out)
    written = []
    write = building._write_wave
    monkeypatch.setattr(building, "_write_wave", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    build(name, out)
    build(name, out)
    assert written == ["n60.wav"] and stamp(out) == before


def test_build_goes_on_where_it_was_interrupted(toy_task, tmp_path, monkeypatch):
    name, out = toy_task(), tmp_path / "out"
    write, written = building._write_wave, []

    def full_disk(path, *rest):
        if path.name == "n70.wav":
            raise OSError("no space left")
        written.append(path.name)
        write(path, *rest)

    monkeypatch.setattr(building.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(building, "_write_wave", full_disk)
    with pytest.raises(OSError, match="no space left"):
        build(name, out)
    assert written == ["n55.wav", "n60.wav"] and not is_built(name, out)
    written.clear()
    monkeypatch.setattr(building, "_write_wave", lambda path, *rest: (written.append(path.name), write(path, *rest)))
    build(name, out)
    assert written == ["n70.wav"] and is_built(name, out)


@pytest.mark.parametrize("damage", ["index", "revision", "stamp"])
def test_stale_clips_are_rendered_anew(toy_task, tmp_path, monkeypatch, damage):
    name, out = toy_task(), tmp_path / "out"
    build(name, out)
    (out / "test/n55.wav").write_bytes(b"stale")
    if damage == "index":
        toy_task(levels=(-25, -30, -34))
    elif damage == "revision":
        monkeypatch.setattr(building, "REVISION", building.REVISION + 1)
    else:
        (out / building.STAMP).write_text("{", encoding="utf-8")
    assert not is_built(name, out)
    build(name, out)
    assert len(read(out / "test/n55.wav")) == building.NOTE_SECONDS * building.NOTE_RATE


def test_other_sound_than_published_is_a_warning(toy_task, tmp_path, recwarn):
    name = toy_task(extra=f"expected: {{sha256: '{'0' * 64}'}}")
    with pytest.warns(UserWarning, match="toy: the rendered clips have digest .* expected 000000000000"):
        build(name, tmp_path / "a")
    toy_task(extra=f"expected: {{sha256: {stamp(tmp_path / 'a')['sha256']}}}")
    recwarn.clear()
    build(name, tmp_path / "b")
    assert not recwarn.list


@pytest.mark.parametrize("path", ["../x.wav", "/x.wav", "a/../../x.wav", "C:\\x.wav", ""])
def test_path_cannot_leave_the_folder(toy_task, tmp_path, path):
    name = toy_task()
    index = tmp_path / "config/tasks/toy.csv"
    index.write_text(index.read_text().replace("test/n60.wav", path), encoding="utf-8")
    with pytest.raises(ValueError, match=r"toy\.csv line 3: path must stay below the task's folder"):
        build(name, tmp_path / "out")


def test_index_without_recipe_is_named(toy_task, tmp_path):
    name = toy_task()
    (tmp_path / "config/tasks/toy.csv").write_text("path,label,split\na.wav,x,test\n", encoding="utf-8")
    with pytest.raises(ValueError, match="toy: the index of an embedded task needs a column program or voice"):
        build(name, tmp_path / "out")


def test_level_never_clips_and_silence_is_an_error():
    click = np.zeros(RATE)
    click[100] = 0.5
    assert np.abs(building._set_level(click, RATE, -20)).max() == pytest.approx(building.HIGHEST_PEAK)
    with pytest.raises(ValueError, match="silent"):
        building._set_level(np.zeros(RATE), RATE, -20)


def test_trimming_leaves_a_margin():
    padded = np.concatenate([np.zeros(9000), 0.1 * np.ones(500), np.zeros(4000)])
    assert len(building._trim(padded, RATE)) == 500 + 2 * building.MARGIN_SECONDS * RATE


# ---------------------------------------------------------------- speech


def test_speaker_without_library_is_named(tmp_path):
    with pytest.raises(OSError, match=r"espeak-ng-data in .* which are not there"):
        speech.Speaker(tmp_path)


def test_failing_library_costs_one_named_clip(tmp_path):
    (tmp_path / "espeak-ng-data").mkdir()
    (tmp_path / speech._LIBRARIES.get(speech.sys.platform, "libespeak-ng.so")).write_bytes(b"not a library")
    with pytest.raises(OSError, match=r"voice en-us\+f1, text 'yes': .*\(exit status 1\)"):
        speech.Speaker(tmp_path).say("yes", language="en-us", variant="f1", rate=160, pitch=50)


# ---------------------------------------------------------------- with the real parts


@pytest.fixture(scope="module")
def font() -> SoundFont:
    return SoundFont(_fetched(lambda: download.wheel_member(**building.FONT)))


@pytest.fixture(scope="module")
def speaker() -> speech.Speaker:
    return _fetched(speech.Speaker)


def _fetched(fetch):
    """A part that an earlier set-up step cached or installed; tests themselves go nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVAR_OFFLINE", "1")
        try:
            return fetch()
        except OSError as error:
            pytest.skip(f"a part of the embedded tasks is not cached: {error}")


def test_mixtures_sound_their_labels_with_presets_of_their_split():
    for row in draw.rows("gm_multi"):
        families, programs, notes = (row[name].split(";") for name in ("label", "programs", "notes"))
        assert 1 <= len(families) == len(set(families)) == len(programs) == len(set(notes)) <= 4
        for family, program in zip(families, programs, strict=True):
            assert int(program) in draw.FAMILY_PROGRAMS[family][row["split"]]


def test_a_mixture_holds_each_of_its_notes(font):
    rows = [row for row in draw.rows("gm_multi") if len(row["notes"].split(";")) == 2][:3]
    render = building._make_renderer("gm_multi", rows[0])
    for row in rows:
        sound, rate = render(row)
        alone = [render({**row, "programs": p, "notes": n, "gains_db": "0"})[0] for p, n in zip(
            row["programs"].split(";"), row["notes"].split(";"), strict=True)]  # fmt: skip
        parts, *_ = np.linalg.lstsq(np.stack(alone, axis=1), sound, rcond=None)
        assert rate == 44100 and (parts > 0.1).all()
        assert np.allclose(np.stack(alone, axis=1) @ parts, sound, atol=1e-6)


@pytest.mark.parametrize("name", ["gm_pitch", "gm_instrument"])
def test_no_recording_sounds_in_two_splits(font, name):
    heard = collections.defaultdict(set)
    for row in draw.rows(name):
        heard[row["split"], row["program"]] = font.sample_names(int(row["program"]))
    owners = collections.defaultdict(set)
    for (split, _), samples in heard.items():
        for sample in samples:
            owners[sample].add(split)
    assert not {sample: splits for sample, splits in owners.items() if len(splits) > 1}
    silent = [row["path"] for row in draw.rows(name) if not font.voices(int(row["program"]), int(row["note"]), 96)]
    assert not silent


def test_pianos_share_recordings_so_the_leak_check_can_fail(font):
    assert font.sample_names(0) & font.sample_names(1)


def find_pitches(clip: np.ndarray, frame: int = 2048, f_min: float = 50.0, f_max: float = 2500.0) -> np.ndarray:
    """The pitch of each frame of a clip in Hz, by YIN (de Cheveigne & Kawahara, JASA 111, 2002, steps 2 to 5).

    librosa's `yin` gives the same, but compiles for 20 s at its first use.
    """
    frames = np.lib.stride_tricks.sliding_window_view(clip.astype(float), frame)[:: frame // 4]
    half, low, high = frame // 2, int(RATE / f_max), int(np.ceil(RATE / f_min))
    spectra = np.fft.rfft(frames, 2 * frame), np.fft.rfft(frames[:, :half], 2 * frame)
    products = np.fft.irfft(spectra[0] * spectra[1].conj())[:, : high + 2]  # (frame, lag)
    energies = np.cumsum(np.pad(frames**2, ((0, 0), (1, 0))), axis=1)
    lags = np.arange(high + 2)
    differences = energies[:, half : half + 1] + energies[:, lags + half] - energies[:, lags] - 2 * products
    means = np.cumsum(differences[:, 1:], axis=1) / lags[1:]
    normalised = np.hstack([np.ones((len(frames), 1)), differences[:, 1:] / np.maximum(means, 1e-12)])
    pitches = []
    for one in normalised:
        dips = [lag for lag in range(low, high + 1) if one[lag - 1] >= one[lag] < one[lag + 1]]
        at = next((lag for lag in dips if one[lag] < 0.1), min(dips, key=lambda lag: one[lag], default=low))
        before, here, behind = one[at - 1 : at + 2]
        bend = before - 2 * here + behind
        pitches.append(RATE / (at + (before - behind) / (2 * bend) if bend > 0 else at))
    return np.array(pitches)


def test_rendered_pitch_is_the_label(font):
    for row in draw.rows("gm_pitch")[::41]:
        note = int(row["note"])
        clip = render_note(font, int(row["program"]), note, seconds=1.0, held_seconds=1.0, sample_rate=RATE)
        heard = find_pitches(clip[1600:])
        semitones = 69 + 12 * np.log2(np.median(heard) / 440) - note
        assert abs((semitones + 6) % 12 - 6) < 0.35, row["path"]


def test_speech_is_the_same_in_every_process(speaker):
    for variant, language, text in (("f5", "en-us", "seven"), ("travis", "pl", "347")):
        first, second = (speaker.say(text, language=language, variant=variant, rate=150, pitch=50) for _ in range(2))
        assert np.array_equal(first, second) and rms(first) > 0.001


def test_every_voice_and_language_is_known(speaker):
    said = {}
    for row in [*draw.rows("spoken_words"), *draw.rows("spoken_language")]:
        said.setdefault(("variant", row["voice"]), row)
        said.setdefault(("language", row["language"]), row)
    for row in said.values():
        clip = speaker.say(row["text"], language=row["language"], variant=row["voice"], rate=160, pitch=50)
        assert 0.1 < len(clip) / speech.SAMPLE_RATE < 5 and rms(clip) > 0.001 and np.abs(clip).max() < 0.999, row


def test_languages_sound_different(speaker):
    lengths = {
        language: len(speaker.say("347", language=language, variant="m3", rate=160, pitch=50))
        for language in draw.LANGUAGES.values()
    }
    assert len(set(lengths.values())) == len(draw.LANGUAGES)


def test_unknown_voice_is_named(speaker):
    with pytest.raises(OSError, match=r"the library has no voice 'xx\+f1' \(exit status 3\)"):
        speaker.say("yes", language="xx", variant="f1", rate=160, pitch=50)
