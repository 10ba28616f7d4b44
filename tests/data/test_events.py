"""Tasks of events: counted right, found in frames, and judged like every other task."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import soundfile
import yaml
from scipy.optimize import linear_sum_assignment
from toy import RATE

from evar import cli, results
from evar.cli import run
from evar.data.task import load_task
from evar.metrics import METRICS, event_onset_f1, score_interval, segment_error_rate
from evar.metrics.events import count_clip, match_onsets
from evar.numeric.frames import FramesInMemory
from evar.probes.events import EventsProbe, as_objects, find_events, mark_frames

LENGTH = 4.0


def drawn(random: np.random.Generator, n: int, n_classes: int = 3) -> np.ndarray:
    """(n, 3) events anywhere, of any class, often close together."""
    onsets = random.uniform(0, 3, n).round(2)
    return np.stack([random.integers(n_classes, size=n), onsets, onsets + random.uniform(0.05, 1, n)], axis=1)


@pytest.mark.parametrize("seed", range(20))
def test_pairs_of_onsets_are_as_many_as_can_be(seed: int) -> None:
    random = np.random.default_rng(seed)
    true, found = drawn(random, 12), drawn(random, 10)
    near = (true[:, None, 0] == found[None, :, 0]) & (np.abs(true[:, None, 1] - found[None, :, 1]) <= 0.2 + 1e-9)
    rows, columns = linear_sum_assignment(-near.astype(float))
    assert match_onsets(true, found) == near[rows, columns].sum()


def test_metrics_of_perfect_empty_and_hand_counted_predictions() -> None:
    random = np.random.default_rng(0)
    clips = [drawn(random, 6) for _ in range(5)]
    nothing = np.empty((0, 3))
    for name, perfect, silent in (("event_onset_f1", 1.0, 0.0), ("segment_error_rate", 0.0, 1.0)):
        for found, score in ((clips, perfect), ([nothing] * 5, silent)):
            told = [count_clip(true, one) for true, one in zip(clips, found, strict=True)]
            assert METRICS[name].function(*map(list, zip(*told, strict=True))) == score
    assert event_onset_f1([[0, 0, 0]], [[0, 0, 0]]) == 1 and segment_error_rate([[0, 0, 0]], [[0, 0, 0]]) == 0
    # Class 0 in seconds 0 and 1, class 1 in second 2; found: class 1 in seconds 0 and 2, class 0 in second 1, and in 3.
    true = np.array([[0, 0.5, 1.5], [1, 2.1, 2.2]])
    found = np.array([[1, 0.5, 0.9], [0, 1.2, 1.8], [1, 2.25, 3.0], [0, 3.5, 3.9]])
    told, said = count_clip(true, found)
    assert told.tolist() == [2, 0, 3] and said.tolist() == [1, 4, 2]  # a substitution, and an insertion
    assert event_onset_f1([told], [said]) == pytest.approx(2 / 6)
    assert segment_error_rate([told], [said]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="counts of the same clips"):
        event_onset_f1([[1, 0]], [[1, 0]])


def test_the_interval_holds_the_score() -> None:
    random = np.random.default_rng(1)
    pairs = [
        count_clip(true, np.concatenate([true[:4], drawn(random, 2)])) for true in (drawn(random, 6) for _ in range(30))
    ]
    true, found = np.array([one for one, _ in pairs]), np.array([one for _, one in pairs])
    low, high = score_interval("event_onset_f1", true, [found], np.arange(30), np.zeros(30))
    assert 0 < low < event_onset_f1(true, found) < high < 1


def test_frames_become_the_events_that_they_came_from() -> None:
    events = np.array([[0, 0.5, 1.0], [1, 0.75, 2.0], [0, 1.5, 1.75]])
    active = mark_frames(events, 60, 0.05, 2)
    back = find_events(active > 0, 0.05, 0.0, 0.1)
    assert back == pytest.approx(events[np.argsort(events[:, 1], kind="stable")], abs=0.051)
    speckled = active > 0
    speckled[5, 1] = True
    speckled[24, 1] = False
    assert find_events(speckled, 0.05, 0.25, 0.1)[:, 0].tolist() == [0, 1, 0]  # the median takes both faults away
    assert find_events(speckled, 0.05, 0.0, 0.6)[:, 0].tolist() == [1]  # so long is one event only
    assert mark_frames(np.array([[0, 0.51, 0.52]]), 60, 0.05, 1).sum() == 1  # shorter than a frame


def planted(n_clips: int, seed: int) -> tuple[FramesInMemory, np.ndarray]:
    random = np.random.default_rng(seed)
    clips, told = [], []
    for _ in range(n_clips):
        events = drawn(random, 3, 2)
        events[:, 2] = np.minimum(events[:, 1] + 0.6, LENGTH)
        active = mark_frames(events, 80, 0.05, 2)
        clips.append(random.normal(size=(80, 6)) * 0.3 + active @ np.eye(2, 6) * 2)
        told.append(events)
    return FramesInMemory({"fc": clips}, {"fc": 0.05}), as_objects(told)


def test_planted_events_are_found_and_shuffled_ones_are_not() -> None:
    frames, y = planted(30, 0)
    train, valid, test = np.split(np.arange(30), [16, 22])
    probe = EventsProbe((0.01, 0.1, 1.0)).fit(frames[train], y[train], frames[valid], y[valid])
    assert probe.score(frames[test], y[test]) > 0.85 and probe.valid_score_ == probe.valid_scores_.max()
    assert set(probe.chosen_) == {"least_seconds"}
    other = y[np.roll(np.arange(30), 7)]
    blind = EventsProbe((0.01, 0.1, 1.0)).fit(frames[train], other[train], frames[valid], other[valid])
    assert blind.score(frames[test], y[test]) < 0.4


@pytest.mark.parametrize(
    ("change", "said"), [({"metric": "accuracy"}, "no metric of events"), ({"refit": "test"}, "refit must be")]
)
def test_settings_that_cannot_be_are_told(change, said) -> None:
    frames, y = planted(4, 0)
    with pytest.raises(ValueError, match=said):
        EventsProbe(**change).fit(frames, y, frames, y)


def test_a_layer_without_frames_is_refused() -> None:
    _, y = planted(4, 0)
    for periods in ({"fc": np.inf}, {}):
        frames = FramesInMemory({"fc": [np.zeros((1, 3))] * 4}, periods)
        with pytest.raises(ValueError, match="one vector a clip"):
            EventsProbe().fit(frames, y, frames, y)


@pytest.fixture
def noises(tones):
    """A task of 24 recordings of 4 s with tones of two pitches that begin and end, overlapping too."""
    root = tones()
    data, random = root / "data" / "noises", np.random.default_rng(3)
    data.mkdir(parents=True)
    rows = []
    for number in range(24):
        wave = 0.01 * random.standard_normal(int(LENGTH * RATE))
        events = []
        for onset in (0.3, 1.7, 2.6):
            start, label = onset + random.uniform(0, 0.4), int(random.integers(2))
            end = start + random.uniform(0.4, 0.7)
            span = np.arange(int(start * RATE), int(end * RATE))
            wave[span] += 0.3 * np.sin(2 * np.pi * (500 + 1400 * label) * span / RATE)
            events.append(f"{start:.3f}-{end:.3f} {('low', 'high')[label]}")
        soundfile.write(data / f"{number}.wav", wave.astype(np.float32), RATE)
        rows.append([f"{number}.wav", ";".join(events), ("train", "train", "valid", "test")[number % 4], f"g{number}"])
    tasks = root / "config" / "tasks"
    with open(tasks / "noises.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "group"], *rows])
    entry = yaml.safe_load((tasks / "tones.yaml").read_text())
    entry |= {
        "title": "noises", "kind": "events", "metric": "event_onset_f1", "classes": ["low", "high"], "index": "noises.csv",
        "folder": "noises", "expected": {"clips": 24, "classes": 2},
    }  # fmt: skip
    (tasks / "noises.yaml").write_text(yaml.safe_dump(entry))
    return root


def lineval(root, *words: str) -> int:
    return run(["lineval", *words, f"--out={root / 'results'}"])


def test_events_from_the_command_line(noises, capsys) -> None:
    assert lineval(noises, "toy", "noises", "--protocol=events", "--layers=all") == cli.DONE
    rows = {row.layers: row for row in results.load_all(noises / "results")}
    best, level = rows[("bands",)], rows[("level",)]
    assert best.score > 0.9 > level.score + 0.2 and best.chance == 0 and best.metric == "event_onset_f1"
    assert best.pooling == {"bands": "frames"} and 0 <= best.extras["segment_error_rate"] < 0.3
    assert best.interval[0] <= best.score <= best.interval[1] and best.n_test == 6
    told = results.load_predictions(noises / "results", best.id)
    assert told["y_true"][:, 0].tolist() == [3] * 6 and told["y_pred"].shape == (6, 3)
    capsys.readouterr()
    assert run(["rerun", str(results.run_path(noises / "results", best.id))]) == cli.DONE
    assert lineval(noises, "logmel", "noises", "--protocol=events") == cli.DONE
    assert run(["compare", f"--out={noises / 'results'}", "--baseline=logmel"]) == cli.DONE
    assert "differences to logmel" in capsys.readouterr().out


def test_what_is_tested_with_chooses_nothing(noises) -> None:
    assert lineval(noises, "toy", "noises", "--protocol=events") == cli.DONE
    before = results.load_all(noises / "results")[0]
    path = noises / "config" / "tasks" / "noises.csv"
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    for row in rows[1:]:
        if row[2] == "test":
            row[1] = "0-4 low"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert lineval(noises, "toy", "noises", "--protocol=events") == cli.DONE
    (after,) = [row for row in results.load_all(noises / "results") if row.id != before.id]
    assert after.score < before.score
    for key in ("chosen_strengths", "chosen"):
        assert after.params[key] == before.params[key]


def test_a_test_clip_that_cannot_be_read_is_all_missed(noises) -> None:
    assert lineval(noises, "toy", "noises", "--protocol=events") == cli.DONE
    whole = results.load_all(noises / "results")[0]
    (noises / "data" / "noises" / "3.wav").write_bytes(b"no sound")
    assert run(["lineval", "toy", "noises", "--protocol=events", f"--out={noises / 'again'}"]) == cli.DONE
    (row,) = results.load_all(noises / "again")
    assert row.n_test == 6 and row.skipped[0]["clip"] == "3.wav" and row.score < whole.score
    told = results.load_predictions(noises / "again", row.id)
    at = list(told["clip"]).index("3.wav")
    assert told["y_pred"][at, :2].tolist() == [0, 0] and told["y_true"][at, 0] == 3


def test_kinds_and_protocols_that_do_not_go_together_are_told(noises, capsys) -> None:
    assert lineval(noises, "toy", "noises") == cli.SOME_FAILED
    assert "no probe for events tasks" in (said := capsys.readouterr().out) and "protocol events has one" in said
    assert lineval(noises, "toy", "tones", "--protocol=events") == cli.SOME_FAILED
    assert "no probe for multiclass tasks, only for events" in capsys.readouterr().out
    assert lineval(noises, "toy", "noises", "--protocol=events", "--layers=all", "--fusion=concat") == cli.SOME_FAILED
    assert "one layer" in capsys.readouterr().out
    assert run(["finetune", "toy", "noises", f"--out={noises / 'results'}"]) == cli.SOME_FAILED
    assert "task of events" in capsys.readouterr().out
    assert run(["verify", "noises", "--deep", f"--out={noises / 'results'}"]) == cli.DONE


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("0.5-0.2 low", "an event must be like"),
        ("0.5 low", "an event must be like"),
        ("0.5-1 lo", "did you mean 'low'"),
    ],
)
def test_events_that_cannot_be_are_told(noises, label, said) -> None:
    path = noises / "config" / "tasks" / "noises.csv"
    lines = path.read_text().splitlines()
    lines[4] = f"3.wav,{label},test,g3"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"line 5.*{said}"):
        load_task("noises")


def test_a_clip_without_events_is_one(noises) -> None:
    path = noises / "config" / "tasks" / "noises.csv"
    lines = path.read_text().splitlines()
    lines[4] = "3.wav,,test,g3"
    path.write_text("\n".join(lines))
    task = load_task("noises")
    assert task.y[3].shape == (0, 3) and task.truth[3].tolist() == [0, 0, 0]
    assert lineval(noises, "toy", "noises", "--protocol=events") == cli.DONE


def test_a_table_of_events_becomes_a_task(noises, capsys) -> None:
    with open(noises / "config" / "tasks" / "noises.csv", newline="") as file:
        rows = [{"path": row["path"], "label": row["label"]} for row in csv.DictReader(file)]
    table = noises / "mine.csv"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label"])
        writer.writeheader()
        writer.writerows(rows)
    words = [f"--folder={noises / 'data' / 'noises'}", f"--csv={table}", "--kind=events", f"--to={noises / 'config'}"]
    assert run(["task", "new", "mine", *words]) == cli.DONE
    task = load_task("mine")
    assert task.config.classes == ("high", "low") and task.config.metric == "event_onset_f1" and len(task) == 24
    assert lineval(noises, "toy", "mine", "--protocol=events") == cli.DONE
