"""A training corpus as a file of fingerprints: copies are found, damage is named, and tables show scores on clean clips."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile
from toy import noise_with_bands

from evar import cli
from evar.cli import run
from evar.data.corpus_prints import SETTINGS, find_in_corpus, make_print, read_corpus_prints, write_corpus_prints
from evar.results import load_all, load_predictions

RATE = 16000


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A folder of eight sounds that differ, and one of copies: the same file, quieter, cut, and in other formats."""
    root = tmp_path_factory.mktemp("sounds")
    own, corpus = root / "own", root / "corpus" / "deeper"
    own.mkdir()
    corpus.mkdir(parents=True)
    waves = [noise_with_bands(seed) for seed in range(12)]
    for seed, wave in enumerate(waves[:8]):
        soundfile.write(own / f"{seed}.wav", wave, RATE)
    shutil.copy(own / "0.wav", corpus / "a.wav")
    soundfile.write(corpus / "b.wav", 0.1 * waves[1], RATE)
    soundfile.write(corpus / "c.wav", np.concatenate([waves[10], waves[2][RATE // 2 :]]), RATE)
    soundfile.write(corpus / "d.ogg", waves[3], RATE)
    soundfile.write(corpus / "e.mp3", waves[4], RATE)
    soundfile.write(corpus / "f.wav", waves[11], RATE)
    (corpus / "g.wav").write_bytes(b"no sound at all")
    (corpus / "h.txt").write_text("notes")
    return own, root / "corpus", write_corpus_prints(root / "corpus", root / "corpus.fp"), root / "corpus.fp"


def test_the_file_counts_what_it_holds_and_names_what_it_leaves_out(sounds):
    _, _, written, path = sounds
    assert written.n_sounds == len(list(read_corpus_prints(path))) == 6
    assert [name.rsplit("/", 1)[1] for name in written.bad] == ["g.wav"] and "1 .txt" in written.left_out
    assert written.n_bytes == path.stat().st_size
    assert b"deeper" not in path.read_bytes()  # no names


def test_every_copy_is_found_and_nothing_else(sounds):
    own, _, _, path = sounds
    clips = [make_print(own / f"{seed}.wav") for seed in range(8)]
    found = find_in_corpus(clips, read_corpus_prints(path))
    assert [(one.clip, one.sound) for one in found] == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert [one.is_identical for one in found] == [True, False, False, False, False]
    assert found[2].offset_seconds == pytest.approx(0.5 - 3.0, abs=0.05)  # the cut copy begins after another sound
    assert all(one.bit_errors < 0.2 for one in found)


def test_blocks_change_nothing(sounds, tmp_path, monkeypatch):
    _, corpus, _, path = sounds
    monkeypatch.setattr("evar.data.corpus_prints._BLOCK_SOUNDS", 2)
    write_corpus_prints(corpus, tmp_path / "small.fp")
    for one, other in zip(read_corpus_prints(tmp_path / "small.fp"), read_corpus_prints(path), strict=True):
        assert one.content == other.content
        np.testing.assert_array_equal(one.words, other.words)
        np.testing.assert_array_equal(one.is_sound, other.is_sound)


def test_silence_is_found_nowhere(tmp_path):
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(RATE if name == "a" else 2 * RATE), RATE)
    write_corpus_prints(tmp_path, tmp_path / "silence.fp")
    clip = make_print(tmp_path / "a.wav")
    (found,) = find_in_corpus([clip], read_corpus_prints(tmp_path / "silence.fp"))
    assert found.is_identical  # the file itself; the longer silence is no copy


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"RIFF" + data[4:], "another beginning"),
        (lambda data: data.replace(b"5000", b"8000", 1), "make it again"),
        (lambda data: data[:-30], "cut"),
        (lambda data: data[:-200] + bytes([data[-200] ^ 1]) + data[-199:], "check sum"),
        (lambda data: data[: data.index(b"\n", 25) + 1] + b"\xff" * 8 + data[200:], "damaged"),
        (lambda data: data[:-8] + b"\x07" + data[-7:], "7 sounds"),
    ],
)
def test_damage_is_named(sounds, tmp_path, damage, message):
    data = sounds[3].read_bytes()
    assert str(SETTINGS["rate"]).encode() in data
    (tmp_path / "bad.fp").write_bytes(damage(data))
    with pytest.raises(ValueError, match=message):
        list(read_corpus_prints(tmp_path / "bad.fp"))


def test_a_folder_without_sound_is_refused_and_leaves_no_file(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match="found none"):
        write_corpus_prints(tmp_path, tmp_path / "corpus.fp")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.wav"]


def test_tables_show_scores_on_clean_clips(tones, capsys):
    root = tones()
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (row,) = load_all(root / "results")
    predictions = load_predictions(root / "results", row.id)
    (root / "corpus").mkdir()
    copied = sorted(predictions["clip"].tolist())[:3]
    for number, name in enumerate(copied):
        (file,) = (root / "data").rglob(name.rsplit("/", 1)[-1])
        shutil.copy(file, root / "corpus" / f"{number}{file.suffix}")
    assert run(["fingerprint", str(root / "corpus"), "-o", str(root / "corpus.fp")]) == cli.DONE
    words = ["verify", "tones", f"--against={root / 'corpus.fp'}", f"--out={root / 'results'}"]
    assert run(words) == cli.DONE
    assert "clips also occur in" in capsys.readouterr().out
    assert run(["compare", f"--out={root / 'results'}"]) == cli.DONE
    header, line = (root / "results" / "clean.csv").read_text().splitlines()
    cells = dict(zip(header.split(","), line.split(","), strict=True))
    assert int(cells["n_test"]) == row.n_test and int(cells["n_contaminated"]) >= 3
    is_clean = ~np.isin(predictions["clip"], list(_contaminated(root)))
    right = predictions["y_true"] == predictions["y_pred"]
    rounds = predictions["round"]
    by_hand = np.mean([right[is_clean & (rounds == one)].mean() for one in np.unique(rounds)])
    assert float(cells["clean_score"]) == pytest.approx(by_hand)
    assert "Scores without contaminated test clips" in (root / "results" / "clean.md").read_text()


def _contaminated(root):
    from evar.results.contamination import load_contaminations

    (record,) = load_contaminations(root / "results")
    return record.clips
