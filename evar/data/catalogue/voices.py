"""Voices: VocalSound, RAVDESS, Fluent Speech Commands and ASVspoof 2019, whose splits keep speakers apart."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.config.messages import warn
from evar.data.catalogue import find_folder, find_published_file, list_names, read_columns, require_below

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
#: SERAB's rule for 24 actors: names sorted, shuffled by numpy's RandomState(0), cut at 60 and 80 %
RAVDESS_VALID = frozenset(("06", "08", "10", "19", "20"))
RAVDESS_TEST = frozenset(("01", "04", "13", "16", "22"))
FLUENT = "it is in the archive of fluent.ai (Fluent Speech Commands)"
ASVSPOOF = "it is in LA.zip of datashare.ed.ac.uk/handle/10283/3336"


def vocalsound(top: Path) -> pd.DataFrame:
    """VocalSound: `audio_16k/SPEAKER_N_SOUND.wav` (or audio_44k) and the speakers' lists `meta/{tr,val,te}_meta.csv`."""
    split_of: dict[str, str] = {}
    for split, part in (("train", "tr"), ("valid", "val"), ("test", "te")):
        path = find_published_file(top, f"meta/{part}_meta.csv", "it is in the zip of github.com/YuanGongND/vocalsound")
        found = [line.split(",")[0].strip().strip('"') for line in path.read_text(encoding="utf-8-sig").splitlines()]
        speakers = [name for name in found if re.fullmatch(r"[fm]\d+", name)]
        if not speakers:
            raise ValueError(f"{path}: expected speakers such as f0003 in the first column, got {found[:3]}")
        for speaker in speakers:
            if split_of.setdefault(speaker, split) != split:
                raise ValueError(f"{path}: speaker {speaker} is in {split_of[speaker]} too; is the download whole?")
    audio = find_folder(
        top, ("audio_16k", "audio_44k", "data_16k", "data_44k", ""), "[fm]*_*.wav", "unpack the zip there"
    )
    rows, strangers = [], []
    for file in sorted((top / audio).glob("*.wav")):
        match = re.fullmatch(r"([fm]\d+)_\d+_([a-z]+)", file.stem)
        if is_hidden(file.name):
            continue
        if match is None or match[1] not in split_of:
            strangers.append(file.name)
            continue
        rows.append((f"{audio}{file.name}", match[2], split_of[match[1]], match[1]))
    if strangers:
        warn(
            f"VocalSound: {len(strangers)} files are of no listed speaker and are left out: {', '.join(strangers[:3])}"
        )
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def ravdess(top: Path) -> pd.DataFrame:
    """RAVDESS, speech: `Actor_NN/MM-VC-EE-II-SS-RR-AA.wav`; label = third field, split by actor, group = actor."""
    audio = find_folder(top, ("", "audio_speech_actors_01-24", "Audio_Speech_Actors_01-24", "ravdess"), "Actor_*/*.wav")
    rows = []
    for file in sorted((top / audio).glob("Actor_*/*.wav")):
        if is_hidden(file.name):
            continue
        fields = file.stem.split("-")
        if (
            len(fields) != 7
            or not all(re.fullmatch(r"\d\d", field) for field in fields)
            or not 1 <= int(fields[2]) <= 8
        ):
            raise ValueError(f"{file}: expected a name like 03-01-05-01-02-01-12.wav, got {file.name!r}")
        if fields[:2] != ["03", "01"]:  # songs and films, where somebody has put them there
            continue
        actor = fields[6]
        split = "valid" if actor in RAVDESS_VALID else "test" if actor in RAVDESS_TEST else "train"
        path = f"{audio}{file.parent.name}/{file.name}"
        rows.append((path, EMOTIONS[int(fields[2]) - 1], split, actor))
    if not rows:
        raise FileNotFoundError(
            f"no clip such as {top / 'Actor_01' / '03-01-01-01-01-01-01.wav'}; unpack Audio_Speech_Actors_01-24.zip of "
            f"zenodo.org/record/1188976 there; it holds {list_names(top)}"
        )
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def fluent_speech_commands(top: Path) -> pd.DataFrame:
    """Fluent Speech Commands: `data/{train,valid,test}_data.csv`; label = action, object and location; group = speaker."""
    tables = []
    for split in ("train", "valid", "test"):
        path = find_published_file(top, f"data/{split}_data.csv", FLUENT, (f"{split}_data.csv",))
        rows = read_columns(path, ("path", "speakerId", "action", "object", "location"))
        require_below(path, (row["path"] for row in rows))
        tables.append(
            pd.DataFrame(
                {
                    "path": [row["path"] for row in rows],
                    "label": [f"{row['action']} {row['object']} {row['location']}" for row in rows],
                    "split": split,
                    "group": [row["speakerId"] for row in rows],
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def asvspoof2019_la(top: Path) -> pd.DataFrame:
    """ASVspoof 2019, logical access: three protocol files; label bonafide, or nothing for a spoof; group = speaker."""
    rows = []
    for split, part, ending in (("train", "train", "trn"), ("valid", "dev", "trl"), ("test", "eval", "trl")):
        name = f"ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{part}.{ending}.txt"
        path = find_published_file(top, name, ASVSPOOF)
        audio = find_folder(top, (f"ASVspoof2019_LA_{part}/flac", f"LA/ASVspoof2019_LA_{part}/flac"), "LA_*.flac")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            if len(words) != 5 or words[4] not in ("bonafide", "spoof") or not re.fullmatch(r"\w+", words[1]):
                raise ValueError(
                    f"{path} line {number}: expected 'SPEAKER CLIP - ATTACK bonafide|spoof', as in 'LA_0079 LA_T_1138215 - "
                    f"- bonafide', got {line!r}"
                )
            rows.append((f"{audio}{words[1]}.flac", words[4].replace("spoof", ""), split, words[0]))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])
