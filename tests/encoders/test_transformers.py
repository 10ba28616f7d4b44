"""`transformers` is found beside a torchaudio that does not fit the installed torch, and missed with a clear sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from evar.encoders._transformers import load_transformers

ROOT = Path(__file__).resolve().parents[2]


def test_a_torchaudio_that_cannot_be_imported_counts_as_absent(tmp_path: Path) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise RuntimeError('compiled for another CUDA')\n")
    code = (
        "import warnings\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    from evar.encoders._transformers import load_transformers\n"
        "    module = load_transformers('wav2vec2')\n"
        "    module.Wav2Vec2Model, module.ASTModel\n"
        "print([str(w.message) for w in caught if 'torchaudio' in str(w.message)])\n"
    )
    search = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search}
    )
    assert done.returncode == 0, done.stderr
    assert "torchaudio is left out, it does not fit the installed torch (compiled for another CUDA)" in done.stdout


def test_its_absence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"ast needs transformers .*: pip install 'transformers>=5'"):
        load_transformers("ast")
