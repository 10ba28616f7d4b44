"""Write the generated part of `docs/tasks.md`: one table of all tasks, and a section for each.

    python docs/make_task_pages.py            # write it if it is out of date
    python docs/make_task_pages.py --check    # write nothing; exit status 1 if it is out of date

Everything between the two markers comes from `config/tasks/*.yaml` and is never edited by hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from evar.data.task_config import TaskConfig, load_task_config

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "tasks.md"
BEGIN = "<!-- Made by docs/make_task_pages.py: change the YAML, then run it again. -->"
END = "<!-- End of the generated part. -->"


def load_tasks() -> list[TaskConfig]:
    """Read all packaged tasks, sorted by name."""
    return [load_task_config(path.stem) for path in sorted((ROOT / "config" / "tasks").glob("*.yaml"))]


def describe_origin(task: TaskConfig) -> str:
    """Say in a few words where the clips come from."""
    if task.builder:
        return "rendered at first use"
    if task.archives:
        return "fetched by `evar prepare`"
    return "your own copy"


def describe_split(task: TaskConfig) -> str:
    """Say in a few words which splits the task has."""
    return {"folds": "published folds", "published": "published"}.get(task.splits, task.splits)


def escape_cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def write_section(task: TaskConfig) -> str:
    """Write the section of one task."""
    facts = [
        ("kind", f"{task.kind}; metric {task.metric}"),
        ("clips", f"{task.expected.clips:,}" if task.expected.clips else "those of your copy"),
        (
            "classes",
            "those of your copy" if not (n := task.expected.classes or len(task.classes)) else f"{n:,}",
        ),
        ("seconds of a clip", f"{task.clip_seconds:g}" if task.clip_seconds else "the whole file"),
        ("splits", describe_split(task) + write_parts(task)),
        ("sounds", describe_origin(task)),
        ("source", task.source),
        ("licence", task.licence),
        ("citation", task.citation),
    ]
    lines = [f"### {task.name}", "", f"{task.title}.", ""]
    lines += [f"- **{name}**: {link_addresses(str(value).strip())}" for name, value in facts if str(value).strip()]
    if task.notes:
        lines += ["", link_addresses(" ".join(task.notes.split()))]
    return "\n".join(lines)


def write_parts(task: TaskConfig) -> str:
    """Write the published number of clips of each split or fold, if it is known."""
    parts = [f"{name} {count:,}" for name, count in task.expected.parts.items() if isinstance(count, int)]
    return f" ({', '.join(parts)})" if parts else ""


def link_addresses(text: str) -> str:
    """Turn bare web addresses into links, and keep angle brackets and asterisks as they are."""
    text = re.sub(r"([*_<])", r"\\\1", text)
    return re.sub(r"https?://[^\s,;)]+", lambda found: f"<{found[0].replace(chr(92), '').rstrip('.')}>", text)


def make_part() -> str:
    """Make the generated part of the page."""
    tasks = load_tasks()
    rows = ["| task | what it asks | clips | splits | sounds | licence |", "|---|---|---:|---|---|---|"]
    for task in tasks:
        clips = f"{task.expected.clips:,}" if task.expected.clips else "yours"
        cells = [task.title, clips, describe_split(task), describe_origin(task), task.licence]
        rows.append(f"| [`{task.name}`](#{task.name}) | " + " | ".join(map(escape_cell, cells)) + " |")
    sections = [write_section(task) for task in tasks]
    return "\n".join([f"## All {len(tasks)} tasks", "", *rows, "", "\n\n".join(sections), "", list_unverified(tasks)])


def list_unverified(tasks: list[TaskConfig]) -> str:
    """List what the notes of each task call unverified; tasks that say no such thing are not in the list."""
    said = {}
    for task in tasks:
        found = re.search(r"(?:^|\. )unverified(?: here)?: (.*)", " ".join(task.notes.split()))
        text = found[1] if found else ""
        if "unverified" in task.licence or "from memory" in task.licence:
            text = "; ".join(part for part in (text.rstrip("."), f"the licence: {task.licence}") if part)
        if text:
            said[task.name] = text
    lines = [f"- [`{name}`](#{name}): {link_addresses(text.rstrip('.'))}." for name, text in said.items()]
    head = (
        f"These facts of {len(said)} tasks were not compared with the published data: no set is downloaded where this\n"
        "package is made. Counts are checked at first use: an index with other counts is refused, and the message says both."
    )
    return "\n".join(["## What could not be verified offline", "", head, "", *lines])


def make_page() -> str:
    """Return the whole page as it ought to be."""
    text = PAGE.read_text(encoding="utf-8")
    return text[: text.index(BEGIN)] + f"{BEGIN}\n\n{make_part()}\n\n{END}" + text[text.index(END) + len(END) :]


def main() -> int:
    """Write or check the page; see the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 if the page is out of date")
    check = parser.parse_args().check
    page = make_page()
    is_old = page != PAGE.read_text(encoding="utf-8")
    if is_old and check:
        print(f"{PAGE.relative_to(ROOT)} is out of date; run: python docs/make_task_pages.py", file=sys.stderr)
        return 1
    if is_old:
        PAGE.write_text(page, encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
