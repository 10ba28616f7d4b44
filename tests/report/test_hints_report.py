"""Hints without labels on disk, as tables and as pictures, by small cases that were worked out by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_report import cells, layer_rows, row

from evar import report, results
from evar.report.hints import format_csv, format_markdown, make_hint_tables, write_hints
from evar.report.plots.hints import draw_similarity, make_similarity_maps
from evar.results import Result
from evar.results.hints import HintsRecord, hints_id, hints_path, load_hints, read_hints, save_hints

# Records


def record(encoder: str = "a", task: str = "t", **others: object) -> HintsRecord:
    """Hints of four layers, layer1 to layer4, that fit `layer_rows(encoder, task, four scores)`."""
    layers = [f"layer{index + 1}" for index in range(4)]
    values = {
        "encoder": encoder,
        "weights": "x.pt",
        "weights_sha256": "ab" * 32,
        "pooling": dict.fromkeys(layers, "mean"),
        "task": task,
        "task_version": "1",
        "layers": layers,
        "widths": [8, 8, 16, 1],
        "numbers": {
            "effective_rank": [1.0, 2.0, 4.0, 3.0],
            "mean_cosine": [0.9, 0.8, 0.7, 0.6],
            "intrinsic_dimension": [2.0, 3.0, 4.0, None],
        },
        "cka": [[1.0, 0.5, 0.4, None], [0.5, 1.0, 0.3, None], [0.4, 0.3, 1.0, None], [None] * 4],
        "n_clips": 50,
        "n_usable": 80,
        "seed": 0,
        "created": "2026-01-31T12:00:00+00:00",
    }
    return HintsRecord(**{**values, **others})


def test_record_round_trip(tmp_path: Path) -> None:
    whole = record(extraction={"clip_seconds": 5.0, "norm_stats": "train"}, norm_stats=(-7.1, 4.2), limit=50)
    path = save_hints(tmp_path, whole)
    assert path == tmp_path / "hints" / f"{whole.id}.json" == hints_path(tmp_path, whole.id)
    assert whole.id.startswith("a__all__t__hints__s0__")
    assert read_hints(path) == whole and load_hints(tmp_path) == [whole]
    written = json.loads(path.read_text(encoding="utf-8"))
    assert list(written) == sorted(written) and written["numbers"]["intrinsic_dimension"][3] is None
    before = path.read_bytes()
    save_hints(str(tmp_path), read_hints(path))
    assert path.read_bytes() == before and [other.name for other in path.parent.iterdir()] == [path.name]
    assert record(created="").created.endswith("+00:00")


def test_what_makes_another_record() -> None:
    same = record()
    for others in [
        {"encoder": "b"},
        {"weights_sha256": "c" * 64},
        {"encoder_options": {"n_mels": 64}},
        {"extraction": {"clip_seconds": 2}},
        {"pooling": dict.fromkeys(same.layers, "max")},
        {"task": "u"},
        {"task_version": "2"},
        {"index_sha256": "d" * 64},
        {"limit": 5},
        {"seed": 1},
    ]:
        assert record(**others).id != same.id
    assert record(created="2026-02-01T12:00:00+00:00", n_clips=40).id == same.id
    assert hints_id({**same.to_dict(), "more": 1}) == same.id
    with pytest.raises(ValueError, match="lacks task, task_version"):
        hints_id({key: value for key, value in same.to_dict().items() if not key.startswith("task")})


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"layers": []}, "layers must name at least one"),
        ({"layers": ["layer1"] * 4}, "each once"),
        ({"widths": [1, 2, 3]}, "widths must be 4 whole numbers"),
        ({"widths": [1, 2, 3, 4.5]}, "widths must be 4 whole numbers"),
        ({"numbers": {"mean_cosine": [1.0]}}, "numbers.mean_cosine must be 4 finite numbers or nulls"),
        ({"numbers": {"mean_cosine": [1.0, 2.0, 3.0, "4"]}}, "numbers.mean_cosine must be 4"),
        ({"numbers": {"mean_cosine": [1.0, 2.0, 3.0, math.nan]}}, "must be finite, got nan"),
        ({"cka": [[1.0] * 4] * 3}, "cka must be 4 lists of 4"),
        ({"cka": [[50.0] * 4] * 4}, "is it in percent"),
        ({"pooling": {"layer1": "mean"}}, "pooling must name one for each"),
        ({"n_clips": 81}, "n_clips must be at most n_usable, 80, got 81"),
        ({"n_clips": -1}, "n_clips must be a whole number"),
        ({"limit": "5"}, "limit must be a whole number"),
        ({"encoder": ""}, "encoder must be text"),
        ({"norm_stats": [1.0]}, "a mean and a standard deviation"),
        ({"created": "yesterday"}, "ISO 8601 time in UTC"),
        ({"id": "../a"}, "plain file name"),
        ({"extraction": []}, "extraction must be an object"),
    ],
)
def test_what_may_not_be_in_a_record(others: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record(**others)


def test_reading_is_strict(tmp_path: Path) -> None:
    data = record().to_dict()
    with pytest.raises(ValueError, match="no key 'layer'; .* did you mean 'layers'"):
        HintsRecord.from_dict({**data, "layer": 1})
    for key in data:
        with pytest.raises(ValueError, match=f"needs all of its keys, but lacks {key};"):
            HintsRecord.from_dict({name: value for name, value in data.items() if name != key})
    with pytest.raises(ValueError, match="schema 2 needs a newer version"):
        HintsRecord.from_dict({**data, "schema": 2})
    with pytest.raises(ValueError, match="JSON object"):
        HintsRecord.from_dict([])
    path = save_hints(tmp_path, record())
    path.with_name("copy.json").write_bytes(path.read_bytes())
    path.with_name("torn.json").write_bytes(path.read_bytes()[:100])
    path.with_name("nan.json").write_text(path.read_text().replace("0.9", "NaN"), encoding="utf-8")
    with pytest.warns(UserWarning) as said:
        assert load_hints(tmp_path) == [record()]
    assert [
        name in str(one.message) for one, name in zip(said, ("a__all__", "nan.json", "torn.json"), strict=True)
    ] == ([True] * 3)
    assert load_hints(tmp_path / "none") == []


# Tables


SCORES = [0.2, 0.3, 0.5, 0.4]


def test_scores_stand_beside_the_hints_of_the_same_vectors() -> None:
    (only,), n_older = make_hint_tables([record()], layer_rows("a", "t", SCORES, default=2))
    assert n_older == 0 and (only.label, only.task, only.protocol, only.metric) == ("a", "t", "linear", "accuracy")
    assert [(line.layer, line.depth, line.score, line.is_default) for line in only.lines] == [
        ("layer1", 0.25, 0.2, False),
        ("layer2", 0.5, 0.3, False),
        ("layer3", 0.75, 0.5, True),
        ("layer4", 1.0, 0.4, False),
    ]
    assert only.correlation("effective_rank") == (pytest.approx(1.0), 4)
    assert only.correlation("mean_cosine") == (pytest.approx(spearmanr([4, 3, 2, 1], SCORES).statistic), 4)
    assert only.correlation("intrinsic_dimension") == (None, 3)


@pytest.mark.parametrize(
    "others",
    [
        {"weights_sha256": "c" * 64},
        {"extraction": {"clip_seconds": 2}},
        {"encoder_options": {"n_mels": 64}},
        {"index_sha256": "d" * 64},
        {"task_version": "2"},
        {"limit": 5},
        {"pooling": {"layer1": "max", "layer2": "max", "layer3": "max", "layer4": "max"}},
        {"encoder": "b"},
    ],
)
def test_scores_of_other_vectors_or_clips_do_not(others: dict) -> None:
    (only,), _ = make_hint_tables([record(**others)], layer_rows("a", "t", SCORES))
    assert [line.score for line in only.lines] == [None] * 4
    assert only.correlation("effective_rank") == (None, 0)


def test_correlations_need_four_layers_that_differ() -> None:
    few, _ = make_hint_tables([record()], layer_rows("a", "t", SCORES)[:3])
    assert few[0].correlation("effective_rank") == (None, 3)
    same, _ = make_hint_tables([record()], layer_rows("a", "t", [0.5] * 4))
    assert same[0].correlation("effective_rank") == (None, 4)
    lines = [line for one in (few, same) for line in cells(format_markdown(one))[0][1:]]
    assert [line[2:] for line in lines] == [
        ["3", "too few layers", "too few layers", "too few layers"],
        ["4", "constant", "constant", "too few layers"],
    ]


def test_hints_table_by_hand() -> None:
    text = format_markdown(*make_hint_tables([record(), record(task="u")], layer_rows("a", "t", SCORES)))
    correlations, layers = cells(text)
    assert correlations == [
        ["encoder", "task", "layers", "effective rank", "mean cosine", "intrinsic dimension"],
        ["a", "t", "4", "+1.00", "-0.80", "too few layers"],
        ["a", "u", "0", "too few layers", "too few layers", "too few layers"],
    ]
    assert layers[0] == [
        *("task", "layer", "depth", "width", "accuracy (%)", "effective rank", "mean cosine", "intrinsic dimension"),
    ]
    assert layers[3:6] == [
        ["t", "layer3", "0.75", "16", "50.0", "4.0", "0.70", "4.0"],
        ["t", "layer4 (default)", "1.00", "1", "40.0", "3.0", "0.60", "-"],
        ["u", "layer1", "0.25", "8", "-", "1.0", "0.90", "2.0"],
    ]
    for said in ("Roy and Vetterli 2007", "Facco et al. 2017", "Ethayarajh 2019", "t 50 of 80, u 50 of 80", "test clips",
                 "not independent"):  # fmt: skip
        assert said in text
    assert "older" not in text


def test_the_newest_of_two_settings_is_shown_and_said() -> None:
    older = record(extraction={"clip_seconds": 1}, created="2025-01-01T00:00:00+00:00")
    newer = record(extraction={"clip_seconds": 2})
    found, n_older = make_hint_tables([newer, older], [])
    assert [one.record for one in found] == [newer] and n_older == 1
    assert "1 older records of other settings" in format_markdown(found, n_older)
    rows = layer_rows("a", "t", SCORES, extraction={"clip_seconds": 1})
    assert [one.record for one in make_hint_tables([newer, older], rows)[0]] == [
        older
    ]  # the one that the scores are of


def test_variants_and_protocols_are_told_apart() -> None:
    untrained = record(weights="random", weights_sha256="c" * 64)
    rows = [
        *layer_rows("a", "t", SCORES),
        *layer_rows("a", "t", SCORES, weights="random", weights_sha256="c" * 64),
        *layer_rows("a", "t", SCORES[::-1], params={"protocol_version": "2"}),
    ]
    found, _ = make_hint_tables([record(), untrained], rows)
    assert [(one.label, one.protocol) for one in found] == [
        ("a (weights random)", "linear version 1"),
        ("a (weights x.pt)", "linear version 1"),
        ("a (weights x.pt)", "linear version 2"),
    ]
    upside_down = spearmanr([1, 2, 4, 3], SCORES[::-1]).statistic
    assert [one.correlation("effective_rank")[0] for one in found] == pytest.approx([1.0, 1.0, upside_down])
    assert "t, linear version 2" in format_markdown(found)
    alone, _ = make_hint_tables([untrained], [])
    assert alone[0].label == "a (random weights)"
    assert len(make_similarity_maps([(one.label, one.record) for one in found])) == 2


def test_seeds_are_averaged() -> None:
    rows = [*layer_rows("a", "t", SCORES), *layer_rows("a", "t", [score + 0.1 for score in SCORES], seed=1)]
    (only,), _ = make_hint_tables([record()], rows)
    assert [line.score for line in only.lines] == pytest.approx([0.25, 0.35, 0.55, 0.45])


def test_csv_has_a_line_a_layer() -> None:
    found, _ = make_hint_tables([record(limit=50)], layer_rows("a", "t", SCORES, limit=50))
    lines = list(csv.DictReader(io.StringIO(format_csv(found))))
    assert [line["layer"] for line in lines] == ["layer1", "layer2", "layer3", "layer4"]
    last = lines[3]
    assert (last["encoder"], last["task"], last["limit"], last["score"], last["default"]) == (
        "a",
        "t",
        "50",
        "0.4",
        "true",
    )
    assert (last["effective_rank"], last["mean_cosine"], last["intrinsic_dimension"]) == ("3.0", "0.6", "")
    assert (last["n_clips"], last["n_usable"], last["width"]) == ("50", "80", "1")
    assert (last["spearman_effective_rank"], last["n_layers_effective_rank"]) == ("1.0", "4")
    assert (last["spearman_intrinsic_dimension"], last["n_layers_intrinsic_dimension"]) == ("", "3")


def test_nothing_breaks_markdown() -> None:
    nasty = "a|b`c*d<e>\n| h | _i_ \\"
    text = format_markdown(make_hint_tables([record(encoder=nasty, task=nasty)], [])[0])
    assert [{len(line) for line in lines} for lines in cells(text)] == [{6}, {8}]


# Pictures


def test_similarity_is_the_mean_over_tasks() -> None:
    other = record(task="u", cka=[[1.0, 0.7, 0.4, 0.1], *[[0.7, 1.0, 0.3, None]] * 3])
    limited = record(limit=5)
    single = record("floor", layers=["x"], pooling={"x": "mean"}, widths=[3], numbers={}, cka=[[1.0]])
    maps = make_similarity_maps([("a", record()), ("a", record()), ("a", other), ("a", limited), ("floor", single)])
    assert [(one.label, one.tasks) for one in maps] == [("a", ("t", "u")), ("a (limit 5)", ("t",))]
    assert maps[0].values[0] == pytest.approx((1.0, 0.6, 0.4, 0.1))
    assert maps[0].values[1][3] is None
    figure = draw_similarity(maps)
    first, second, bar = figure.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == [
        "a",
        "a (limit 5)",
    ] and bar.get_title() == "linear CKA"
    assert [text.get_text() for text in first.get_xticklabels()] == ["layer1", "layer2", "layer3", "layer4"]
    drawn = first.images[0].get_array()
    np.testing.assert_allclose(drawn[0], [1.0, 0.6, 0.4, 0.1])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (0.0, 1.0)
    assert "0.60" in [text.get_text() for text in first.texts] and np.ma.is_masked(drawn[1, 3])
    said = " ".join(text.get_text() for text in figure.texts)
    assert "mean over the tasks of each encoder" in " ".join(said.split())


def test_many_layers_get_cells_without_numbers() -> None:
    names = [f"hidden{index}" for index in range(25)]
    (found,) = make_similarity_maps(
        [
            (
                "a",
                record(
                    layers=names,
                    pooling=dict.fromkeys(names, "mean"),
                    widths=[1] * 25,
                    numbers={},
                    cka=[[0.5] * 25] * 25,
                ),
            )
        ]
    )
    ax = draw_similarity([found]).axes[0]
    assert not any(text.get_text() for text in ax.texts) and ax.get_xticklabels()[0].get_rotation() == 90


def test_build_writes_hints_and_forgets_them(tmp_path: Path) -> None:
    for one in layer_rows("a", "t", SCORES):
        results.save(one, tmp_path)
    path = save_hints(tmp_path, record())
    names = {"hints.md", "hints.csv", "hints.png", "hints.svg"}
    assert names < {written.name for written in report.write_tables_and_plots(tmp_path)}
    assert (tmp_path / "hints.png").read_bytes().startswith(b"\x89PNG")
    before = {name: (tmp_path / name).read_bytes() for name in names}
    again = write_hints(load_hints(tmp_path), results.load_all(tmp_path), tmp_path / "again")
    assert {written.name: written.read_bytes() for written in again} == before
    path.unlink()
    assert not names & {written.name for written in report.write_tables_and_plots(tmp_path)}
    assert not any((tmp_path / name).exists() for name in names)


def test_hints_need_no_torch(tmp_path: Path) -> None:
    save_hints(tmp_path, record())
    results.save(row("a", "t", 0.5), tmp_path)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import evar.results.hints\n"
        "assert 'numpy' not in sys.modules\n"
        "import evar.metrics.label_free, evar.report\n"
        "assert 'scipy' not in sys.modules and 'matplotlib' not in sys.modules\n"
        f"assert 'hints.md' in [path.name for path in evar.report.write_tables_and_plots({str(tmp_path)!r})]\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_record_matches_rows_that_were_read_back(tmp_path: Path) -> None:
    """Tuples, numpy numbers and whole floats are the same after a trip to the disk."""
    extraction = {"clip_seconds": np.float64(2.0), "norm_stats": (-7.1, 4.2)}
    one = record(extraction=extraction)
    (first, *_) = layer_rows("a", "t", SCORES, extraction=extraction)
    read = results.load(results.save(first, tmp_path))
    assert isinstance(read, Result) and read_hints(save_hints(tmp_path, one)).matches(read)
