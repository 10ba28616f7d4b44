"""Voices: VocalSound, RAVDESS, EmoDB, IEMOCAP, Fluent Speech Commands and ASVspoof 2019; speakers are kept apart."""

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
#: the same rule for the ten speakers of EmoDB
EMODB_VALID, EMODB_TEST = frozenset(("10", "14")), frozenset(("03", "12"))
#: letter of a name of EmoDB (of the German word) -> emotion
EMODB_EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "fear",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
#: emotions of IEMOCAP that count, as 5,531 utterances of the usual four classes
IEMOCAP_EMOTIONS = {"ang": "anger", "hap": "happiness", "exc": "happiness", "neu": "neutral", "sad": "sadness"}
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


def emodb(top: Path) -> pd.DataFrame:
    """EmoDB: `wav/SSTTTEV.wav`: speaker (two digits), text, letter of the emotion, version; group = speaker."""
    audio = find_folder(top, ("wav", "", "emodb/wav", "download/wav"), "[01][0-9]*.wav")
    rows = []
    for file in sorted((top / audio).glob("*.wav")):
        if is_hidden(file.name):
            continue
        match = re.fullmatch(r"(\d\d)([ab]\d\d)([WLEAFTN])[a-z]?", file.stem)
        if match is None:
            raise ValueError(f"{file}: expected a name like 03a01Fa.wav, got {file.name!r}")
        split = "valid" if match[1] in EMODB_VALID else "test" if match[1] in EMODB_TEST else "train"
        rows.append((f"{audio}{file.name}", EMODB_EMOTIONS[match[3]], split, match[1]))
    if not rows:
        raise FileNotFoundError(
            f"no clip such as {top / 'wav' / '03a01Fa.wav'}; unpack download.zip of emodb.bilderbar.info there; it holds "
            f"{list_names(top)}"
        )
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def iemocap(top: Path) -> pd.DataFrame:
    """IEMOCAP: `SessionN/dialog/EmoEvaluation/DIALOG.txt` and `SessionN/sentences/wav/DIALOG/UTTERANCE.wav`; fold = session.

    Group = speaker, of whom each session has two of its own.
    """
    rows = []
    for number in range(1, 6):
        told = sorted((top / f"Session{number}" / "dialog" / "EmoEvaluation").glob("Ses*.txt"))
        if not told:
            raise FileNotFoundError(
                f"no table such as {top / f'Session{number}/dialog/EmoEvaluation'}/Ses0{number}F_impro01.txt; unpack "
                f"IEMOCAP_full_release there; {top} holds {list_names(top)}"
            )
        for path in told:
            if is_hidden(path.name):
                continue
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                cells = line.split("\t")
                if not line.startswith("[") or len(cells) < 3 or cells[2] not in IEMOCAP_EMOTIONS:
                    continue
                utterance = cells[1].strip()
                match = re.fullmatch(r"(Ses\d\d)[FM]_\w+_([FM])\d+", utterance)
                if match is None:
                    raise ValueError(f"{path}: expected an utterance such as Ses01F_impro01_F000, got {utterance!r}")
                clip = f"Session{number}/sentences/wav/{path.stem}/{utterance}.wav"
                rows.append((clip, IEMOCAP_EMOTIONS[cells[2]], str(number), match[1] + match[2]))
    return pd.DataFrame(rows, columns=["path", "label", "fold", "group"])
