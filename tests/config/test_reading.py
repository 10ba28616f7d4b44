"""Configurations of strangers: what grows, nests or repeats itself is refused with one sentence."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from evar.config import names
from evar.config.folders import find
from evar.config.published import load_published_config
from evar.config.reading import MAX_BYTES, read_mapping

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 200,000 values once its aliases are written out"),
        ("a: " + "[" * 5000 + "]" * 5000, "nests more than 32|exceeded maximum nesting depth"),
        ("a: " + "[" * 40 + "]" * 40, "nests more than 32"),
        ("a:\n" + "".join(f"{' ' * n}- b:\n" for n in range(1, 200)), "nests more than 32|not valid YAML"),
        ("a: &a [*a]", "repeats what it stands in, or nothing"),
        ("a: *b", "repeats what it stands in, or nothing|not valid YAML"),
        ("a: " + "x" * MAX_BYTES, "must be at most 4,194,304 bytes"),
        ("- 1", "must hold 'key: value' lines"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: 2026-99-99", "cannot be read|not valid YAML|month"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.perf_counter()
    with pytest.raises(ValueError, match=message) as caught:
        read_mapping(path)
    assert "x.yaml" in str(caught.value) and "\n" not in str(caught.value)
    assert time.perf_counter() - began < 10


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"a: \xff\xfe")
    with pytest.raises(ValueError, match=r"x\.yaml must be text in UTF-8"):
        read_mapping(path)


def test_aliases_as_people_use_them_stay(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("base: &base {a: 1}\nmore:\n  <<: *base\n  b: [1, 2]\n", encoding="utf-8")
    assert read_mapping(path)["more"] == {"a": 1, "b": [1, 2]}


def test_our_own_configurations_are_read() -> None:
    for kind in ("protocols", "grids", "published"):
        for name in names(kind):
            assert read_mapping(find(kind, name))


def test_published_numbers_by_path() -> None:
    example = Path(__file__).parents[2] / "examples" / "published_numbers.yaml"
    config = load_published_config(str(example))
    assert config.name == "published_numbers" and config.rows and config.source
    with pytest.raises(FileNotFoundError, match="examples/published_numbers.yaml shows one"):
        load_published_config("nowhere/paper.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("source: here", "source must say where|source: ''"),
        ("tasks: [esc10, esc50]", "each once|must have"),
        ("label: Ours", "each label once"),
    ],
)
def test_published_numbers_are_checked(tmp_path: Path, change: str, message: str) -> None:
    text = (
        "title: T\nsource: here\ncitation: c\nprotocol: linear\ntasks: [esc10, esc50]\n"
        "rows:\n- {label: Ours, scores: [1, 2]}\n- {label: Other, scores: [3, 4]}\n"
    )
    other = {
        "source: here": "source: ' '",
        "tasks: [esc10, esc50]": "tasks: [esc10, esc10]",
        "label: Ours": "label: Other",
    }
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    assert load_published_config(str(path)).tasks == ("esc10", "esc50")
    path.write_text(text.replace(change, other[change]))
    with pytest.raises(ValueError, match=message):
        load_published_config(str(path))
