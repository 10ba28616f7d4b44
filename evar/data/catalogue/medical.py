"""Heart and lung sounds: CirCor and ICBHI 2017, whose clips are cycles of breath."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.data.catalogue import find_folder, find_published_file, list_names, read_columns
from evar.data.catalogue.regrouping import fold_by_group, join_names, keep_apart

ICBHI = "get it from bhichallenge.med.auth.gr/ICBHI_2017_Challenge and put it there"
#: (crackles, wheezes) of a cycle -> class
CYCLES = {("0", "0"): "normal", ("1", "0"): "crackle", ("0", "1"): "wheeze", ("1", "1"): "both"}
CIRCOR = "it is in physionet.org/content/circor-heart-sound/1.0.3"


def circor_murmur(top: Path) -> pd.DataFrame:
    """CirCor: is there a murmur, labelled for each patient; a clip is one recording."""
    return _read_circor(top, "Murmur", ("Absent", "Present", "Unknown"))


def circor_outcome(top: Path) -> pd.DataFrame:
    """CirCor: is the heart healthy, labelled for each patient; a clip is one recording."""
    return _read_circor(top, "Outcome", ("Abnormal", "Normal"))


def _read_circor(top: Path, column: str, known: tuple[str, ...]) -> pd.DataFrame:
    """`training_data.csv` and `training_data/PATIENT_PLACE.wav`; five folds by patient, who may have come twice."""
    path = find_published_file(top, "training_data.csv", CIRCOR)
    rows = read_columns(path, ("Patient ID", column, "Additional ID"))
    label_of = {row["Patient ID"]: row[column] for row in rows}
    for patient, label in label_of.items():
        if label not in known:
            raise ValueError(f"{path}: {column} of patient {patient} must be {', '.join(known)}, got {label!r}")
    others = {row["Patient ID"]: row["Additional ID"].removesuffix(".0") for row in rows}
    person_of = join_names([patient, other] if other.isdecimal() else [patient] for patient, other in others.items())
    audio = find_folder(top, ("training_data", "", "training"), "[0-9]*_*.wav")
    found = []
    for file in sorted((top / audio).glob("[0-9]*_*.wav")):
        patient = file.stem.partition("_")[0]
        if is_hidden(file.name):
            continue
        if patient not in label_of:
            raise ValueError(f"{file} is of patient {patient}, who is not in {path}; are both of one version?")
        found.append((f"{audio}{file.name}", label_of[patient], person_of[patient]))
    if not found:
        raise FileNotFoundError(
            f"no clip such as {top / 'training_data' / '2530_AV.wav'}; {CIRCOR}; {top} holds {list_names(top)}"
        )
    index = pd.DataFrame(found, columns=["path", "label", "group"])
    return index.assign(fold=fold_by_group(index["label"], index["group"]))


def icbhi(top: Path) -> pd.DataFrame:
    """ICBHI 2017: `ICBHI_challenge_train_test.txt` and a wav and a table of cycles a recording; group = patient.

    A clip is a part of a recording: the columns start and end are seconds.
    """
    split_of = _read_icbhi_split(top)
    places = ("ICBHI_final_database", "", "ICBHI_final_database/audio_and_txt_files", "audio_and_txt_files")
    audio = find_folder(top, places, "[12]*_*.wav")
    strangers = [name for name in split_of if not (top / audio / f"{name}.txt").is_file()]
    rows, used = [], set()
    for file in sorted((top / audio).glob("[12]*_*.txt")):
        # One recording has another device in its name than in the list.
        name = file.stem if file.stem in split_of else _find_other_device(file.stem, strangers)
        if is_hidden(file.name) or not name:
            continue
        used.add(name)
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            cells = line.split()
            if not cells:
                continue
            if len(cells) != 4 or (cells[2], cells[3]) not in CYCLES:
                raise ValueError(
                    f"{file} line {number}: expected start, end, crackles and wheezes, as in '0.036 0.579 0 1', got {line!r}"
                )
            label, patient = CYCLES[cells[2], cells[3]], file.stem.partition("_")[0]
            rows.append((f"{audio}{file.stem}.wav", cells[0], cells[1], label, split_of[name], patient))
    missing = sorted(set(split_of) - used)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(split_of)} recordings of the list have no table of cycles such as "
            f"{top / audio / missing[0]}.txt; unpack ICBHI_final_database.zip there; {top} holds {list_names(top)}"
        )
    return pd.DataFrame(rows, columns=["path", "start", "end", "label", "split", "group"])


def icbhi_grouped(top: Path) -> pd.DataFrame:
    """The same test cycles; training cycles of their patients are left out."""
    return keep_apart(icbhi(top), "ICBHI")


def _read_icbhi_split(top: Path) -> dict[str, str]:
    """Read the published split: recording -> train or test."""
    name = "ICBHI_challenge_train_test.txt"
    path = find_published_file(top, name, ICBHI, (f"ICBHI_final_database/{name}", "ICBHI_Challenge_train_test.txt"))
    split_of = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        if words and (len(words) != 2 or words[1] not in ("train", "test")):
            raise ValueError(f"{path} line {number}: expected '101_1b1_Al_sc_Meditron test', got {line!r}")
        if words:
            split_of[words[0]] = words[1]
    return split_of


def _find_other_device(stem: str, strangers: list[str]) -> str:
    """Find the recording that differs in the device alone, the last part of a name; "" if there is not just one."""
    found = [name for name in strangers if name.rpartition("_")[0] == stem.rpartition("_")[0]]
    return found[0] if len(found) == 1 else ""
