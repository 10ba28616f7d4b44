"""Clips with captions: Clotho and AudioCaps, from your own copy."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evar.audio.folders import find_audio
from evar.config.messages import warn
from evar.config.tables import show_path
from evar.data.catalogue import find_folder, find_published_file, read_table
from evar.data.task_config import CAPTION_SEPARATOR

CLOTHO = "zenodo.org/record/4783391"
AUDIOCAPS = "github.com/cdjkim/audiocaps, folder dataset"
_CLOTHO_PARTS = {"development": "train", "validation": "valid", "evaluation": "test"}
_AUDIOCAPS_PARTS = {"train": "train", "val": "valid", "test": "test"}
_N_CAPTIONS = 5


def clotho(top: Path) -> pd.DataFrame:
    """Clotho 2.1: `clotho_captions_{development,validation,evaluation}.csv` beside the folders of these names."""
    names = [f"caption_{number}" for number in range(1, _N_CAPTIONS + 1)]
    tables = []
    for part, split in _CLOTHO_PARTS.items():
        file = f"clotho_captions_{part}.csv"
        path = find_published_file(
            top, file, f"it is on {CLOTHO}", (f"clotho_csv_files/{file}", f"clotho_captions/{file}")
        )
        table = read_table(path, ("file_name", *names))
        audio = find_folder(top, (part, f"clotho_audio_{part}/{part}", f"clotho_audio_files/{part}"), "*.wav")
        label = [join_captions(row) for row in table[names].itertuples(index=False)]
        tables.append(pd.DataFrame({"path": audio + table["file_name"], "label": label, "split": split}))
    return pd.concat(tables, ignore_index=True)


def audiocaps(top: Path) -> pd.DataFrame:
    """AudioCaps: `{train,val,test}.csv` beside `audio/`, whose files are named by YouTube id; those that are there count."""
    files: dict[str, str] = {}
    for found in find_audio(top / "audio") if (top / "audio").is_dir() else ():
        file = Path(found)
        files.setdefault(file.stem, show_path(file.relative_to(top).as_posix()))
    rows, said = [], []
    for part, split in _AUDIOCAPS_PARTS.items():
        path = find_published_file(top, f"{part}.csv", f"it is in {AUDIOCAPS}", (f"dataset/{part}.csv",))
        table = read_table(path, ("youtube_id", "start_time", "caption"))
        of_clip = table.groupby(["youtube_id", "start_time"], sort=False)["caption"].agg(list)
        n_here = 0
        for key, captions in of_clip.items():
            video, start = map(str, key)  # type: ignore[call-overload]
            place = next((files[name] for name in name_audiocaps(video, start) if name in files), None)
            if place is not None:
                n_here += 1
                rows.append((place, join_captions(captions), split, video))
        said.append(f"{n_here:,} of {len(of_clip):,} {split} clips")
    warn(f"AudioCaps: {', '.join(said)} are in {top / 'audio'}")
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def join_captions(captions: object) -> str:
    """Put the captions of a clip into one label.

    Args:
        captions: a list or tuple of texts; line breaks become spaces, and so does what separates captions.

    Example:
        >>> join_captions(["A dog barks.", "A dog | then a cat"])
        'A dog barks.|A dog then a cat'
    """
    texts = [str(text).replace(CAPTION_SEPARATOR, " ") for text in captions]  # type: ignore[attr-defined]
    return CAPTION_SEPARATOR.join(" ".join(text.split()) for text in texts if text.strip())


def name_audiocaps(video: str, start: str) -> list[str]:
    """List the names, without suffix, under which people keep the sound of a clip.

    Args:
        video: YouTube id.
        start: first second of the clip.

    Example:
        >>> name_audiocaps("abcdefghijk", "30")
        ['abcdefghijk_30', 'Yabcdefghijk_30', 'abcdefghijk_30000', 'abcdefghijk', 'Yabcdefghijk']
    """
    second = start.partition(".")[0]
    return [f"{video}_{second}", f"Y{video}_{second}", f"{video}_{second}000", video, f"Y{video}"]
