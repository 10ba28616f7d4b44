"""The content of an ONNX file: names of its tensors, and its constants as numbers, read without onnx and onnxruntime.

Source: `onnx.proto` of the ONNX specification, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evar.encoders._protobuf import read_fields, read_varint, write_field

#: numbers of fields: of a model, of its graph, of a node, of a tensor
_GRAPH = 7
_NODE, _INITIALISER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_OUTPUT = 2
_DIMS, _TYPE, _FLOATS, _INT32S, _INT64S, _NAME, _RAW, _EXTERNAL = 1, 2, 4, 5, 7, 8, 9, 13
_TYPES = {1: "<f4", 2: "u1", 3: "i1", 5: "<i2", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


@dataclass(frozen=True)
class OnnxGraph:
    """Names of a graph's tensors.

    Attributes:
        inputs: that are no constants.
        outputs: of the graph.
        tensors: that any node computes, in order.
        external_files: files beside the model that hold constants.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: tuple[str, ...]
    external_files: tuple[str, ...]


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Read the names of a file's tensors.

    Raises:
        ValueError: if it is no ONNX file.
        OSError: if it cannot be read.
    """
    inputs: list[str] = []
    outputs: list[str] = []
    tensors: list[str] = []
    constants: set[str] = set()
    external: list[str] = []
    for number, value in _graph_fields(path):
        if number == _NODE:
            tensors += [_text(part) for field, part in read_fields(value) if field == _NODE_OUTPUT]
        elif number in (_INPUT, _OUTPUT):
            name = next((_text(part) for field, part in read_fields(value) if field == 1), "")
            (inputs if number == _INPUT else outputs).append(name)
        elif number == _INITIALISER:
            name, location = _describe_constant(value)
            constants.add(name)
            external += [location] if location and location not in external else []
    if not outputs:
        raise ValueError(
            f"{path} is no ONNX file: it has no graph with outputs; is it cut off or another kind of file?"
        )
    own = tuple(name for name in inputs if name not in constants)
    return OnnxGraph(own, tuple(outputs), tuple(filter(None, tensors)), tuple(external))


def read_onnx_tensors(path: Path) -> dict[str, Tensor]:
    """Read the constants of a graph: its weights, but no program.

    Args:
        path: of the file.

    Returns:
        Name -> tensor of the type that is stored.

    Raises:
        ValueError: if it is no ONNX file, or a constant is of an unknown type, cut off, or in another file.
        OSError: if it cannot be read.
    """
    state = {}
    for number, value in _graph_fields(path):
        if number == _INITIALISER:
            name, tensor = _read_constant(value, path)
            state[name] = tensor
    if not state:
        raise ValueError(f"{path} holds no constants; is it an ONNX file with its weights?")
    return state


def add_outputs(model: bytes, names: list[str]) -> bytes:
    """Make a model that gives other tensors of its graph as well.

    A message that is written twice counts as one that has the fields of both, so that nothing needs to be taken apart.

    Args:
        model: of a file.
        names: of tensors that nodes compute.
    """
    added = b"".join(write_field(_OUTPUT, write_field(1, name.encode())) for name in names)
    return model + (write_field(_GRAPH, added) if added else b"")


def _graph_fields(path: Path) -> list[tuple[int, memoryview]]:
    try:
        graphs = [value for number, value in read_fields(path.read_bytes()) if number == _GRAPH]
        parts = [field for graph in graphs if isinstance(graph, memoryview) for field in read_fields(graph)]
        return [(number, value) for number, value in parts if isinstance(value, memoryview)]
    except ValueError as error:
        raise ValueError(f"{path} is no ONNX file: {error}") from error


def _text(value: int | memoryview) -> str:
    return bytes(value).decode("utf-8", "replace") if isinstance(value, memoryview) else ""


def _describe_constant(value: memoryview) -> tuple[str, str]:
    """Name of a constant, and the file that holds it if the constant is in a file of its own."""
    name, location = "", ""
    for field, part in read_fields(value):
        if field == _NAME:
            name = _text(part)
        elif field == _EXTERNAL and isinstance(part, memoryview):
            entry = {number: _text(text) for number, text in read_fields(part)}
            location = entry.get(2, "") if entry.get(1) == "location" else location
    return name, location


def _read_constant(value: memoryview, path: Path) -> tuple[str, Tensor]:
    dims: list[int] = []
    kind, name = 0, ""
    raw: bytes | None = None
    packed: dict[int, str] = {_FLOATS: "<f4", _INT32S: "", _INT64S: ""}
    for field, part in read_fields(value):
        if field == _DIMS:
            dims += [part] if isinstance(part, int) else _varints(part)
        elif field == _TYPE and isinstance(part, int):
            kind = part
        elif field == _NAME:
            name = _text(part)
        elif field in (_RAW, _FLOATS) and isinstance(part, memoryview):
            raw = bytes(part)
        elif field in packed and isinstance(part, memoryview):
            raw = np.array(_varints(part), dtype="<i8" if field == _INT64S else "<i4").tobytes()
        elif field == _EXTERNAL:
            raise ValueError(f"{path}: the constant {name or '(unnamed)'} is in another file, which is not read here")
    count = int(np.prod(dims)) if dims else 1
    if kind not in _TYPES:
        raise ValueError(f"{path}: the constant {name!r} has the type number {kind}, which is not known here")
    values = np.frombuffer(raw or b"", dtype=_TYPES[kind])
    if len(values) != count:
        raise ValueError(f"{path}: the constant {name!r} must have {count} numbers, got {len(values)}; is it cut off?")
    return name, torch.from_numpy(values.reshape(dims).copy())


def _varints(part: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(part):
        value, at = read_varint(part, at)
        values.append(value - (1 << 64) if value >> 63 else value)
    return values
