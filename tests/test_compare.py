"""`evar compare`: filters, baselines, published rows, LaTeX and JSON, the critical-difference diagram."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from test_report import row

from evar import cli, config, report, results
from evar.cli import run
from evar.config import load_published_config
from evar.report.comparing import compare, matching, parse_filter
from evar.report.ranks import ranked

N = 120


@pytest.fixture
def folder(tmp_path):
    """Results of a good, an equally good and a bad encoder on six tasks, with their predictions."""
    for task in [f"task{n}" for n in range(6)]:
        rng = np.random.default_rng(int(task[-1]))
        true = rng.integers(0, 10, N)
        for encoder, p in (("good", 0.9), ("twin", 0.89), ("bad", 0.5)):
            is_right = np.random.default_rng([int(task[-1]), len(encoder), ord(encoder[0])]).random(N) < p
            add(tmp_path, encoder, task, true, np.where(is_right, true, (true + 1) % 10))
    return tmp_path


def add(out, encoder, task, true, predicted, **others):
    score = float(np.mean(true == predicted))
    name = re.sub(r"[^\w-]", "", f"{encoder}-{task}-{others.get('protocol', 'linear')}")
    one = row(encoder, task, score, id=name, n_test=len(true), **others)
    results.save_predictions(
        out, one.id, clip=[f"{i:03d}.wav" for i in range(len(true))], round=np.zeros(len(true), int),
        group=[f"g{i:03d}" for i in range(len(true))], y_true=true, y_pred=predicted,
    )  # fmt: skip
    results.save(one, out)


def test_equally_good_is_underlined_and_worse_is_not(folder):
    report.build(folder)
    text = (folder / "table.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert text.count("**") >= 12 and "<ins>" not in lines["bad"]
    assert (lines["good"] + lines["twin"]).count("<ins>") == 6  # the better of the two in bold, the other underlined
    assert "underlined are not significantly worse" in text


def test_a_baseline_gives_paired_differences_with_a_corrected_p(folder, capsys):
    assert run(["compare", f"--out={folder}", "--baseline=twin"]) == cli.DONE
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines() if line.startswith(("good ", "bad ")) and "task" in line]
    assert len(lines) == 12
    assert {line[-1] for line in lines if line[0] == "bad"} == {"worse"}
    assert {" ".join(line[-2:]) for line in lines if line[0] == "good"} == {"not significant"}
    assert "differences to twin" in (folder / "compare.md").read_text()


def test_an_unknown_baseline_names_the_nearest(folder):
    with pytest.raises(ValueError, match=r"has no row 'twim'.*did you mean 'twin'"):
        compare(folder, baseline="twim")


def test_filters(folder, capsys):
    rows = results.load_all(folder)
    assert {one.encoder for one in matching(rows, parse_filter("encoder=g*|bad"))} == {"good", "bad"}
    assert len(matching(rows, parse_filter("encoder=good,task=task[12]"))) == 2
    found = compare(folder, "task=task1|task3,encoder=good|bad", write=False)
    assert [column.task for column in found.sections[0].columns] == ["task1", "task3"] and not found.files
    assert run(["compare", f"--out={folder}", "--filter=encodr=good"]) == cli.WRONG
    assert "no column 'encodr'" in capsys.readouterr().err
    assert run(["compare", f"--out={folder}", "--filter=encoder=nobody"]) == cli.WRONG
    assert "none of the 18 rows" in capsys.readouterr().err


def test_protocols_versions_and_limits_never_share_a_column(folder):
    true = np.zeros(N, int)
    add(folder, "good", "task1", true, true, protocol="knn")
    add(folder, "late", "task1", true, true, task_version="2")
    found = compare(folder, write=False)
    assert [section.protocol for section in found.sections] == ["knn", "linear"]
    labels = [column.label for column in found.sections[1].columns]
    assert "task1 (version 1)" in labels and "task1 (version 2)" in labels


def test_predictions_for_other_clips_are_not_compared(folder):
    true = np.arange(N - 1) % 10
    add(folder, "odd", "task1", true, true)
    found = compare(folder, baseline="good", write=False)
    assert re.search(r"odd +out +task1 +- +- +- +not tested on the same clips", found.text)


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
    assert set(entry.tasks) <= set(config.names("tasks"))
    encoders = [one.encoder for one in entry.rows if one.encoder]
    assert set(encoders) <= set(config.names("encoders")) and len(encoders) == len(set(encoders))
    assert len({one.label for one in entry.rows}) == len(entry.rows)


def test_averages_of_published_rows_are_those_of_the_paper():
    """The printed averages are not stored: they check that no score was mistyped."""
    printed = {"BYOL-A": 72.4, "CNN14": 57.2, "AST": 65.8, "VGGish": 47.2, "VGGish-4K": 58.3, "M2D": 80.2}
    found = {one.label: np.mean(one.scores) for one in load_published_config("evar").rows}
    assert {label: found[label] for label in printed} == pytest.approx(printed, abs=0.06)
    printed = {"VGGish": 47.2, "VGGish-Fusion#10#15": 71.3, "CNN14": 57.0, "CNN14-Fusion#3#6": 72.6, "AST": 65.5}
    found = {one.label: np.mean(one.scores) for one in load_published_config("composing_gar").rows}
    assert {label: found[label] for label in printed} == pytest.approx(printed, abs=0.06)


def test_a_published_file_with_a_score_too_few_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    text = "{title: t, source: s, citation: c, protocol: p, tasks: [esc50, gtzan], rows: [{label: x, scores: [1.0]}]}"
    (tmp_path / "published" / "mine.yaml").write_text(text)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path))
    with pytest.raises(ValueError, match="row 'x' must have 2 scores"):
        load_published_config("mine")
    with pytest.raises(ValueError, match="no published 'min'; .*did you mean 'mine'"):
        load_published_config("min")


def test_json_holds_every_cell_and_its_files(folder):
    report.build(folder)
    (table,) = json.loads((folder / "table.json").read_text())
    assert len(table["cells"]) == 18 and table["protocol"] == "linear"
    for cell in table["cells"]:
        (stem,) = cell["ids"]
        assert results.load(results.run_path(folder, stem)).score == cell["score"]
    assert {cell["p_worse_than_best"] is None for cell in table["cells"]} == {True, False}


def test_latex_is_escaped_and_closed(folder, tmp_path):
    true = np.zeros(N, int)
    add(folder, "my_encoder", "a&b_50%", true, true)
    report.build(folder)
    text = (folder / "table.tex").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    assert r"my\_encoder" in body and r"a\&b\_50\%" in body and r"\textbf{" in body and r"\underline{" in body
    assert body.count("{") == body.count("}") and body.count(r"\begin{") == body.count(r"\end{")
    columns = len(re.search(r"\\begin{tabular}{(l+r+)}", body).group(1))
    rows = [line for line in lines if line.endswith(r" \\")]
    assert rows and all(len(re.findall(r"(?<!\\)&", line)) == columns - 1 for line in rows)
    assert not re.search(r"(?<!\\)[_#]", body)


def test_the_diagram_needs_enough_tasks_and_shows_who_cannot_be_told_apart(folder):
    found = compare(folder)
    names, ranks = ranked(found.sections[0])
    assert names[int(ranks.ranks.argmax())].startswith("bad") and ranks.n_tasks == 6
    assert {path.name for path in found.files} >= {"ranks.png", "ranks.svg", "compare.tex"}
    assert "mean ranks over 6 tasks" in found.text
    few = compare(folder, "task=task1|task2", write=False)
    assert isinstance(ranked(few.sections[0]), str) and "at least 5 different tasks" in few.text


def test_comparing_needs_no_torch(folder):
    import sys

    code = (
        "import sys\nclass NoTorch:\n    def find_spec(self, name, *_):\n"
        "        assert name.split('.')[0] != 'torch', 'torch'\n"
        f"sys.meta_path.insert(0, NoTorch())\nfrom evar.cli import run\nsys.exit(run(['compare', '--out={folder}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
