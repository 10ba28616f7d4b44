"""Cells and specs: the names of older results stay valid, everything illegal is rejected early, specs are plain data."""

from __future__ import annotations

import json

import pytest
from toy import Bands

from evar import cli, results
from evar.cli import run
from evar.encoders import load_encoder
from evar.experiment.cell import Cell
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.experiment.spec import GridSpec
from evar.finetune.network import list_head_layers
from evar.finetune.run import _settle
from evar.finetune.spec import TuningSettings, TuningSpec, resolve_tuning
from evar.lineval.fusion_search import make_search_id
from evar.lineval.units import cut_units

#: words -> ids of all rows, as commit 8a41fa9 made them
OLD_IDS = [
    ({"tasks": "esc10"}, ["esc10__linear__s0__2e2daac4a4"]),
    ({"tasks": "gm_pitch", "layers": "all", "limit": 40, "seeds": 2}, ["gm_pitch__linear__s0__c4d07fa6c8"]),
    ({"tasks": "fsdd_digit", "protocol": "knn", "skip_bad": True}, ["fsdd_digit__knn__s0__3dc4c0291b"]),
    (
        {"tasks": "gm_multi", "protocol": "mlp", "learning_rate": "0.001"},
        [
            "gm_multi__mlp--learning_ra__s0__5dc115a3ff",
            "gm_multi__mlp--learning_ra__s1__b7b8897202",
            "gm_multi__mlp--learning_ra__s2__153aa8b5bb",
        ],
    ),
    (
        {"tasks": "gm_multi", "protocol": "mlp", "learning_rate": "search", "seeds": 1},
        ["gm_multi__mlp--learning_ra__s0__5ee4db5e3f"],
    ),
    ({"tasks": "spoken_words", "protocol": "attentive"}, ["spoken_words__attentive__s0__2c7d70a8ce"]),
    (
        {"tasks": "esc10", "protocol": "evar"},
        [
            "esc10__evar__s0__240d088824",
            "esc10__evar__s1__281bd86698",
            "esc10__evar__s2__8a52d0adb1",
        ],
    ),
    (
        {"tasks": "esc10", "protocol": "fewshot", "seeds": 2},
        ["esc10__fewshot__s0__9e61295cd5", "esc10__fewshot__s1__3cf92e1089"],
    ),
    ({"tasks": "esc10", "protocol": "hear"}, ["esc10__hear__s0__9357ec37ba"]),
    ({"tasks": "esc10", "protocol": "prototype"}, ["esc10__prototype__s0__f6853ebdd1"]),
]
OLD_TOY_IDS = [
    (
        {"encoders": "toy", "layers": "all", "fusion": "search"},
        ["toy__level__tones__linear__s0__e6b5da9218", "toy__bands__tones__linear__s0__27f6ac70d8"],
    ),
    (
        {"encoders": "toy_twins", "layers": "all", "fusion": "weighted"},
        ["toy_twins__deaf+bands__tones__linear__s0__b69fe5d1ab"],
    ),
    (
        {"encoders": "toy", "layers": "level,bands", "fusion": "concat", "limit": 10, "skip_bad": True},
        ["toy__level+bands__tones__linear__s0__e088de1d98"],
    ),
    ({"encoders": "toy_normalised", "norm_stats": "task"}, ["toy_normalised__bands__tones__linear__s0__bc9a659ebf"]),
    ({"encoders": "toy_normalised"}, ["toy_normalised__bands__tones__linear__s0__3e10219c98"]),
    (
        {"encoders": "toy_normalised", "norm_stats": (-2.0, 3.0)},
        ["toy_normalised__bands__tones__linear__s0__6325cece00"],
    ),
    ({"encoders": "toy", "protocol": "attentive"}, ["toy__level+bands__tones__attentive__s0__4d9923d6d0"]),
    ({"encoders": "toy", "protocol": "evar", "seeds": 1}, ["toy__bands__tones__evar__s0__60311a596b"]),
]


def load_cell(grid):
    (spec,) = grid.cells
    return Cell(load_encoder(spec.encoder, norm_stats=spec.given_statistics), grid.tasks[spec.task], spec)


@pytest.mark.parametrize(("words", "ids"), OLD_IDS, ids=lambda value: str(value)[:40])
def test_results_of_before_keep_their_names(words, ids):
    cell = load_cell(resolve_request(parse_request("logmel", **words)))
    assert [row.id for row in cell.list_rows()] == [f"logmel__logmel__{id}" for id in ids]


@pytest.mark.parametrize(("words", "ids"), OLD_TOY_IDS, ids=lambda value: str(value)[:40])
def test_results_of_layers_and_fusions_keep_their_names(tones, words, ids):
    tones()
    cell = load_cell(resolve_request(parse_request(tasks="tones", **words)))
    assert [row.id for row in cell.list_rows()] == ids


def test_searches_and_fine_tunings_keep_their_names(tones):
    tones()
    grid = resolve_request(parse_request("toy", "tones", layers="all", fusion="search"))
    assert make_search_id([load_cell(grid)], grid.searches["toy"]) == "toy__level+bands__tones__linear__s0__e5cf38a1c9"
    for encoder, given, limit, id in (
        ("toy", {"epochs": 1}, None, "toy__bands__tones__finetune_quick--__s0__f47b39b3db"),
        (
            "toy_twins",
            {"epochs": 1, "layers": "weighted"},
            12,
            "toy_twins__deaf+bands__tones__finetune_quick--__s0__cf0291c272",
        ),
    ):
        settings = TuningSettings((encoder,), ("tones",), protocol="finetune_quick", given=given, limit=limit)
        (spec,) = resolve_tuning(settings).cells
        assert TuningSpec.from_plain(json.loads(json.dumps(spec.to_plain()))) == spec
        from evar.experiment.loading import load_spec_task

        cell = Cell(load_encoder(encoder), load_spec_task(spec.cell, None), spec.cell)
        cell, settled = _settle(cell, spec)
        names = list_head_layers(cell.encoder, settled.protocol.layers)
        from evar.experiment.selection import Selection

        fusion = "none" if len(names) == 1 else "weighted"
        assert [row.id for row in cell.list_rows([Selection(names, fusion)])] == [id]


def test_specs_are_plain_data_and_come_back_equal(tones):
    tones()
    words = {"layers": "level,bands", "norm_stats": "task", "seeds": 2, "limit": 12}
    grid = resolve_request(parse_request("toy_normalised,toy", "tones", protocol="evar", **words))
    again = GridSpec.from_plain(json.loads(json.dumps(grid.to_plain())))
    assert again == grid and not again.tasks
    assert [GridSpec.from_plain(unit.to_plain()) for unit in cut_units(grid)] == cut_units(grid)


def test_a_row_holds_its_spec_whose_hash_is_its_name(tones):
    root = tones(folds=True)
    assert run(["lineval", "toy", "tones", f"--out={root / 'results'}"]) == cli.DONE
    (row,) = results.load_all(root / "results")
    assert results.run_id(row.settings["spec"]) == row.id
    assert row.settings["spec"]["params"] and row.settings["spec"]["index_sha256"] == row.index_sha256


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["toy", "--layers=all", "--fusion=average"], "average needs layers of equal width"),
        (["toy", "--layers=all", "--fusion=weighted"], "weighted needs layers of equal width"),
        (["toy_twins", "--layers=all", "--fusion=weighted", "--protocol=knn"], "--fusion=weighted goes with the probe"),
        (["toy", "--norm_stats=0,1"], "toy does not normalise its input by statistics"),
        (["toy", "--layers=conv9"], "no layer 'conv9'"),
    ],
    ids=lambda value: str(value),
)
def test_what_is_illegal_is_rejected_before_anything_is_encoded(tones, capsys, words, reason):
    root = tones()
    assert run(["lineval", words[0], "tones", *words[1:], f"--out={root / 'results'}"]) == cli.WRONG
    assert reason in capsys.readouterr().err
    assert not Bands.calls and not results.load_all(root / "results")


def test_one_illegal_encoder_of_a_grid_costs_its_own_cells_only(tones, capsys):
    root = tones()
    words = ["lineval", "toy,toy_twins", "tones", "--layers=all", "--fusion=average", f"--out={root / 'results'}"]
    assert run(words) == cli.SOME_FAILED
    assert [row.encoder for row in results.load_all(root / "results")] == ["toy_twins"]
    (failure,) = results.load_failures(root / "results")
    assert failure.cell["encoder"] == "toy" and "average needs layers of equal width" in failure.reason
    assert sum(Bands.calls) == 36  # of the legal encoder alone
