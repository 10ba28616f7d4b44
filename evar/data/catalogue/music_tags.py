"""Tags, emotion and key of music: MagnaTagATune, MTG-Jamendo, EmoMusic and GiantSteps."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from evar.config.messages import warn
from evar.data.catalogue import find_folder, find_published_file, list_names, read_columns, require_below
from evar.data.catalogue.regrouping import join_names, keep_apart
from evar.data.task_config import LABEL_SEPARATOR

MAGNATAGATUNE = "get it from mi.soi.city.ac.uk/datasets/magnatagatune and put it there"
JAMENDO = "clone github.com/MTG/mtg-jamendo-dataset there"
EMOMUSIC = "it is in annotations.tar.gz of cvml.unige.ch/databases/emoMusic"
#: the 50 most frequent tags of MagnaTagATune, of which every publication on it tells the score
TOP_TAGS = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient"),
    *("beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals"),
    *(
        "harpsichord",
        "loud",
        "quiet",
        "flute",
        "woman",
        "male vocal",
        "no vocal",
        "pop",
        "soft",
        "sitar",
        "solo",
        "man",
    ),
    *("classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello"),
    *("no voice", "weird", "country", "metal", "female voice", "choral"),
)
#: of 25,863 clips of MagnaTagATune these three are empty files
EMPTY_CLIPS = (
    "6/norine_braun-now_and_zen-08-gently-117-146.mp3",
    "8/jacob_heringman-josquin_des_prez_lute_settings-19-gintzler__pater_noster-204-233.mp3",
    "9/american_baroque-dances_and_suites_of_rameau_and_couperin-25-le_petit_rien_xiveme_ordre_couperin-88-117.mp3",
)
TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
_FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb", "Cb": "B", "Fb": "E", "E#": "F", "B#": "C"}


def magnatagatune(top: Path) -> pd.DataFrame:
    """MagnaTagATune: `annotations_final.csv`, `clip_info_final.csv` and `FOLDER/CLIP.mp3`; split by folder, group = artist.

    Folders 0 to b are for training, c for validation, d to f for the test.
    """
    path = find_published_file(top, "annotations_final.csv", MAGNATAGATUNE)
    rows = read_columns(path, ("mp3_path", *TOP_TAGS), "\t")
    require_below(path, (row["mp3_path"] for row in rows))
    info = find_published_file(top, "clip_info_final.csv", MAGNATAGATUNE)
    artists = {row["mp3_path"]: row["artist"] for row in read_columns(info, ("mp3_path", "artist"), "\t")}
    audio = find_folder(top, ("", "mp3", "audio", "mp3_files"), "[0-9a-f]/*.mp3")
    found = []
    for row in rows:
        clip = row["mp3_path"]
        if clip in EMPTY_CLIPS:
            continue
        if not re.match(r"[0-9a-f]/", clip):
            raise ValueError(f"{path}: mp3_path must begin with a folder 0 to f, got {clip!r}")
        number = int(clip[0], 16)
        split = "train" if number < 12 else "valid" if number == 12 else "test"
        tags = LABEL_SEPARATOR.join(tag for tag in TOP_TAGS if row[tag] == "1")
        found.append((audio + clip, tags, split, artists.get(clip) or clip))
    return pd.DataFrame(found, columns=["path", "label", "split", "group"])


def magnatagatune_grouped(top: Path) -> pd.DataFrame:
    """The same test clips; training and validation clips of their artists are left out."""
    return keep_apart(magnatagatune(top), "MagnaTagATune")


def jamendo_genre(top: Path) -> pd.DataFrame:
    """MTG-Jamendo: tags of genre."""
    return _read_jamendo(top, "genre", "genre---")


def jamendo_mood(top: Path) -> pd.DataFrame:
    """MTG-Jamendo: tags of mood and theme."""
    return _read_jamendo(top, "moodtheme", "mood/theme---")


def _read_jamendo(top: Path, subset: str, prefix: str) -> pd.DataFrame:
    """The lists of split-0: TRACK_ID, ARTIST_ID, ALBUM_ID, PATH, DURATION and any number of tags; group = artist."""
    places = ("", "audio", "raw_30s/audio", "audio-low", "raw_30s/audio-low", "autotagging_moodtheme/audio")
    audio = find_folder(top, places, "[0-9][0-9]/*.mp3")
    is_low = not any(True for path in (top / audio).glob("[0-9][0-9]/*.mp3") if not path.name.endswith(".low.mp3"))
    is_low &= any(True for _ in (top / audio).glob("[0-9][0-9]/*.low.mp3"))
    rows = []
    for split, part in (("train", "train"), ("valid", "validation"), ("test", "test")):
        name = f"splits/split-0/autotagging_{subset}-{part}.tsv"
        path = find_published_file(top, f"data/{name}", JAMENDO, (name, f"mtg-jamendo-dataset/data/{name}"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            cells = line.split("\t")
            if number == 1 and cells[0] == "TRACK_ID":
                continue
            tags = [tag.strip().removeprefix(prefix) for tag in cells[5:] if tag.strip().startswith(prefix)]
            if len(cells) < 6 or not re.fullmatch(r"\d\d/\d+\.mp3", cells[3]) or not tags:
                raise ValueError(
                    f"{path} line {number}: expected track, artist, album, a path such as 34/786434.mp3, seconds and tags "
                    f"such as {prefix}pop, with tabs between them, got {line[:120]!r}"
                )
            clip = cells[3].removesuffix(".mp3") + (".low.mp3" if is_low else ".mp3")
            rows.append((audio + clip, LABEL_SEPARATOR.join(sorted(tags)), split, cells[1]))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def emomusic_valence(top: Path) -> pd.DataFrame:
    """EmoMusic: mean valence of a clip of 45 s."""
    return _read_emomusic(top, "mean_valence")


def emomusic_arousal(top: Path) -> pd.DataFrame:
    """EmoMusic: mean arousal of a clip of 45 s."""
    return _read_emomusic(top, "mean_arousal")


def emomusic_valence_grouped(top: Path) -> pd.DataFrame:
    """Mean valence; training clips of artists of the test clips are left out."""
    return keep_apart(emomusic_valence(top), "EmoMusic")


def emomusic_arousal_grouped(top: Path) -> pd.DataFrame:
    """Mean arousal; training clips of artists of the test clips are left out."""
    return keep_apart(emomusic_arousal(top), "EmoMusic")


def _read_emomusic(top: Path, column: str) -> pd.DataFrame:
    """`songs_info.csv` tells the split of MediaEval 2013 and the artist, `static_annotations.csv` the label."""
    tables = {
        stem: find_published_file(top, f"annotations/{stem}.csv", EMOMUSIC, (f"{stem}.csv",))
        for stem in ("songs_info", "static_annotations")
    }
    values = {row["song_id"]: row[column] for row in read_columns(tables["static_annotations"], ("song_id", column))}
    audio = find_folder(top, ("clips_45seconds", "clips_45sec", "chorus/wav", ""), "[0-9]*.*")
    ending = ".wav" if any(True for _ in (top / audio).glob("[0-9]*.wav")) else ".mp3"
    rows = []
    for row in read_columns(tables["songs_info"], ("song_id", "Artist", "Mediaeval 2013 set")):
        song, part = row["song_id"], row["Mediaeval 2013 set"]
        if part not in ("development", "evaluation") or not song.isdecimal():
            raise ValueError(
                f"{tables['songs_info']}: expected song_id, a number, and a Mediaeval 2013 set of development or "
                f"evaluation, got {song!r} and {part!r}"
            )
        if song not in values:
            raise ValueError(
                f"{tables['static_annotations']} lacks song {song} of songs_info.csv; is the download whole?"
            )
        artist = " ".join(re.sub(r"[^\w\s]", "", row["Artist"].lower()).split())
        split = "test" if part == "evaluation" else "train"
        rows.append((f"{audio}{int(song)}{ending}", values[song], split, artist or f"song {song}"))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def giantsteps_key(top: Path) -> pd.DataFrame:
    """GiantSteps: trained on sure single keys of GiantSteps-MTG, tested on GiantSteps; group = artists, where told."""
    train, test = (_find_repository(top, name) for name in ("giantsteps-mtg-key-dataset", "giantsteps-key-dataset"))
    get_it = f"clone github.com/GiantSteps/giantsteps-mtg-key-dataset to {train}"
    facts = find_published_file(train, "annotations/annotations.txt", get_it)
    metadata = find_published_file(train, "annotations/beatport_metadata.txt", get_it)
    told = {row["ID"]: row["ARTIST"].split(",") for row in read_columns(metadata, ("ID", "ARTIST"), "\t")}
    people = {track: [name.strip().lower() for name in names if name.strip()] for track, names in told.items()}
    leaders = join_names(names for names in people.values() if names)
    rows, n_unsure = [], 0
    for row in read_columns(facts, ("ID", "MANUAL KEY", "C"), "\t"):
        if row["C"] != "2" or "/" in row["MANUAL KEY"]:
            n_unsure += 1
            continue
        group = leaders[people[row["ID"]][0]] if people.get(row["ID"]) else row["ID"]
        rows.append((_find_track(top, train, row["ID"]), _name_key(row["MANUAL KEY"], facts), "train", group))
    warn(f"GiantSteps-MTG: {n_unsure} tracks of several keys or less than full confidence are left out")
    keys = sorted((test / "annotations" / "key").glob("*.key"))
    if not keys:
        raise FileNotFoundError(
            f"no key such as {test / 'annotations' / 'key' / '10089.LOFI.key'}; clone "
            f"github.com/GiantSteps/giantsteps-key-dataset to {test}; {top} holds {list_names(top)}"
        )
    for file in keys:
        track = file.name.partition(".")[0]
        key = _name_key(file.read_text(encoding="utf-8"), file)
        rows.append((_find_track(top, test, track), key, "test", f"GiantSteps {track}"))
    return pd.DataFrame(rows, columns=["path", "label", "split", "group"])


def _find_repository(top: Path, name: str) -> Path:
    """Find the folder of a repository; archives of GitHub add a branch or a commit to its name."""
    found = [path for path in sorted(top.glob(f"{name}*")) if path.is_dir()]
    return found[0] if found else top / name


def _find_track(top: Path, folder: Path, track: str) -> str:
    names = [f"{track}.LOFI.mp3", f"{track}.LOFI.wav", f"{track}.mp3", f"{track}.wav"]
    name = next((name for name in names if (folder / "audio" / name).is_file()), names[0])
    return (folder / "audio" / name).relative_to(top).as_posix()


def _name_key(text: str, path: Path) -> str:
    """Name a key as a class of the task: "Db minor"."""
    words = text.split()
    tonic = words[0][:1].upper() + words[0][1:] if words else ""
    tonic, mode = _FLATS.get(tonic, tonic), words[1].lower() if len(words) > 1 else ""
    if tonic not in TONICS or mode not in ("major", "minor"):
        raise ValueError(f"{path}: expected a key such as 'Db minor', got {text.strip()[:40]!r}")
    return f"{tonic} {mode}"
