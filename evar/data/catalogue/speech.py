"""Speech: Speech Commands, VoxCeleb1, VoxForge and CREMA-D."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.config.messages import warn
from evar.data.catalogue import find_folder, find_published_file, list_names, read_lines, read_table
from evar.data.pairs import read_pairs

IDEN_SPLIT = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt"
VERI_TEST = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/veri_test2.txt"
#: of the reference protocol; the other actors are for training
CREMAD_VALID = frozenset(("1009", "1011", "1022", "1034", "1039", "1047", "1066", "1070", "1082"))
CREMAD_TEST = frozenset(
    (
        *("1001", "1004", "1017", "1019", "1020", "1025", "1026", "1029", "1033", "1035"),
        *("1042", "1044", "1050", "1053", "1056", "1058", "1060", "1069", "1083"),
    )
)
#: in no split: left out by the reference, as by TFDS; clones from before October 2022 have one name with a single X
CREMAD_LEFT_OUT = frozenset(
    ("1040_ITH_SAD_XX", "1006_TIE_NEU_XX", "1013_WSI_DIS_XX", "1017_IWW_FEA_XX", "1040_ITH_SAD_X")
)


def speech_commands(top: Path) -> pd.DataFrame:
    """Speech Commands: `WORD/HASH_nohash_N.wav`; what neither list names is for training; group = speaker's hash."""
    split_of: dict[str, str] = {}
    for split, name in (("valid", "validation_list.txt"), ("test", "testing_list.txt")):
        path = find_published_file(
            top, name, "it is in speech_commands_v0.02.tar.gz (v0.01: v0.01.tar.gz)", (f"train/{name}",)
        )
        split_of |= dict.fromkeys(read_lines(path, "bed/0c40e715_nohash_0.wav"), split)
    audio = _find_words(top)
    files = (top / audio).glob("[a-z]*/*.wav")
    clips = {f"{file.parent.name}/{file.name}" for file in files if not is_hidden(file.name)} | set(split_of)
    paths = sorted(clips)
    return pd.DataFrame(
        {
            "path": [audio + path for path in paths],
            "label": [path.split("/")[0] for path in paths],
            "split": [split_of.get(path, "train") for path in paths],
            "group": [path.split("/")[-1].partition("_nohash_")[0] for path in paths],
        }
    )


def _find_words(top: Path) -> str:
    """Find the folders of words: Kaggle's challenge has them in `train/audio`, torchaudio in a folder of its own."""
    places = ("", "audio", "train/audio", "train", "speech_commands_v0.02", "speech_commands_v0.01")
    return find_folder(top, (*places, *(f"SpeechCommands/{place}" for place in places[4:])), "[a-z]*/*_nohash_*.wav")


def librispeech_speaker(top: Path) -> pd.DataFrame:
    """LibriSpeech: who reads; `train-clean-100/SPEAKER/CHAPTER/UTTERANCE.flac` and two lists of utterances.

    The lists name the same speakers; what must not be in both is an utterance, which is its own group. Source: van den
    Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), section 3.1.
    """
    rows = []
    for split, name in (("train", "train_split.txt"), ("test", "test_split.txt")):
        path = find_published_file(top, name, f"it is not in the archive: get CPC's {name} and put it there")
        for number, line in enumerate(read_lines(path, "103-1240-0000"), start=1):
            parts = line.split("-")
            if len(parts) != 3 or not all(part.isdecimal() for part in parts):
                raise ValueError(f"{path} line {number}: expected an utterance such as 103-1240-0000, got {line!r}")
            rows.append((f"train-clean-100/{parts[0]}/{parts[1]}/{line}.flac", parts[0], split))
    return pd.DataFrame(rows, columns=["path", "label", "split"])


def librispeech_gender(top: Path) -> pd.DataFrame:
    """LibriSpeech: a woman or a man, by `SPEAKERS.TXT`; train-clean-100, dev-clean and test-clean; group = reader."""
    path = find_published_file(top, "SPEAKERS.TXT", "it is in every archive of openslr.org/resources/12")
    gender = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if not line.startswith(";") and len(cells) > 2 and cells[1] in ("F", "M"):
            gender[cells[0]] = {"F": "female", "M": "male"}[cells[1]]
    rows = []
    for split, part in (("train", "train-clean-100"), ("valid", "dev-clean"), ("test", "test-clean")):
        files = sorted((top / part).glob("*/*/*.flac"))
        if not files:
            raise FileNotFoundError(
                f"no clip in {top / part}; unpack {part}.tar.gz of openslr.org/resources/12 there; {top} holds "
                f"{list_names(top)}"
            )
        for file in files:
            reader = file.relative_to(top / part).parts[0]
            if reader not in gender:
                raise ValueError(f"{path} does not tell the gender of reader {reader}, who reads {file}; is it whole?")
            rows.append((file.relative_to(top).as_posix(), gender[reader], split, reader))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def voxceleb1(top: Path) -> pd.DataFrame:
    """VoxCeleb1: `wav/SPEAKER/VIDEO/N.wav` of both archives and `iden_split.txt`; group = the speaker's video."""
    path = find_published_file(
        top, "iden_split.txt", f"it is not in the archives: get it from {IDEN_SPLIT} and put it there"
    )
    rows = []
    for number, line in enumerate(read_lines(path, "1 id10001/1zcIwhmdeo4/00001.wav"), start=1):
        split, _, clip = line.partition(" ")
        if split not in ("1", "2", "3") or clip.count("/") != 2:
            raise ValueError(f"{path} line {number}: expected '<1|2|3> speaker/video/file.wav', got {line!r}")
        speaker, video, _ = clip.split("/")
        rows.append((f"wav/{clip}", speaker, ("train", "valid", "test")[int(split) - 1], f"{speaker}/{video}"))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def voxceleb1_o(top: Path) -> pd.DataFrame:
    """VoxCeleb1-O: the clips of the published pairs in `veri_test2.txt` are tested; other speakers' clips are for training.

    These are all clips in `wav/` of speakers that no pair names, as the development part has them. Where there are none, as
    with the test archive alone, nothing is fitted. Group = the speaker's video.
    """
    pairs = read_pairs(
        find_published_file(
            top,
            "veri_test2.txt",
            f"it is not in the archives: get it from {VERI_TEST} and put it there",
            ("wav/veri_test2.txt",),
        )
    )
    tested = sorted({clip for one, other, _ in pairs for clip in (one, other)})
    speakers = {clip.split("/")[0] for clip in tested}
    others = sorted(
        file.relative_to(top / "wav").as_posix()
        for file in (top / "wav").glob("id*/*/*.wav")
        if file.parent.parent.name not in speakers and not is_hidden(file.name)
    )
    clips = [(clip, "test") for clip in tested] + [(clip, "train") for clip in others]
    return pd.DataFrame(
        {
            "path": [f"wav/{clip}" for clip, _ in clips],
            "label": [clip.split("/")[0] for clip, _ in clips],
            "split": [split for _, split in clips],
            "group": ["/".join(clip.split("/")[:2]) for clip, _ in clips],
        }
    )


def voxforge(top: Path) -> pd.DataFrame:
    """VoxForge: your own `voxforge_split.csv` (path, split); label = letters before /Trunk, group = submission."""
    path = find_published_file(
        top,
        "voxforge_split.csv",
        "no split of VoxForge is published that can be had exactly, so put your own there: a CSV with the columns path "
        "(of a wav, below that folder) and split (train, valid or test)",
    )
    table = read_table(path, ("path", "split"))
    label = table["path"].str.extract(r"(?:^|/)([a-z]{2})/Trunk/")[0]
    if label.isna().any():
        row = int(label.isna().to_numpy().argmax())
        raise ValueError(
            f"{path} line {row + 2}: path must hold the language as in de/Trunk/.../NAME/wav/1.wav, "
            f"got {table['path'].iloc[row]!r}"
        )
    group = table["path"].str.replace(r"(/wav)?/[^/]*$", "", regex=True)
    return pd.DataFrame({"path": table["path"], "label": label, "split": table["split"], "group": group})


def cremad(top: Path) -> pd.DataFrame:
    """CREMA-D: `AudioWAV/ACTOR_SENTENCE_EMOTION_LEVEL.wav`; the reference's split by actor; group = actor."""
    audio = find_folder(
        top, ("AudioWAV", "", "cremad/AudioWAV", "crema-d/AudioWAV", "CREMA-D/AudioWAV"), "1*_*_*_*.wav"
    )
    rows: list[tuple[str, str, str, str]] = []
    odd: list[str] = []
    for file in sorted((top / audio).glob("*.wav")):
        if is_hidden(file.name) or file.stem in CREMAD_LEFT_OUT:
            continue
        if not re.fullmatch(r"\d{4}_[A-Z]{3}_[A-Z]{3}_[A-Z]{2}", file.stem):
            odd.append(file.name)
            continue
        if not rows and file.open("rb").read(7) == b"version":
            raise ValueError(f"{file} is a Git LFS pointer and no sound; run `git lfs pull` in the checkout")
        actor, _, emotion, _ = file.stem.split("_")
        split = "valid" if actor in CREMAD_VALID else "test" if actor in CREMAD_TEST else "train"
        rows.append((f"{audio}{file.name}", emotion, split, actor))
    if odd and len(odd) >= len(rows):
        raise ValueError(f"{top / audio / odd[0]}: expected a name like 1001_DFA_ANG_XX.wav, got {odd[0]!r}")
    if odd:
        warn(f"CREMA-D: {len(odd)} files have other names and are left out: {', '.join(odd[:3])}")
    if not rows:
        raise FileNotFoundError(
            f"no clip under {top / 'AudioWAV'}; clone CheyneyComputerScience/CREMA-D with Git LFS; "
            f"{top} holds {list_names(top)}"
        )
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])
