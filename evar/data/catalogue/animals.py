"""Animals: the classification sets of BEANS, and a set of BirdSet.

BEANS publishes no lists of clips but the recipe that draws them, with its seed. Tables that its own scripts wrote are read
where they are there; otherwise its recipe is followed. Source: https://github.com/earthspecies/beans (scripts), Hagiwara et
al., "BEANS: The Benchmark of Animal Sounds", ICASSP 2023.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evar.audio.folders import find_audio
from evar.config.tables import show_path
from evar.data.catalogue import find_folder, find_published_file, read_columns, require_below
from evar.data.catalogue.regrouping import fold_by_group
from evar.data.task_config import LABEL_SEPARATOR

SPLITS = ("train", "valid", "test")
#: species of HumBugDB with more than 100 clips; BEANS calls all others "others"
HUMBUG_SPECIES = frozenset(
    (
        *("an arabiensis", "an gambiae ss", "an funestus ss", "an squamosus", "an dirus", "an harrisoni"),
        *("an maculatus", "an funestus sl", "culex quinquefasciatus", "culex pipiens complex", "ma uniformis"),
        "ae aegypti",
    )
)
HUMBUG_TABLE = "neurips_2021_zenodo_0_0_1.csv"


def draw_as_beans(labels: Sequence[Any]) -> list[str]:
    """Draw the split of BEANS: 60, 20 and 20 % of the rows of a table, stratified, with its seed 42.

    Args:
        labels: of the rows, in the order of the published table.

    Returns:
        train, valid or test for each row.

    Raises:
        ValueError: if a label has too few rows.

    Source: scripts/watkins.py and others of https://github.com/earthspecies/beans, which call scikit-learn's
        train_test_split twice.

    Example:
        >>> sizes = draw_as_beans(["seal", "whale"] * 10)
        >>> [sizes.count(split) for split in SPLITS]
        [12, 4, 4]
    """
    from sklearn.model_selection import train_test_split

    rows, told = np.arange(len(labels)), np.asarray(labels)
    _, others = train_test_split(rows, test_size=0.4, random_state=42, shuffle=True, stratify=told)
    valid, test = train_test_split(others, test_size=0.5, random_state=42, shuffle=True, stratify=told[others])
    split = np.full(len(labels), "train", object)
    split[valid], split[test] = "valid", "test"
    return list(split)


def watkins(top: Path) -> pd.DataFrame:
    """Watkins marine mammals: `annotations.csv` (path, species); group = tape, the first five characters of a name."""
    rows = _read_table(top, "annotations.csv", ("path", "species"), "watkins.zip of archive.org/details/watkins_202104")
    # BEANS leaves out the species with two clips.
    table = pd.DataFrame([(row["path"], row["species"]) for row in rows if row["species"] != "Weddell_Seal"])
    index = _split_as_beans(top, table.set_axis(["path", "label"], axis=1), "watkins/")
    index["group"] = [_name_tape(path) for path in index["path"]]
    return index


def watkins_grouped(top: Path) -> pd.DataFrame:
    """The same clips in five folds by tape."""
    return _fold(watkins(top))


def _name_tape(path: str) -> str:
    """Return the tape of a cut of the Watkins collection: names are two digits of the year, three of the tape, the cut."""
    stem = path.rpartition("/")[2].partition(".")[0]
    return stem[:5] if re.fullmatch(r"\d{5}[0-9A-Za-z]{3}", stem) else path


def bats(top: Path) -> pd.DataFrame:
    """Egyptian fruit bats: `annotations.csv` (File Name, Emitter) and `audio/*.wav`; which bat calls."""
    get_it = "egyptian_fruit_bats.zip of archive.org/details/egyptian_fruit_bats_10k"
    rows = _read_table(top, "annotations.csv", ("File Name", "Emitter"), get_it)
    audio = find_folder(top, ("audio", "", "egyptian_fruit_bats/audio"), "*.wav")
    table = pd.DataFrame(
        {"path": [audio + row["File Name"] for row in rows], "label": [row["Emitter"] for row in rows]}
    )
    return _split_as_beans(top, table, "egyptian_fruit_bats/")


def dogs(top: Path) -> pd.DataFrame:
    """Dog barks: `annotations.csv` (filename, name) and `audio/`; which of ten dogs barks."""
    get_it = "dog_barks.zip of archive.org/details/dog_barks"
    rows = _read_table(top, "annotations.csv", ("filename", "name"), get_it)
    audio = find_folder(top, ("audio", "", "dog_barks/audio"), "*.*")
    table = pd.DataFrame({"path": [audio + row["filename"] for row in rows], "label": [row["name"] for row in rows]})
    return _split_as_beans(top, table, "dogs/")


def humbugdb(top: Path) -> pd.DataFrame:
    """HumBugDB: its repository's metadata and `ID.wav` of four archives; group = name, the recording it was cut from."""
    get_it = "it is in data/metadata of github.com/HumBug-Mosquito/HumBugDB"
    path = find_published_file(top, f"data/metadata/{HUMBUG_TABLE}", get_it, (f"metadata/{HUMBUG_TABLE}", HUMBUG_TABLE))
    rows = read_columns(path, ("id", "species", "name"))
    files = {Path(file).stem: show_path(Path(file).relative_to(top).as_posix()) for file in find_audio(top)}
    kinds = [row["species"] or "non-mosquito" for row in rows]
    known = HUMBUG_SPECIES | {"non-mosquito"}
    table = pd.DataFrame(
        {
            "path": [files.get(row["id"], f"audio/{row['id']}.wav") for row in rows],
            "label": [kind if kind in known else "others" for kind in kinds],
            "group": [row["name"] or row["id"] for row in rows],
        }
    )
    require_below(path, table["path"])
    return table.assign(split=draw_as_beans(table["label"].tolist()))


def humbugdb_grouped(top: Path) -> pd.DataFrame:
    """The same clips in five folds by recording."""
    return _fold(humbugdb(top))


def cbi(top: Path) -> pd.DataFrame:
    """Cornell Bird Identification: `train.csv` and `train_audio/BIRD/FILE.mp3`; BEANS splits by recordist."""
    path = find_published_file(top, "train.csv", "it is in the archive of kaggle.com/c/birdsong-recognition")
    rows = read_columns(path, ("ebird_code", "filename", "recordist"))
    people = list(dict.fromkeys(row["recordist"] for row in rows))
    random.Random(42).shuffle(people)
    first, second = int(0.6 * len(people)), int(0.8 * len(people))
    split_of = {who: SPLITS[(place >= first) + (place >= second)] for place, who in enumerate(people)}
    index = pd.DataFrame(
        {
            "path": [f"train_audio/{row['ebird_code']}/{row['filename']}" for row in rows],
            "label": [row["ebird_code"] for row in rows],
            "split": [split_of[row["recordist"]] for row in rows],
            "group": [row["recordist"] or "unknown" for row in rows],
        }
    )
    require_below(path, index["path"])
    return index


def _read_table(top: Path, name: str, columns: tuple[str, ...], get_it: str) -> list[dict[str, str]]:
    path = find_published_file(top, name, f"it is in {get_it}")
    rows = read_columns(path, columns)
    require_below(path, (row[columns[0]] for row in rows))
    return rows


def _split_as_beans(top: Path, table: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Add the column split: from `annotations.SPLIT.csv` of BEANS' scripts where all three are there, else by its recipe.

    Their paths begin with the folder that the scripts unpack into, which ends in `mark`.
    """
    lists = {split: top / f"annotations.{split}.csv" for split in SPLITS}
    if not all(path.is_file() for path in lists.values()):
        numbers = table["label"].str.fullmatch(r"\d+").all()
        labels = [int(label) for label in table["label"]] if numbers else table["label"].tolist()
        return table.assign(split=draw_as_beans(labels))
    split_of: dict[str, str] = {}
    for split, path in lists.items():
        for row in read_columns(path, ("path", "label")):
            name = Path(row["path"].rpartition(mark)[2]).with_suffix("").name
            if name in split_of:
                raise ValueError(f"{path}: {name} is in two lists; delete annotations.*.csv to follow BEANS' recipe")
            split_of[name] = split
    own = [Path(path).with_suffix("").name for path in table["path"]]
    missing = [name for name in own if name not in split_of]
    if missing:
        raise ValueError(
            f"{len(missing)} clips of annotations.csv are in none of annotations.train.csv, .valid.csv and .test.csv of "
            f"{top}, first {missing[0]!r}; delete the three to follow BEANS' recipe"
        )
    return table.assign(split=[split_of[name] for name in own])


def _fold(index: pd.DataFrame) -> pd.DataFrame:
    return index.drop(columns="split").assign(fold=fold_by_group(index["label"], index["group"]))


def birdset_hsn(top: Path) -> pd.DataFrame:
    """BirdSet HSN: trained on recordings of single birds, tested on windows of 5 s of soundscapes; from its parquet tables.

    A training clip begins with the first event of the largest cluster that the table tells, as most of what is heard before
    is no bird. Group = recordist of a training clip where one is told, and recording of a test window.
    """
    files = {Path(path).name: Path(path) for path in find_audio(top)}
    tables = []
    for split, part in (("train", "train"), ("test", "test_5s")):
        path = find_published_file(
            top,
            f"HSN_metadata_{part}.parquet",
            "it is in data/HSN of huggingface.co/datasets/DBD-research-group/BirdSet",
        )
        rows = _read_parquet(path)
        names = [Path(str(row["filepath"])).name for row in rows]
        places = [
            show_path(files[name].relative_to(top).as_posix()) if name in files else f"{part}/{name}" for name in names
        ]
        if split == "train":
            groups = [str(row.get("recordist") or "") or name for row, name in zip(rows, names, strict=True)]
        else:
            groups = [re.sub(r"_\d+_\d+\.\w+$", "", name) for name in names]
        labels = [LABEL_SEPARATOR.join(sorted(map(str, row["ebird_code_multilabel"]))) for row in rows]
        starts = [_find_first_event(row) if split == "train" else "" for row in rows]
        columns = {"path": places, "start": starts, "label": labels, "split": split, "group": groups}
        tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _find_first_event(row: dict[str, Any]) -> str:
    """Find the second at which the first event of the largest cluster begins; "" for the beginning, or if none is told.

    Events of cluster -1 are noise, and count only where there is nothing else. Source: birdset/datamodule/components/
    event_mapping.py of https://github.com/DBD-research-group/BirdSet.
    """
    events = row.get("detected_events") or []
    clusters = row.get("event_cluster") or [0] * len(events)
    found = list(zip(clusters, events, strict=False))
    found = [one for one in found if one[0] != -1] or found
    if not found:
        return ""
    sizes = Counter(cluster for cluster, _ in found)
    largest = min(sizes, key=lambda cluster: (-sizes[cluster], cluster))
    start = float(next(event[0] for cluster, event in found if cluster == largest))
    return f"{start:.9g}" if start > 0 else ""


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    """Read rows of one of BirdSet's tables, with what is needed of them."""
    try:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowInvalid
    except ImportError as error:
        raise ValueError("BirdSet's tables need pyarrow: pip install 'evar-audio[export]'") from error
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise ValueError(f"{path} is no parquet file ({error}); is the download whole?") from error
    for column in ("filepath", "ebird_code_multilabel"):
        if column not in table.column_names:
            raise ValueError(
                f"{path} lacks the column {column!r}, it has {', '.join(table.column_names[:8])}; is it another version?"
            )
    known = ("filepath", "ebird_code_multilabel", "recordist", "detected_events", "event_cluster")
    wanted = [name for name in known if name in table.column_names]
    rows: list[dict[str, Any]] = table.select(wanted).to_pylist()
    for row in rows:
        row["ebird_code_multilabel"] = [name for name in row["ebird_code_multilabel"] or () if name]
    return rows
