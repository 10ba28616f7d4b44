"""The page of a results folder as text: what it holds, what it must not hold, and what it does without."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import hostile
import numpy as np
import pytest

from evar import results
from evar.cli import DONE, WRONG, run
from evar.report.tables.section import Cell, Column, Row, Section
from evar.webpage import write_report
from evar.webpage.clips import list_task_clips
from evar.webpage.context import Context, Settings
from evar.webpage.sentences import describe_findings
from evar.webpage.sounds import collect_sounds, link_file

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EVAR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("EVAR_STORE", str(tmp_path / "store"))
    return hostile.make_folder(tmp_path)


def read_data(page: str, name: str):
    """The data of one part, as a browser reads them."""
    found = re.search(rf'<script type="application/json" id="data-{name}">(.*?)</script>', page, re.S)
    return None if found is None else json.loads(found[1])


class Elements(HTMLParser):
    """Elements of a page with their attributes; scripts are read as a browser does, up to the first end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.filterwarnings("ignore:left out of the tables")
def test_hostile_texts_become_texts(folder):
    page = write_report(folder, maps="none").read_text(encoding="utf-8")
    elements = Elements(page).found
    scripts = [attributes for tag, attributes in elements if tag == "script"]
    own = [one for one in scripts if "type" not in one]
    assert len(own) == 2 and all(set(one) <= {"type", "id"} for one in scripts)
    assert not [one for one in elements if any(name.startswith("on") for name in one[1])]
    links = [attributes["href"] for tag, attributes in elements if "href" in attributes]
    assert links and all(link.startswith("#") for link in links)
    assert not [tag for tag, _ in elements if tag in ("img", "iframe", "object", "embed", "link", "form", "base")]
    listen = read_data(page, "listen")["tasks"][0]
    assert listen["classes"] == list(hostile.ATTACKS)  # nothing is lost on the way
    assert hostile.ATTACKS[0] in " ".join(row["name"] for row in listen["rows"])


@pytest.mark.filterwarnings("ignore:left out of the tables")
def test_the_policy_names_the_hash_of_every_script_and_allows_no_evaluation(folder):
    page = write_report(folder, audio="none", maps="none").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and "connect-src" not in rules
    assert "unsafe" not in rules["script-src"] and "unsafe" not in rules["style-src-elem"]
    for text in re.findall(r"<script>(.*?)</script>", page, re.S):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in rules["script-src"]
    assert "media-src data:" in policy and "file:" not in policy
    assert not [one for _, one in Elements(page).found if "src" in one or "srcset" in one]


@pytest.mark.filterwarnings("ignore:left out of the tables")
def test_the_parts_and_their_numbers(folder):
    page = write_report(folder, maps="none").read_text(encoding="utf-8")
    for name in ("summary", "layers", "cost", "row", "listen"):
        assert f'<section id="{name}"' in page
    assert "This part could not be made" not in page
    rows = {row["id"]: row for row in read_data(page, "row")["rows"]}
    good = next(row for row in rows.values() if row["name"] == "good out")
    assert sum(n for _, _, n in good["confusions"]) == 24 and sum(n for t, p, n in good["confusions"] if t != p) == 3
    assert sum(bin[2] for bin in good["calibration"]) == 24
    assert good["command"] == f"evar rerun results/runs/{good['id']}.json"
    listen = read_data(page, "listen")["tasks"][0]
    at = [row["id"] for row in listen["rows"]].index(good["id"])
    wrong = [n for n, label in enumerate(listen["labels"]) if listen["predicted"][at][n] not in label]
    assert len(wrong) == 3 == listen["rows"][at]["n_wrong"]
    assert listen["confidence"][at][wrong[0]] > 50
    assert all(number >= 0 for number in listen["sounds"])
    sounds = read_data(page, "sounds")
    assert all(one["source"].startswith("data:audio/") and one["image"].startswith("data:image/png") for one in sounds)
    panel = read_data(page, "layers")["panels"][0]
    assert [len(curve["points"]) for curve in panel["curves"] if curve["name"] == "deep"] == [4]
    (cost,) = [row for row in read_data(page, "cost")["tables"][0]["rows"] if row["name"].startswith("good")]
    assert cost["costs"][:2] == [1000, 0.02]


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_stops_nothing_and_a_foreign_path_is_not_read(folder, tmp_path):
    secret = tmp_path / "secret.wav"
    secret.write_bytes((folder.parent / "data" / hostile.TASK / "0_0.wav").read_bytes())
    for path in sorted((folder / "predictions").glob("*.npz")):
        with np.load(path) as arrays:
            values = dict(arrays)
        results.save_predictions(folder, path.stem, **{**values, "clip": ["../../secret.wav", *values["clip"][1:]]})
    context = Context(Settings(folder, folder / "report.html"), results.load_all(folder))
    clips = list_task_clips(context)
    sounds = collect_sounds(context, [(one, range(len(one.clips))) for one in clips])
    assert sounds.entries and not [path for _, path in sounds.places if "secret" in path]
    for path in (folder / "predictions").glob("*.npz"):
        path.write_bytes(b"no zip")
    page = write_report(folder, maps="none").read_text(encoding="utf-8")
    assert '<section id="summary"' in page and '<section id="listen"' not in page


@pytest.mark.filterwarnings("ignore:left out of the tables")
def test_the_command(folder, capsys):
    target = folder.parent / "share.html"
    assert run(["report", str(folder), f"--file={target}", "--audio=link", "--maps=none"]) == DONE
    page = target.read_text(encoding="utf-8")
    sources = [one["source"] for one in read_data(page, "sounds")]
    assert sources and all(source.startswith("./data/tones/") for source in sources)
    assert "media-src data: &#39;self&#39; file:" in page
    assert run(["report", str(folder), "--audio=loud"]) == WRONG
    assert "embed, link, none" in capsys.readouterr().err
    assert run(["report", str(folder.parent / "nothing")]) == WRONG


def test_links_are_relative_and_quoted():
    assert link_file(Path("data/javascript:x<.wav"), Path("results/report.html")) == "../data/javascript%3Ax%3C.wav"


@pytest.mark.filterwarnings("ignore:left out of the tables")
def test_the_page_needs_no_torch(folder):
    code = (
        "import sys\nclass NoTorch:\n    def find_spec(self, name, *_):\n"
        "        assert name.split('.')[0] != 'torch', 'torch'\n"
        "sys.meta_path.insert(0, NoTorch())\nfrom evar.webpage import write_report\n"
        f"path = write_report({str(folder)!r})\nassert 'This part could not be made' not in path.read_text()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("p_worse", "verdict"),
    [(None, "was not tested, since"), (0.4, "is not significant"), (0.001, "Significantly better")],
)
def test_a_lead_that_was_not_tested_is_not_called_insignificant(p_worse, verdict):
    best, other = Cell(score=0.8), Cell(score=0.6, p_worse=p_worse)
    rows = (Row("a", "fc", None, None, (best,)), Row("b", "fc", None, None, (other,)))
    section = Section("linear", "linear", "1", None, (Column("esc10", "esc10"),), rows)
    assert verdict in describe_findings(section)[0]
