"""Run a file that was just written, from its bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.tracing.checking import Runner


def open_onnx(data: bytes) -> Runner:
    """Open an ONNX file with onnxruntime, on the CPU.

    Args:
        data: bytes of the file.

    Returns:
        A function from (batch, samples) float32 to the list of the file's outputs.

    Raises:
        ImportError: if onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(
            f'evar export checks ONNX files with onnxruntime ({error}); pip install "evar-audio[onnx]"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def run(waveform: NDArray[np.float32]) -> list[NDArray[Any]]:
        return list(session.run(None, {"waveform": waveform}))

    return run


def open_torchscript(data: bytes) -> Runner:
    """Open a TorchScript file.

    Args:
        data: bytes of the file.

    Returns:
        A function from (batch, samples) float32 to the list of the file's outputs.
    """
    loaded = torch.jit.load(io.BytesIO(data))

    def run(waveform: NDArray[np.float32]) -> list[NDArray[Any]]:
        with torch.no_grad():
            found = loaded(torch.from_numpy(waveform))
        return [one.numpy() for one in (found if isinstance(found, tuple) else (found,))]

    return run
