"""Any network in a TensorFlow Lite file: the encoder "tflite:FILE", with outputs and inner tensors of the graph as layers.

A YAML beside the file, of the same name, holds the same facts as for "onnx:FILE": see that page. Inner tensors are named as
in the file, or by their number if a name is used twice.

Numbers are those of LiteRT (the package ai-edge-litert, or tflite-runtime) on the CPU, with its fast kernels: listed
tensors become outputs of a copy of the graph in memory, instead of keeping every tensor, which is twenty times as slow.
Clips run window by window. A file that needs operators which the runtime does not have is refused.

BirdNET needs none of this: its file is read into a network of our own (`birdnet`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evar.config.registry import near_miss
from evar.encoders._graph_encoder import Graph, GraphEncoder, explain_missing_runtime
from evar.encoders._tflite_graph import TfliteGraph, add_outputs, read_tflite_graph


class TfliteEncoder(GraphEncoder):
    """A TensorFlow Lite file, run by LiteRT; see the module's docstring."""

    kind = "LiteRT"

    def _open(self, path: Path) -> tuple[Graph, list[str]]:
        described = read_tflite_graph(path, with_constants=False)
        wanted = list(dict.fromkeys(layer.tensor or name for name, layer in self.wanted.items()))
        numbers = {tensor: _find_tensor(described, tensor, path.name) for tensor in wanted}
        numbers = numbers or {described.names[number]: number for number in described.outputs}
        return _TfliteSession(path, numbers, self.input_name, self.window), list(numbers)


def _find_tensor(graph: TfliteGraph, tensor: str, file: str) -> int:
    """The number of a tensor that is named, or given by its number, and that an operator computes."""
    computed = {number for _, outputs in graph.operators for number in outputs}
    named = [number for number in sorted(computed) if graph.names[number] == tensor]
    if not named and tensor.isdecimal() and int(tensor) in computed:
        named = [int(tensor)]
    if len(named) != 1:
        known = [graph.names[number] for number in sorted(computed)]
        said = (
            f"{len(named)} tensors {tensor!r}, numbers {named}; write one of them" if named else f"no tensor {tensor!r}"
        )
        raise ValueError(f"{file} has {said}; {near_miss(tensor, known)}")
    return named[0]


class _TfliteSession:
    """A TensorFlow Lite file that is open."""

    n_together = 1

    def __init__(self, path: Path, numbers: dict[str, int], input_name: str, window: int) -> None:
        interpreter = _load_interpreter()
        content = add_outputs(path.read_bytes(), list(numbers.values()))
        try:
            self.interpreter = interpreter(model_content=content, num_threads=torch.get_num_threads())
            inputs = {value["name"]: value for value in self.interpreter.get_input_details()}
            if (not input_name and len(inputs) != 1) or (input_name and input_name not in inputs):
                raise ValueError(f"it has the inputs {', '.join(inputs)}; its YAML must name one as input")
            chosen = inputs[input_name or next(iter(inputs))]
            if len(inputs) > 1 or chosen["dtype"] != np.float32:
                raise ValueError("only networks of one input, sound in float32, are run")
            shape = [int(size) for size in chosen["shape_signature"]]
            self.input, self.numbers = chosen["index"], numbers
            self.input_shape: tuple[int | None, ...] = tuple(None if size < 0 else size for size in shape)
            self._resize(
                [window or 1 if size < 0 and at == len(shape) - 1 else abs(size) for at, size in enumerate(shape)]
            )
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"LiteRT cannot open {path.name}: {reason}") from error

    def _resize(self, shape: list[int]) -> None:
        self.shape = shape
        self.interpreter.resize_tensor_input(self.input, shape)
        self.interpreter.allocate_tensors()

    def run(self, value: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        if list(value.shape) != self.shape:
            self._resize(list(value.shape))
        self.interpreter.set_tensor(self.input, np.ascontiguousarray(value))
        self.interpreter.invoke()
        return {name: self.interpreter.get_tensor(number) for name, number in self.numbers.items()}


def _load_interpreter() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise explain_missing_runtime("a TensorFlow Lite file", "ai-edge-litert", "tflite", error) from error
    return Interpreter
