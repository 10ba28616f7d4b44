"""Numbers of papers: the files are sound, and stand apart from what was measured here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_compare import add
from test_report import row

from evar import cli, config, results
from evar.cli import run
from evar.config.published import load_published_config
from evar.report.comparing import compare


def test_published_numbers_stand_apart_and_show_the_distance_to_ours(tmp_path):
    rng = np.random.default_rng(0)
    true = rng.integers(0, 50, 400)
    for encoder in ("vggish", "other"):
        add(tmp_path, encoder, "esc50", true, np.where(rng.random(400) < 0.7, true, 0), weights="x.pt")
    found = compare(tmp_path, published=[load_published_config("evar")])
    rows = {(one.encoder, bool(one.published)): one for one in found.sections[0].rows}
    published = rows["VGGish", True].cells[0]
    assert published.score == pytest.approx(0.682) and published.ours == rows["vggish", False].cells[0].score
    assert published.interval == pytest.approx((0.671, 0.693)) and not published.results
    assert rows["M2D", True].cells[0].ours is None and rows["VGGish", True].rank is None
    text = (tmp_path / "compare.md").read_text()
    assert "published: evar" in text and "Published, not measured here" in text
    line = next(line for line in text.splitlines() if line.startswith("| M2D-AS"))  # the best, yet never in bold
    assert "96.7" in line and "**" not in line
    table = json.loads((tmp_path / "compare.json").read_text())
    assert {cell["published"] is not None for cell in table[0]["cells"] if cell["label"] == "M2D"} == {True}


def test_random_weights_are_not_compared_with_published_numbers(tmp_path):
    true = np.zeros(40, int)
    add(tmp_path, "vggish", "esc50", true, true, weights="random")
    found = compare(tmp_path, published=[load_published_config("evar")], write=False)
    assert all(cell.ours is None for one in found.sections[0].rows for cell in one.cells if cell)


@pytest.mark.parametrize("name", config.names("published"))
def test_published_files_are_sound(name):
    entry = load_published_config(name)
    assert entry.source and entry.citation and entry.protocol
    assert set(entry.tasks) <= set(config.names("tasks")) | set(entry.other_tasks)
    assert set(entry.beside) <= set(config.names("protocols"))
    assert all(0 <= score <= 100 for one in entry.rows for score in (*one.scores, *one.plus_minus))
    encoders = [one.encoder for one in entry.rows if one.encoder]
    assert set(encoders) <= set(config.names("encoders")) and len(encoders) == len(set(encoders))
    assert len({one.label for one in entry.rows}) == len(entry.rows)


#: as printed; not stored with the rows, so that a score that was mistyped shows
PRINTED_AVERAGES = {
    "evar": {
        "BYOL-A": 72.4,
        "CNN14": 57.2,
        "AST": 65.8,
        "VGGish": 47.2,
        "VGGish-4K": 58.3,
        "Wav2Vec2-F": 60.4,
        "Wav2Vec2-C": 61.8,
        "M2D": 80.2,
        "M2D-AS": 78.0,
        "M2D-CLAP 2025": 78.8,
        "M2D-CLAP 2024": 80.8,
        "ATST-Clip": 77.9,
        "ATST-Frame": 79.9,
        "BEATs iter3": 72.1,
        "BEATs iter3+": 73.4,
        "CED": 69.7,
        "HTS-AT": 67.0,
        "Dasheng 1.2B": 76.2,
        "EAT": 70.0,
        "SSLAM": 69.4,
        "Whisper large-v3": 71.9,
        "Whisper base": 68.9,
        "OWSM": 55.4,
        "Qwen2.5 7B": 75.8,
        "Qwen2.5 3B": 74.8,
        "LAION-CLAP": 64.4,
        "CLAP22": 59.1,
        "CLAP23": 70.6,
        "WavCaps": 62.8,
        "ESResNeXt": 63.1,
        "COALA": 55.3,
        "TRILL": 64.9,
        "OpenL3-E": 69.1,
        "OpenL3-M": 69.7,
    },
    "composing_gar": {
        "VGGish": 47.2,
        "VGGish-Fusion#10#15": 71.3,
        "CNN14": 57.0,
        "CNN14-Fusion#3#6": 72.6,
        "AST": 65.5,
        "AST-Fusion#5#12": 69.8,
    },
    "m2d": {"MSM-MAE/0.75 (M2D paper)": 79.1, "M2D/0.6": 80.1},
    "byol_a": {"BYOL-A d512": 73.3, "BYOL-A d1024": 76.5, "BYOL-A d2048": 77.8},
}


@pytest.mark.parametrize("name", sorted(PRINTED_AVERAGES))
def test_averages_of_published_rows_are_those_of_the_paper(name):
    found = {one.label: float(np.mean(one.scores)) for one in load_published_config(name).rows}
    assert found == pytest.approx(PRINTED_AVERAGES[name], abs=0.06)


def test_numbers_of_msm_mae_are_those_of_its_file():
    """It prints fractions, no average: three of them by hand."""
    rows = {one.label: dict(zip(load_published_config("msm_mae").tasks, one.scores, strict=True))
            for one in load_published_config("msm_mae").rows}  # fmt: skip
    assert rows["MSM-MAE 80x512p16x16_paper"]["voxceleb1"] == pytest.approx(100 * 0.560781, abs=0.005)
    assert rows["MSM-MAE 80x512p16x16_0425"]["gtzan"] == pytest.approx(100 * 0.813793, abs=0.005)
    assert rows["MSM-MAE 80x208p16x16_0422"]["surge_pitch"] == pytest.approx(100 * 0.378, abs=0.005)


def test_a_published_file_with_a_score_too_few_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    text = "{title: t, source: s, citation: c, protocol: p, tasks: [esc50, gtzan], rows: [{label: x, scores: [1.0]}]}"
    (tmp_path / "published" / "mine.yaml").write_text(text)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path))
    with pytest.raises(ValueError, match="row 'x' must have 2 scores"):
        load_published_config("mine")
    with pytest.raises(ValueError, match="no published 'min'; .*did you mean 'mine'"):
        load_published_config("min")


def test_a_random_subset_is_never_set_beside_published_numbers(tmp_path):
    true = np.zeros(40, int)
    add(tmp_path, "vggish", "esc50", true, true, limit=40)
    found = compare(tmp_path, published="all", write=False)
    assert not any(one.published for section in found.sections for one in section.rows)
    assert "No published numbers beside linear (limit 40): they are of all clips" in " ".join(found.notes)


def test_other_protocols_and_tasks_get_no_published_rows_but_a_sentence(tmp_path):
    true = np.zeros(40, int)
    add(tmp_path, "vggish", "esc50", true, true, protocol="knn")
    add(tmp_path, "vggish", "esc10", true, true)
    found = compare(tmp_path, published="evar,msm_mae", write=False)
    assert not any(one.published for section in found.sections for one in section.rows)
    notes = " ".join(found.notes)
    assert "beside knn: they were made by another kind of protocol" in notes
    assert "beside linear: evar, msm_mae have none of esc10" in notes


def test_a_task_whose_split_is_not_published_says_so(tmp_path):
    true = np.zeros(40, int)
    add(tmp_path, "byol_a.d512", "voxforge", true, true)
    compare(tmp_path, published=["byol_a"])
    text = (tmp_path / "compare.md").read_text()
    assert "83.5 (ours +16.5) [1]" in text and "[1] voxforge: its split is not published" in text
    (table,) = json.loads((tmp_path / "compare.json").read_text())
    (distance,) = [cell["ours_minus_published"] for cell in table["cells"] if cell["label"] == "BYOL-A d512"]
    assert distance == pytest.approx(0.165)


def test_published_is_a_command_line_flag(tmp_path, capsys):
    true = np.zeros(40, int)
    add(tmp_path, "vggish", "esc50", true, true)
    assert run(["compare", f"--out={tmp_path}", "--published=evar"]) == cli.DONE
    assert "VGGish-4K" in capsys.readouterr().out
    assert run(["compare", f"--out={tmp_path}", "--published=evra"]) == cli.WRONG
    assert "no published 'evra'; it has" in capsys.readouterr().err


def test_a_task_that_is_not_in_the_table_cannot_have_a_caveat(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    text = "{title: t, source: s, citation: c, protocol: p, tasks: [esc50], rows: [], caveats: {esc05: why}}"
    (tmp_path / "published" / "mine.yaml").write_text(text)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path))
    with pytest.raises(ValueError, match="got 'esc05'; .*did you mean 'esc50'"):
        load_published_config("mine")


def test_published_numbers_by_path_on_the_command_line(tmp_path, capsys):
    results.save(row("cnn14.16k", "esc50", 0.9, protocol="linear"), tmp_path)
    example = Path(__file__).parents[2] / "examples" / "published_numbers.yaml"
    assert run(["compare", f"--out={tmp_path}", f"--published={example},evar"]) == cli.DONE
    text = capsys.readouterr().out
    assert "published: published_numbers" in text and "90.5 ± 0.5 (ours -0.5)" in text and "published: evar" in text
    assert run(["compare", f"--out={tmp_path}", "--published=nowhere.yaml"]) == cli.WRONG
    assert "no file nowhere.yaml" in capsys.readouterr().err
