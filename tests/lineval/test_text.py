"""Zero-shot classes and retrieval by captions: right on planted data, refused before any work, computed once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from toy import Bands, Reader

import evar
from evar import cli, results
from evar.cli import run
from evar.config.protocol import load_protocol_config
from evar.data.prompts import Prompts
from evar.data.sentences import write_prompts
from evar.data.task import load_task
from evar.data.task_config import load_task_config
from evar.metrics import METRICS, estimate_chance
from evar.metrics.retrieval import rank_matches
from evar.metrics.significance import compare_pairs
from evar.probes.protocol import get_traits


@pytest.fixture
def words(tones: Any) -> Any:
    """A function that writes the task of tones with prompts, and an encoder that reads, and returns the folder."""

    def prepare(prompts: dict[str, Any] | None = None, **options: Any) -> Path:
        root = tones(**options)
        entry = {"implementation": "toy:Reader", "description": "reads", "trained_on": "nothing", "citation": "none"}
        (root / "config/encoders/toy_reader.yaml").write_text(yaml.safe_dump(entry))
        change_task(root, prompts={"templates": ["not {}", "a {} tone"]} if prompts is None else prompts)
        Reader.read.clear()
        return root

    return prepare


def change_task(root: Path, **values: Any) -> None:
    path = root / "config/tasks/tones.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **values}))


def lineval(root: Path, *more: str) -> int:
    return run(["lineval", *more, f"--out={root / 'results'}"])


def test_the_template_is_chosen_on_validation_clips(words: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """One template says the opposite: it is first in the list, scores 0, and is not chosen; the table tells the spread."""
    root = words()
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score == 1.0 and row.layers == ("bands",) and (row.n_train, row.n_valid, row.n_test) == (0, 9, 9)
    assert sum(Bands.calls) == 18 + 6, "validation and test clips, and the prompts' own tones; no training clip"
    assert row.params["chosen"] == ({"template": 1},) or row.params["chosen"] == [{"template": 1}]
    assert list(row.params["prompts"]["templates"]) == ["not {}", "a {} tone"]
    assert list(row.params["prompts"]["template_scores"]) == [0.0, 1.0]
    assert row.interval is not None and row.rounds[0]["valid_score"] == 1.0
    assert "each of 2 templates of prompts alone would score 0.0 to 100.0" in (root / "results/table.md").read_text()
    Bands.calls.clear()
    Reader.read.clear()
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot_average") == cli.DONE
    assert not Reader.read and not Bands.calls, "texts and clips come from the store"
    both = {row.protocol: row for row in results.load_all(root / "results")}
    assert both["zero_shot_average"].score < 1.0, "an average of opposite sentences is no good"
    assert run(["rerun", str(next((root / "results/runs").glob("*zero_shot__*")))]) == cli.DONE


def test_test_clips_choose_nothing(words: Any) -> None:
    """Where validation clips have the labels of the other template, that one is chosen, and the test score is 0."""
    root = words()
    path = root / "config/tasks/tones.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    order = ["low", "middle", "high"]
    for row in rows:
        if row["split"] == "valid":  # a prompt "not X" lies where the next tone does
            row["label"] = order[(order.index(row["label"]) - 1) % 3]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score == 0.0 and list(row.params["prompts"]["template_scores"]) == [0.0, 1.0]


def test_other_words_are_another_row(words: Any) -> None:
    root = words()
    for templates in (["a {} tone"], ["the {} tone"]):
        change_task(root, prompts={"templates": templates})
        assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") == cli.DONE
    change_task(root, prompts={"templates": ["the {} tone"], "names": {"low": "middle"}})
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") == cli.DONE
    rows = list(results.load_all(root / "results"))
    assert len({row.id for row in rows}) == 3 and sorted(row.score for row in rows)[1:] == [1.0, 1.0]
    assert min(row.score for row in rows) < 0.7, "a wrong name costs its class"


def test_several_labels_a_clip(words: Any) -> None:
    root = words(kind="multilabel")
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.metric == "mean_average_precision" and row.score > 0.7


def test_what_cannot_be_read_is_refused_before_any_clip_is_encoded(words: Any, capsys: Any) -> None:
    root = words()
    for request, reason in (
        (("toy", "tones"), "toy reads no text"),
        (("toy_reader", "tones", "--layers=level"), "compares texts with the layer bands"),
        (("toy_reader", "tones", "--layers=all", "--fusion=concat"), "compares texts with the layer bands"),
    ):
        assert lineval(root, *request, "--protocol=zero_shot") != cli.DONE
        assert reason in " ".join("".join(capsys.readouterr()).split())
    change_task(root, prompts={"unsuitable": "its classes are people"})
    assert lineval(root, "toy_reader", "tones", "--protocol=zero_shot") != cli.DONE
    assert "its classes are people" in capsys.readouterr().out
    assert not Bands.calls and not Reader.read
    change_task(root, prompts={})
    assert lineval(root, "toy,toy_reader", "tones", "--protocol=zero_shot") != cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.encoder == "toy_reader", "the encoder that reads is evaluated, the other is a recorded failure"


def test_prompts_of_the_catalogue() -> None:
    """Every class task of the catalogue says its classes in words that differ, or why it cannot."""
    from evar import config

    for name in config.names("tasks"):
        task = load_task_config(name)
        if task.kind not in ("multiclass", "multilabel"):
            continue
        assert task.prompts.unsuitable or len(task.prompts.templates) >= 2, f"{name} has no prompts"
        if not task.prompts.unsuitable and task.classes:
            for sentences in write_prompts(task):
                assert len(set(sentences)) == len(task.classes), f"two classes of {name} have the same prompt"
                assert not any("_" in sentence for sentence in sentences)
    with pytest.raises(ValueError, match="must hold {}"):
        Prompts(templates=("no place",))
    with pytest.raises(ValueError, match="put both in quotes"):
        Prompts(names={True: "yes"})  # type: ignore[dict-item]  # what YAML makes of a bare yes


def test_retrieval_of_planted_captions(words: Any) -> None:
    """Each clip has the captions of its own tone; the metrics are those of ranks that are worked out by hand."""
    root = words()
    path = root / "config/tasks/tones.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    number: dict[tuple[str, str], int] = {}
    kept = []
    for row in rows:  # one test clip of each tone, so that every caption has one right clip
        place = number[row["split"], row["label"]] = number.get((row["split"], row["label"]), 0) + 1
        if row["split"] != "test" or place == 1:
            word = row["label"]
            kept.append({**row, "label": f"a {word} tone|one {word} beep" if word != "high" else "a high tone"})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept)
    expected = {"clips": len(kept), "classes": 0}
    change_task(root, kind="captions", metric="text_to_audio_map_at_10", classes=[], expected=expected, prompts={})
    assert evar.load_task("tones").truth.shape == (len(kept), 4)
    assert lineval(root, "toy_reader", "tones", "--protocol=linear") != cli.DONE
    assert lineval(root, "toy_reader", "tones", "--protocol=retrieval") == cli.DONE
    (row,) = results.load_all(root / "results")
    assert row.score == 1.0 and (row.n_train, row.n_valid, row.n_test) == (0, 0, 3)
    assert row.extras["text_to_audio_recall_at_1"] == row.extras["audio_to_text_map_at_10"] == 1.0
    assert row.extras["audio_to_text_median_rank"] == 1.0
    assert row.chance == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert "audio to text: R@1 100.0" in (root / "results/table.md").read_text()
    saved = results.load_predictions(root / "results", row.id)
    assert METRICS["audio_to_text_recall_at_1"].function(saved["y_true"], saved["y_pred"]) == 1.0


def plain_metrics(similar: np.ndarray, owners: list[int]) -> dict[str, float]:
    """The same numbers the slow way, one query after the other, from sorted lists."""
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    queries = [("text_to_audio", similar[:, j], [owners[j]]) for j in range(len(owners))]
    queries += [
        ("audio_to_text", similar[i], [j for j, own in enumerate(owners) if own == i]) for i in range(len(similar))
    ]
    for direction, values, right in queries:
        order = sorted(range(len(values)), key=lambda k: -values[k])
        places = [place for place, k in enumerate(order, start=1) if k in right]
        for most in (1, 5, 10):
            add(f"{direction}_recall_at_{most}", float(min(places) <= most))
        precisions = [hits / place for hits, place in enumerate(places, start=1) if place <= 10]
        add(f"{direction}_map_at_10", sum(precisions) / min(len(right), 10))
        add(f"{direction}_median_rank", min(places))
    return {
        name: float(np.median(values) if name.endswith("rank") else np.mean(values)) for name, values in found.items()
    }


def test_metrics_equal_a_plain_implementation() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 30)
    owners = np.repeat(np.arange(30), counts)
    similar = rng.normal(size=(30, len(owners)))
    similar[owners, np.arange(len(owners))] += 1.5
    places = np.concatenate([np.arange(count) for count in counts])
    y_true, y_pred = np.zeros((30, 10), np.uint8), np.full((30, 10), np.inf)
    for half, ranks in enumerate(rank_matches(similar, owners)):
        y_true[owners, 5 * half + places] = 1
        y_pred[owners, 5 * half + places] = ranks
    expected = plain_metrics(similar, owners.tolist())
    ours = {name: METRICS[name].function(y_true, y_pred) for name in expected}
    assert set(ours) == {name for name, metric in METRICS.items() if metric.kind == "captions" and ":" not in name}
    assert ours == pytest.approx(expected)
    worse = np.where(y_true == 1, y_pred + 3, np.inf)
    found = compare_pairs("text_to_audio_map_at_10", y_true, [y_pred], [worse], np.arange(30), np.zeros(30))
    assert found.value > 0 and found.low > 0 and found.p < 0.05
    index, ones = np.arange(30), np.ones((1, 30), np.int64)
    for name, metric in METRICS.items():
        if metric.kind == "captions" and metric.resampled:
            assert metric.resampled(y_true, y_pred, index, ones)[0] == pytest.approx(ours[name])
            lost = np.where(np.arange(30)[:, None] < 15, np.inf, y_pred)
            assert metric.function(y_true, lost) < ours[name], "clips that could not be read are wrong"
    guesses = [rank_matches(rng.normal(size=similar.shape), owners) for _ in range(300)]
    for most in (1, 10):
        name = f"audio_to_text_recall_at_{most}"
        drawn = []
        for _, ranks in guesses:
            y_pred[owners, 5 + places] = ranks
            drawn.append(METRICS[name].function(y_true, y_pred))
        assert estimate_chance(name, [y_true], 0) == pytest.approx(np.mean(drawn), abs=0.02)


def test_ties_gain_nothing() -> None:
    """An encoder whose vectors are all the same gets the last ranks."""
    to_clip, to_caption = rank_matches(np.ones((4, 4)), np.arange(4))
    assert to_clip.tolist() == [4] * 4 and to_caption.tolist() == [4] * 4


def test_protocols_that_read_say_so() -> None:
    for name in ("zero_shot", "zero_shot_average", "retrieval"):
        from evar.config.registry import resolve

        assert get_traits(resolve(load_protocol_config(name).probe)).reads_text
    assert load_task("esc10").config.prompts.names["dog_bark"] == "a barking dog"
