"""evar: which pre-trained audio representation, and which layer of it, serves your task.

>>> import evar
>>> encoder = evar.load_encoder("logmel")
>>> task = evar.load_task("esc10")

Nothing heavy is imported before it is used: tables and plots work without torch.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

#: public name -> module that holds it
_PUBLIC = {
    "load_encoder": "evar.encoders",
    "load_task": "evar.data.task",
    "evaluate": "evar.lineval.evaluate",
    "fine_tune": "evar.finetune.request",
    "embed": "evar.extraction.embed",
    "compare": "evar.report.comparing",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'evar' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
