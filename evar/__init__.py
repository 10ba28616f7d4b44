"""evar: which pre-trained audio representation, and which layer of it, serves your task.

>>> import evar
>>> encoder = evar.load_encoder("logmel")
>>> task = evar.load_task("esc10")

Nothing heavy is imported before it is used: tables and plots work without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evar.advising import advise as advise
    from evar.applying.classifier import load_classifier as load_classifier
    from evar.applying.search import search as search
    from evar.applying.training import train_classifier as train_classifier
    from evar.data.task import load_task as load_task
    from evar.encoders import load_encoder as load_encoder
    from evar.extraction.distance import frechet_distance as frechet_distance
    from evar.extraction.embed import embed as embed
    from evar.extraction.texts import embed_text as embed_text
    from evar.finetune.request import fine_tune as fine_tune
    from evar.lineval.evaluate import evaluate as evaluate
    from evar.report.comparing import compare as compare
    from evar.robustness.measuring import measure_robustness as measure_robustness
    from evar.tracing.exporting import export_network as export_network

__version__ = "0.1.0"

#: public name -> module that holds it
_PUBLIC = {
    "load_encoder": "evar.encoders",
    "load_task": "evar.data.task",
    "evaluate": "evar.lineval.evaluate",
    "measure_robustness": "evar.robustness.measuring",
    "fine_tune": "evar.finetune.request",
    "embed": "evar.extraction.embed",
    "frechet_distance": "evar.extraction.distance",
    "embed_text": "evar.extraction.texts",
    "compare": "evar.report.comparing",
    "advise": "evar.advising",
    "train_classifier": "evar.applying.training",
    "load_classifier": "evar.applying.classifier",
    "search": "evar.applying.search",
    "export_network": "evar.tracing",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'evar' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
