"""`evar export`: an encoder as an ONNX or TorchScript file, waveform in, chosen layers out."""

from __future__ import annotations

from typing import Any

__all__ = ["Exported", "export_network"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # torch is loaded when a network is exported
        from evar.tracing import exporting

        return getattr(exporting, name)
    raise AttributeError(f"module 'evar.tracing' has no attribute {name!r}; it has {', '.join(__all__)}")
