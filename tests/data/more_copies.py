"""Tiny copies, in their published layouts, of the data sets of animals, voices, music and medicine."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import soundfile
from toy import RATE, tone

from evar.data.catalogue.medical import CYCLES
from evar.data.catalogue.music_tags import EMPTY_CLIPS, TOP_TAGS
from evar.data.catalogue.voices import EMODB_TEST, EMODB_VALID, RAVDESS_TEST, RAVDESS_VALID


@functools.cache
def encode_tone(number: int, kind: str) -> bytes:
    """A file with a tone of 0.1 s, low or high in turn."""
    file = io.BytesIO()
    soundfile.write(file, tone(number % 2, number, 0.1), RATE, format=kind)
    return file.getvalue()


def sounds(top: Path, paths: list[str]) -> None:
    """Write a tone of 0.1 s at each path."""
    for number, path in enumerate(paths):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(encode_tone(number, "OGG" if path.endswith("ogg") else "WAV"))


def table(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def watkins(folder: Path, n_tapes: int = 10) -> None:
    """Two cuts of each tape, of which every second is of a walrus; and the species that is left out."""
    clips = [
        (f"{kind}/{60 + tape}0{tape:02d}0{cut}A.wav", kind)
        for tape in range(n_tapes)
        for cut in (1, 2)
        for kind in (("Harp_Seal", "Walrus")[tape % 2],)
    ]
    clips.append(("Weddell_Seal/9900100A.wav", "Weddell_Seal"))
    table(folder / "annotations.csv", "path,species", *(",".join(clip) for clip in clips))
    sounds(folder, [clip for clip, _ in clips])


def bats(folder: Path) -> None:
    head = "Emitter,Addressee,Context,Emitter pre-vocalization action,File Name"
    table(folder / "annotations.csv", head, *(f"{(111, 231)[n % 2]},0,11,0,{n}.wav" for n in range(20)))
    sounds(folder / "audio", [f"{n}.wav" for n in range(20)])


def dogs(folder: Path) -> None:
    table(folder / "annotations.csv", "filename,name", *(f"bark{n}.wav,{('Luke', 'Zoe')[n % 2]}" for n in range(20)))
    sounds(folder / "audio", [f"bark{n}.wav" for n in range(20)])


def humbugdb(folder: Path) -> None:
    """Two clips of each of 15 recordings: a known species, a rare one, and no mosquito."""
    rows = [
        f"{2 * n + k},0.1,rec{n}.wav,8000,{('ae aegypti', 'an rare', '')[n % 3]}" for n in range(15) for k in (0, 1)
    ]
    table(folder / "neurips_2021_zenodo_0_0_1.csv", "id,length,name,sample_rate,species", *rows)
    sounds(folder / "audio", [f"{row.split(',')[0]}.wav" for row in rows])


def cbi(folder: Path) -> None:
    rows = [
        (bird, f"XC{10 * who + n}.mp3", f"person {who}")
        for who in range(5)
        for n, bird in enumerate(("aldfly", "veery"))
    ]
    table(folder / "train.csv", "rating,ebird_code,filename,recordist", *(",".join(("4", *row)) for row in rows))
    sounds(folder / "train_audio", [f"{bird}/{name}" for bird, name, _ in rows])


def birdset_hsn(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    birds = ("gcrfin", "whcspa")
    train = [(f"XC{n}.ogg", [birds[n % 2]], f"person {n // 2}") for n in range(20)]
    test = [(f"HSN_001_20150708_061805_{5 * n:03d}_{5 * n + 5:03d}.ogg", list(birds[: n % 3]), "") for n in range(4)]
    for name, rows in (("train", train), ("test_5s", test)):
        columns = dict(zip(("filepath", "ebird_code_multilabel", "recordist"), zip(*rows, strict=True), strict=True))
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"HSN_metadata_{name}.parquet"
        columns = {key: list(value) for key, value in columns.items()}
        if name == "train":  # noise, then one event of another cluster, then two of one
            columns["detected_events"] = [[[0.01, 0.02], [0.02, 0.03], [0.04, 0.05], [0.06, 0.07]]] * len(rows)
            columns["event_cluster"] = [[-1, 1, 0, 0]] * len(rows)
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
        sounds(folder / name, [row[0] for row in rows])


def vocalsound(folder: Path) -> None:
    for part, speakers in (("tr", ("f0001", "m0002")), ("val", ("f0003",)), ("te", ("m0004",))):
        table(folder / "meta" / f"{part}_meta.csv", *(f"{who},female,29,USA,English,no" for who in speakers))
        sounds(folder / "audio_16k", [f"{who}_0_{sound}.wav" for who in speakers for sound in ("laughter", "sniff")])


def ravdess(folder: Path) -> None:
    for actor in ("02", "03", min(RAVDESS_VALID), min(RAVDESS_TEST)):
        sounds(folder / f"Actor_{actor}", [f"03-01-{emotion}-01-01-01-{actor}.wav" for emotion in ("01", "08")])


def fluent_speech_commands(folder: Path) -> None:
    top = folder / "fluent_speech_commands_dataset"
    for split, speaker in (("train", "aa"), ("valid", "bb"), ("test", "cc")):
        paths = [f"wavs/speakers/{speaker}/{n}.wav" for n in range(2)]
        told = ("Turn on the lights,activate,lights,none", "Louder,increase,volume,none")
        rows = [f"{n},{path},{speaker},{told[n]}" for n, path in enumerate(paths)]
        table(top / "data" / f"{split}_data.csv", ",path,speakerId,transcription,action,object,location", *rows)
        sounds(top, paths)


def asvspoof2019_la(folder: Path) -> None:
    top = folder / "LA"
    for part, ending, who in (("train", "trn", "LA_0079"), ("dev", "trl", "LA_0069"), ("eval", "trl", "LA_0039")):
        clips = [f"LA_{part[0].upper()}_{n}" for n in range(4)]
        rows = [f"{who} {clip} - {('-', 'A01')[n % 2]} {('bonafide', 'spoof')[n % 2]}" for n, clip in enumerate(clips)]
        table(top / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{part}.{ending}.txt", *rows)
        sounds(top / f"ASVspoof2019_LA_{part}" / "flac", [f"{clip}.flac" for clip in clips])


def magnatagatune(folder: Path, artists: str = "aabbcd") -> None:
    """Two clips in each of the folders 0, 1, b, c, d and f, whose artists are told; and a clip that is an empty file."""
    tags = [*TOP_TAGS, "rare tag"]
    clips = [(f"{place}/song-{n}.mp3", artists[number]) for number, place in enumerate("01bcdf") for n in (0, 1)]
    rows = [
        [str(n), *("1" if tag == ("guitar", "no vocals")[n % 2] else "0" for tag in tags), path]
        for n, path in enumerate([*(path for path, _ in clips), EMPTY_CLIPS[0]])
    ]
    heads = [f'"{name}"' for name in ("clip_id", *tags, "mp3_path")]
    table(folder / "annotations_final.csv", "\t".join(heads), *("\t".join(f'"{cell}"' for cell in row) for row in rows))
    info = [f"{n}\t{n}\ttitle\t{artist}\t{path}" for n, (path, artist) in enumerate(clips)]
    table(folder / "clip_info_final.csv", "clip_id\ttrack_number\ttitle\tartist\tmp3_path", *info)
    sounds(folder, [path for path, _ in clips])


def jamendo(folder: Path, subset: str, prefix: str, tags: tuple[str, str]) -> None:
    head = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    for number, part in enumerate(("train", "validation", "test")):
        songs = [f"{n}{number}/10{n}{number}" for n in range(3)]
        told = [[tags[0]], [tags[1]], list(tags)]
        rows = [
            "\t".join(["track_1", f"artist_{part}", "album_1", f"{song}.mp3", "100.0", *(prefix + tag for tag in own)])
            for song, own in zip(songs, told, strict=True)
        ]
        table(folder / "data" / "splits" / "split-0" / f"autotagging_{subset}-{part}.tsv", head, *rows)
        sounds(folder / "audio", [f"{song}.low.mp3" for song in songs])


def emomusic(folder: Path, last: str = "Eve") -> None:
    """26 songs of 13 artists for training, and four of two artists for the test, of whom `last` is one."""
    people = [f"Artist, {n // 2}" for n in range(26)] + ["Dee", "Dee", last, last]
    names = "song_id,Artist,Song title,start of the segment (min.sec),Mediaeval 2013 set"
    sets = ["development"] * 26 + ["evaluation"] * 4
    rows = [f'{n + 1},"{who}",\ttitle,1.05,{sets[n]}' for n, who in enumerate(people)]
    table(folder / "annotations" / "songs_info.csv", names, *rows)
    rows = [f"{n + 1},{3 + n % 5}.5,0.3,{8 - n % 4}.25,0.4" for n in range(30)]
    table(
        folder / "annotations" / "static_annotations.csv",
        "song_id,mean_arousal,std_arousal,mean_valence,std_valence",
        *rows,
    )
    sounds(folder / "clips_45seconds", [f"{n + 1}.mp3" for n in range(30)])


def giantsteps_key(folder: Path) -> None:
    train, test = folder / "giantsteps-mtg-key-dataset-master", folder / "giantsteps-key-dataset"
    keys = ["A minor", "C# major"] * 6
    rows = [f"{n}\t{key}\t2\t" for n, key in enumerate(keys)]
    table(
        train / "annotations" / "annotations.txt",
        "ID\tMANUAL KEY\tC\tCOMMENT", *rows, "90\tA minor / C major\t2\t", "91\tA minor\t1\tunsure",
    )  # fmt: skip
    people = [f"{n}\tArtist {n // 2}, Guest {n // 4}" for n in range(12)]
    table(train / "annotations" / "beatport_metadata.txt", "ID\tARTIST", *people)
    for n, key in enumerate(("Db major", "A minor")):
        table(test / "annotations" / "key" / f"{100 + n}.LOFI.key", key)
    sounds(train / "audio", [f"{n}.LOFI.mp3" for n in range(12)])
    sounds(test / "audio", [f"{100 + n}.LOFI.mp3" for n in range(2)])


def hear_maestro(folder: Path) -> None:
    """Two notes in every recording, their times in milliseconds, in folds."""
    top, parts = folder / "tasks" / "maestro-v3.0.0-5h", [f"fold{n:02d}" for n in range(5)]
    for part in parts:
        told = {
            f"{part}_{n}.wav": [
                {"label": 108, "start": 0.0, "end": 40.0 + n},
                {"label": 21, "start": 62.5, "end": 90},
            ]
            for n in range(2)
        }
        table(top / f"{part}.json", json.dumps(told))
        sounds(top / "48000" / part, list(told))
    table(top / "task_metadata.json", json.dumps({"task_name": "maestro", "splits": parts, "embedding_type": "event"}))


def circor(folder: Path, column: str, labels: tuple[str, ...]) -> None:
    """Two recordings of each of ten patients; the last came before, under the number of the first."""
    rows = [f"{100 + n},AV+PV,Child,{labels[n % len(labels)]},{'100' if n == 9 else 'nan'}" for n in range(10)]
    table(folder / "training_data.csv", f"Patient ID,Recording locations:,Age,{column},Additional ID", *rows)
    sounds(folder / "training_data", [f"{100 + n}_{place}.wav" for n in range(10) for place in ("AV", "PV")])


def emodb(folder: Path) -> None:
    speakers = ("08", "09", min(EMODB_VALID), min(EMODB_TEST))
    sounds(folder / "wav", [f"{who}a01{letter}a.wav" for who in speakers for letter in "WT"])


def iemocap(folder: Path) -> None:
    for number in range(1, 6):
        dialog = f"Ses0{number}F_impro01"
        told = [(f"{dialog}_{who}00{n}", ("ang", "exc", "xxx")[n]) for who in "FM" for n in range(3)]
        rows = [f"[{n}.0 - {n}.5]\t{name}\t{label}\t[2.5, 2.5, 2.5]" for n, (name, label) in enumerate(told)]
        top = folder / "IEMOCAP_full_release" / f"Session{number}"
        table(
            top / "dialog" / "EmoEvaluation" / f"{dialog}.txt", "% [START_TIME - END_TIME] TURN_NAME EMOTION", "", *rows
        )
        sounds(top / "sentences" / "wav" / dialog, [f"{name}.wav" for name, _ in told])


def librispeech_gender(folder: Path) -> None:
    top = folder / "LibriSpeech"
    table(top / "SPEAKERS.TXT", ";ID |SEX| SUBSET", *(f"{n}  | {'FM'[n % 2]} | x | 25 | A Name" for n in range(1, 7)))
    for place, part in enumerate(("train-clean-100", "dev-clean", "test-clean")):
        sounds(top / part, [f"{who}/10/{who}-10-000{n}.flac" for who in (2 * place + 1, 2 * place + 2) for n in (0, 1)])


def fsdkaggle2018(folder: Path) -> None:
    for part, name, n in (("train", "train_post_competition", 10), ("test", "test_post_competition_scoring_clips", 2)):
        rows = [f"{part}{k}.wav,{('Bark', 'Cough')[k % 2]},1,{part}{k},Attribution" for k in range(n)]
        table(
            folder / "FSDKaggle2018.meta" / f"{name}.csv", "fname,label,manually_verified,freesound_id,license", *rows
        )
        sounds(folder / f"FSDKaggle2018.audio_{part}", [row.split(",")[0] for row in rows])


def fma_small(folder: Path) -> None:
    heads = [",artist,set,set,track", ",id,split,subset,genre_top", "track_id,,,,"]
    parts = ("training", "validation", "test")
    rows = [f"{10 * n + k},{n},{parts[n]},small,{('Folk', 'Rock')[k]}" for n in range(3) for k in (0, 1)]
    table(folder / "fma_metadata" / "tracks.csv", *heads, *rows, "99,9,training,large,Rock")
    sounds(folder / "fma_small", [f"000/{10 * n + k:06d}.mp3" for n in range(3) for k in (0, 1)])


def icbhi(folder: Path, shared: str = "199") -> None:
    """Two cycles in each of 16 recordings of as many patients, but for the last: it is of `shared`."""
    top, kinds, rows = folder / "ICBHI_final_database", ("0\t0", "1\t0", "0\t1", "1\t1"), []
    for n in range(16):
        patient = shared if n == 15 else str(101 + n)
        name = f"{patient}_1b1_Al_sc_{'Litt3200' if n == 3 else 'Meditron'}"
        table(top / f"{name}.txt", f"0.0\t0.05\t{kinds[n % 4]}", f"0.05\t0.1\t{kinds[n % 4]}")
        sounds(top, [f"{name}.wav"])
        rows.append(f"{patient}_1b1_Al_sc_Meditron\t{'test' if n >= 12 else 'train'}")
    table(folder / "ICBHI_challenge_train_test.txt", *rows)


COUNTS = {"train": 12, "valid": 4, "test": 4}
EACH = {"train": 2, "valid": 2, "test": 2}
FOLDS = dict.fromkeys("12345", 4)
MOOD = partial(jamendo, subset="moodtheme", prefix="mood/theme---", tags=("happy", "sad"))
GENRE = partial(jamendo, subset="genre", prefix="genre---", tags=("jazz", "pop"))
#: as `COPIES` of test_catalogue
MORE_COPIES: dict[str, tuple[Callable[[Path], None], list[str], dict[str, int]]] = {
    "beans_watkins": (watkins, ["Harp_Seal", "Walrus"], COUNTS),
    "beans_watkins_grouped": (watkins, ["Harp_Seal", "Walrus"], FOLDS),
    "beans_bats": (bats, ["111", "231"], COUNTS),
    "beans_dogs": (dogs, ["Luke", "Zoe"], COUNTS),
    "beans_humbugdb": (humbugdb, ["ae aegypti", "non-mosquito", "others"], {"train": 18, "valid": 6, "test": 6}),
    "beans_humbugdb_grouped": (humbugdb, ["ae aegypti", "non-mosquito", "others"], dict.fromkeys("12345", 6)),
    "beans_cbi": (cbi, ["aldfly", "veery"], {"train": 6, "valid": 2, "test": 2}),
    "birdset_hsn": (birdset_hsn, ["gcrfin", "whcspa"], {"train": 20, "test": 4}),
    "vocalsound": (vocalsound, ["laughter", "sniff"], {"train": 4, "valid": 2, "test": 2}),
    "ravdess": (ravdess, ["neutral", "surprised"], {"train": 4, "valid": 2, "test": 2}),
    "fluent_speech_commands": (fluent_speech_commands, ["activate lights none", "increase volume none"], EACH),
    "asvspoof2019_la": (asvspoof2019_la, ["bonafide"], {"train": 4, "valid": 4, "test": 4}),
    "emodb": (emodb, ["anger", "sadness"], {"train": 4, "valid": 2, "test": 2}),
    "iemocap": (iemocap, ["anger", "happiness"], FOLDS),
    "librispeech_gender": (librispeech_gender, ["female", "male"], {"train": 4, "valid": 4, "test": 4}),
    "fsdkaggle2018": (fsdkaggle2018, ["Bark", "Cough"], {"train": 10, "test": 2}),
    "fma_small": (fma_small, ["Folk", "Rock"], EACH),
    "magnatagatune": (magnatagatune, ["guitar", "no vocals"], {"train": 6, "valid": 2, "test": 4}),
    "magnatagatune_grouped": (
        partial(magnatagatune, artists="aadbcd"),
        ["guitar", "no vocals"],
        {"train": 4, "valid": 2, "test": 4},
    ),
    "jamendo_genre": (GENRE, ["jazz", "pop"], {"train": 3, "valid": 3, "test": 3}),
    "jamendo_mood": (MOOD, ["happy", "sad"], {"train": 3, "valid": 3, "test": 3}),
    "emomusic_valence": (emomusic, [], {"train": 26, "test": 4}),
    "emomusic_arousal": (emomusic, [], {"train": 26, "test": 4}),
    "emomusic_valence_grouped": (partial(emomusic, last="Artist, 1"), [], {"train": 24, "test": 4}),
    "emomusic_arousal_grouped": (partial(emomusic, last="Artist, 1"), [], {"train": 24, "test": 4}),
    "giantsteps_key": (giantsteps_key, ["Db major", "A minor"], {"train": 12, "test": 2}),
    "hear_maestro": (hear_maestro, ["21", "108"], {f"{n:02d}": 2 for n in range(5)}),
    "icbhi": (icbhi, list(CYCLES.values()), {"train": 24, "test": 8}),
    "icbhi_grouped": (partial(icbhi, shared="104"), list(CYCLES.values()), {"train": 22, "test": 8}),
    "circor_murmur": (
        partial(circor, column="Murmur", labels=("Absent", "Present")),
        ["Absent", "Present"],
        FOLDS,
    ),
    "circor_outcome": (
        partial(circor, column="Outcome", labels=("Abnormal", "Normal")),
        ["Abnormal", "Normal"],
        FOLDS,
    ),
}
