"""Animals, voices, music and medicine: splits by a recipe, splits that leak and their grouped ones, and their metrics."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from more_copies import asvspoof2019_la, circor, emomusic, giantsteps_key, magnatagatune, watkins
from sklearn.model_selection import train_test_split
from test_catalogue import copy  # noqa: F401 (a fixture)

from evar.cli import run
from evar.data.catalogue import animals, medical, music_tags, voices
from evar.data.catalogue.regrouping import fold_by_group, keep_apart
from evar.data.task import load_task
from evar.metrics.classes import credit_keys
from evar.results import load_all


def test_the_recipe_of_beans_is_the_one_of_its_scripts():
    """The scripts draw rows of a data frame; the result does not depend on what else is in it."""
    table = pd.DataFrame({"path": [f"{n}.wav" for n in range(693)], "label": [f"dog {n % 7 % 4}" for n in range(693)]})
    train, others = train_test_split(table, test_size=0.4, random_state=42, shuffle=True, stratify=table["label"])
    valid, test = train_test_split(others, test_size=0.5, random_state=42, shuffle=True, stratify=others["label"])
    split = np.array(animals.draw_as_beans(table["label"].tolist()))
    for name, rows in (("train", train), ("valid", valid), ("test", test)):
        assert set(table["path"][split == name]) == set(rows["path"])
    assert [np.sum(split == name) for name in animals.SPLITS] == [415, 139, 139]
    sizes = animals.draw_as_beans(["a", "b"] * 847 + ["a"])  # as many as Watkins has
    assert [sizes.count(name) for name in animals.SPLITS] == [1017, 339, 339]


def test_lists_that_beans_scripts_wrote_go_before_the_recipe(tmp_path):
    watkins(tmp_path)
    drawn = animals.watkins(tmp_path)
    assert set(drawn["split"]) == set(animals.SPLITS)
    for name, rows in (("train", drawn[8:]), ("valid", drawn[:4]), ("test", drawn[4:8])):
        told = rows.assign(path="data/watkins/" + rows["path"])[["path", "label"]]
        told.to_csv(tmp_path / f"annotations.{name}.csv")
    read = animals.watkins(tmp_path)
    assert read["split"].tolist() == ["valid"] * 4 + ["test"] * 4 + ["train"] * 12
    told[1:].to_csv(tmp_path / "annotations.test.csv")
    with pytest.raises(ValueError, match="1 clips of annotations.csv are in none of .*delete the three"):
        animals.watkins(tmp_path)
    told = pd.concat([told, drawn[:1].assign(path="data/watkins/" + drawn["path"][:1])])
    told.to_csv(tmp_path / "annotations.test.csv")
    with pytest.raises(ValueError, match="is in two lists"):
        animals.watkins(tmp_path)


def test_a_draw_by_clip_leaks_and_folds_by_tape_do_not(tmp_path):
    watkins(tmp_path)
    index = animals.watkins(tmp_path)
    assert index["group"].nunique() == 10 and index["group"][0] == "60000"
    shared = index.groupby("group")["split"].nunique()
    assert (shared > 1).any(), "cuts of one tape are on both sides of BEANS' draw"
    grouped = animals.watkins_grouped(tmp_path)
    assert grouped.groupby("group")["fold"].nunique().max() == 1 and set(grouped["path"]) == set(index["path"])
    assert (grouped.groupby(["fold", "label"]).size() == 2).all()


def test_folds_by_group_are_balanced_and_depend_on_nothing_else():
    rng = np.random.default_rng(0)
    groups = [f"g{n}" for n in rng.integers(0, 60, 600)]
    labels = [f"{int(group[1:]) % 3};all" for group in groups]
    folds = fold_by_group(labels, groups)
    assert pd.Series(folds).groupby(groups).nunique().max() == 1
    sizes = pd.crosstab(pd.Series(folds), pd.Series([label[0] for label in labels]))
    assert sizes.shape == (5, 3) and sizes.to_numpy().min() > 25 and sizes.to_numpy().max() < 60
    order = rng.permutation(600)
    again = fold_by_group([labels[n] for n in order], [groups[n] for n in order])
    assert again == [folds[n] for n in order]
    with pytest.raises(ValueError, match="5 folds need at least 5 groups, got 2"):
        fold_by_group(["a", "b"], ["a", "b"])


def test_only_training_and_validation_clips_are_left_out(caplog):
    index = pd.DataFrame(
        {
            "path": list("abcdef"),
            "split": ["train", "train", "train", "valid", "valid", "test"],
            "group": list("xyzxvz"),
        }
    )
    kept = keep_apart(index, "Toy")
    assert kept["path"].tolist() == ["b", "d", "e", "f"]
    assert "Toy: 2 train clips are left out" in caplog.text


def test_a_grouped_task_has_the_same_test_clips(tmp_path):
    magnatagatune(tmp_path, artists="aadbcd")  # an artist of folder b is in folder f too
    published, grouped = music_tags.magnatagatune(tmp_path), music_tags.magnatagatune_grouped(tmp_path)
    test = [index[index["split"] == "test"]["path"].tolist() for index in (published, grouped)]
    assert test[0] == test[1] and len(grouped) == len(published) - 2
    assert set(published["split"][published["group"] == "d"]) == {"train", "test"}
    assert not set(grouped["group"][grouped["split"] == "train"]) & set(grouped["group"][grouped["split"] == "test"])
    (tmp_path / "e").mkdir()
    emomusic(tmp_path / "e", last="artist 1")  # the same artist but for a comma and case
    index = music_tags.emomusic_valence_grouped(tmp_path / "e")
    assert (index["split"] == "train").sum() == 24


def test_keys_are_spelled_in_one_way_and_doubtful_ones_are_left_out(tmp_path, caplog):
    giantsteps_key(tmp_path)
    index = music_tags.giantsteps_key(tmp_path)
    assert index["label"].tolist()[:2] == ["A minor", "Db major"] and len(index) == 14
    assert "2 tracks of several keys" in caplog.text
    assert index["group"][0] == index["group"][3] != index["group"][4], "artists who worked together are one group"
    classes = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in music_tags.TONICS]
    from evar.data.task_config import load_task_config

    assert list(load_task_config("giantsteps_key").classes) == classes, "the order that the metric needs"
    number = {name: np.array([place]) for place, name in enumerate(classes)}
    assert credit_keys(number["A minor"], number["C major"]) == 0.3 == credit_keys(number["C major"], number["A minor"])
    (tmp_path / "giantsteps-key-dataset" / "annotations" / "key" / "100.LOFI.key").write_text("H major")
    with pytest.raises(ValueError, match="expected a key such as 'Db minor', got 'H major'"):
        music_tags.giantsteps_key(tmp_path)


def test_a_patient_who_came_twice_is_one_group(tmp_path):
    circor(tmp_path, "Murmur", ("Absent", "Present"))
    index = medical.circor_murmur(tmp_path).set_index("path")
    assert index["group"]["training_data/109_AV.wav"] == index["group"]["training_data/100_PV.wav"] == "100"
    assert index.groupby("group")["fold"].nunique().max() == 1
    table = tmp_path / "training_data.csv"
    table.write_text(table.read_text().replace("Present", "Perhaps", 1))
    with pytest.raises(ValueError, match="Murmur of patient 101 must be Absent, Present, Unknown, got 'Perhaps'"):
        medical.circor_murmur(tmp_path)


def test_cycles_of_breath_are_parts_of_recordings(copy, tmp_path):  # noqa: F811
    top = copy("icbhi")
    index = medical.icbhi(top)
    assert index.iloc[1].tolist() == [
        "ICBHI_final_database/101_1b1_Al_sc_Meditron.wav",
        "0.05",
        "0.1",
        "normal",
        "train",
        "101",
    ]
    assert "104_1b1_Al_sc_Litt3200" in index["path"][6], "its device differs from the list's"
    assert index["label"].tolist()[:8:2] == ["normal", "crackle", "wheeze", "both"]
    task = load_task("icbhi")
    assert str(task.index["path"][1]).endswith("101_1b1_Al_sc_Meditron.wav#t=0.05,0.1") and not task.missing()
    table = top / "ICBHI_final_database" / "102_1b1_Al_sc_Meditron.txt"
    whole = table.read_text()
    table.write_text(whole.replace("1\t0", "2\t0", 1))
    with pytest.raises(ValueError, match="102_1b1.* line 1: expected start, end, crackles and wheezes"):
        medical.icbhi(top)
    table.unlink()
    with pytest.raises(
        FileNotFoundError, match="1 of 16 recordings of the list have no table of cycles such as .*102_1b1"
    ):
        medical.icbhi(top)
    table.write_text(whole)
    (top / "ICBHI_challenge_train_test.txt").write_text("101_1b1_Al_sc_Meditron training")
    with pytest.raises(ValueError, match="line 1: expected '101_1b1_Al_sc_Meditron test'"):
        medical.icbhi(top)


def test_a_training_clip_of_birdset_begins_with_its_first_event(copy):  # noqa: F811
    index = animals.birdset_hsn(copy("birdset_hsn"))
    assert set(index["start"][index["split"] == "train"]) == {"0.04"} and set(index["start"][20:]) == {""}
    assert index["group"][20] == "HSN_001_20150708_061805" and index["label"].tolist()[20:23] == [
        "",
        "gcrfin",
        "gcrfin;whcspa",
    ]
    assert load_task("birdset_hsn").index["path"][0] == "train/XC0.ogg#t=0.04,"
    for events, clusters, start in (([], [], ""), ([[0, 5]], [0], ""), ([[2, 3]], [-1], "2"), (None, None, "")):
        assert animals._find_first_event({"detected_events": events, "event_cluster": clusters}) == start


def test_actors_of_ravdess_follow_the_rule_that_is_stated():
    actors = sorted(f"{number:02d}" for number in range(1, 25))
    np.random.RandomState(0).shuffle(actors)
    assert set(actors[14:19]) == voices.RAVDESS_VALID and set(actors[19:]) == voices.RAVDESS_TEST


WRONG = [
    (
        animals.watkins,
        watkins,
        "annotations.csv",
        "path,species",
        "path,kind",
        "lacks the column 'species'.*it has path, kind",
    ),
    (animals.watkins, watkins, "annotations.csv", "Harp_Seal/", "../Harp_Seal/", "path must stay below"),
    (animals.watkins, watkins, "annotations.csv", ",Harp_Seal", "", "line 2: expected at least 2 columns, got 1"),
    (
        voices.asvspoof2019_la,
        asvspoof2019_la,
        "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.dev.trl.txt",
        "bonafide",
        "genuine",
        "line 1: expected 'SPEAKER CLIP - ATTACK bonafide",
    ),
    (
        music_tags.magnatagatune,
        magnatagatune,
        "annotations_final.csv",
        '"0/song',
        '"z/song',
        "begin with a folder 0 to f",
    ),
    (
        music_tags.emomusic_arousal,
        emomusic,
        "annotations/songs_info.csv",
        "evaluation",
        "test",
        "a Mediaeval 2013 set of development or evaluation, got '27' and 'test'",
    ),
    (
        music_tags.emomusic_arousal,
        emomusic,
        "annotations/static_annotations.csv",
        "\n5,",
        "\n500,",
        "static_annotations.csv lacks song 5",
    ),
    (
        medical.circor_murmur,
        partial(circor, column="Murmur", labels=("Absent", "Present")),
        "training_data.csv",
        "\n103,",
        "\n1030,",
        "is of patient 103, who is not in",
    ),
]


@pytest.mark.parametrize(("maker", "write", "file", "old", "new", "message"), WRONG)
def test_tables_that_are_wrong_are_one_sentence(tmp_path, maker, write, file, old, new, message):
    write(tmp_path)
    path = tmp_path / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        maker(tmp_path / "LA" if file.startswith("LA/") else tmp_path)


def test_missing_tables_say_where_to_get_them(tmp_path):
    (tmp_path / "training_data").mkdir()
    for maker, message in (
        (animals.watkins, "annotations.csv is not there.*watkins.zip of archive.org"),
        (animals.humbugdb, "neurips_2021_zenodo_0_0_1.csv is not there.*HumBug-Mosquito"),
        (animals.birdset_hsn, "HSN_metadata_train.parquet is not there.*BirdSet.*holds training_data/"),
        (voices.vocalsound, "tr_meta.csv is not there.*vocalsound"),
        (voices.ravdess, "no clip such as .*Audio_Speech_Actors_01-24.zip"),
        (music_tags.jamendo_mood, "autotagging_moodtheme-train.tsv is not there.*clone"),
        (music_tags.giantsteps_key, "annotations.txt is not there.*clone github.com/GiantSteps"),
        (medical.circor_outcome, "training_data.csv is not there.*physionet.org"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            maker(tmp_path)


def test_metrics_that_are_new_rank_their_tasks(copy, tmp_path, capsys):  # noqa: F811
    names = {
        "asvspoof2019_la": "equal_error_accuracy",
        "emomusic_valence": "r2",
        "circor_murmur": "balanced_accuracy",
        "giantsteps_key": "weighted_key_score",
        "icbhi": "sensitivity_specificity",
    }
    for name in names:
        copy(name)
        path = tmp_path / "config" / "tasks" / f"{name}.yaml"
        path.write_text(re.sub("clip_seconds: .*", "clip_seconds: 0.2", path.read_text()))
    out = tmp_path / "results"
    assert run(["lineval", "logmel", ",".join(names), f"--out={out}"]) == 0, capsys.readouterr()
    rows = {row.task: row for row in load_all(out)}
    assert {name: row.metric for name, row in rows.items()} == names
    row = rows["asvspoof2019_la"]
    assert row.score == 1 and row.extras["eer"] == 0 and row.chance == 0.5  # a low and a high tone
    assert "auc" in row.extras and "equal_error_accuracy" not in rows["circor_murmur"].extras
    assert rows["giantsteps_key"].chance == 2 / 2 and rows["emomusic_valence"].chance == 0


def test_notes_are_scored_within_50_milliseconds(copy, tmp_path, capsys):  # noqa: F811
    copy("hear_maestro")
    out = tmp_path / "results"
    assert run(["lineval", "logmel", "hear_maestro", "--protocol=events_notes", f"--out={out}"]) == 0, (
        capsys.readouterr()
    )
    (row,) = load_all(out)
    assert row.metric == "event_onset_f1_50ms" and list(row.extras) == ["segment_error_rate"]
    assert len(row.round_scores) == 5 and load_task("hear_maestro").config.classes == ("21", "108")
