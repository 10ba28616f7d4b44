"""`evar compare`: filters, baselines, published rows, LaTeX and JSON, the critical-difference diagram."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from test_report import layer_rows, row

from evar import cli, report, results
from evar.cli import run
from evar.report.comparing import compare
from evar.report.plots.ranks import rank_rows
from evar.report.tables.filters import parse_filter, select_rows

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
    report.write_tables_and_plots(folder)
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
    assert {one.encoder for one in select_rows(rows, parse_filter("encoder=g*|bad"))} == {"good", "bad"}
    assert len(select_rows(rows, parse_filter("encoder=good,task=task[12]"))) == 2
    found = compare(folder, "task=task1|task3,encoder=good|bad", write=False)
    assert [column.task for column in found.sections[0].columns] == ["task1", "task3"] and not found.files
    assert run(["compare", f"--out={folder}", "--filter=encodr=good"]) == cli.WRONG
    assert "no column 'encodr'" in capsys.readouterr().err
    assert run(["compare", f"--out={folder}", "--filter=encoder=nobody"]) == cli.WRONG
    assert "no row has encoder=nobody; it has bad, good, twin" in capsys.readouterr().err


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
    assert re.search(r"odd +out +task1 +- +- +- +- +not tested on the same clips", found.text)


def test_json_holds_every_cell_and_its_files(folder):
    report.write_tables_and_plots(folder)
    (table,) = json.loads((folder / "table.json").read_text())
    assert len(table["cells"]) == 18 and table["protocol"] == "linear"
    for cell in table["cells"]:
        (stem,) = cell["ids"]
        assert results.load(results.run_path(folder, stem)).score == cell["score"]
    assert {cell["p_worse_than_best"] is None for cell in table["cells"]} == {True, False}


def test_latex_is_escaped_and_closed(folder, tmp_path):
    true = np.zeros(N, int)
    add(folder, "my_encoder", "a&b_50%", true, true)
    report.write_tables_and_plots(folder)
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
    names, ranks = rank_rows(found.sections[0])
    assert names[int(ranks.ranks.argmax())].startswith("bad") and ranks.n_tasks == 6
    assert {path.name for path in found.files} >= {"ranks.png", "ranks.svg", "compare.tex"}
    assert "mean ranks over 6 tasks" in found.text
    few = compare(folder, "task=task1|task2", write=False)
    assert isinstance(rank_rows(few.sections[0]), str) and "at least 5 different tasks" in " ".join(few.text.split())


def test_comparing_needs_no_torch(folder):
    import sys

    code = (
        "import sys\nclass NoTorch:\n    def find_spec(self, name, *_):\n"
        "        assert name.split('.')[0] != 'torch', 'torch'\n"
        f"sys.meta_path.insert(0, NoTorch())\nfrom evar.cli import run\nsys.exit(run(['compare', '--out={folder}']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_filter_by_layers_finds_the_default_by_name_and_shows_a_sweep(tmp_path):
    for one in layer_rows("a", "t", [0.5, 0.6, 0.7]):
        results.save(one, tmp_path)
    results.save(row("b", "t", 0.4), tmp_path)

    def shown(text):
        return [(one.encoder, one.layers) for one in compare(tmp_path, text, write=False).sections[0].rows]

    assert shown("") == [("a", "layer3"), ("b", "out")]
    assert shown("layers=default") == [("a", "layer3"), ("b", "out")]
    assert shown("layers=layer3") == [("a", "layer3")]
    assert shown("layers=layer*") == [("a", "layer1"), ("a", "layer2"), ("a", "layer3")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task=tsak1", r"no row has task=tsak1; it has task0, .*did you mean 'task1'"),
        ("encoder=good,weights=y", "no row has weights=y; it has x.pt"),
        ("encoder", "must be COLUMN=PATTERN"),
        ("encoder=good|", "must be COLUMN=PATTERN"),
        ("seed=0,seed=1,limit=none,index=abc*", r"no row has index=abc\*; it has none"),
        ("encoder=good,bad", "no column 'bad'"),
    ],
)
def test_a_filter_that_finds_nothing_names_what_there_is(folder, text, said):
    with pytest.raises(ValueError, match=said):
        compare(folder, text)
    assert not (folder / "compare.md").exists()


def test_conditions_that_match_apart_but_not_together_say_so(folder):
    add(folder, "other", "task7", np.zeros(N, int), np.zeros(N, int))
    with pytest.raises(ValueError, match="none of 19 rows matches all of encoder=good,task=task7"):
        compare(folder, "encoder=good,task=task7")


def test_a_filter_keeps_the_failures_that_it_asks_for(folder):
    results.save_failure(folder, {"encoder": "late", "task": "task1", "protocol": "linear"}, "it broke")
    assert "failed: it broke" in compare(folder, "task=task1", write=False).text
    assert "it broke" not in compare(folder, "task=task2", write=False).text


def test_what_cannot_share_a_column_is_said_with_the_filter_that_leaves_one(folder):
    true = np.zeros(N, int)
    add(folder, "good", "task1", true, true, protocol="knn")
    add(folder, "late", "task2", true, true, task_version="2")
    add(folder, "cut", "task3", true, true, limit=50)
    add(folder, "apart", "task4", true, true, index_sha256="ab" * 32)
    add(folder, "newer", "task5", true, true, params={"protocol_version": "2"})
    notes = " ".join(compare(folder, write=False).notes)
    assert "they differ in protocol (knn: 1 row, linear: 22 rows); --filter=protocol=knn leaves one" in notes
    assert "they differ in limit (50: 1 row, none: 22 rows); --filter=limit=50" in notes
    assert "The rows of protocol linear stand in separate tables, since they differ in protocol_version (1: 21" in notes
    assert (
        "task2 has more than one column, since its rows differ in task_version (1: bad, good, twin; 2: late)" in notes
    )
    assert "differ in index (abababab: apart; none: bad, good, twin); --filter=task=task4,index=abababab*" in notes
    alone = compare(folder, "task=task4,index=abababab*", write=False)
    assert [len(section.columns) for section in alone.sections] == [1] and "separate" not in " ".join(alone.notes)


def test_the_baseline_is_in_every_format(folder):
    found = compare(folder, "encoder=bad|twin", baseline="twin")
    (table,) = json.loads((folder / "compare.json").read_text())
    given = table["baseline"]["differences"]
    assert table["baseline"]["name"] == "twin" and len(given) == 6
    for one in given:
        assert one["low"] <= one["difference"] <= one["high"] < 0 and one["p"] <= one["p_holm"] < 0.05
        assert one["test"] == "McNemar" and one["verdict"] == "worse"
        ours, base = (results.load(results.run_path(folder, one[key][0])) for key in ("ids", "baseline_ids"))
        assert ours.score - base.score == pytest.approx(one["difference"]) and base.encoder == "twin"
    frame = found.differences
    assert list(frame.verdict) == ["worse"] * 6 and frame.difference.tolist() == [one["difference"] for one in given]
    assert "differences to twin" in (folder / "compare.tex").read_text()
    assert len((folder / "baseline.csv").read_text().splitlines()) == 7
    compare(folder)
    assert not (folder / "baseline.csv").exists()  # it would be taken for this comparison's


def test_from_python(folder):
    import evar

    found = evar.compare(folder, filter="task=task1,encoder=good|bad", baseline="bad", write=False)
    assert sorted(found.table.encoder) == ["bad", "good"] and found.table.score.between(0, 1).all()
    assert len(found.differences) == 1 and "| good" in found._repr_markdown_()
    assert not (folder / "compare.md").exists()


def test_an_encoder_that_has_seen_the_data_is_flagged(tmp_path):
    results.save(row("ge2e", "voxceleb1", 0.9, trained_on="LibriSpeech-other, VoxCeleb1, VoxCeleb2"), tmp_path)
    results.save(row("other", "voxceleb1", 0.8, trained_on="AudioSet-2M (labels)"), tmp_path)
    results.save(row("crepe", "nsynth_instrument", 0.8, trained_on="MIR-1K, NSynth (pitch labels)"), tmp_path)
    results.save(row("untrained", "voxceleb1", 0.1, trained_on="VoxCeleb1", weights="random"), tmp_path)
    results.save(row("esc", "esc10", 0.9, trained_on="ESC-50"), tmp_path)
    results.save(row("talk", "spoken_words", 0.9, trained_on="spoken language, all of it"), tmp_path)
    found = compare(tmp_path)
    marked = {one.encoder for one in found.sections[0].rows if "trained on this data" in one.flags}
    assert marked == {"ge2e", "crepe", "esc"} and "its weights saw" in found.text


def test_latex_has_labels_and_notes_and_no_failures(folder):
    true = np.zeros(N, int)
    add(folder, "my/encoders.py:Fancy", "task1", true, true)
    results.save_failure(folder, {"encoder": "broken", "task": "task1", "protocol": "linear"}, "out of order")
    report.write_tables_and_plots(folder)
    text = (folder / "table.tex").read_text()
    assert "broken" not in text and "out of order" not in text and "failed" not in text
    assert "Fancy & out" in text and "encoders.py" not in text
    assert r"\label{tab:linear}" in text
    assert r"{\footnotesize Scores: accuracy in percent" in text and not re.search(r"^% Scores", text, re.MULTILINE)
    assert "broken" in (folder / "table.md").read_text()


def test_latex_makes_a_whole_document(folder):
    found = row("seen", "task1", 0.3, trained_on="task1", id="seen", n_test=7)
    results.save(found, folder)
    compare(folder, baseline="twin")
    text = (folder / "compare.tex").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    opened = []
    for kind, name in re.findall(r"\\(begin|end){(\w+)}", body):  # environments close in the order they opened
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened and body.count(r"\begin{table}") == 2
    commands = set(re.findall(r"\\([a-zA-Z]+)", body))
    booktabs = {"toprule", "midrule", "bottomrule"}
    assert commands <= booktabs | {
        *(
            "begin",
            "end",
            "caption",
            "centering",
            "dag",
            "footnotesize",
            "label",
            "par",
            "pm",
            "scriptsize",
            "shortstack",
        ),
        *("smallskip", "textbf", "textsuperscript", "underline"),
    }
    depth = 0
    for character in re.sub(r"\\[{}]", "", body):
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0 and body.isascii() and r"tested on n=7" in body
