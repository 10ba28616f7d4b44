"""The page of all tasks is made from the YAML files and is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_of_all_tasks_is_up_to_date():
    done = subprocess.run(
        [sys.executable, "docs/make_task_pages.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_task_has_a_section():
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    names = [path.stem for path in (ROOT / "config" / "tasks").glob("*.yaml")]
    assert names and all(f"\n### {name}\n" in text for name in names)
