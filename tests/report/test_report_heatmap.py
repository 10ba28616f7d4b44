"""The heat map of a layer sweep and the layer curves by name: what is drawn, from results made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_report import layer_rows, row

from evar import report, results
from evar.report.plots import heatmap
from evar.report.plots import layers_by_name as by_name
from evar.report.plots.heatmap import make_layer_maps, plot_heatmap
from evar.report.plots.layer_curves import make_panels
from evar.report.plots.layers_by_name import make_encoder_panels, plot_layers_by_name
from evar.results import Result

FOUND = [
    *layer_rows("a", "t1", [0.2, 0.4, 0.3], default=1),
    *layer_rows("a", "t2", [0.5, 0.7, 0.7], default=1, chance=0.25),
    *layer_rows("b", "t1", [0.9, 0.8], interval=None),
    *layer_rows("floor", "t1", [0.95]),
    *layer_rows("floor", "t2", [0.35], chance=0.25),
    row("a", "t1", 0.99, ["layer1", "layer2"], default=False),
]
NAMED = ["conv1", "block2", "hidden12", "embedding", "out"]


def sweep(encoder: str, tasks: list[str], n_layers: int, **others: object) -> list[Result]:
    """Layers with real names, so that the lengths of labels matter."""
    names = [f"{NAMED[index % 5]}_{index}" for index in range(n_layers)]
    return [
        row(encoder, task, (index + 1) / (n_layers + 1), [name], layer_index=index, n_layers=n_layers,
            default=index == n_layers - 1, **others)
        for task in tasks
        for index, name in enumerate(names)
    ]  # fmt: skip


# Heat map


def test_map_by_hand() -> None:
    a, b = make_layer_maps(make_panels(FOUND))
    assert (a.label, a.layers, a.tasks) == ("a", ("layer1", "layer2", "layer3"), ("t1", "t2"))
    np.testing.assert_allclose(np.array(a.scores), [[20, 50], [40, 70], [30, 70]])
    assert a.best == {(1, 0), (1, 1), (2, 1)}  # both of two that are equal
    assert a.defaults == {1} and b.defaults == {1}
    assert (b.label, b.layers, b.tasks, b.best) == ("b", ("layer1", "layer2"), ("t1",), {(0, 0)})
    # From chance to 100 %: 10 % in t1, 25 % in t2.
    np.testing.assert_allclose(np.array(a.shades), [[1 / 9, 1 / 3], [1 / 3, 0.6], [2 / 9, 0.6]])
    np.testing.assert_allclose(np.array(b.shades), [[8 / 9], [7 / 9]])


def test_missing_and_equal_scores() -> None:
    found = [*layer_rows("a", "t1", [0.5, 0.5]), layer_rows("a", "t2", [0.1, 0.6])[1]]
    (only,) = make_layer_maps(make_panels(found))
    assert only.scores == ((50.0, None), (50.0, 60.0)) and only.best == {(0, 0), (1, 0), (1, 1)}
    assert [[shade is None for shade in line] for line in only.shades] == [[False, True], [False, False]]
    assert only.best == {(0, 0), (1, 0), (1, 1)}
    ax = heatmap.draw_heatmap([only]).axes[0]
    assert [text.get_text() for text in ax.texts] == ["50.0", "-", "50.0", "60.0"]
    assert np.ma.is_masked(ax.images[0].get_array()[0, 1])


def test_only_encoders_with_two_single_layers(tmp_path: Path) -> None:
    single = [row("a", "t", 0.5), row("b", "t", 0.4, ["x", "y"]), *layer_rows("c", "t", [0.3])]
    for plot in (plot_heatmap, plot_layers_by_name):
        assert plot(single, tmp_path) == [] and plot([], tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_what_the_heat_map_shows() -> None:
    figure = heatmap.draw_heatmap(make_layer_maps(make_panels(FOUND)), "accuracy")
    a, b, bar = figure.axes
    assert [ax.get_title(loc="left") for ax in (a, b)] == ["a", "b"] and bar.get_title() == "score of the task"
    assert [text.get_text() for text in a.get_yticklabels()] == ["layer1", "layer2", "layer3"]
    assert [text.get_text() for text in a.get_xticklabels()] == ["t1", "t2"]
    assert a.yaxis_inverted()  # shallow on top
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in a.texts}
    assert written == {(0, 0): "20.0", (0, 1): "50.0", (1, 0): "40.0", (1, 1): "70.0", (2, 0): "30.0", (2, 1): "70.0"}
    bold = {(text.get_position()[1], text.get_position()[0]) for text in a.texts if text.get_fontweight() == "bold"}
    framed = {(round(patch.get_y() + 0.43), round(patch.get_x() + 0.46)) for patch in a.patches}
    assert bold == framed == {(1, 0), (1, 1), (2, 1)}
    assert [line.get_ydata()[0] for line in a.lines] == [1]  # the mark of the default layer
    assert [text.get_text() for text in a.get_yticklabels() if text.get_fontweight() == "bold"] == ["layer2"]
    np.testing.assert_allclose(a.images[0].get_array(), [[1 / 9, 1 / 3], [1 / 3, 0.6], [2 / 9, 0.6]])
    colours = {text.get_text(): text.get_color() for text in a.texts}
    assert colours["20.0"] == "white" and colours["70.0"] == "black"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["best layer of the task", "default layer"]
    assert "Accuracy in percent" in figure.texts[0].get_text()


def test_guessing_is_dark_wherever_it_stands() -> None:
    """A single cell, or a column of equal scores, is not the brightest because there is nothing to compare it with."""
    (only,) = make_layer_maps(make_panels(layer_rows("a", "t", [0.1, 0.05], chance=0.1)))
    assert only.shades == ((0.0,), (0.0,))
    (good,) = make_layer_maps(make_panels(layer_rows("a", "t", [1.0, 0.55], chance=0.1)))
    np.testing.assert_allclose(np.array(good.shades), [[1.0], [0.5]])


def test_cells_have_one_size_in_all_panels() -> None:
    figure = heatmap.draw_heatmap(make_layer_maps(make_panels([*FOUND, *sweep("long", ["t1", "t2", "t3"], 13)])))
    page = figure.get_size_inches()
    for ax in figure.axes[:-1]:
        n_rows, n_columns = ax.images[0].get_array().shape
        width, height = ax.get_position().width * page[0], ax.get_position().height * page[1]
        assert (width / n_columns, height / n_rows) == pytest.approx((heatmap.CELL_WIDTH, heatmap.CELL_HEIGHT))


# By name


def test_curves_by_name() -> None:
    a, b = make_encoder_panels(make_panels(FOUND))
    assert (a.label, a.metrics, a.layers) == ("a", ("accuracy",), ("layer1", "layer2", "layer3"))
    assert {task: [point.score for point in points] for task, points in a.curves.items()} == {
        "t1": pytest.approx([20, 40, 30]),
        "t2": pytest.approx([50, 70, 70]),
    }
    assert a.references == {
        "floor": {"t1": pytest.approx(95), "t2": pytest.approx(35)},
        "chance": {"t1": pytest.approx(10), "t2": pytest.approx(25)},
    }
    assert (
        list(b.curves) == ["t1"] and list(b.references) == ["floor", "chance"] and list(b.references["floor"]) == ["t1"]
    )


def test_what_the_curves_by_name_show() -> None:
    figure = by_name.draw_layers_by_name(make_encoder_panels(make_panels(FOUND)))
    a, b = figure.axes
    assert (a.get_title(), b.get_title()) == ("a", "b") and a.get_ylabel() == "accuracy (%)"
    assert [text.get_text() for text in a.get_xticklabels()] == ["layer1", "layer2", "layer3", "floor", "chance"]
    np.testing.assert_allclose(a.get_xticks(), [0, 1, 2, 3.5, 4.5])
    assert [text.get_text() for text in a.get_xticklabels() if text.get_fontweight() == "bold"] == ["layer2"]
    t1, t2 = ([line for line in a.lines if line.get_label() == task] for task in ("t1", "t2"))
    np.testing.assert_allclose(t1[0].get_xydata(), [[0, 20], [1, 40], [2, 30]])
    np.testing.assert_allclose(t2[0].get_xydata(), [[0, 50], [1, 70], [2, 70]])
    assert t1[0].get_color() != t2[0].get_color() and t1[0].get_marker() != t2[0].get_marker()
    assert t1[0].get_color() == next(line for line in b.lines if line.get_label() == "t1").get_color()
    places = {label: sorted(tuple(line.get_xydata()[0]) for line in a.lines if line.get_label() == label)
              for label in ("default layer", "floor", "chance")}  # fmt: skip
    np.testing.assert_allclose(places["default layer"], [(1, 40), (1, 70)])
    np.testing.assert_allclose(places["floor"], [(3.5, 35), (3.5, 95)])
    np.testing.assert_allclose(places["chance"], [(4.5, 10), (4.5, 25)])
    assert len(a.collections) == 2 and not b.collections  # a band a task, none where there is no interval
    corners = a.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose([corners[:, 1].min(), corners[:, 1].max()], [15, 45])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["t1", "t2", "default layer", "95 % interval"]


def test_a_layer_without_a_score_keeps_its_place() -> None:
    found = [*layer_rows("a", "t1", [0.1, 0.2, 0.3]), *layer_rows("a", "t2", [0.4, 0.5, 0.6])[::2]]
    ax = by_name.draw_layers_by_name(make_encoder_panels(make_panels(found))).axes[0]
    (line,) = [line for line in ax.lines if line.get_label() == "t2"]
    np.testing.assert_allclose(line.get_xydata(), [[0, 40], [2, 60]])


def test_many_tasks_are_spread_over_panels() -> None:
    tasks = [f"t{index}" for index in range(1, 10)]
    figure = by_name.draw_layers_by_name(make_encoder_panels(make_panels(sweep("a", tasks, 3))))
    assert [ax.get_title() for ax in figure.axes if ax.axison] == ["a, tasks 1 to 4 of 9", "a, tasks 5 to 9 of 9"]
    shown = [line.get_label() for ax in figure.axes for line in ax.lines if line.get_label() in tasks]
    assert shown == tasks
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle())
             for ax in figure.axes for line in ax.lines if line.get_label() in tasks}  # fmt: skip
    assert len(looks) == 9


# Both


@pytest.mark.parametrize("n_layers", [2, 13, 25])
def test_nothing_is_clipped_or_overlaps(n_layers: int) -> None:
    tasks = ["gm_instrument", "gm_pitch", "spoken_language"]
    found = [
        *sweep("crepe.tiny", tasks, n_layers, weights="random"),
        *sweep("ge2e", tasks[:1], 4),
        *sweep("silero_vad", tasks, 7),
        *sweep("logmel", tasks, 1),
    ]
    for figure in (
        heatmap.draw_heatmap(make_layer_maps(make_panels(found))),
        by_name.draw_layers_by_name(make_encoder_panels(make_panels(found))),
    ):
        figure.draw_without_rendering()
        page = figure.bbox
        shown = [ax for ax in figure.axes if ax.axison]
        boxes = [figure.legends[0].get_window_extent(), *(ax.get_tightbbox() for ax in shown)]
        for index, box in enumerate(boxes):
            assert box.x0 >= page.x0 and box.x1 <= page.x1 and box.y0 >= page.y0 and box.y1 <= page.y1
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])
        titles = [ax.get_title(loc="left") or ax.get_title() for ax in shown]
        assert "crepe.tiny (random weights)" in titles


def test_build_writes_both_and_removes_them(tmp_path: Path) -> None:
    found = [*layer_rows("a", "t", [0.2, 0.4]), *layer_rows("floor", "t", [0.3])]
    for one in found:
        results.save(one, tmp_path)
    names = {f"{stem}{suffix}" for stem in ("heatmap", "layers_by_name") for suffix in (".png", ".svg")}
    assert names < {path.name for path in report.write_tables_and_plots(tmp_path)}
    assert all((tmp_path / name).stat().st_size > 1000 for name in names)
    before = {name: (tmp_path / name).read_bytes() for name in names}
    again = [*plot_heatmap(found, tmp_path / "again"), *plot_layers_by_name(found, tmp_path / "again")]
    assert {path.name: path.read_bytes() for path in again} == before
    results.run_path(tmp_path, found[0].id).unlink()
    report.write_tables_and_plots(tmp_path)
    assert not any((tmp_path / name).exists() for name in names)
