"""Layers named by position, wherever a layer can be named: results hold the resolved names."""

from __future__ import annotations

import numpy as np
import pytest

import evar
from evar import results
from evar.cli import command_line as cli
from evar.cli.command_line import run
from evar.encoders import load_encoder
from evar.experiment.request import parse_request
from evar.experiment.resolving import resolve_request
from evar.exporting import read_metadata


def rows_of(root):
    return results.load_all(root / "results")


def test_positions_count_from_both_ends_and_names_stay_names(tones):
    tones()
    toy = load_encoder("toy", "random")
    assert [toy.layer(word).name for word in (0, "0", "+1", -1, "-2")] == ["level", "level", "bands", "bands", "level"]
    crepe = load_encoder("crepe.tiny", "random")
    assert crepe.layer_names(["0", " conv3 ", "-1"]) == ("conv1", "conv3", "pitch")
    with pytest.raises(
        ValueError, match=r"no layer 7 in crepe\.tiny; its 7 layers are 0 \(conv1\) to 6 \(pitch\), or -7 to -1"
    ):
        crepe.layer("7")
    with pytest.raises(ValueError, match="no layer -8 in"):
        crepe.layer(-8)
    for word in ("block1", "1.0", "1e0", "", "--1"):
        with pytest.raises(ValueError, match=f"no layer '{word}' in"):
            crepe.layer(word)
    with pytest.raises(ValueError, match="named once each, and at least one, got 0, conv1, which are conv1, conv1"):
        crepe.layer_names(["0", "conv1"])


def test_lineval_takes_positions_and_stores_names(tones, capsys):
    root = tones(n_per_class=4)
    words = ["lineval", "toy", "tones", f"--out={root / 'results'}"]
    assert run([*words, "--layers=0,-1"]) == cli.DONE
    by_position = rows_of(root)
    assert sorted(row.layers for row in by_position) == [("bands",), ("level",)]
    assert all(row.settings["layers"] == ["level", "bands"] for row in by_position)
    assert run([*words, "--layers=level,bands"]) == cli.DONE  # the same rows: nothing new
    assert {row.id for row in rows_of(root)} == {row.id for row in by_position}
    capsys.readouterr()
    assert run([*words, "--layers=2"]) == cli.WRONG
    assert "no layer 2 in toy; its 2 layers are 0 (level) to 1 (bands)" in capsys.readouterr().err
    assert run([*words, "--layers=1,bands"]) == cli.WRONG
    assert "named once each" in capsys.readouterr().err
    assert run([*words, "--layers", "-1", "--fusion=concat"]) == cli.DONE


def test_fusion_and_search_take_positions(tones):
    root = tones(n_per_class=4)
    words = ["lineval", "toy", "tones", f"--out={root / 'results'}", "--layers=0,1"]
    assert run([*words, "--fusion=concat"]) == cli.DONE
    assert [row.layers for row in rows_of(root)] == [("level", "bands")]
    assert run([*words, "--fusion=search"]) == cli.DONE
    assert {("level",), ("bands",)} <= {row.layers for row in rows_of(root)}


def test_python_takes_numbers(tones):
    root = tones(n_per_class=4)
    outcome = evar.evaluate("toy", "tones", layers=[0, -1], out=str(root / "results"))
    assert sorted(row.layers for row in outcome.rows) == [("bands",), ("level",)]
    toy, clip = load_encoder("toy", "random"), 0.1 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    first = evar.embed(toy, clip, layers=[0, -1], sample_rate=8000)
    second = evar.embed(toy, clip, layers="level,bands", sample_rate=8000)
    assert list(first) == list(second) == ["level", "bands"]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_finetune_embed_fuse_and_plot_take_positions(tones, capsys, real_pictures):
    root = tones(n_per_class=4)
    words = ["finetune", "toy", "tones", "--protocol=finetune_quick", "--epochs=1", f"--out={root / 'results'}"]
    assert run([*words, "--layers=0+-1"]) == cli.DONE
    (row,) = rows_of(root)
    assert row.layers == ("level", "bands") and row.fusion == "concat"
    assert run([*words, "--layers=5"]) != cli.DONE
    assert "no layer 5 in toy" in (found := capsys.readouterr()).err + found.out
    clip = next((root / "data" / "tones").glob("*.wav"))
    assert (
        run(["embed", "toy", str(clip), "--weights=random", "--layers=-1,0", f"--output={root / 'x.npz'}"]) == cli.DONE
    )
    assert read_metadata(root / "x.npz")["layers"] == ["bands", "level"]
    assert run(["fuse", "toy", "0,-1", "--name=both"]) == cli.DONE
    assert load_encoder("both", "random").default_layers == ("level", "bands")
    picture = ["plot", "clip", str(clip), "--encoders=toy", "--weights=random", f"--out={root / 'clip.png'}"]
    assert run([*picture, "--layers=0"]) == cli.DONE and (root / "clip.png").is_file()
    assert run([*picture, "--layers=-3"]) == cli.WRONG


def test_a_variant_shows_all_its_layers_unless_they_are_its_bases():
    grid = resolve_request(
        parse_request("cnn14.16k,cnn14.fusion_3_6,ced.base,ced.tiny", "esc10", layers="all", limit=40)
    )
    wanted = {spec.encoder: spec.wanted_layers for spec in grid.cells}
    assert wanted == {"cnn14.16k": "all", "cnn14.fusion_3_6": "default", "ced.base": "all", "ced.tiny": "all"}
