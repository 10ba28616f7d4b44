"""Sounds and labels of a user's own: a folder of folders, or a table, as one row a clip, and in words how they were read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from evar.audio import AudioError, length
from evar.audio.folders import AUDIO_SUFFIXES, LeftOut, find_audio
from evar.audio.not_audio import name_content
from evar.audio.segments import name_file
from evar.config.tables import real_path, show_path
from evar.data.tables import compose, read_fold, read_splits

#: names of folders that hold files and have no meaning
_WRAPPERS = frozenset(("audio", "audios", "wav", "wavs", "data", "clips", "sounds", "files", "samples"))

#: bytes of a file that tell what it is
_LOOKED_AT = 4096


@dataclass
class OwnSounds:
    """The sounds of a folder or a table, before they are split.

    Attributes:
        index: path, label, and if known split or fold, and group.
        notes: sentences on how names and cells were read.
        left_out: path (or line of the table) -> why it is no clip of the task.
    """

    index: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def read_folder(folder: Path, class_level: int = 0) -> OwnSounds:
    """Make one row for each sound; its class is the first folder on its path that is not named like a split or a fold.

    Args:
        folder: of the sounds.
        class_level: which folder on the path is the class, 1 for the first; 0 chooses.

    Raises:
        ValueError: if there is no sound, a sound lies in no class folder, or it is not clear what a folder means.
    """
    passed = LeftOut()
    paths = [Path(path).relative_to(folder) for path in find_audio(folder, passed)]
    said = passed.describe()
    if not paths:
        raise ValueError(
            f"no sound below {folder}; expected files ending in {', '.join(sorted(AUDIO_SUFFIXES))}"
            + (said and f"; {said}")
        )
    notes = [said] if said else []
    trails = [path.parts[:-1] for path in paths]
    stray = next((path for path, trail in zip(paths, trails, strict=True) if not trail), None)
    if stray is not None:
        raise ValueError(
            f"{folder / stray} lies in no class folder; put each class into a folder of its own, or give a table with --csv"
        )
    roles = _read_levels(trails, notes)
    labels = _choose_classes(folder, paths, trails, roles, class_level, notes)
    rows: dict[str, list[str]] = {"path": [show_path(path.as_posix()) for path in paths], "label": labels}
    for level, (role, meaning) in roles.items():
        rows[role] = [meaning[trail[level]] for trail in trails]
    return OwnSounds(pd.DataFrame(rows), notes, {})


def _read_levels(trails: list[tuple[str, ...]], notes: list[str]) -> dict[int, tuple[str, dict[str, str]]]:
    """Levels of folders that are splits or folds: level -> ("split" or "fold", name -> which).

    Raises:
        ValueError: if some folders of a level are named like splits and others are not.
    """
    roles: dict[int, tuple[str, dict[str, str]]] = {}
    for level in range(min(len(trail) for trail in trails)):
        names = sorted({trail[level] for trail in trails})
        folds = {name: read_fold(name) for name in names}
        if len(names) > 1 and all(folds.values()) and not roles:
            roles[level] = ("fold", folds)
            notes.append(f"the folders {', '.join(names[:3])}, ... are read as {len(names)} folds, not as classes")
            continue
        splits = [name for name in names if _is_split(name)]
        if len(splits) == len(names) and len(names) > 1 and not roles:
            meaning, odd = read_splits(names, "folders")
            if len(set(meaning.values())) > 1 and {"train", "test"} <= set(meaning.values()):
                roles[level] = ("split", meaning)
                notes.append(
                    f"the folders {', '.join(names)} are read as splits, not as classes" + (f" ({odd})" if odd else "")
                )
                continue
            raise ValueError(
                f"the folders {', '.join(names)} are named like splits, but train and test are not both there; name the "
                "missing one, or give a table with --csv"
            )
        if len(splits) > 1 or (splits and len(names) <= 3):
            others = [name for name in names if name not in splits]
            if not others:
                raise ValueError(
                    f"the only folder, {splits[0]}, is named like a split: it is no class, and there is nothing to test on; "
                    "give the folder above it, or a table with --csv that names the split and the class"
                )
            raise ValueError(
                f"the folders {', '.join(splits)} are named like splits, but stand beside {', '.join(others[:3])}; is it a "
                "split or a class? give a table with --csv that names the split and the class"
            )
    return roles


def _is_split(name: str) -> bool:
    try:
        read_splits(["train", name], "")
    except ValueError:
        return False
    return True


def _choose_classes(
    folder: Path,
    paths: list[Path],
    trails: list[tuple[str, ...]],
    roles: dict[int, tuple[str, dict[str, str]]],
    class_level: int,
    notes: list[str],
) -> list[str]:
    """Find the class of each sound, by the level of folders that is the class."""
    n_least = min(len(trail) for trail in trails)
    levels = [level for level in range(n_least) if level not in roles]
    if class_level:
        if not 1 <= class_level <= n_least:
            raise ValueError(f"--class_level must be 1 to {n_least}, as deep as all sounds lie, got {class_level}")
        level = class_level - 1
        if level in roles:
            raise ValueError(
                f"--class_level={class_level} names the folders of {roles[level][0]}s; choose another level"
            )
    else:
        told = [level for level in levels if len({trail[level] for trail in trails}) > 1]
        if not levels or not told:
            shallow = paths[[len(trail) for trail in trails].index(n_least)]
            raise ValueError(
                f"{folder / shallow} lies in no class folder: its folders tell {_describe_roles(roles) or 'one name'} only; "
                "put each class into a folder, or give a table with --csv"
            )
        level = told[0]
    labels = [compose(show_path(trail[level])) for trail in trails]
    deeper = Counter(trail[-1] for trail in trails if len(trail) > level + 1 and (len(trail) - 1) not in roles)
    deeper = Counter({name: n for name, n in deeper.items() if name.casefold() not in _WRAPPERS})
    if len(deeper) > 1 and not class_level:
        shown = ", ".join(sorted(deeper)[:3])
        notes.append(
            f"classes are the {len(set(labels))} folders of level {level + 1}; {len(deeper)} deeper folders ({shown}, ...) "
            f"look like classes too: for them say --class_level={level + 2}"
        )
    elif level and not roles:
        notes.append(f"classes are the folders of level {level + 1}, below one folder that holds everything")
    return labels


def _describe_roles(roles: dict[int, tuple[str, dict[str, str]]]) -> str:
    return " and ".join(f"the {role}" for role, _ in roles.values())


def leave_out_others(sounds: OwnSounds, folder: Path) -> None:
    """Take out files that are no audio at all, such as pointers, web pages and empty files, by name.

    Raises:
        ValueError: if more than half of the files are none: then something is wrong with the copy.
    """
    reasons = {}
    names = [name_file(path) for path in sounds.index["path"]]
    for path in dict.fromkeys(names):
        try:
            with real_path(folder, path).open("rb") as file:
                start = file.read(_LOOKED_AT)
        except OSError:
            continue  # verify names it
        if start and not name_content(start):
            continue
        try:
            length(real_path(folder, path), 16000)
        except AudioError as error:
            reasons[path] = str(error)
    if not reasons:
        return
    n_files = len(set(names))
    first = next(iter(reasons.items()))
    if 2 * len(reasons) > n_files:
        raise ValueError(f"{len(reasons)} of {n_files} files below {folder} are no audio, first {first[0]}: {first[1]}")
    sounds.left_out |= reasons
    sounds.notes.append(f"left out: {len(reasons)} of {n_files} files are no audio, first {first[0]}: {first[1]}")
    sounds.index = sounds.index[[name not in reasons for name in names]].reset_index(drop=True)
