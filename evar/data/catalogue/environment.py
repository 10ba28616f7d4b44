"""Environmental sounds: ESC-50, UrbanSound8K, FSD50K, TUT 2018 and AudioSet, whose splits are in their own tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd

from evar.audio.folders import find_audio
from evar.config.messages import warn
from evar.config.registry import stays_below
from evar.config.tables import show_path
from evar.data.catalogue import find_folder, find_published_file, read_table
from evar.data.task_config import LABEL_SEPARATOR

AUDIOSET_LISTS = "http://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/"


def esc50(top: Path) -> pd.DataFrame:
    """ESC-50: `meta/esc50.csv` and `audio/*.wav`; five published folds, group = Freesound clip that it was cut from.

    Copies on Kaggle have the table at the top and the sounds in `audio/audio`.
    """
    path = find_published_file(
        top, "meta/esc50.csv", "it is in the archive of https://github.com/karoldvl/ESC-50", ("esc50.csv",)
    )
    table = read_table(path, ("filename", "fold", "category", "src_file"))
    audio = find_folder(top, ("audio", "audio/audio", "", "ESC-50-master/audio", "ESC-50/audio"), "*.wav")
    return pd.DataFrame(
        {
            "path": audio + table["filename"],
            "label": table["category"],
            "fold": table["fold"],
            "group": table["src_file"],
        }
    )


def urbansound8k(top: Path) -> pd.DataFrame:
    """UrbanSound8K: `metadata/UrbanSound8K.csv` and `audio/fold*/*.wav`; ten folds, group = Freesound recording.

    The copy on Kaggle has the table and `fold1` to `fold10` at the top.
    """
    path = find_published_file(
        top,
        "metadata/UrbanSound8K.csv",
        "it is in UrbanSound8K.tar.gz of zenodo.org/record/1203745",
        ("UrbanSound8K.csv", "UrbanSound8K/UrbanSound8K.csv"),
    )
    table = read_table(path, ("slice_file_name", "fsID", "fold", "class"))
    audio = find_folder(top, ("audio", "", "UrbanSound8K/audio", "UrbanSound8K"), "fold[0-9]*/*.wav")
    return pd.DataFrame(
        {
            "path": f"{audio}fold" + table["fold"] + "/" + table["slice_file_name"],
            "label": table["class"],
            "fold": table["fold"],
            "group": table["fsID"],
        }
    )


def fsd50k(top: Path) -> pd.DataFrame:
    """FSD50K: `FSD50K.ground_truth/{dev,eval}.csv`; group = uploader, where `FSD50K.metadata` is there, else the clip."""
    get_it = "it is in FSD50K.ground_truth.zip of zenodo.org/record/4060432"
    tables = []
    for part in ("dev", "eval"):
        path = find_published_file(
            top,
            f"FSD50K.ground_truth/{part}.csv",
            get_it,
            (f"labels/{part}.csv", f"ground_truth/{part}.csv", f"FSD50K/FSD50K.ground_truth/{part}.csv"),
        )
        table = read_table(path, ("fname", "labels", "split") if part == "dev" else ("fname", "labels"))
        split = table["split"].replace({"val": "valid"}) if part == "dev" else "test"
        uploader = _read_uploaders(top / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json")
        places = (
            f"FSD50K.{part}_audio",
            f"{part}_audio",
            f"clips/{part}",
            f"audio/{part}",
            f"FSD50K/FSD50K.{part}_audio",
            f"FSD50K.{part}_audio/FSD50K.{part}_audio",
        )
        audio = find_folder(top, places, "[0-9]*.wav")
        clips = pd.DataFrame({"path": audio + table["fname"] + ".wav", "split": split})
        clips["label"] = table["labels"].str.replace(",", LABEL_SEPARATOR, regex=False)
        clips["group"] = [uploader.get(name, name) for name in table["fname"]]
        tables.append(clips)
    return pd.concat(tables, ignore_index=True)


def fsdkaggle2018(top: Path) -> pd.DataFrame:
    """FSDKaggle2018: two tables of `FSDKaggle2018.meta`, published after the competition; group = Freesound's id."""
    tables = []
    for split, name in (("train", "train_post_competition.csv"), ("test", "test_post_competition_scoring_clips.csv")):
        path = find_published_file(
            top, f"FSDKaggle2018.meta/{name}", "it is in FSDKaggle2018.meta.zip of zenodo.org/record/2552860", (name,)
        )
        table = read_table(path, ("fname", "label", "freesound_id"))
        audio = find_folder(top, (f"FSDKaggle2018.audio_{split}", f"audio_{split}"), "*.wav")
        clips = pd.DataFrame({"path": audio + table["fname"], "label": table["label"], "split": split})
        tables.append(clips.assign(group=table["freesound_id"]))
    return pd.concat(tables, ignore_index=True)


def _read_uploaders(path: Path) -> dict[str, str]:
    """Clip -> who uploaded it; empty if the metadata is not there."""
    if not path.is_file():
        return {}
    try:
        return {name: str(entry["uploader"]) for name, entry in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} must hold an uploader for each clip, got {error!r}; is the download whole?"
        ) from error


def tut_scenes(top: Path) -> pd.DataFrame:
    """TUT Urban Acoustic Scenes 2018, development: the one published fold; group = city and location."""
    rows = []
    for split, name in (("train", "fold1_train.txt"), ("test", "fold1_evaluate.txt")):
        path = find_published_file(
            top, f"evaluation_setup/{name}", "it is in the archives of zenodo.org/record/1228142"
        )
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            clip, _, scene = line.strip().partition("\t")
            parts = clip.rpartition("/")[2].split("-")
            if not line.strip():
                continue
            if not scene or len(parts) != 5 or not stays_below(clip):
                raise ValueError(
                    f"{path} line {number}: expected 'audio/SCENE-CITY-LOCATION-SEGMENT-DEVICE.wav<tab>SCENE', got {line!r}"
                )
            rows.append((clip, scene.split("\t")[0].strip(), split, "-".join(parts[1:3])))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def audioset_balanced(top: Path) -> pd.DataFrame:
    """AudioSet-20k: trained on the balanced segments that you have, tested on the evaluation segments that you have."""
    return _list_segments(top, ("balanced_train_segments.csv",))


def audioset(top: Path) -> pd.DataFrame:
    """AudioSet: trained on balanced and unbalanced segments that you have."""
    return _list_segments(top, ("balanced_train_segments.csv", "unbalanced_train_segments.csv"))


def _list_segments(top: Path, training: tuple[str, ...]) -> pd.DataFrame:
    """List published segments whose sound is below `audio/`, named YTID or Y + YTID; their number is reported."""
    files: dict[str, str] = {}
    for path in (
        find_audio(top / "audio") if (top / "audio").is_dir() else ()
    ):  # downloaders write .json and .jpg beside
        file = Path(path)
        name = file.stem[1:] if len(file.stem) == 12 and file.stem.startswith("Y") else file.stem
        files.setdefault(name, show_path(file.relative_to(top).as_posix()))
    rows, said = [], []
    for names, split in ((training, "train"), (("eval_segments.csv",), "test")):
        n_listed = n_here = 0
        for name in names:
            table = find_published_file(top, name, f"get it from {AUDIOSET_LISTS}{name}")
            with table.open(encoding="utf-8") as lines:
                for number, row in enumerate(csv.reader(lines, skipinitialspace=True), start=1):
                    if not row or row[0].startswith("#"):
                        continue
                    if len(row) != 4:
                        raise ValueError(f"{path} line {number}: expected 'YTID, start, end, MID,MID', got {row}")
                    n_listed += 1
                    if row[0] in files:
                        n_here += 1
                        rows.append((files[row[0]], row[3].replace(",", LABEL_SEPARATOR), split, row[0]))
        said.append(f"{n_here:,} of {n_listed:,} {split} segments")
    warn(f"AudioSet: {' and '.join(said)} are in {top / 'audio'}")
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def musan(top: Path) -> pd.DataFrame:
    """MUSAN: your own `musan_split.csv` (path, split); label = first folder, group = musician where ANNOTATIONS tell one."""
    path = find_published_file(
        top,
        "musan_split.csv",
        "no split of MUSAN is published, so put your own there: a CSV with the columns path (such as "
        "music/fma/music-fma-0000.wav) and split (train, valid or test)",
    )
    table = read_table(path, ("path", "split"))
    kinds = table["path"].str.partition("/")[0]
    musicians: dict[str, str] = {}
    for file in sorted(top.glob("music/*/ANNOTATIONS")):
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            words = line.split(maxsplit=3)
            if len(words) == 4:
                musicians[words[0]] = f"{file.parent.name}: {words[3]}"
    stems = table["path"].str.rpartition("/")[2].str.rpartition(".")[0]
    groups = [musicians.get(stem, path) for stem, path in zip(stems, table["path"], strict=True)]
    return pd.DataFrame({"path": table["path"], "label": kinds, "split": table["split"], "group": groups})


def bird_detection(top: Path) -> pd.DataFrame:
    """Bird audio detection across data sets: trained on ff1010bird, tested on warblrb10k; label bird, or nothing."""
    tables = []
    for name, split in (("ff1010bird", "train"), ("warblrb10k", "test")):
        fetched = top / f"{name}_labels.csv"
        get_it = f"save the data set's table of itemid and hasbird as {name}/labels.csv"
        path = fetched if fetched.is_file() else find_published_file(top, f"{name}/labels.csv", get_it)
        table = read_table(path, ("itemid", "hasbird"))
        if not table["hasbird"].isin(("0", "1")).all():
            bad = table["hasbird"][~table["hasbird"].isin(("0", "1"))].iloc[0]
            raise ValueError(f"{path}: hasbird must be 0 or 1, got {bad!r}")
        label = table["hasbird"].map({"0": "", "1": "bird"})
        tables.append(pd.DataFrame({"path": f"{name}/wav/" + table["itemid"] + ".wav", "label": label, "split": split}))
    return pd.concat(tables, ignore_index=True)
