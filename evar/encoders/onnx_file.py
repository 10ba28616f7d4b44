"""Any network in an ONNX file: the encoder "onnx:FILE", with outputs and inner tensors of the graph as layers.

A YAML beside the file, of the same name, holds the facts that the file lacks: `sample_rate` (Hz), `window` and `hop` (how
many samples the network hears at once, and from one window to the next; without `window` it takes whole clips), `input` (if
there are several), `gain`, `layers` and `default_layers`, and, for tables, `description`, `trained_on`, `citation` and
`licence`.

`layers` is a list of tensors, or name -> facts: `tensor`, `time_axis` and `mean_axes` (axes are counted with the batch as
0), `pooling`, and `width` and `frames` if the layers must be known without the file. Without `layers`, every output is
one. An inner tensor is any value that a node of the graph computes.

Layers: a tensor (clips, feature) is one vector a window, repeated ten times so that a partly filled last window counts by
its share; (clips, time, feature) gives frames; one with more axes needs `time_axis`, and what is left is put side by side.

Any length: windows side by side, or every `hop`, the last one filled with zeros; no sample is left out. A network with a
fixed batch of one runs window by window. Numbers are those of onnxruntime on the CPU. A file that needs operators of its
own, which are programs, is refused. Nothing here is trained: fine-tuning and random weights are refused.

`perch2` is such a file with a ready YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.config.registry import near_miss, stays_below
from evar.encoders._graph_encoder import Graph, GraphEncoder, explain_missing_runtime
from evar.encoders._onnx_graph import OnnxGraph, add_outputs, read_onnx_graph

_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"


class OnnxEncoder(GraphEncoder):
    """An ONNX file, run by onnxruntime; see the module's docstring for its options."""

    kind = "onnxruntime"

    def _open(self, path: Path) -> tuple[Graph, list[str]]:
        described = read_onnx_graph(path)
        for file in described.external_files:
            if not stays_below(file):
                raise ValueError(f"{path.name} is refused: it keeps numbers in {file!r}, outside of its folder")
        self.extra_files = tuple(path.parent / file for file in described.external_files)
        if absent := [file.name for file in self.extra_files if not file.is_file()]:
            raise FileNotFoundError(f"{path.name} keeps numbers in {absent[0]}, which is not beside it")
        wanted = list(dict.fromkeys(layer.tensor or name for name, layer in self.wanted.items()))
        for tensor in wanted:
            if tensor not in described.outputs and tensor not in described.tensors:
                known = [*described.outputs, *described.tensors]
                raise ValueError(f"{path.name} has no tensor {tensor!r}; {near_miss(tensor, known)}")
        names = wanted or list(described.outputs)
        return _OnnxSession(path, described, self.input_name, names), names


class _OnnxSession:
    """An ONNX file that is open."""

    def __init__(self, path: Path, described: OnnxGraph, input_name: str, names: list[str]) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise explain_missing_runtime("an ONNX file", "onnxruntime", "onnx", error) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        inner = [name for name in names if name not in described.outputs]
        source: Any = str(path)
        if inner:
            source = add_outputs(path.read_bytes(), inner)
            options.add_session_config_entry(_EXTERNAL_FOLDER, str(path.parent))
        try:
            self.session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has one class for each kind of failure, and no common one
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"onnxruntime cannot open {path.name}: {reason}") from error
        self.names = names
        inputs = {value.name: value for value in self.session.get_inputs()}
        if (not input_name and len(inputs) != 1) or (input_name and input_name not in inputs):
            raise ValueError(f"{path.name} has the inputs {', '.join(inputs)}; its YAML must name one as input")
        if len(inputs) > 1:
            others = ", ".join(name for name in inputs if name != input_name)
            raise ValueError(f"{path.name} needs {others} beside {input_name}; only networks of one input are run")
        (chosen,) = inputs.values()
        if chosen.type != "tensor(float)":
            raise ValueError(
                f"{path.name} takes {chosen.type} as {chosen.name}; only float32 sound is given to a network"
            )
        self.input = chosen.name
        self.input_shape = tuple(size if isinstance(size, int) else None for size in chosen.shape)
        self.n_together = (self.input_shape[0] or 0) if len(self.input_shape) > 1 else 1

    def run(self, value: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        values = self.session.run(self.names, {self.input: np.ascontiguousarray(value)})
        return dict(zip(self.names, values, strict=True))
