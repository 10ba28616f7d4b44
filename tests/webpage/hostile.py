"""A results folder whose every text tries to break out of the page, with a task and sounds to listen to."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import soundfile
import yaml
from test_report import layer_rows, row

from evar import results
from evar.data.task import load_task
from evar.results import CostRecord, Result, save_cost

ATTACKS = (
    "<script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "javascript:window.hacked=1",
    '" onmouseover="window.hacked=1" x=\'',
    "<a href=javascript:window.hacked=1>click</a>",
)
TASK = "tones"
#: clips of each class; every second one is a test clip
N_PER_CLASS = 8


def write_task(root: Path) -> None:
    """Write a task whose labels are the attacks, with short tones as sounds; some file names are attacks too."""
    data, tasks = root / "data" / TASK, root / "config" / "tasks"
    data.mkdir(parents=True)
    tasks.mkdir(parents=True)
    rows, time = [], np.arange(4000) / 8000
    for label, name in enumerate(ATTACKS):
        for number in range(N_PER_CLASS):
            attack = "<img src=x onerror=window.hacked=1>" if number == 1 else ""
            path = f"{label}_{number}{attack}.wav"
            soundfile.write(data / path, 0.3 * np.sin(2 * np.pi * (200 + 100 * label) * time), 8000)
            rows.append(
                [path, name, "test" if number % 2 else ("train", "valid")[number % 4 // 2], f"{label}-{number}"]
            )
    with open(tasks / f"{TASK}.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "group"], *rows])
    task = {
        "title": "tones", "version": "1", "kind": "multiclass", "metric": "accuracy", "classes": list(ATTACKS),
        "clip_seconds": None, "pad": "none", "crop": "head", "index": f"{TASK}.csv", "folder": TASK,
        "splits": "published", "source": "made by the tests", "licence": "CC0-1.0", "citation": "none", "access": "free",
        "expected": {"clips": len(rows), "classes": len(ATTACKS)},
    }  # fmt: skip
    (tasks / f"{TASK}.yaml").write_text(yaml.safe_dump(task))


def save_predicted(out: Path, one: Result, n_wrong: int) -> Result:
    """Save a row of the task that gets some clips wrong, a different class each, and is sure of it."""
    task = load_task(TASK)
    test = task.rounds()[0].test
    true = task.y[test]
    predicted = true.copy()
    predicted[:n_wrong] = (true[:n_wrong] + 1) % len(ATTACKS)
    score = float((true == predicted).mean())
    made = Result.from_dict(
        {**one.to_dict(), "score": score, "round_scores": [score], "n_test": len(test), "id": "", "interval": [0.0, 1.0],
         "index_sha256": task.index_sha256, "n_classes": len(ATTACKS)}
    )  # fmt: skip
    results.save_predictions(
        out, made.id, clip=task.index["path"].to_numpy(str)[test], round=np.zeros(len(test), np.int64),
        group=task.groups[test], y_true=true, y_pred=predicted, confidence=np.linspace(0.99, 0.3, len(test)),
    )  # fmt: skip
    results.save(made, out)
    return made


def make_folder(root: Path) -> Path:
    """Write everything below `root`; the environment must point to `root/config` and `root/data`."""
    write_task(root)
    out = root / "results"
    said = {"flags": [ATTACKS[2]], "protocol_description": ATTACKS[0], "interval_method": ATTACKS[1],
            "versions": {"evar-audio": ATTACKS[0]}, "settings": {"note": ATTACKS[1], ATTACKS[2]: ATTACKS[3]}}  # fmt: skip
    save_predicted(out, row("good", TASK, 0.9, **said), 3)
    save_predicted(out, row(ATTACKS[0], TASK, 0.5, weights=ATTACKS[2], **said), 9)
    for one in layer_rows("deep", TASK, [0.3, 0.5, 0.45, 0.6], default=1, **said):
        save_predicted(out, one, 4 + 2 * (one.layer_index or 0))
    failure = {"encoder": ATTACKS[1], "task": TASK, "protocol": "linear", "seed": 0}
    results.save_failure(out, failure, f"a message with {ATTACKS[2]}")
    save_cost(out, CostRecord("a__cost__1", "good", "ab" * 32, {}, 1000, 512, 1.0, 50.0, 9, ATTACKS[0], 1))
    (out / "runs" / "broken.json").write_text(json.dumps({"encoder": ATTACKS[0]}))
    return out
