"""Music: GTZAN, FMA, NSynth and the Surge synthesiser's pitches."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.config.registry import stays_below
from evar.data.catalogue import find_folder, find_published_file, read_lines, read_table

GTZAN_LISTS = "https://github.com/jongpillee/music_dataset_split/tree/07e8557/GTZAN_split"


def gtzan(top: Path) -> pd.DataFrame:
    """GTZAN: `GENRE/GENRE.NNNNN.wav` (or .au) and the three fault-filtered lists; artists are not known.

    The copy on Kaggle has the genres in `Data/genres_original`, beside pictures in folders of the same names.
    """
    rows = []
    for split in ("train", "valid", "test"):
        name = f"{split}_filtered.txt"
        path = find_published_file(top, name, f"it is not in the archive: get it from {GTZAN_LISTS} and put it there")
        rows += [(line, line.split("/")[0], split) for line in read_lines(path, "blues/blues.00029.wav")]
    index = pd.DataFrame(rows, columns=["path", "label", "split"])
    places = ("", "genres", "genres_original", "Data/genres_original", "GTZAN/Data/genres_original", "Data/genres")
    wav, au = (find_folder(top, places, f"blues/*.{ending}") for ending in ("wav", "au"))
    has_wav = any(True for _ in (top / wav).glob("*/*.wav"))
    if not has_wav and any(True for _ in (top / au).glob("*/*.au")):
        index["path"] = index["path"].str.replace(r"\.wav$", ".au", regex=True)
        wav = au
    index["path"] = wav + index["path"]
    return index


def fma_small(top: Path) -> pd.DataFrame:
    """FMA small: `fma_metadata/tracks.csv`, whose header has three lines, and `fma_small/NNN/NNNNNN.mp3`; group = artist."""
    path = find_published_file(
        top, "fma_metadata/tracks.csv", "it is in fma_metadata.zip of github.com/mdeff/fma", ("tracks.csv",)
    )
    with path.open(encoding="utf-8", newline="") as file:
        lines = csv.reader(file)
        heads = list(zip(*(next(lines, []) for _ in range(2)), strict=False))
        wanted = (("artist", "id"), ("set", "split"), ("set", "subset"), ("track", "genre_top"))
        missing = [head for head in wanted if head not in heads]
        if missing:
            raise ValueError(
                f"{path} lacks the column {' '.join(missing[0])!r}; is it fma_metadata/tracks.csv, and whole?"
            )
        artist, split, subset, genre = (heads.index(head) for head in wanted)
        rows = []
        for cells in lines:
            if len(cells) <= max(artist, split, subset, genre) or cells[subset] != "small":
                continue
            if not cells[0].isdecimal():
                raise ValueError(f"{path} line {lines.line_num}: expected the number of a track, got {cells[0]!r}")
            track, part = (
                f"{int(cells[0]):06d}",
                {"training": "train", "validation": "valid"}.get(cells[split], cells[split]),
            )
            rows.append((f"{track[:3]}/{track}.mp3", cells[genre], part, cells[artist]))
    index = pd.DataFrame(rows, columns=["path", "label", "split", "group"])
    index["path"] = find_folder(top, ("fma_small", "", "audio"), "[0-9][0-9][0-9]/*.mp3") + index["path"]
    return index


def nsynth(top: Path) -> pd.DataFrame:
    """NSynth: `nsynth-SPLIT/examples.json` and `nsynth-SPLIT/audio/NOTE.wav`; group = instrument."""
    rows = []
    for split in ("train", "valid", "test"):
        path = find_published_file(
            top, f"nsynth-{split}/examples.json", f"it is in nsynth-{split}.jsonwav.tar.gz of magenta.tensorflow.org"
        )
        try:
            notes = json.loads(path.read_text(encoding="utf-8"))
            for note, facts in notes.items():
                label, instrument = facts["instrument_family_str"], note.partition("-")[0]
                rows.append((f"nsynth-{split}/audio/{note}.wav", label, split, instrument))
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: expected notes with instrument_family_str ({error}); is it whole?") from error
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def surge(top: Path) -> pd.DataFrame:
    """Surge: `TONE/NOTE.ogg` and your own `surge_split.csv` (tone, split); label = note, group = tone."""
    path = find_published_file(
        top,
        "surge_split.csv",
        "the reference's list of tones is not part of zenodo.org/record/4677097, so put your own there: a CSV with the "
        "columns tone (a folder of notes, below that folder) and split (train, valid or test)",
    )
    rows = []
    table = read_table(path, ("tone", "split"))
    for number, (tone, split) in enumerate(zip(table["tone"], table["split"], strict=True), start=2):
        if not stays_below(tone):
            raise ValueError(f"{path} line {number}: tone must stay below the data set's folder, got {tone!r}")
        notes = sorted(file for file in (top / tone).glob("*.ogg") if not is_hidden(file.name))
        if not notes:
            raise FileNotFoundError(
                f"{path} line {number}: no note (NOTE.ogg) under {top / tone}; is the archive whole?"
            )
        rows += [(f"{tone}/{file.name}", file.stem.lstrip("0"), split, tone) for file in notes]
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])
