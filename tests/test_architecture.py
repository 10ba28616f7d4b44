"""Who may import whom (the house's rule), what stays light, and what no file may contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "evar"
FILES = sorted(PACKAGE.rglob("*.py"))

#: layer of the house -> modules of evar that it may import, at module level or inside functions
ALLOWED = {
    "features": {"registry"},
    "registry": set(),
    "config": {"registry"},
    "metrics": {"registry"},
    "atomic": set(),
    "axes": set(),
    "results": {"registry", "atomic"},
    "pooling": {"registry"},
    "fusion": {"axes", "registry"},
    "audio": {"registry"},
    "download": {"config", "registry", "download"},
    "contract": {"config", "encoders", "features", "pooling", "registry"},
    "weights": {"config", "registry", "download"},
    "encoders": {"features", "weights", "registry", "config", "encoders", "pooling", "download"},
    "indexes": {"registry"},
    "tasks": {"audio", "config", "indexes", "metrics", "registry"},
    "catalogue": {"registry", "tasks"},
    "embedded": {"atomic", "config", "registry", "download", "embedded", "tasks", "audio"},
    "stored_rows": {"axes"},
    "remote": {"atomic", "config"},
    "store": {"atomic", "audio", "config", "registry", "remote", "stored_rows"},
    "batching": set(),
    "embedding": {"audio", "batching", "encoders", "fusion", "pooling", "registry"},
    "hints": set(),
    "search": {"axes", "metrics", "registry"},
    "pictures": {
        *("atomic", "audio", "config", "embedding", "encoders", "extract", "fusion", "grid", "norm_stats", "registry"),
        *("report", "store", "tasks"),
    },
    "exporting": {"__version__", "atomic", "audio", "batching", "embedding", "fusion", "pooling", "registry"},
    "frames": {"store"},
    "audio_index": {"audio"},
    "extract": {"audio", "audio_index", "batching", "frames", "pooling", "store", "encoders"},
    "newton": set(),
    "logistic": {"_newton", "_streamed"},
    "streamed": {"_logistic", "_newton", "stored_rows"},
    "probes": {"registry", "metrics", "_logistic", "_streamed", "stored_rows"},
    "multilabel": {"_logistic", "_streamed", "metrics", "probes"},
    "regression": {"_logistic", "axes", "metrics", "probes", "registry"},
    "targets": {"metrics", "multilabel", "probes", "registry", "regression"},
    "attentive": {"frames", "metrics", "targets"},
    "neighbours": {"axes", "metrics", "multilabel", "probes", "registry", "regression"},
    "fingerprint": {"audio"},
    "significance": {"metrics"},
    "report": {"atomic", "config", "results", "metrics", "registry", "report", "significance"},
}
#: may be imported without torch, so that tables, plots and help work on a laptop that has none
WITHOUT_TORCH = ["evar", "evar.cli", "evar.config", "evar.metrics", "evar.results", "evar.report", "evar.tasks"]
WITHOUT_TORCH += ["evar.catalogue.environment", "evar.catalogue.hear", "evar.catalogue.speech", "evar.catalogue.music"]


def imported(path: Path) -> set[str]:
    """Second part of every `evar.x` that a file imports, outside `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" if node.module == "evar" else node.module for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("evar.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_obey_the_house(path):
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py").removeprefix("_")
    if layer in ALLOWED:
        assert imported(path) <= ALLOWED[layer] | {layer}


def test_the_import_rule_can_fail(tmp_path):
    bad = tmp_path / "metrics.py"
    bad.write_text(
        "def f():\n    from evar.store import FeatureStore\n    import evar.linear\n    from evar import report\n"
    )
    assert imported(bad) == {"store", "linear", "report"}


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_light_modules_do_not_import_torch(module):
    code = f"import sys; sys.modules['torch'] = None; import {module}; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_help_needs_no_heavy_package():
    heavy = ["torch", "pandas", "sklearn", "matplotlib", "scipy", "soundfile", "numpy"]
    code = (
        f"import sys\nfor name in {heavy}: sys.modules[name] = None\n"
        "from evar.cli import run\nassert run(['lineval', '--help']) == 0 and run([]) == 0"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--layers=default|all|NAME,NAME" in done.stdout and "Examples:" in done.stdout


def test_no_file_evaluates_text_or_unpickles():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "os.system"), f"{path}: {called}"
                if called.endswith("torch.load") or called == "torch.load":
                    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert keywords.get("weights_only") == "True", f"{path}: torch.load without weights_only=True"


def test_only_one_place_opens_urls_and_one_decodes():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        if "download" not in path.parts:
            assert not re.search(r"\burllib\.request\b|\brequests\.|\bhttpx\b|hf_hub_download", text), path
        if path.name != "audio.py" and "embedded" not in path.parts:
            assert not re.search(r"soundfile\.(read|SoundFile|info)\b", text), path
