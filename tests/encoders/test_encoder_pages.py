"""The pages about encoders are as the YAML files, modules and declared layers make them."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from evar.encoders import describe_encoder, load_encoder

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script that makes the pages."""
    spec = importlib.util.spec_from_file_location("make_encoder_pages", ROOT / "docs" / "make_encoder_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def texts(maker) -> dict[Path, str]:
    """Path -> what the page ought to say."""
    return maker.build_texts()


def test_committed_pages_are_up_to_date(maker, texts):
    old = [path.name for path, text in texts.items() if maker.read(path) != text]
    assert old == [], "run: python docs/make_encoder_pages.py"
    assert {path.name for path in maker.PAGES.glob("*.md")} == {path.name for path in texts if path != maker.INDEX}


def test_every_encoder_is_in_the_index_and_its_page_has_all_parts(maker, texts):
    for module, family in maker.group_by_module().items():
        page = texts[maker.PAGES / f"{module}.md"]
        for heading in ("# ", "## Names", "## Layers", "## Checkpoints"):
            assert re.search(f"(?m)^{heading}", page), f"{module}: {heading}"
        for entry in family:
            assert f"| [`{entry.name}`](encoders/{module}.md) |" in texts[maker.INDEX]
            assert f"| `{entry.name}` | {entry.description} |" in page
            assert entry.weights is None or f"Licence: {entry.weights.licence}." in page


def test_a_page_that_is_out_of_date_is_seen_and_hand_written_text_is_kept(maker, texts):
    path = maker.PAGES / "cnn14.md"
    page = texts[path]
    stale = page.replace("| `fc1` | 2048 |", "| `fc1` | 1024 |") + "\nBy hand.\n"
    assert stale.count("1024 |") > page.count("1024 |")
    generated = page[page.index(maker.BEGIN) + len(maker.BEGIN) : page.index(maker.END)]
    assert maker.replace_generated(stale, generated) == page + "\nBy hand.\n"
    assert maker.replace_generated("By hand.\n", "# T").endswith(f"{maker.END}\n\nBy hand.\n")


def test_links_between_pages_lead_somewhere(maker, texts):
    for path, text in texts.items():
        for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_an_encoder_without_weights_declares_what_the_real_one_does():
    for name in ("cnn14.fusion_3_6", "crepe.tiny", "byol_a2"):
        outline, real = describe_encoder(name), load_encoder(name, "random")
        assert outline.layer_infos == real.layer_infos and outline.default_layers == real.default_layers
        assert outline.device.type == "meta" and outline.min_samples == real.min_samples
        counts = [sum(parameter.numel() for parameter in one.parameters()) for one in (outline, real)]
        assert counts[0] == counts[1] > 0


def test_packages_that_are_first_imported_for_a_description_keep_their_tensors():
    for package in ("transformers", "torchaudio"):
        pytest.importorskip(package, exc_type=ImportError)
    code = """
from evar.encoders import describe_encoder
describe_encoder("ast")
import torchaudio.compliance.kaldi
print(torchaudio.compliance.kaldi.EPSILON.device)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert ran.stdout.strip() == "cpu", ran.stderr[-500:]
