"""The exceptions of the package, by name. All are subclasses of built-in ones, which is what most programs catch.

- `ValueError`: a name or a value does not exist, is not allowed, or contradicts another. The message says what was expected,
  what was found and, for names, which is nearest. `AudioError` is one: a clip cannot be used.
- `OSError`: a file or folder is missing or cannot be read or written; a download failed.
- `ImportError`: an encoder, format or engine needs a package that is not installed; the message says which.
- `RuntimeError`: an encoder breaks its promises, such as other layers than it declares. `TrainingError` is one: training
  went out of bounds.

A clip that cannot be read is a value, not an exception, wherever several are worked on: `evar.embed(errors="return")` gives
{position: AudioError}, and `evar.evaluate` names bad clips in its rows and failed cells in `Outcome.failures`.

>>> import evar.errors
>>> issubclass(evar.errors.AudioError, ValueError), issubclass(evar.errors.TrainingError, RuntimeError)
(True, True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evar.audio.reading import AudioError
    from evar.finetune.training import TrainingError

_PLACES = {"AudioError": "evar.audio.reading", "TrainingError": "evar.finetune.training"}

__all__ = ["AudioError", "TrainingError"]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'evar.errors' has no attribute {name!r}; it has {', '.join(__all__)}")
    import importlib

    return getattr(importlib.import_module(_PLACES[name]), name)
