"""How large the page of a big results folder is, how long making it takes, and how long a browser needs to open it.

    python benchmarks/report_page.py [--encoders=30] [--tasks=20] [--layers=13] [--clips=100]

It writes made-up rows to a temporary folder; the browser is a Chromium that is installed, driven by playwright.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from evar import results
from evar.results import Result
from evar.webpage import write_report


def make_folder(out: Path, n_encoders: int, n_tasks: int, n_layers: int, n_clips: int) -> None:
    """Write one row an encoder, task and layer, with predictions of ten classes."""
    random = np.random.default_rng(0)
    clips = [f"fold{at % 5}/recording_{at:05d}.wav" for at in range(n_clips)]
    groups, true = [f"g{at // 2}" for at in range(n_clips)], np.arange(n_clips) % 10
    for encoder in range(n_encoders):
        for task in range(n_tasks):
            skill = random.uniform(0.3, 0.9)
            for layer in range(n_layers):
                right = random.random(n_clips) < skill - 0.02 * abs(layer - 8)
                score = float(right.mean())
                one = Result(
                    encoder=f"encoder_{encoder:02d}", weights="file.pt", weights_sha256=f"{encoder:064d}",
                    layers=[f"layer{layer}"], fusion="none", pooling={f"layer{layer}": "mean"}, task=f"task_{task:02d}",
                    task_version="1", protocol="linear", params={"protocol_version": "1", "chosen_strengths": [1.0]},
                    seed=0, metric="accuracy", score=score, round_scores=[score], n_train=400, n_valid=100, n_test=n_clips,
                    skipped=[], seconds=1.0, versions={"evar-audio": "0.1.0"}, created="2026-01-31T12:00:00+00:00",
                    interval=[max(0.0, score - 0.05), min(1.0, score + 0.05)], interval_method="made up", n_classes=10,
                    chance=0.1, layer_index=layer, n_layers=n_layers, default=layer == n_layers - 1, width=768,
                    protocol_description="Made-up rows", settings={"layers": "all"},
                    rounds=[{"name": "test", "score": score, "n_test": n_clips, "valid_score": score}],
                )  # fmt: skip
                results.save_predictions(
                    out, one.id, clip=clips, round=np.zeros(n_clips, np.int64), group=groups, y_true=true,
                    y_pred=np.where(right, true, (true + 3) % 10), confidence=random.random(n_clips),
                )  # fmt: skip
                results.save(one, out)


def time_opening(page: Path) -> dict[str, float]:
    """Open the page three times; returns the median of each time, in seconds."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as started:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(3):
            opened = browser.new_page(viewport={"width": 1200, "height": 900})
            began = time.perf_counter()
            opened.goto(page.as_uri())
            opened.wait_for_selector("html[data-ready]", timeout=120_000)
            seconds = time.perf_counter() - began
            timing = opened.evaluate(
                "() => { const one = performance.getEntriesByType('navigation')[0];"
                " const paint = performance.getEntriesByName('first-contentful-paint')[0];"
                " return [paint ? paint.startTime : 0, one.domInteractive, one.loadEventEnd]; }"
            )
            found.append((seconds, *(value / 1000 for value in timing)))
            opened.close()
        browser.close()
    names = ("ready", "first paint", "interactive", "loaded")
    return dict(zip(names, np.median(found, axis=0).round(2).tolist(), strict=True))


def main() -> None:
    """Make, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("encoders", 30), ("tasks", 20), ("layers", 13), ("clips", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", default="", help="folder to keep the rows and the page in")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(words.keep or temporary) / "results"
        if not (out / "runs").is_dir():
            make_folder(out, words.encoders, words.tasks, words.layers, words.clips)
        began = time.perf_counter()
        page = write_report(out, audio="none", maps="none")
        print(f"made in {time.perf_counter() - began:.1f} s; {page.stat().st_size / 1e6:.2f} MB")
        print(", ".join(f"{name} {value:.2f} s" for name, value in time_opening(page).items()))


if __name__ == "__main__":
    main()
