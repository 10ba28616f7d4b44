"""Tables and plots, by small cases that were worked out by hand."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from evar import report, results
from evar.report.plots.layer_curves import draw_layers, make_panels
from evar.report.tables.cells import make_sections
from evar.report.tables.layout import escape_markdown
from evar.report.tables.markdown import format_markdown
from evar.results import Failure, Result

NOW = "2026-01-31T12:00:00+00:00"


def row(encoder: str, task: str, score: float, layers: Sequence[str] = ("out",), **others: object) -> Result:
    """A result: the default layer, an interval of ±5 points, chance 0.1, unless told otherwise."""
    values = {
        "encoder": encoder,
        "weights": "x.pt",
        "weights_sha256": "ab" * 32,
        "layers": list(layers),
        "fusion": "none" if len(layers) == 1 else "concat",
        "pooling": dict.fromkeys(layers, "mean"),
        "task": task,
        "task_version": "1",
        "protocol": "linear",
        "params": {"protocol_version": "1"},
        "seed": 0,
        "metric": "accuracy",
        "score": score,
        "round_scores": [score],
        "n_train": 100,
        "n_valid": 20,
        "n_test": 80,
        "skipped": [],
        "seconds": 1.0,
        "versions": {},
        "created": NOW,
        "interval": [max(0.0, score - 0.05), min(1.0, score + 0.05)],
        "interval_method": "how the interval was made",
        "protocol_description": "what the protocol does",
        "chance": 0.1,
        "default": True,
    }
    return Result.from_dict({**values, **others})


def layer_rows(encoder: str, task: str, scores: Sequence[float], default: int = -1, **others: object) -> list[Result]:
    """Every layer of an encoder on a task, shallow to deep."""
    n_layers = len(scores)
    return [
        row(
            encoder,
            task,
            score,
            [f"layer{index + 1}"],
            layer_index=index,
            n_layers=n_layers,
            default=index == default % n_layers,
            **others,
        )
        for index, score in enumerate(scores)
    ]


def failed(encoder: str, task: str, reason: str = "it broke", **others: object) -> Failure:
    return Failure({"encoder": encoder, "task": task, **others}, reason, NOW)


def cells(text: str) -> list[list[list[str]]]:
    """Tables of a Markdown text: tables x lines x cells, without the rule."""
    tables = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
            tables.append([line for line in split if not set("".join(line)) <= set("-:")])
    return tables


def table(found: Sequence[Result], failures: Sequence[Failure] = (), **options: bool) -> list[list[str]]:
    (only,) = cells(format_markdown(make_sections(found, failures, **options)))
    return only


FOUR = [
    *(row("a", "t1", 0.9), row("a", "t2", 0.5)),
    *(row("b", "t1", 0.9), row("b", "t2", 0.6)),
    *(row("c", "t1", 0.8), row("c", "t2", 0.7)),
]


def test_main_table_by_hand() -> None:
    assert table(FOUR) == [
        ["encoder", "layers", "t1 (n=80)", "t2 (n=80)", "average", "rank"],
        ["a", "out", "**90.0 ± 5.0**", "50.0 ± 5.0", "70.0", "2.25"],  # places 1.5 (tied with b) and 3
        ["b", "out", "**90.0 ± 5.0**", "60.0 ± 5.0", "**75.0**", "**1.75**"],  # 1.5 and 2
        ["c", "out", "80.0 ± 5.0", "**70.0 ± 5.0**", "**75.0**", "2.00"],  # 3 and 1
        ["chance", "", "10.0", "10.0", "10.0", ""],
    ]


def test_average_and_rank_only_where_every_task_is_there() -> None:
    found = table([*FOUR, row("d", "t1", 0.99)], [failed("d", "t2")])
    assert found[1:4] == [
        ["a", "out", "90.0 ± 5.0", "50.0 ± 5.0", "70.0", "2.25"],
        ["b", "out", "90.0 ± 5.0", "60.0 ± 5.0", "**75.0**", "**1.75**"],
        ["c", "out", "80.0 ± 5.0", "**70.0 ± 5.0**", "**75.0**", "2.00"],
    ]
    assert found[4] == ["d", "out", "**99.0 ± 3.0**", "failed [1]", "-", "-"]


def test_one_task_needs_no_average() -> None:
    assert table([row("a", "t1", 0.5)])[0] == ["encoder", "layers", "t1 (n=80)"]


def test_the_half_width_of_an_uneven_interval() -> None:
    found = table([row("a", "t", 0.98, interval=[0.9, 1.0]), row("b", "t", 0.5, interval=None)])
    assert [line[2] for line in found[1:3]] == ["**98.0 ± 5.0**", "50.0"]


def test_failed_cells_share_their_reason() -> None:
    failures = [failed("d", "t1", "no weights"), failed("d", "t2", "no weights"), failed("a", "t3", "no | clips")]
    text = format_markdown(make_sections(FOUR, failures))
    (found,) = cells(text)
    assert found[0] == ["encoder", "layers", "t1 (n=80)", "t2 (n=80)", "t3"]  # no row has all: no average, no rank
    assert found[1] == ["a", "out", "**90.0 ± 5.0**", "50.0 ± 5.0", "failed [1]"]
    assert found[4] == ["d", "all", "failed [2]", "failed [2]", "-"]
    assert r"- [1] failed: no \| clips." in text and "- [2] failed: no weights." in text
    assert "no weights" not in text.split("- [2]")[0]


def test_a_failure_gives_way_to_a_result_but_not_to_another_seeds() -> None:
    found = [row("a", "t", 0.5, seed=0)]
    assert "failed" not in format_markdown(make_sections(found, [failed("a", "t", seed=0), failed("a", "t")]))
    text = format_markdown(make_sections(found, [failed("a", "t", "it broke", seed=1)]))
    assert "**50.0 ± 5.0** [1]" in text and "[1] without seed 1, which failed: it broke." in text


@pytest.mark.parametrize(
    ("layers", "fusion", "labels"),
    [
        ("default", "none", ["out"]),
        ("all", "none", ["in", "out"]),
        ("in", "none", ["in"]),
        ("in,out", "none", ["in", "out"]),
        (["in"], "none", ["in"]),
        ("in,out", "concat", ["in+out"]),
        ("other", "none", ["other"]),
    ],
)
def test_which_rows_a_failure_belongs_to(layers: object, fusion: str, labels: list[str]) -> None:
    found = [row("a", "t1", 0.5), row("a", "t1", 0.4, ["in"], default=False)]
    lines = table(found, [failed("a", "t2", layers=layers, fusion=fusion)])
    assert [line[1] for line in lines if line[3].startswith("failed")] == labels


def test_failures_alone_make_a_table() -> None:
    text = format_markdown(make_sections([], [failed("a", "t", protocol="linear", limit=5)]))
    assert "## linear (limit 5)" in text and "failed [1] |" in text and "t (limit 5)" in text


def test_what_must_not_share_a_column_or_table() -> None:
    found = [
        row("a", "t", 0.1),
        row("a", "t", 0.2, task_version="2"),
        row("a", "t", 0.3, task_version="2", metric="mAP"),
        row("a", "t", 0.4, limit=50),
        row("a", "t", 0.5, protocol="finetune"),
        row("a", "t", 0.6, params={"protocol_version": "2"}),
        row("a", "u", 0.7, index_sha256="1" * 64),
        row("a", "u", 0.8, index_sha256="2" * 64),
    ]
    text = format_markdown(make_sections(found))
    assert re.findall("^## (.*)$", text, re.MULTILINE) == [
        "finetune",
        "linear version 1",
        "linear version 1 (limit 50)",
        "linear version 2",
    ]
    tuned, full, limited, newer = cells(text)
    assert full[0][2:-1] == [
        "t (version 1, accuracy) (n=80)",
        "t (version 2, accuracy) (n=80)",
        "t (version 2, mAP) (n=80)",
        "u (index 11111111) (n=80)",
        "u (index 22222222) (n=80)",
    ]
    assert [re.sub(r"\*\*| ±.*", "", cell) for cell in full[1][2:-1]] == ["10.0", "20.0", "30.0", "70.0", "80.0"]
    assert limited[0][2:] == ["t (limit 50) (n=80)"] and limited[1][2] == "**40.0 ± 5.0**"
    assert tuned[1][2] == "**50.0 ± 5.0**" and newer[1][2] == "**60.0 ± 5.0**"


def test_variants_of_an_encoder_are_rows_of_their_own() -> None:
    trained = layer_rows("a", "t", [0.5, 0.6])
    untrained = row("a", "t", 0.2, ["layer2"], weights="random", weights_sha256="c" * 64, n_layers=2, layer_index=1)
    options = row("b", "t", 0.3, encoder_options={"n_mels": 64}), row("b", "t", 0.4, encoder_options={"n_mels": 80})
    pooled = row("c", "t", 0.5), row("c", "t", 0.6, pooling={"out": "max"})
    text = format_markdown(make_sections([*trained, untrained, *options, *pooled], single_layers=True))
    assert [line[0] for line in cells(text)[0][1:-1]] == [
        *("a (weights random)†", "a (weights x.pt)", "a (weights x.pt)"),
        *("b (n_mels 64)", "b (n_mels 80)", "c (pooling max)", "c (pooling mean)"),
    ]
    assert "† random weights: an untrained network" in text


def test_flags_are_marked_where_they_hold() -> None:
    found = [
        row("a", "t1", 0.5, flags=["random weights"]),
        row("a", "t2", 0.5, flags=["random weights", "trained on the test clips"]),
        row("b", "t1", 0.6),
        row("b", "t2", 0.6),
    ]
    lines = table(found)
    assert lines[1][:4] == ["a†", "out", "50.0 ± 5.0", "50.0 ± 5.0‡"] and lines[2][0] == "b"
    assert "- ‡ trained on the test clips." in format_markdown(make_sections(found))


def test_skipped_clips_and_other_test_sets_are_said() -> None:
    bad = [
        {"clip": "a.wav", "split": "test", "reason": "empty", "counted": "wrong"},
        {"clip": "b.wav", "split": "test", "reason": "empty", "counted": "wrong"},
        {"clip": "c.wav", "split": "train", "reason": "empty", "counted": "left_out"},
    ]
    found = [row("a", "t", 0.5, skipped=bad), row("b", "t", 0.6), row("c", "t", 0.6), row("d", "t", 0.1, n_test=79)]
    text = format_markdown(make_sections(found))
    assert "[1] t: 2 unusable clips counted wrong (test); 1 unusable clip left out (train)." in text
    assert "[2] tested on n=79." in text
    lines = cells(text)[0]
    assert lines[0][2] == "t (n=80)" and lines[1][2] == "50.0 ± 5.0 [1]" and lines[4][2] == "10.0 ± 5.0 [2]"


def test_the_newest_of_two_settings_is_shown_and_said() -> None:
    older = row("a", "t", 0.5, extraction={"clip_seconds": 1})
    newer = row("a", "t", 0.6, extraction={"clip_seconds": 2}, created="2026-02-01T12:00:00+00:00")
    assert table([newer, older])[1][2] == table([older, newer])[1][2] == "**60.0 ± 5.0** [1]"
    assert "[1] the newest results; 1 older ones of other settings are not shown." in format_markdown(
        make_sections([older, newer])
    )


def test_every_sentence_that_a_reader_needs() -> None:
    text = format_markdown(make_sections(FOUR))
    for sentence in ("accuracy in percent", "half the width of the 95 % interval", "How the interval was made.",
                     "Protocol linear: What the protocol does.", "ties share the mean"):  # fmt: skip
        assert text.count(sentence) == 1


def test_explicit_layers_are_shown_and_a_sweep_is_not() -> None:
    sweep = layer_rows("a", "t", [0.1, 0.2, 0.3], default=1)
    fused = row("a", "t", 0.4, ["layer1", "layer3"], default=False)
    assert [line[1] for line in table([*sweep, fused])[1:-1]] == ["layer2", "layer1+layer3"]
    chosen = layer_rows("b", "t", [0.1, 0.2, 0.3], default=1)[:2]
    assert [line[1] for line in table(chosen)[1:-1]] == ["layer1", "layer2"]
    cut_short = [Result.from_dict({**one.to_dict(), "settings": {"layers": "all"}}) for one in chosen]
    assert [line[1] for line in table(cut_short)[1:-1]] == ["layer2"]
    without_default = [Result.from_dict({**one.to_dict(), "default": False}) for one in sweep]
    assert [line[1] for line in table(without_default)[1:-1]] == ["layer1", "layer2", "layer3"]


def test_layers_table_by_hand(tmp_path: Path) -> None:
    found = [*layer_rows("a", "t", [0.1, 0.3, 0.2]), row("floor", "t", 0.15, n_layers=1, layer_index=0)]
    found.append(row("a", "t", 0.9, ["layer1", "layer2"], default=False))
    paths = report.write_tables(found, [], tmp_path)
    names = ["table.md", "table.csv", "layers.md", "layers.csv", "table.tex", "table.json"]
    assert [path.name for path in paths] == names
    (lines,) = cells((tmp_path / "layers.md").read_text(encoding="utf-8"))
    assert lines == [
        ["encoder", "layer", "depth", "t (n=80)"],
        ["a", "layer1", "0.33", "10.0 ± 5.0"],
        ["a", "layer2", "0.67", "**30.0 ± 5.0**"],
        ["a", "layer3 (default)", "1.00", "20.0 ± 5.0"],
        ["floor", "out (default)", "1.00", "**15.0 ± 5.0**"],
        ["chance", "", "", "10.0"],
    ]


def seeded(out: Path, right: Sequence[Sequence[int]], clips: Sequence[str] = ("p", "q", "r", "s")) -> list[Result]:
    """One result a seed, with predictions that are right or wrong clip by clip; later seeds list them backwards."""
    found = []
    for seed, hits in enumerate(right):
        score = sum(hits) / len(hits)
        one = row("a", "t", score, seed=seed, n_test=len(hits), interval=None)
        order = slice(None, None, -1 if seed else 1)
        names = [*clips][: len(hits)] if seed == 0 else [*clips][-len(hits) :]
        results.save_predictions(
            out,
            one.id,
            clip=names[order],
            round=[0] * len(hits),
            group=names[order],
            y_true=[1] * len(hits),
            y_pred=[*hits][order],
        )
        found.append(one)
    return found


def test_several_seeds_are_averaged_clip_by_clip(tmp_path: Path) -> None:
    from evar.metrics import bootstrap_interval

    found = seeded(tmp_path, [[1, 1, 0, 0], [1, 0, 1, 0]])
    ((only,),) = ([cell for table in make_sections(found, (), tmp_path) for line in table.rows for cell in line.cells],)
    low, high = bootstrap_interval(np.array([1.0, 0.5, 0.5, 0.0]), np.array(["p", "q", "r", "s"]), np.zeros(4, int))
    assert only is not None and only.score == 0.5 and only.interval == (low, high) and 0.0 < low < 0.5 < high < 1.0
    # Opposite seeds are right half the time on every clip, so which clips were drawn makes no difference.
    opposite = seeded(tmp_path, [[1, 1, 0, 0], [0, 0, 1, 1]])
    text = format_markdown(make_sections(opposite, (), tmp_path))
    assert "**50.0 ± 0.0**" in text and "means over 2 seeds" in text


def test_seeds_without_common_clips_have_no_interval(tmp_path: Path) -> None:
    found = seeded(tmp_path, [[1, 0], [1, 0]])
    text = format_markdown(make_sections(found, (), tmp_path))
    assert "**50.0** [1]" in text and "no interval: the seeds were tested on other clips" in text
    assert "**50.0**" in format_markdown(make_sections(found))
    for path in (tmp_path / "predictions").iterdir():
        path.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="does not hold a run's predictions"):
        assert "predictions cannot be read" in format_markdown(make_sections(found, (), tmp_path))
    for path in (tmp_path / "predictions").iterdir():
        path.unlink()
    assert "predictions are missing" in format_markdown(make_sections(found, (), tmp_path))


def test_one_seed_without_a_recorded_interval_gets_one_from_its_predictions(tmp_path: Path) -> None:
    found = seeded(tmp_path, [[1, 1, 1, 1]])
    assert table(found)[1][2] == "**100.0**"
    assert "**100.0 ± 0.0**" in format_markdown(make_sections(found, (), tmp_path))


def test_csv_has_a_line_a_cell(tmp_path: Path) -> None:
    found = [*FOUR, row("d", "t1", 0.9, flags=["x", "y"], limit=50), row("e", "t1", 1 / 3, ["in", "out"])]
    report.write_tables(found, [failed("a", "t3", "no, never", limit=None)], tmp_path)
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert len(lines) == 9 and [line["encoder"] for line in lines if line["limit"] == "50"] == ["d"]
    first = lines[0]
    assert (first["encoder"], first["task"], first["score"], first["low"], first["high"]) == (
        *("a", "t1", "0.9", "0.85", "0.95"),
    )
    assert (first["n_test"], first["seeds"], first["chance"], first["protocol"]) == ("80", "0", "0.1", "linear")
    (broken,) = [line for line in lines if line["task"] == "t3"]
    assert broken["score"] == "" and broken["notes"] == "failed: no, never"
    (fused,) = [line for line in lines if line["encoder"] == "e"]
    assert (fused["layers"], fused["fusion"], fused["score"]) == ("in+out", "concat", "0.3333333333")
    assert [line["flags"] for line in lines if line["encoder"] == "d"] == ["x;y"]


def test_nothing_breaks_markdown() -> None:
    nasty = "a|b`c*d<e>[f](g)\n| h | _i_ \\"
    found = [row(nasty, nasty, 0.5, [nasty], flags=[nasty], protocol_description=nasty), row("silero_vad", nasty, 0.4)]
    text = format_markdown(make_sections(found, [failed("x", nasty, nasty)]))
    (lines,) = cells(text)
    assert {len(line) for line in lines} == {3} and len(lines) == 5
    assert lines[1][0].startswith(escape_markdown(nasty)) and "silero_vad" in text
    bare = re.sub(r"\\.", "", text.replace("**", ""))
    assert not re.search(r"[`*<>]|\]\(", bare)


def test_markdown_columns_are_aligned() -> None:
    lines = [
        line
        for line in format_markdown(make_sections(FOUR, [failed("a", "漢字")])).splitlines()
        if line.startswith("|")
    ]
    places = {tuple(match.start() for match in re.finditer(r"\|", line)) for line in lines if "漢字" not in line}
    assert len(lines) == 6 and len(places) == 1


def test_terminal_table_fits_and_marks_the_best() -> None:
    found = [row("a", f"quite_a_long_task_{index}", index / 10) for index in range(1, 10)]
    text = report.format_terminal_table(found)
    assert max(map(len, text.splitlines())) <= 100
    assert all(f"quite_a_long_task_{index}" in text and f"{10 * index}.0 ± 5.0*" in text for index in range(1, 10))
    assert len(re.findall("^a ", text, re.MULTILINE)) == len(re.findall("^chance", text, re.MULTILINE)) == 3
    assert "**" not in text and "n=80" in text
    assert max(map(len, report.format_terminal_table(found, width=60).splitlines())) <= 60
    assert "failed [1]" in report.format_terminal_table(FOUR, [failed("z", "t1")])


def test_layer_curve_data(tmp_path: Path) -> None:
    found = [
        *layer_rows("a", "t1", [0.2, 0.4, 0.3], default=1),
        *layer_rows("a", "t2", [0.5, 0.6, 0.7], default=1, chance=0.25),
        *layer_rows("b", "t1", [0.9, 0.8], interval=None),
        *layer_rows("floor", "t1", [0.35]),
        row("a", "t1", 0.99, ["layer1", "layer2"], default=False),
    ]
    figure = draw_layers(make_panels(found))
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("t1", "t2")
    assert first.get_ylabel() == "accuracy (%)" and "relative depth" in first.get_xlabel()
    lines = {line.get_label(): line for line in first.lines}
    assert set(lines) == {"a", "b", "floor", "chance", "default layer"}
    np.testing.assert_allclose(lines["a"].get_xdata(), [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(lines["a"].get_ydata(), [20, 40, 30])
    np.testing.assert_allclose(lines["b"].get_xdata(), [0.5, 1])
    np.testing.assert_allclose(lines["floor"].get_ydata(), [35, 35])
    assert lines["floor"].get_linestyle() == "--" and lines["chance"].get_linestyle() == ":"
    np.testing.assert_allclose(lines["chance"].get_ydata(), [10, 10])
    np.testing.assert_allclose([line.get_ydata()[0] for line in second.lines if line.get_label() == "chance"], [25])
    marked = [line for line in first.lines if line.get_label() == "default layer"]
    places = sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in marked)
    np.testing.assert_allclose(places, [(2 / 3, 40), (1, 80)])
    assert all(line.get_markerfacecolor() == "none" for line in marked)
    (band,) = first.collections
    corners = band.get_paths()[0].vertices
    np.testing.assert_allclose([corners[:, 1].min(), corners[:, 1].max()], [15, 45])
    assert lines["a"].get_color() == second.lines[0].get_color() != lines["b"].get_color()
    assert lines["a"].get_marker() != lines["b"].get_marker()
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == ["a", "b", "floor", "default layer", "95 % interval", "chance"]


@pytest.mark.parametrize(("n_panels", "shape"), [(1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (2, 2)), (7, (3, 3))])
def test_panels_wrap(n_panels: int, shape: tuple[int, int]) -> None:
    found = [one for index in range(n_panels) for one in layer_rows("a", f"t{index}", [0.1, 0.2])]
    figure = draw_layers(make_panels(found))
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == shape
    assert [ax.get_title() for ax in figure.axes if ax.axison] == [f"t{index}" for index in range(n_panels)]
    assert all(ax.get_xlim()[1] > 1.0 and ax.get_ylim()[1] > 20 for ax in figure.axes if ax.axison)


def test_nothing_in_a_picture_is_clipped_or_overlaps() -> None:
    tasks = ["gm_instrument", "gm_pitch", "spoken_language", "spoken_words"]
    encoders = {"aisfx": 9, "crepe.tiny": 6, "ge2e": 4, "silero_vad": 13, "logmel": 1}
    found = [
        one
        for task in tasks
        for encoder, n in encoders.items()
        for one in layer_rows(encoder, task, [(index + 1) / (n + 1) for index in range(n)], weights="random")
    ]
    figure = draw_layers(make_panels(found))
    figure.draw_without_rendering()
    page = figure.bbox
    boxes = [figure.legends[0].get_window_extent(), *(ax.get_tightbbox() for ax in figure.axes)]
    for index, box in enumerate(boxes):
        assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    assert "aisfx (random weights)" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_build_makes_everything_again_and_the_same(tmp_path: Path) -> None:
    found = [*layer_rows("a", "t", [0.2, 0.4]), *layer_rows("floor", "t", [0.3])]
    for one in found:
        results.save(one, tmp_path)
    results.save_failure(tmp_path, {"encoder": "a", "task": "u", "layers": "all"}, "it broke")
    paths = report.write_tables_and_plots(tmp_path)
    names = ["table.md", "table.csv", "layers.md", "layers.csv", "table.tex", "table.json", "layers.png", "layers.svg"]
    names += ["layers_by_name.png", "layers_by_name.svg", "heatmap.png", "heatmap.svg"]
    assert [path.name for path in paths] == names and all(path.stat().st_size for path in paths)
    content = {path.name: path.read_bytes() for path in paths}
    assert content["layers.png"].startswith(b"\x89PNG") and b"</svg>" in content["layers.svg"]
    before = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    assert {path: path.read_bytes() for path in report.write_tables_and_plots(str(tmp_path))} == before
    assert "failed [1]" in paths[0].read_text(encoding="utf-8")
    results.run_path(tmp_path, found[0].id).unlink()
    kept = [name for name in names if name.startswith("table.")]
    assert [path.name for path in report.write_tables_and_plots(tmp_path)] == kept
    assert not any((tmp_path / name).exists() for name in names if name not in kept)


def test_a_torn_result_does_not_stop_the_others(tmp_path: Path) -> None:
    path = results.save(row("a", "t", 0.5), tmp_path)
    path.with_name("torn.json").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="torn.json"):
        report.write_tables_and_plots(tmp_path)
    assert "50.0 ± 5.0" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_no_results_are_no_error(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [path.name for path in report.write_tables_and_plots(tmp_path / "new")] == [
            f"table.{end}" for end in ("md", "csv", "tex", "json")
        ]
    assert "no results yet" in (tmp_path / "new" / "table.md").read_text(encoding="utf-8")
    assert report.plot_layers([row("a", "t", 0.5)], tmp_path) == []


def test_report_works_without_torch_and_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    for one in layer_rows("a", "t", [0.2, 0.4]):
        results.save(one, tmp_path)
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import evar.report\n"
        "assert not {'matplotlib', 'numpy', 'pandas'} & set(sys.modules)\n"
        "import matplotlib; before = dict(matplotlib.rcParams)\n"
        f"evar.report.write_tables_and_plots({str(tmp_path)!r})\n"
        "assert dict(matplotlib.rcParams) == before and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "MPLBACKEND": "svg"})
    assert (tmp_path / "layers.png").exists()


def test_a_single_dot_gets_no_panel_and_the_limit_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evar.report.plots import layer_curves

    drawn: list[object] = []
    monkeypatch.setattr(layer_curves, "save_figure", lambda figure, stem: drawn.append(figure) or [])
    found = [row("z", "first", 0.4, protocol="attentive", limit=50)]
    found += [one for task in ("t1", "t2") for one in layer_rows("a", task, [0.2, 0.9], limit=50)]
    layer_curves.plot_layers(found, tmp_path)
    (figure,) = drawn
    shown = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in shown] == ["t1", "t2"]
    assert "At most 50 clips" in figure.texts[0].get_text()
    assert shown[0].get_ylim() == shown[1].get_ylim()


def test_panels_of_one_figure_share_the_score_axis() -> None:
    figure = draw_layers(make_panels([*layer_rows("a", "low", [0.1, 0.2]), *layer_rows("a", "high", [0.8, 0.95])]))
    low, high = (ax for ax in figure.axes if ax.get_title())
    assert low.get_ylim() == high.get_ylim() and low.get_ylim()[0] < 10 < 95 < low.get_ylim()[1]


def test_scores_of_different_metrics_are_ranked_but_not_averaged() -> None:
    found = [
        *(row("a", "t1", 0.9), row("a", "t2", 0.5, metric="pearson", interval=None)),
        *(row("b", "t1", 0.8), row("b", "t2", 0.6, metric="pearson", interval=None)),
    ]
    assert table(found)[0] == ["encoder", "layers", "t1 (n=80)", "t2 (n=80)", "rank"]
    assert [line[-1] for line in table(found)[1:]] == ["**1.50**", "**1.50**", ""]
    assert "no average, since the tasks have different metrics" in format_markdown(make_sections(found))
