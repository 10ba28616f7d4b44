"""The reference protocol's tasks: tiny copies in the published layouts become the published rounds, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from more_copies import MORE_COPIES
from toy import RATE, tone

from evar import config
from evar.cli import SOME_FAILED, run
from evar.data.catalogue import animals, captions, environment, hear, medical, music, music_tags, speech, voices
from evar.data.task import Task, load_task
from evar.data.task_config import LABEL_SEPARATOR, TaskConfig, load_task_config
from evar.results import load_all, load_failures

MODULES = (animals, captions, environment, hear, medical, music, music_tags, speech, voices)
CATALOGUE = [name for name in config.names("tasks") if load_task_config(name).index_maker]


def sounds(top: Path, paths: list[str]) -> None:
    """Write a short tone at each path, as high as the number of its folder or name says."""
    for number, path in enumerate(paths):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            top / path, tone(number % 2, number, 0.2), RATE, format="OGG" if path.endswith("ogg") else "WAV"
        )


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def esc50(folder: Path) -> None:
    top = folder / "ESC-50-master"  # as the archive unpacks
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for number in range(8):
            source, target = 1000 * fold + number // 4 * 2 + number % 2, number % 2
            name = f"{fold}-{source}-{'ABCD'[number // 2]}-{target}.wav"
            rows.append(f"{name},{fold},{target},{('dog', 'rooster')[target]},True,{source},A")
    lines(top / "meta" / "esc50.csv", *rows)
    sounds(top, ["audio/" + row.split(",")[0] for row in rows[1:]])


def urbansound8k(folder: Path) -> None:
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for fold in range(1, 11):
        for number in range(2):
            source = 100 * fold + number
            rows.append(
                f"{source}-{3 + number}-0-0.wav,{source},0,1,1,{fold},{3 + number},{('dog_bark', 'drilling')[number]}"
            )
    top = folder / "UrbanSound8K"
    lines(top / "metadata" / "UrbanSound8K.csv", *rows)
    sounds(top, [f"audio/fold{row.split(',')[5]}/{row.split(',')[0]}" for row in rows[1:]])


def speech_commands_v2(folder: Path) -> None:
    paths = [
        f"{word}/{speaker}_nohash_{n}.wav"
        for speaker in ("a1", "b2", "c3", "d4")
        for n in (0, 1)
        for word in ("bed", "no")
    ]
    sounds(folder, [*paths, "_background_noise_/pink_noise.wav"])
    lines(folder / "validation_list.txt", *(path for path in paths if "b2" in path))
    lines(folder / "testing_list.txt", *(path for path in paths if "d4" in path))


def voxceleb1(folder: Path) -> None:
    clips = [f"id1000{s}/video{v}/0000{n}.wav" for v in (1, 2, 3) for s in (1, 2) for n in (1, 2)]
    lines(folder / "iden_split.txt", *(f"{clip.split('/')[1][-1]} {clip}" for clip in clips))
    sounds(folder / "wav", clips)


def voxceleb1_o(folder: Path) -> None:
    """Two tested speakers and two of the development part; `one video` has two clips."""
    clips = [f"id1000{s}/video{v}/00001.wav" for s in (1, 2, 3, 4) for v in range(1, 6)]
    tested = [clip for clip in clips if clip[6] in "12"]
    pairs = [f"{int(a[6] == b[6])} {a} {b}" for a in tested for b in tested if a < b]
    lines(folder / "veri_test2.txt", *pairs)
    sounds(folder / "wav", clips)


def voxforge(folder: Path) -> None:
    archives = {"anna-1": "train", "bert-1": "valid", "carl-2": "test"}
    rows = [
        f"www.voxforge.org/{language}/Trunk/Audio/Main/16kHz_16bit/{archive}{language}/wav/{language}{n}.wav,{split}"
        for archive, split in archives.items()
        for n in (1, 2)
        for language in ("de", "en")
    ]
    lines(folder / "voxforge_split.csv", "path,split", *rows)
    sounds(folder, [row.split(",")[0] for row in rows])


def cremad(folder: Path) -> None:
    names = [f"{actor}_DFA_{emotion}_XX" for actor in (1002, 1003, 1009, 1001) for emotion in ("ANG", "SAD")]
    sounds(folder / "CREMA-D" / "AudioWAV", [f"{name}.wav" for name in [*names, "1040_ITH_SAD_XX"]])


def gtzan(folder: Path) -> None:
    for number, split in enumerate(("train", "valid", "test")):
        clips = [f"{genre}/{genre}.0000{2 * number + n}.wav" for n in (0, 1) for genre in ("blues", "rock")]
        lines(folder / f"{split}_filtered.txt", *clips)
        sounds(folder / "genres", clips)


def nsynth_instrument(folder: Path) -> None:
    for split, number in (("train", "001"), ("valid", "002"), ("test", "002")):
        pitch = {"train": 60, "valid": 61, "test": 62}[split]
        notes = {
            f"{family}_acoustic_{number}-0{pitch}-{velocity}": {"instrument_family_str": family, "pitch": pitch}
            for velocity in ("025", "100")
            for family in ("bass", "reed")
        }
        lines(folder / f"nsynth-{split}" / "examples.json", json.dumps(notes))
        sounds(folder / f"nsynth-{split}" / "audio", [f"{note}.wav" for note in notes])


def surge_pitch(folder: Path) -> None:
    tones = {"Bank A/organ": "train", "Bank A/bell": "valid", "lead": "test"}
    lines(folder / "surge_split.csv", "tone,split", *(f"{name},{split}" for name, split in tones.items()))
    sounds(folder, [f"{name}/{note}.ogg" for name in tones for note in (21, 108)])


def hear_task(
    folder: Path,
    name: str,
    labels: list[str],
    parts: list[str],
    names: Callable[[str, int, str], str],
    n_each: int = 2,
) -> None:
    """A HEAR archive: some clips of each label in every split or fold."""
    top = folder / "tasks" / name
    for part in parts:
        clips = {names(part, n, label): [label] for n in range(n_each) for label in labels}
        lines(top / f"{part}.json", json.dumps(clips))
        sounds(top / "48000" / part, list(clips))
    lines(top / "task_metadata.json", json.dumps({"task_name": name, "splits": parts, "embedding_type": "scene"}))
    lines(top / "labelvocabulary.csv", "idx,label", *(f"{n},{label}" for n, label in enumerate(labels)))


def hear_events(folder: Path) -> None:
    """Events of both kinds in every recording, their times in milliseconds."""
    top = folder / "tasks" / "dcase2016_task2-hear2021-full"
    for part in ("train", "valid", "test"):
        told = {
            f"{part}{n}.wav": [
                {"label": "knock", "start": 0.0, "end": 40.0 + n},
                {"label": "cough", "start": 62.5, "end": 90},
            ]
            for n in range(2)
        }
        lines(top / f"{part}.json", json.dumps(told))
        sounds(top / "48000" / part, list(told))
    metadata = {"task_name": "dcase2016_task2", "splits": ["train", "valid", "test"], "embedding_type": "event"}
    lines(top / "task_metadata.json", json.dumps(metadata))


def hear_folds(
    labels: list[str], n_folds: int, n_each: int = 2
) -> tuple[Callable[[Path], None], list[str], dict[str, int]]:
    parts = [f"fold{n:02d}" for n in range(n_folds)]

    def write(folder: Path) -> None:
        hear_task(folder, "toy-v1-full", labels, parts, lambda part, n, label: f"{part}_{label}_{n}.wav", n_each)

    return write, labels, {part.removeprefix("fold"): n_each * len(labels) for part in parts}


def hear_nsynth(folder: Path) -> None:
    def name(part: str, n: int, label: str) -> str:
        return f"{'bass' if part == 'train' else 'reed'}_acoustic_00{n}-{part}{label}-100.wav"

    hear_task(folder, "nsynth_pitch-v2.2.3-5h", ["21", "108"], ["train", "valid", "test"], name)


def hear_parts(
    labels: list[str], sizes: dict[str, int], task: str = "toy-v1-full"
) -> tuple[Any, list[str], dict[str, int]]:
    """A HEAR task with a published split."""

    def write(folder: Path) -> None:
        hear_task(folder, task, labels, list(sizes), lambda part, n, label: f"{label}_{part}{n}.wav")

    return write, labels, {part: 2 * len(labels) for part in sizes}


def hear_commands(folder: Path) -> None:
    def name(part: str, n: int, label: str) -> str:
        return f"_silence__tap-{part}{n}.wav" if label == "_silence_" else f"yes_{SPEAKERS[part]}_nohash_{n}.wav"

    hear_task(folder, "speech_commands-v0.0.2-5h", ["_silence_", "yes"], list(SPEAKERS), name)


SPEAKERS = {"train": "0a", "valid": "0b", "test": "0c"}


def fsd50k(folder: Path) -> None:
    lines(
        folder / "FSD50K.ground_truth" / "dev.csv", "fname,labels,mids,split",
        *('1,"Bark,Dog","/m/1,/m/2",train', "2,Rain,/m/3,train", "3,Rain,/m/3,val", '4,"Bark,Dog","/m/1,/m/2",val'),
    )  # fmt: skip
    lines(folder / "FSD50K.ground_truth" / "eval.csv", "fname,labels,mids", "5,Rain,/m/3", '6,"Bark,Dog","/m/1,/m/2"')
    for part, clips in (("dev", "1234"), ("eval", "56")):
        sounds(folder / f"FSD50K.{part}_audio", [f"{clip}.wav" for clip in clips])
        people = {clip: {"uploader": f"{part}{int(clip) // 3}", "title": "t"} for clip in clips}
        lines(folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json", json.dumps(people))


def tut_scenes_2018(folder: Path) -> None:
    top = folder / "TUT-urban-acoustic-scenes-2018-development"
    train = [
        f"audio/{scene}-{city}-{n}-0-a.wav"
        for scene in ("park", "tram")
        for city in ("paris", "vienna")
        for n in (1, 2, 3)
    ]
    test = [f"audio/{scene}-oslo-{n}-0-a.wav" for scene in ("park", "tram") for n in (1, 2)]
    for name, clips in (("train", train), ("evaluate", test)):
        rows = [f"{clip}\t{clip.split('/')[1].split('-')[0]}" for clip in clips]
        lines(top / "evaluation_setup" / f"fold1_{name}.txt", *rows)
        sounds(top, clips)


def audioset(folder: Path) -> None:
    ids = [f"{n:011d}" for n in range(40)]
    for name, chosen in (("balanced_train", ids[:16]), ("unbalanced_train", ids[16:24]), ("eval", ids[24:])):
        rows = [f'{one}, 0.000, 10.000, "{["/m/a,/t/b", "/t/b"][n % 2]}"' for n, one in enumerate(chosen)]
        lines(folder / f"{name}_segments.csv", "# Segments csv", "# num", "# YTID, start, end, labels", *rows)
    sounds(
        folder / "audio",
        [f"some/{'Y' if int(one) % 2 else ''}{one}.wav" for one in ids if one not in (ids[5], ids[39])],
    )


def clotho(folder: Path) -> None:
    for number, part in enumerate(("development", "validation", "evaluation")):
        files = [f"rain {number} {n}.wav" for n in range(4 - number)]
        head = "file_name," + ",".join(f"caption_{n}" for n in range(1, 6))
        rows = [f'{file},"{file} falls, softly.",two,three | 3,four,five' for file in files]
        lines(folder / f"clotho_captions_{part}.csv", head, *rows)
        sounds(folder / part, files)


def audiocaps(folder: Path) -> None:
    names = iter(["{}", "Y{}", "{}_30", "Y{}_30", "{}_30000", "{}", "{}"])
    for number, (part, n_captions) in enumerate((("train", 1), ("val", 5), ("test", 5))):
        videos = [f"{number}{n:010d}" for n in range(3)]
        rows = [f"{n},{video},30,caption {n} of {video}" for video in videos for n in range(n_captions)]
        lines(folder / f"{part}.csv", "audiocap_id,youtube_id,start_time,caption", *rows)
        sounds(folder / "audio", [f"{part}/{next(names).format(video)}.wav" for video in videos[: 3 - (number > 0)]])


def librispeech_speaker(folder: Path) -> None:
    of = {"train": [f"{who}-{100 + who}-000{n}" for who in (19, 103) for n in range(8)]}
    of["test"] = [f"{who}-{100 + who}-001{n}" for who in (19, 103) for n in range(2)]
    for split, clips in of.items():
        lines(folder / f"{split}_split.txt", *clips)
        sounds(folder / "train-clean-100", ["/".join([*clip.split("-")[:2], f"{clip}.flac"]) for clip in clips])


def musan(folder: Path) -> None:
    of = {"train": range(2), "valid": range(2, 3), "test": range(3, 4)}
    rows = [
        (f"{kind}/fma/{kind}-fma-000{n}.wav", split)
        for split, numbers in of.items() for n in numbers for kind in ("music", "noise", "speech")
    ]  # fmt: skip
    lines(folder / "musan_split.csv", "path,split", *(",".join(row) for row in rows))
    lines(folder / "music" / "fma" / "ANNOTATIONS", "music-fma-0000 folk N Jo Doe", "music-fma-0001 folk,pop Y Jo Doe")
    sounds(folder, [path for path, _ in rows])


def bird_detection(folder: Path) -> None:
    for name, n in (("ff1010bird", 16), ("warblrb10k", 6)):
        lines(
            folder / name / "labels.csv",
            "itemid,datasetid,hasbird",
            *(f"{name[0]}{k},{name},{k % 2}" for k in range(n)),
        )
        sounds(folder / name / "wav", [f"{name[0]}{k}.wav" for k in range(n)])


THREE = {"train": 1, "valid": 1, "test": 1}
#: task -> writes a tiny copy; classes that occur; clips of each split or fold
COPIES: dict[str, tuple[Callable[[Path], None], list[str], dict[str, int]]] = {
    "esc50": (esc50, ["dog", "rooster"], dict.fromkeys("12345", 8)),
    "urbansound8k": (urbansound8k, ["dog_bark", "drilling"], {str(fold): 2 for fold in range(1, 11)}),
    "speech_commands_v2": (speech_commands_v2, ["bed", "no"], {"train": 8, "valid": 4, "test": 4}),
    "voxceleb1": (voxceleb1, ["id10001", "id10002"], {"train": 4, "valid": 4, "test": 4}),
    "voxceleb1_o": (voxceleb1_o, ["id10001", "id10002", "id10003", "id10004"], {"test": 10, "train": 10}),
    "voxforge": (voxforge, ["de", "en"], {"train": 4, "valid": 4, "test": 4}),
    "cremad": (cremad, ["ANG", "SAD"], {"train": 4, "valid": 2, "test": 2}),
    "gtzan": (gtzan, ["blues", "rock"], {"train": 4, "valid": 4, "test": 4}),
    "nsynth_instrument": (nsynth_instrument, ["bass", "reed"], {"train": 4, "valid": 4, "test": 4}),
    "surge_pitch": (surge_pitch, ["21", "108"], {"train": 2, "valid": 2, "test": 2}),
    "hear_mridangam_stroke": hear_folds(["cha", "thom"], 5),
    "hear_mridangam_tonic": hear_folds(["b", "csh"], 5),
    "hear_beijing_opera": hear_folds(["bangu", "naobo"], 5),
    "hear_gtzan_music_speech": hear_folds(["music", "speech"], 10),
    "hear_dcase2016_task2": (hear_events, ["cough", "knock"], {"train": 2, "valid": 2, "test": 2}),
    "hear_libricount": hear_folds(["0", "10"], 5),
    "hear_nsynth_pitch_5h": (hear_nsynth, ["21", "108"], {"train": 4, "valid": 4, "test": 4}),
    "hear_nsynth_pitch_50h": (hear_nsynth, ["21", "108"], {"train": 4, "valid": 4, "test": 4}),
    "hear_speech_commands_full": (hear_commands, ["_silence_", "yes"], {"train": 4, "valid": 4, "test": 4}),
    "hear_speech_commands_5h": (hear_commands, ["_silence_", "yes"], {"train": 4, "valid": 4, "test": 4}),
    "hear_gunshot_triangulation": hear_folds(["mic1", "mic2"], 7),
    "hear_beehive_states_fold0": hear_parts(["NOQUEEN", "QUEEN"], THREE),
    "hear_beehive_states_fold1": hear_parts(["NOQUEEN", "QUEEN"], THREE),
    "hear_vocal_imitation": hear_folds(["000Animal", "001Bell"], 3, n_each=4),
    "hear_vox_lingua_top10": hear_folds(["et", "fi"], 5),
    "hear_crema_d": hear_folds(["ANG", "SAD"], 5),
    "hear_esc50": hear_folds(["dog", "rooster"], 5),
    "hear_gtzan_genre": hear_folds(["blues", "rock"], 10),
    "hear_fsd50k": hear_parts(["Bark", "Rain"], THREE),
    "fsd50k": (fsd50k, ["Bark", "Dog", "Rain"], {"train": 2, "valid": 2, "test": 2}),
    "tut_scenes_2018": (tut_scenes_2018, ["park", "tram"], {"train": 12, "test": 4}),
    "audioset_20k": (audioset, ["/m/a", "/t/b"], {"train": 15, "test": 15}),
    "audioset": (audioset, ["/m/a", "/t/b"], {"train": 23, "test": 15}),
    "clotho": (clotho, [], {"train": 4, "valid": 3, "test": 2}),
    "audiocaps": (audiocaps, [], {"train": 3, "valid": 2, "test": 2}),
    "speech_commands_v1": (speech_commands_v2, ["bed", "no"], {"train": 8, "valid": 4, "test": 4}),
    "musan": (musan, ["music", "noise", "speech"], {"train": 6, "valid": 3, "test": 3}),
    "bird_detection": (bird_detection, ["bird"], {"train": 16, "test": 6}),
    "librispeech_speaker": (librispeech_speaker, ["19", "103"], {"train": 16, "test": 4}),
    **MORE_COPIES,
}


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A function that writes a tiny copy of a task, and its YAML with that copy's counts; returns the task's folder."""

    def write(name: str) -> Path:
        make, classes, parts = COPIES[name]
        entry = yaml.safe_load(config.find("tasks", name).read_text(encoding="utf-8"))
        entry["expected"] = {"clips": sum(parts.values()), "classes": len(classes), "parts": parts}
        if not entry.get("classes_from_index"):
            entry["classes"] = classes
        tasks = tmp_path / "config" / "tasks"
        tasks.mkdir(parents=True, exist_ok=True)
        (tasks / f"{name}.yaml").write_text(yaml.safe_dump(entry))
        monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
        monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
        make(tmp_path / "data" / entry["folder"])
        return tmp_path / "data" / entry["folder"]

    return write


def parts_of(task: Task) -> dict[str, set[str]]:
    """Split or fold -> paths."""
    part = "split" if task.config.splits == "published" else "fold"
    return {name: set(rows["path"]) for name, rows in task.index.groupby(part)}


def test_every_task_of_the_catalogue_has_a_copy_here():
    assert set(COPIES) == set(CATALOGUE)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_entry_says_what_it_must(name):
    entry = load_task_config(name)
    assert entry.source and entry.licence and entry.citation and entry.access and len(entry.notes) > 100
    assert entry.landmark and (entry.clip_seconds or entry.pad == "none")
    if entry.expected.classes is None:  # not published: then all that there may be are listed
        assert len(entry.classes) > 1 or entry.pairs
    else:
        assert (len(entry.classes) == entry.expected.classes) != entry.classes_from_index
    parts = entry.expected.parts
    if len(parts) > 1:
        assert sum(parts.values()) == entry.expected.clips


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_copy_becomes_the_published_rounds(copy, name):
    copy(name)
    task, again = load_task(name), load_task(name)
    _, classes, expected = COPIES[name]
    assert {part: len(paths) for part, paths in parts_of(task).items()} == expected
    assert not task.missing() and task.index_sha256 == again.index_sha256
    assert list(task.config.classes) == classes
    if task.config.kind == "events":
        one = np.array([[label in events[:, 0] for label in range(len(classes))] for events in task.y])
        assert task.y[1].tolist() == [[1, 0, 0.041], [0, 0.0625, 0.09]]
        assert task.index["label"][1] == f"0-0.041 {classes[1]};0.0625-0.09 {classes[0]}" and one.all()
        assert [a_round.name for a_round in task.rounds()] == (
            ["test"] if "test" in expected else [f"fold {fold}" for fold in expected]
        )
        return
    if task.config.kind == "regression":
        (a_round,) = task.rounds()
        assert np.isfinite(task.y).all() and set(task.groups[a_round.train]).isdisjoint(task.groups[a_round.test])
        assert task.y[0] == float(task.index["label"][0]) and len(set(task.y)) > 2
        return
    if task.config.kind == "captions":
        assert [len(own) for own in task.y[-2:]] == [5, 5] and all("|" not in text for own in task.y for text in own)
        return
    one = task.y if task.config.kind == "multilabel" else np.eye(len(classes), dtype=np.uint8)[task.y]
    said = [LABEL_SEPARATOR.join(np.array(classes)[row == 1]) for row in one]
    assert said == list(task.index["label"]) and (one.sum(axis=0) > 0).all()
    if task.config.splits == "published":
        (a_round,) = task.rounds()
        assert task.draws_validation == ("valid" not in expected) and set(task.rounds(1)[0].test) == set(a_round.test)
        train = set(task.groups[a_round.train])
        for split, rows in (("valid", a_round.valid), ("test", a_round.test)):
            if not {"train", split} <= set(task.config.may_share_groups):
                assert not train & set(task.groups[rows])
    else:
        assert [a_round.name for a_round in task.rounds()] == [f"fold {fold}" for fold in expected]


@pytest.mark.parametrize("name", CATALOGUE)
def test_test_and_training_clips_are_never_drawn(copy, name, monkeypatch):
    copy(name)

    def refuse(*_):
        raise AssertionError("drawn at random")

    for draw in (
        "numpy.random.default_rng",
        "numpy.random.shuffle",
        "random.shuffle",
        "random.sample",
        "random.random",
    ):
        monkeypatch.setattr(draw, refuse)
    task = load_task(name)
    for seed in (0, 1):
        for a_round in task.rounds(seed):
            held_out = parts_of(task)[a_round.name.removeprefix("fold ")]
            assert set(task.index["path"].to_numpy()[a_round.test]) == held_out
            if not a_round.drawn:
                assert set(task.index["path"].to_numpy()[a_round.train]) == parts_of(task)["train"]


def test_groups_and_splits_come_from_the_published_facts(copy):
    for name, clip, split, group in (
        ("speech_commands_v2", "no/d4_nohash_1.wav", "test", "d4"),
        ("voxceleb1", "wav/id10002/video2/00001.wav", "valid", "id10002/video2"),
        ("cremad", "AudioWAV/1009_DFA_SAD_XX.wav", "valid", "1009"),
        ("nsynth_instrument", "nsynth-test/audio/reed_acoustic_002-062-100.wav", "test", "reed_acoustic_002"),
        ("surge_pitch", "Bank A/bell/108.ogg", "valid", "Bank A/bell"),
        ("gtzan", "rock/rock.00005.wav", "test", "rock/rock.00005.wav"),
        ("fsd50k", "FSD50K.dev_audio/4.wav", "valid", "dev1"),
        ("hear_speech_commands_5h", "48000/valid/yes_0b_nohash_1.wav", "valid", "0b"),
        ("hear_speech_commands_5h", "48000/test/_silence__tap-test0.wav", "test", "_silence__tap-test0.wav"),
        ("tut_scenes_2018", "audio/tram-oslo-2-0-a.wav", "test", "oslo-2"),
        (
            "librispeech_speaker",
            "train-clean-100/19/119/19-119-0010.flac",
            "test",
            "train-clean-100/19/119/19-119-0010.flac",
        ),
        ("musan", "music/fma/music-fma-0001.wav", "train", "fma: Jo Doe"),
        ("bird_detection", "warblrb10k/wav/w1.wav", "test", "warblrb10k/wav/w1.wav"),
        ("audioset", "audio/some/Y00000000017.wav", "train", "00000000017"),
    ):
        copy(name)
        index = load_task(name).index
        row = index[index["path"].str.endswith(clip)].iloc[0]
        assert (row["split"], row["group"]) == (split, group)
    copy("esc50")
    row = load_task("esc50").index.set_index("path").loc["audio/3-3001-A-1.wav"]
    assert (row["fold"], row["group"], row["label"]) == ("3", "3001", "rooster")
    assert len(speech.CREMAD_VALID) == 9 and len(speech.CREMAD_TEST) == 19
    assert not speech.CREMAD_VALID & speech.CREMAD_TEST


def test_audioset_says_how_much_of_the_lists_is_there(copy, caplog):
    copy("audioset"), copy("audioset_20k")
    load_task("audioset")
    assert "23 of 24 train segments and 15 of 16 test segments are in" in caplog.text
    load_task("audioset_20k")
    assert "15 of 16 train segments" in caplog.text


def test_an_uploader_in_training_and_test_clips_is_refused(copy):
    folder = copy("fsd50k")
    lines(folder / "FSD50K.metadata" / "eval_clips_info_FSD50K.json", json.dumps({"5": {"uploader": "dev1"}}))
    with pytest.raises(ValueError, match="1 groups are in more than one split, first 'dev1'"):
        load_task("fsd50k")
    lines(folder / "FSD50K.metadata" / "eval_clips_info_FSD50K.json", json.dumps({"5": {"name": "dev1"}}))
    with pytest.raises(ValueError, match="must hold an uploader for each clip"):
        load_task("fsd50k")


@pytest.mark.parametrize(
    ("name", "file", "line", "message"),
    [
        ("tut_scenes_2018", "TUT-urban-acoustic-scenes-2018-development/evaluation_setup/fold1_train.txt",
         "audio/../../x-y-1-0-a.wav\tpark", "line 1: expected 'audio/SCENE-CITY"),
        ("tut_scenes_2018", "TUT-urban-acoustic-scenes-2018-development/evaluation_setup/fold1_train.txt",
         "audio/park-paris-1-0-a.wav park", "line 1: expected 'audio/SCENE-CITY"),
        ("librispeech_speaker", "train_split.txt", "19/198/19-198-0001.flac", "line 1: expected an utterance such as"),
        ("audioset", "eval_segments.csv", "00000000017, 0.0, 10.0", "line 1: expected 'YTID, start, end"),
    ],
)  # fmt: skip
def test_lists_that_are_no_lists_are_refused(copy, name, file, line, message):
    path = copy(name) / file
    lines(path, line)
    with pytest.raises(ValueError, match=message):
        load_task(name)


def test_classes_of_the_index_are_counted(copy):
    folder = copy("hear_gunshot_triangulation")
    task = load_task("hear_gunshot_triangulation")
    assert task.config.classes == ("mic1", "mic2") and load_task_config("hear_gunshot_triangulation").classes == ()
    path = next(folder.rglob("fold00.json"))
    path.write_text(path.read_text().replace("mic2", "mic3"))  # labels and names
    with pytest.raises(ValueError, match="expected 2 classes, got 3"):
        load_task("hear_gunshot_triangulation")
    entry = yaml.safe_load(config.find("tasks", "hear_gunshot_triangulation").read_text())
    with pytest.raises(ValueError, match="classes_from_index needs labels that are classes"):
        config.build({**entry, "name": "x", "kind": "regression", "metric": "pearson"}, TaskConfig, "here")


def test_au_files_and_the_archive_folder_itself_are_accepted(copy):
    folder = copy("gtzan")
    for file in list(folder.rglob("*.wav")):
        file.rename(file.with_suffix(".au"))
    assert not load_task("gtzan").missing() and load_task("gtzan").index["path"][0].endswith(".au")
    folder = copy("esc50")
    before = load_task("esc50").index_sha256
    for item in list((folder / "ESC-50-master").iterdir()):
        item.rename(folder / item.name)
    task = load_task("esc50")
    assert task.folder == folder and task.index_sha256 == before and not task.missing()


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("esc50", "ESC-50-master/meta/esc50.csv", "esc50.csv is not there.*karoldvl/ESC-50"),
        ("urbansound8k", "UrbanSound8K/metadata/UrbanSound8K.csv", "is not there.*zenodo.org/record/1203745"),
        ("speech_commands_v2", "validation_list.txt", "validation_list.txt is not there.*v0.02.tar.gz"),
        ("voxceleb1", "iden_split.txt", "iden_split.txt is not there.*get it from https://www.robots"),
        ("voxforge", "voxforge_split.csv", "voxforge_split.csv is not there.*columns path.*and split"),
        ("gtzan", "valid_filtered.txt", "valid_filtered.txt is not there.*get it from https://github.com/jongpillee"),
        ("nsynth_instrument", "nsynth-valid/examples.json", "nsynth-valid/examples.json is not there"),
        ("surge_pitch", "surge_split.csv", "surge_split.csv is not there.*columns tone"),
        ("musan", "musan_split.csv", "musan_split.csv is not there.*put your own there"),
        ("bird_detection", "warblrb10k/labels.csv", "is not there.*table of itemid and hasbird"),
        ("fsd50k", "FSD50K.ground_truth/eval.csv", "eval.csv is not there.*ground_truth.zip"),
        ("librispeech_speaker", "test_split.txt", "test_split.txt is not there.*get CPC's test_split.txt"),
        (
            "audioset_20k",
            "balanced_train_segments.csv",
            "is not there.*get it from http://storage.googleapis.com/us_audio",
        ),
        (
            "tut_scenes_2018",
            "TUT-urban-acoustic-scenes-2018-development/evaluation_setup/fold1_evaluate.txt",
            "fold1_evaluate.txt is not there.*zenodo.org/record/1228142",
        ),
    ],
)
def test_a_missing_split_file_says_where_to_get_it(copy, name, file, message):
    (copy(name) / file).unlink()
    with pytest.raises(FileNotFoundError, match=message):
        load_task(name)


def test_no_folder_names_the_source(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="voxceleb1: no folder .*voxceleb1; get the data set from .*registration"
    ):
        load_task("voxceleb1", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        (
            "esc50",
            "ESC-50-master/meta/esc50.csv",
            "1-1000-A-0.wav,1",
            "../1-1000-A-0.wav,1",
            "clip 1: path must stay below",
        ),
        ("esc50", "ESC-50-master/meta/esc50.csv", "category", "kind", "lacks the column 'category'"),
        (
            "esc50",
            "ESC-50-master/meta/esc50.csv",
            "-A-0.wav,1,0,dog",
            "-A-0.wav,1,0,dgo",
            "label 'dgo'.*did you mean 'dog'",
        ),
        (
            "esc50",
            "ESC-50-master/meta/esc50.csv",
            "1-1000-A-0.wav,1",
            "1-1000-A-0.wav,2",
            "1 groups are in more than one fold",
        ),
        ("gtzan", "test_filtered.txt", "blues/blues.00004.wav", "../../etc/passwd", "line 1: path must stay below"),
        (
            "gtzan",
            "test_filtered.txt",
            "blues/blues.00004.wav\n",
            "",
            "expected 12 clips, got 11; is it another version",
        ),
        (
            "voxceleb1",
            "iden_split.txt",
            "1 id10001/video1/00001.wav",
            "4 id10001/video1/00001.wav",
            "line 1: expected '<1",
        ),
        ("voxceleb1", "iden_split.txt", "1 id10001/video1/00001.wav", "1 /etc/a/b.wav", "line 1: path must stay below"),
        ("voxforge", "voxforge_split.csv", "/de/Trunk/", "/Trunk/", "line 2: path must hold the language"),
        (
            "voxforge",
            "voxforge_split.csv",
            "anna-1de/wav/de1.wav,train",
            "anna-1de/wav/de1.wav,test",
            "1 groups are in more",
        ),
        ("surge_pitch", "surge_split.csv", "lead,", "../lead,", "line 4: tone must stay below"),
        ("nsynth_instrument", "nsynth-test/examples.json", "instrument_family_str", "family", "expected notes with"),
    ],
)
def test_wrong_tables_are_one_sentence(copy, name, file, old, new, message):
    path = copy(name) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        load_task(name)


def test_counts_of_splits_are_checked(copy):
    folder = copy("cremad") / "CREMA-D" / "AudioWAV"
    (folder / "1002_DFA_ANG_XX.wav").rename(folder / "1001_IEO_ANG_HI.wav")
    with pytest.raises(ValueError, match="expected 2 clips in split test, got 3"):
        load_task("cremad")
    (folder / "1001_DFA_ANG_XX.wav").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="is a Git LFS pointer"):
        load_task("cremad")


def test_training_instruments_may_not_leak(copy):
    folder = copy("nsynth_instrument")
    path = folder / "nsynth-test" / "examples.json"
    path.write_text(path.read_text().replace("reed_acoustic_002", "reed_acoustic_001"))
    with pytest.raises(
        ValueError, match="1 groups are in more than one split, first 'reed_acoustic_001' in test, train"
    ):
        load_task("nsynth_instrument")


def test_tasks_lists_what_is_there_and_what_is_not(copy, capsys):
    folder = copy("esc50")
    (folder / "ESC-50-master" / "audio" / "1-1000-A-0.wav").unlink()
    copy("cremad")
    (copy("gtzan") / "test_filtered.txt").unlink()
    assert run(["tasks"]) == 0
    listed = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert (
        "folds: 5" in listed["esc50"]
        and "partly there: 1 of 40 missing" in listed["esc50"]
        and " ready " in listed["cremad"]
    )
    assert (
        "partly there: `evar verify gtzan`" in listed["gtzan"] and "missing, needs registration" in listed["voxceleb1"]
    )
    assert "183392" in listed["surge_pitch"] and " missing " in listed["surge_pitch"] and "GPL" in listed["voxforge"]


def test_logmel_becomes_a_row_of_two_of_them(copy, tmp_path, capsys):
    copy("esc50"), copy("cremad")
    out = tmp_path / "results"
    assert run(["lineval", "logmel", "esc50,cremad", f"--out={out}"]) == 0, capsys.readouterr()
    rows = {row.task: row for row in load_all(out)}
    assert set(rows) == {"esc50", "cremad"}
    assert len(rows["esc50"].round_scores) == 5 and np.isfinite(rows["cremad"].score)


def test_a_task_whose_data_are_not_there_fails_its_cells_and_the_others_go_on(copy, tmp_path, capsys):
    copy("cremad")
    out = tmp_path / "results"
    for jobs in ("1", "2"):
        assert run(["lineval", "logmel", "gtzan,cremad", f"--out={out}", f"--jobs={jobs}"]) == SOME_FAILED
        (failure,) = load_failures(out)
        assert failure.cell["task"] == "gtzan" and "get the data set from" in failure.reason
        assert [row.task for row in load_all(out)] == ["cremad"]
    assert run(["lineval", "logmel", "gtzan,cremad", f"--out={out}", "--dry_run"]) == 0
    assert "will fail: gtzan: no folder" in capsys.readouterr().out


def test_all_tasks_means_those_at_hand(copy, tmp_path):
    from evar.experiment.request import parse_request

    copy("cremad")
    named = parse_request("logmel", "all").tasks
    assert "cremad" in named and "esc10" in named and not set(named) & (set(CATALOGUE) - {"cremad"})
    assert set(config.load_grid_config("composing_gar").tasks) < set(CATALOGUE)


@pytest.mark.parametrize("name", config.names("grids"))
def test_every_name_of_a_grid_loads(name):
    grid = config.load_grid_config(name)
    for encoder in grid.encoders:
        config.load_encoder_config(encoder)
    for task in grid.tasks:
        load_task_config(task)


def test_makers_are_those_of_the_catalogue():
    makers = {load_task_config(name).index_maker.partition(":")[2] for name in CATALOGUE}
    assert all(any(hasattr(module, maker) for module in MODULES) for maker in makers)


def test_hear_archives_of_either_depth_are_read_and_events_are_refused(copy):
    folder = copy("hear_beijing_opera")
    before = [row.rpartition("/")[2] for row in load_task("hear_beijing_opera").index["path"]]
    (folder / "hear-2021.1.1").mkdir()
    (folder / "tasks").rename(folder / "hear-2021.1.1" / "tasks")
    task = load_task("hear_beijing_opera")
    assert [row.rpartition("/")[2] for row in task.index["path"]] == before and not task.missing()
    (task_folder,) = (folder / "hear-2021.1.1" / "tasks").iterdir()
    (task_folder / "fold02.json").write_text('{"a.wav": [{"label": "bangu", "start": 0, "end": 10}]}')
    with pytest.raises(ValueError, match="is it a task of events"):
        load_task("hear_beijing_opera")
    (task_folder / "fold02.json").write_text('{"../a.wav": ["bangu"]}')
    with pytest.raises(ValueError, match="path must stay below"):
        load_task("hear_beijing_opera")
    (task_folder / "fold02.json").unlink()
    with pytest.raises(FileNotFoundError, match="fold02.json is not there.*zenodo.org/records/6332517"):
        load_task("hear_beijing_opera")


# ---------------------------------------------------------------- copies and mirrors


def touch(top: Path, *names: str) -> None:
    for name in names:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"x")


def test_layouts_of_mirrors(tmp_path):
    from evar.data.catalogue import environment, music, speech

    top = tmp_path / "us8k"
    touch(top, *(f"fold{n}/{n}-0-0-0.wav" for n in range(1, 4)))
    rows = [f"{n}-0-0-0.wav,{n},{n},dog_bark" for n in range(1, 4)]
    (top / "UrbanSound8K.csv").write_text("\n".join(["slice_file_name,fsID,fold,class", *rows]))
    assert environment.urbansound8k(top)["path"].tolist() == [f"fold{n}/{n}-0-0-0.wav" for n in range(1, 4)]
    top = tmp_path / "esc"
    touch(top, "audio/audio/1-1-A-0.wav")
    (top / "esc50.csv").write_text("filename,fold,target,category,src_file\n1-1-A-0.wav,1,0,dog,1\n")
    assert environment.esc50(top)["path"].tolist() == ["audio/audio/1-1-A-0.wav"]
    top = tmp_path / "gtzan"
    touch(top, "Data/genres_original/blues/blues.00001.wav", "Data/images_original/blues/blues00001.png")
    for split in ("train", "valid", "test"):
        (top / f"{split}_filtered.txt").write_text("blues/blues.00001.wav\n")
    assert set(music.gtzan(top)["path"]) == {"Data/genres_original/blues/blues.00001.wav"}
    top = tmp_path / "words"
    touch(top, "train/audio/bed/0c40e715_nohash_0.wav", "train/audio/bed/._0c40e715_nohash_0.wav")
    for name in ("validation_list.txt", "testing_list.txt"):
        (top / "train" / name).write_text("bed/0c40e715_nohash_0.wav\n" * (name[0] == "t"))
    assert speech.speech_commands(top)[["path", "split"]].values.tolist() == [
        ["train/audio/bed/0c40e715_nohash_0.wav", "test"]
    ]


def test_tables_of_mirrors_are_found_in_folders_of_other_names(tmp_path):
    from evar.data.catalogue import environment, speech

    top = tmp_path / "esc"
    touch(top, "ESC-50-master/audio/1-1-A-0.wav", "ESC-50-master/meta/esc50.csv", "__MACOSX/meta/esc50.csv")
    table = "filename,fold,target,category,src_file\n1-1-A-0.wav,1,0,dog,1\n"
    (top / "ESC-50-master" / "meta" / "esc50.csv").write_text(table)
    assert environment.esc50(top)["path"].tolist() == ["ESC-50-master/audio/1-1-A-0.wav"]
    top = tmp_path / "words"
    touch(top, "SpeechCommands/speech_commands_v0.02/bed/0c40e715_nohash_0.wav")
    for name in ("validation_list.txt", "testing_list.txt"):
        text = "bed/0c40e715_nohash_0.wav\n" * (name[0] == "t")
        (top / "SpeechCommands" / "speech_commands_v0.02" / name).write_text(text)
    assert speech.speech_commands(top)["split"].tolist() == ["test"]
    top = tmp_path / "fsd"
    parts = [f"FSD50K.{part}" for part in ("dev_audio", "eval_audio", "ground_truth")]
    touch(top, *(f"{part}/{part}/{n}.wav" for n, part in enumerate(parts[:2])))
    (top / parts[2] / parts[2]).mkdir(parents=True)
    (top / parts[2] / parts[2] / "dev.csv").write_text("fname,labels,split\n0,Dog,train\n")
    (top / parts[2] / parts[2] / "eval.csv").write_text("fname,labels\n1,Dog\n")
    assert environment.fsd50k(top)["path"].tolist() == [f"{part}/{part}/{n}.wav" for n, part in enumerate(parts[:2])]
    (top / "old" / parts[2]).mkdir(parents=True)
    (top / "old" / parts[2] / "dev.csv").write_text("fname,labels,split\n7,Cat,train\n")
    with pytest.raises(FileNotFoundError, match="dev.csv is not there"):  # two: nobody can tell which is meant
        environment.fsd50k(top)


def test_one_odd_name_does_not_block_a_data_set(tmp_path, caplog):
    from evar.data.catalogue import environment, speech

    names = ["1001_DFA_ANG_XX", "1002_DFA_SAD_XX", "1040_ITH_SAD_X", "._1001_DFA_ANG_XX", "copy of 1001"]
    touch(tmp_path, *(f"AudioWAV/{name}.wav" for name in names))
    assert speech.cremad(tmp_path)["path"].tolist() == [f"AudioWAV/{name}.wav" for name in names[:2]]
    assert "copy of 1001" in caplog.text
    top = tmp_path / "audioset"
    touch(
        top, "audio/Yabcdefghi01.info.json", "audio/abcdefghi01.jpg", "audio/abcdefghi01.m4a", "audio/abcdefghi01.json"
    )
    for name in ("balanced_train_segments.csv", "eval_segments.csv"):
        (top / name).write_text('abcdefghi01, 0.0, 10.0, "/m/0"\n' * (name[0] == "b"))
    assert environment.audioset_balanced(top)["path"].tolist() == ["audio/abcdefghi01.m4a"]


def test_a_missing_table_names_what_is_there(tmp_path):
    from evar.data.catalogue import environment

    touch(tmp_path, "something/else.wav", "notes.txt", ".hidden")
    with pytest.raises(FileNotFoundError, match=r"UrbanSound8K.csv is not there.*holds notes.txt, something/"):
        environment.urbansound8k(tmp_path)
    (tmp_path / "UrbanSound8K.csv").write_text("<html>404</html>")
    with pytest.raises(ValueError, match="is a web page"):
        environment.urbansound8k(tmp_path)
