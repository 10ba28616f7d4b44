"""Heart and lung sounds: CirCor and ICBHI 2017."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evar.audio.folders import is_hidden
from evar.data.catalogue import find_folder, find_published_file, list_names, read_columns
from evar.data.catalogue.regrouping import fold_by_group, join_names

CIRCOR = "it is in physionet.org/content/circor-heart-sound/1.0.3"


def circor_murmur(top: Path) -> pd.DataFrame:
    """CirCor: is there a murmur, told for a patient; a clip is one recording."""
    return _read_circor(top, "Murmur", ("Absent", "Present", "Unknown"))


def circor_outcome(top: Path) -> pd.DataFrame:
    """CirCor: is the heart healthy, told for a patient; a clip is one recording."""
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
