"""Every table of a results folder with a bit of everything, byte for byte as it was when it was last looked at.

Where a table is meant to change, run `PYTHONPATH=.:tests:tests/report python
tests/report/test_tables_golden.py` and read the difference before you commit it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import test_hints_report
import test_report_fusion
from test_report import layer_rows, row

from evar import report, results
from evar.report.comparing import compare
from evar.results import Result, save_hints, save_search

GOLDEN = Path(__file__).parents[1] / "golden" / "tables"
N_CLIPS = 40
#: what is compared: tables of a run and of `evar compare`, for people and for programs
SUFFIXES = (".md", ".csv", ".tex", ".json", ".txt")


def save_with_predictions(out: Path, one: Result, seed: int) -> None:
    """Save a row whose predictions have about its score; two encoders of one seed were right on the same clips."""
    right = np.random.default_rng(seed).random(N_CLIPS) < one.score
    true = np.arange(N_CLIPS) % 5
    scores = [float(right[part].mean()) for part in np.array_split(np.arange(N_CLIPS), len(one.round_scores))]
    score = sum(scores) / len(scores)
    data = {**one.to_dict(), "score": score, "round_scores": scores, "n_test": N_CLIPS, "id": "", "interval": None}
    made = Result.from_dict(data)
    results.save_predictions(
        out, made.id, clip=[f"{i:03d}.wav" for i in range(N_CLIPS)],
        round=np.repeat(np.arange(len(scores)), N_CLIPS // len(scores)),
        group=[f"g{i // 2}" for i in range(N_CLIPS)], y_true=true, y_pred=np.where(right, true, (true + 1) % 5),
    )  # fmt: skip
    results.save(made, out)


def make_folder(out: Path) -> None:
    """Save rows, predictions, failures, hints and a search, with all that tables must tell apart or explain."""
    for number, (encoder, score) in enumerate({"byol_a.d512": 0.8, "crepe.tiny": 0.78, "logmel": 0.4}.items()):
        for task in ("esc10", "urbansound8k", "vox"):
            save_with_predictions(out, row(encoder, task, score, params={"protocol_version": "2"}), number)
    for seed in (0, 1, 2):
        save_with_predictions(out, row("seeded", "esc10", 0.7, seed=seed, params={"protocol_version": "2"}), 9 + seed)
    for encoder, task in (("a", "t"), ("b", "t"), ("a", "u")):
        for one in layer_rows(encoder, task, [0.3, 0.5, 0.45, 0.6], default=1, protocol="evar", params={}):
            results.save(one, out)
    flagged = {"protocol": "knn", "flags": ["task statistics"]}
    skipped = [{"clip": "x.wav", "split": "test", "reason": "not audio", "counted": "wrong"}]
    pair = ["layer1", "layer2"]
    for one in (
        row("odd|name", "t_1", 0.25, **flagged, skipped=skipped),
        row("odd|name", "t 2", 0.5, protocol="knn", n_test=40, limit=50),
        row("trained", "esc10", 0.9, **flagged, trained_on="AudioSet and ESC-50"),
        row("untrained", "esc10", 0.12, protocol="knn", weights="random", flags=["random weights", "after_pool"]),
        row("untrained", "t_1", 0.11, protocol="knn", flags=["after_pool"]),
        row("two", "esc10", 0.4, protocol="knn", weights="x.pt"),
        row("two", "esc10", 0.5, protocol="knn", weights="y.pt", weights_sha256="cd" * 32),
        row("two", "esc10", 0.6, protocol="knn", task_version="2"),
        row("two", "nsynth", -0.1, protocol="knn", metric="pearson", chance=None, interval=None),
        row("fused", "esc10", 0.4, pair, protocol="knn", fusion="average", default=False),
        row("fused", "esc10", 0.45, pair, protocol="knn", fusion="weighted", default=False,
            params={"layer_weights": [[0.25, 0.75]]}),
        row("fused", "esc10", 0.3, [f"layer{n}" for n in range(5)], protocol="knn"),
        row("late", "esc10", 0.3, protocol="knn", settings={"a": 1}, extraction={"pad": "none"}),
        row("late", "esc10", 0.35, protocol="knn", created="2026-02-01T12:00:00+00:00", extraction={"pad": "repeat"}),
    ):  # fmt: skip
        results.save(one, out)
    for cell in (
        {"encoder": "broken", "task": "esc10", "protocol": "knn", "layers": "all"},
        {"encoder": "two", "task": "t_1", "protocol": "knn", "layers": "default", "limit": None},
        {"encoder": "seeded", "task": "esc10", "protocol": "linear", "seed": 7},
        {"encoder": "nobody", "task": "unheard", "protocol": "ridge", "limit": 5},
    ):
        results.save_failure(out, cell, "no weights: x_y & 5 %")
    save_hints(out, test_hints_report.record("a", "t"))
    save_hints(out, test_hints_report.record("c", "t", weights="random"))
    for layers in test_report_fusion.RIGHT:
        for task in ("esc10", "vox"):
            test_report_fusion.saved(out, layers, task)
    save_search(test_report_fusion.record(("esc10", "vox")), out)


def write_every_table(out: Path) -> dict[str, str]:
    """Build the folder's tables and four comparisons; returns file name -> text."""
    make_folder(out)
    report.write_tables_and_plots(out)
    found = {path.name: path.read_text("utf-8") for path in sorted(out.glob("*.*")) if path.suffix in SUFFIXES}
    for name, words in {
        "all": {}, "baseline": {"filter": "protocol=linear", "baseline": "crepe.tiny"},
        "published": {"filter": "protocol=linear|evar", "published": "byol_a,composing_gar"},
        "sweep": {"filter": "protocol=evar,layers=*", "baseline": "a:layer2"},
    }.items():  # fmt: skip
        made = compare(out, **words)
        found[f"{name}.txt"] = made.text + "\n"
        texts = {path: path.read_text("utf-8") for path in made.files if path.suffix in SUFFIXES}
        found |= {f"{name}_{path.name}": text for path, text in texts.items() if text not in found.values()}
    found["terminal.txt"] = report.format_terminal_table(results.load_all(out), results.load_failures(out), out) + "\n"
    found["fusion.txt"] = report.format_fusion_tables(out) + "\n"
    return found


def test_every_table_is_as_it_was(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = write_every_table(tmp_path)
    assert sorted(found) == sorted(path.name for path in GOLDEN.iterdir())
    different = [name for name, text in found.items() if text.encode() != (GOLDEN / name).read_bytes()]
    if different:
        assert found[different[0]] == (GOLDEN / different[0]).read_text("utf-8"), f"these differ: {different}"


if __name__ == "__main__":
    import tempfile

    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in GOLDEN.iterdir():
        path.unlink()
    with tempfile.TemporaryDirectory() as folder:
        for name, text in write_every_table(Path(folder)).items():
            (GOLDEN / name).write_bytes(text.encode("utf-8"))
else:
    pytest.importorskip("matplotlib")
