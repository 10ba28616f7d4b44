"""Which package may import which, what stays light, and what no file may contain."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "evar"
FILES = sorted(PACKAGE.rglob("*.py"))

FIRST = {"config", "numeric", "metrics", "audio"}
UP_TO_SIX = FIRST | {
    "storage",
    "probes",
    "download",
    "encoders",
    "results",
    "figures",
    "data",
    "extraction",
    "experiment",
}
#: package (or module) of evar -> what else of evar it may import, at module level, inside functions, or for types only;
#: "package.module" allows that one module of a package. The table is complete: what is not here fails.
ALLOWED: dict[str, set[str]] = {
    "config": set(),
    "numeric": set(),
    "metrics": set(),
    "audio": set(),
    "storage": {"audio", "config", "numeric"},
    "probes": {"config", "metrics", "numeric"},
    "download": {"config"},
    "encoders": {"config", "download", "numeric.device", "storage.atomic"},
    "results": {"config", "storage.atomic"},
    "figures": {"config", "storage.atomic"},
    "data": {"audio", "config", "download", "figures", "metrics", "storage"},
    "report": {"config", "figures", "metrics", "results", "storage.atomic"},
    "extraction": {"audio", "config", "data", "encoders", "numeric", "storage"},
    "experiment": {"config", "data", "encoders", "extraction", "metrics", "probes", "results", "storage.atomic"},
    "exporting": {"audio", "config", "encoders", "extraction", "storage"},
    "classifiers": {"config", "data", "experiment", "numeric.softmax", "probes", "results", "storage.atomic"},
    "applying": UP_TO_SIX | {"classifiers", "exporting", "lineval"},
    "lineval": UP_TO_SIX | {"classifiers"},
    "finetune": UP_TO_SIX,
    "pictures": {"audio", "config", "data", "encoders", "experiment", "extraction", "figures", "report", "storage"},
    # the page of a results folder: sounds of the tasks, stored vectors, and the plane that maps are laid out in
    "webpage": {"audio", "config", "data", "metrics", "report", "results", "storage", "pictures.plane"},
    # advice from rows that are there: of tasks it reads the YAML only, of the feature store the times of encoding
    "advising": {"config", "data", "figures", "metrics", "report", "results", "storage"},
    # probes of lineval on altered clips; the table in Python is that of the report
    "robustness": UP_TO_SIX | {"lineval", "report", "rerun"},
    "tracing": {"applying", "classifiers", "config", "encoders", "probes", "storage.atomic"},
    "rerun": UP_TO_SIX | {"lineval", "finetune"},
    "sharing": {"config", "metrics", "report", "rerun", "results", "storage.atomic", "webpage"},
    "cli": UP_TO_SIX
    | {"report", "exporting", "sharing", "applying", "classifiers", "lineval", "finetune", "pictures", "webpage"}
    | {"rerun", "advising", "robustness", "tracing"},
    # public import paths that stay, and the package itself
    "features": {"encoders"},
    "hear": {"config", "encoders", "extraction"},
    "sklearn": {"config", "encoders", "extraction"},
    "errors": {"audio", "finetune"},
    "__main__": {"cli"},
}
#: packages that never import torch, not even inside a function
WITHOUT_TORCH = ("results", "figures", "data", "report", "webpage", "advising")
#: may be imported without torch, so that tables, plots and help work on a laptop that has none
LIGHT_MODULES = ["evar", "evar.cli", "evar.config", "evar.metrics", "evar.results", "evar.report", "evar.data.task"]
LIGHT_MODULES += ["evar.webpage", "evar.advising"]
LIGHT_MODULES += [
    f"evar.data.catalogue.{name}"
    for name in ("animals", "environment", "hear", "medical", "music_tags", "speech", "music", "voices")
]


def list_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of every import of a file; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module or "", alias.name) for alias in node.names)


def name_module(path: Path, package: Path = PACKAGE) -> str:
    """Dotted name of a file below evar: "probes.linear"; "probes" for a package's `__init__`."""
    return ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")


def list_own_imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """Return the modules of evar that a file imports, without the leading `evar.`."""
    found: set[str] = set()
    for module, name in list_imports(path):
        if module != "evar" and not module.startswith("evar."):
            continue
        target = f"{module}.{name}" if name else module
        below = target.split(".")[1:]
        while below and not (
            (package.joinpath(*below)).is_dir() or package.joinpath(*below).with_suffix(".py").is_file()
        ):
            below.pop()
        if below:
            found.add(".".join(below))
    return found


def find_broken_rules(path: Path, package: Path = PACKAGE) -> list[str]:
    """Return what is wrong with a file's imports, as sentences."""
    layer = path.relative_to(package).parts[0].removesuffix(".py")
    if layer == "__init__":
        return []  # public names only, imported when they are used
    if layer not in ALLOWED:
        return [f"{layer} is missing from the import table"]
    wrong = []
    for target in sorted(list_own_imports(path, package)):
        other = target.split(".")[0]
        if other != layer and other not in ALLOWED[layer] and target not in ALLOWED[layer]:
            wrong.append(f"{name_module(path, package)} may not import evar.{target}")
    for module, name in list_imports(path):
        if module.startswith("evar") and name.startswith("_") and not name.startswith("__"):
            is_module = (package.joinpath(*module.split(".")[1:], f"{name}.py")).is_file()
            same_package = module.split(".")[1:2] == [layer]
            if not (is_module and same_package):
                wrong.append(f"{name_module(path, package)} imports the private name {module}.{name}")
        if layer in WITHOUT_TORCH and module.split(".")[0] == "torch":
            wrong.append(f"{name_module(path, package)} imports torch")
    return wrong


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """Return one cycle of a directed graph, or an empty list."""
    done: set[str] = set()

    def visit(node: str, trail: list[str]) -> list[str]:
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node in done:
            return []
        for other in sorted(graph.get(node, ())):
            if cycle := visit(other, [*trail, node]):
                return cycle
        done.add(node)
        return []

    for start in sorted(graph):
        if cycle := visit(start, []):
            return cycle
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    assert find_broken_rules(path) == []


def test_there_is_no_import_cycle():
    """Between modules, and between packages; imports inside functions and for types count."""
    modules = {
        name_module(path): list_own_imports(path) - {name_module(path)} for path in FILES if path.parent != PACKAGE
    }
    assert find_cycle(modules) == []
    packages: dict[str, set[str]] = {}
    for name, targets in modules.items():
        own = name.split(".")[0]
        # `storage.atomic` stands on its own: it imports nothing, and everything may write files.
        others = {target.split(".")[0] for target in targets if target != "storage.atomic"} - {own}
        packages.setdefault(own, set()).update(others)
    assert find_cycle(packages) == []


def test_the_import_rules_can_fail(tmp_path):
    for folder in ("metrics", "storage", "unheard"):
        (tmp_path / folder).mkdir()
    (tmp_path / "storage" / "feature_store.py").touch()
    bad = tmp_path / "metrics" / "bad.py"
    bad.write_text(
        "from typing import TYPE_CHECKING\n"
        "from evar.storage.feature_store import _private\n"
        "if TYPE_CHECKING:\n    from evar.storage import feature_store\n"
    )
    assert find_broken_rules(bad, tmp_path) == [
        "metrics.bad may not import evar.storage.feature_store",
        "metrics.bad imports the private name evar.storage.feature_store._private",
    ]
    unheard = tmp_path / "unheard" / "new.py"
    unheard.touch()
    assert find_broken_rules(unheard, tmp_path) == ["unheard is missing from the import table"]
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize("module", LIGHT_MODULES)
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


#: functions whose parameters are their users' flags, or those of another library's function
MANY_PARAMETERS = {"embed", "transform_signal"}


def list_oversized(paths, most_lines=400, most_parameters=8):
    """Files with too many lines, and functions with too many parameters that are no commands."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > most_lines:
            yield f"{path.name} has {text.count(chr(10))} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                n = len(
                    [
                        arg
                        for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
                        if arg.arg not in ("self", "cls")
                    ]
                )
                if n > most_parameters and path.parent.name != "cli" and node.name not in MANY_PARAMETERS:
                    yield f"{node.name} of {path.name} has {n} parameters"


def test_files_and_functions_stay_small(tmp_path):
    assert list(list_oversized(PACKAGE.rglob("*.py"))) == []
    (tmp_path / "large.py").write_text("x = 1\n" * 401 + "def f(a, b, c, d, e, f, g, h, i): ...\n")
    assert len(list(list_oversized([tmp_path / "large.py"]))) == 2, "the rule itself can fail"


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
        if "audio" not in path.parts and "embedded" not in path.parts:
            assert not re.search(r"soundfile\.(read|SoundFile|info)\b", text), path
