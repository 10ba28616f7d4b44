"""The package `transformers`, also beside a torchaudio that does not fit the installed torch."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any


def load_transformers(encoder: str) -> Any:
    """Import `transformers`.

    It imports torchaudio wherever that is installed, and fails with it: torchaudio 2.11, say, refuses a torch that was
    built for another CUDA. Nothing here uses torchaudio, so one that cannot be imported counts as absent, with a warning.

    Args:
        encoder: who needs it, for the message.

    Returns:
        The module.

    Raises:
        ImportError: if it is not installed, too old, or cannot be imported.
    """
    import torch

    if "torchaudio" not in sys.modules and "transformers" not in sys.modules:
        try:
            with torch.device("cpu"):  # it keeps tensors of its own, which must not lie where an encoder is described
                importlib.import_module("torchaudio")
        except ImportError:
            pass
        except Exception as error:
            reason = " ".join(str(error).split())
            warnings.warn(f"torchaudio is left out, it does not fit the installed torch ({reason})", stacklevel=2)
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchaudio"]:
                del sys.modules[name]
            sys.modules["torchaudio"] = None  # type: ignore[assignment]  # Python's own sign for "not there"
    try:
        transformers = importlib.import_module("transformers")
        transformers.PreTrainedModel  # noqa: B018  # the package is lazy: only now is anything imported
    except ImportError as error:
        raise ImportError(f"{encoder} needs transformers ({error}): pip install 'transformers>=5'") from error
    return transformers
