"""The content of a TensorFlow Lite file: its tensors' names, its operators, and its constants, read without an interpreter.

Source: the schema, https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs,
and the format of FlatBuffers, https://flatbuffers.dev/internals/.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 7: "<i2", 9: "i1", 10: "<f8"}
#: places of fields in a model, a graph, a tensor and an operator
_SUBGRAPHS, _BUFFERS = 2, 4
_TENSORS, _OUTPUTS, _OPERATORS = 0, 2, 3
_SHAPE, _TYPE, _BUFFER, _NAME = 0, 1, 2, 3


@dataclass(frozen=True)
class TfliteGraph:
    """The first graph of a file.

    Attributes:
        names: of every tensor, by its number.
        outputs: numbers of the tensors that the graph gives.
        operators: (inputs, outputs) of each operator in order, as numbers of tensors; -1 is none.
        constants: number -> values, of tensors that the file itself holds.
    """

    names: tuple[str, ...]
    outputs: tuple[int, ...]
    operators: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    constants: dict[int, Tensor]


def read_tflite_graph(path: Path, *, with_constants: bool = True) -> TfliteGraph:
    """Read a file; quantised constants come as the whole numbers that are stored.

    Args:
        path: of the file.
        with_constants: whether to read their values.

    Raises:
        ValueError: if it is no TensorFlow Lite file.
        OSError: if it cannot be read.
    """
    data = path.read_bytes()
    if data[4:8] != b"TFL3":
        raise ValueError(f"{path} is no TensorFlow Lite file: it does not begin as one; is it another kind of file?")
    try:
        return _read_graph(_Table.root(data), with_constants)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as a TensorFlow Lite file ({error}); is it cut off?") from error


def add_outputs(model: bytes, numbers: list[int]) -> bytes:
    """Make a model whose first graph gives these tensors, in this order: a new list is put behind the file.

    Args:
        model: of a file.
        numbers: of tensors.
    """
    graph = _Table.root(model).tables(_SUBGRAPHS)[0]
    place = graph.place(_OUTPUTS)
    if place is None:
        raise ValueError("the graph has no outputs")
    padded = model + b"\0" * (-len(model) % 4)
    changed = bytearray(padded + struct.pack(f"<I{len(numbers)}i", len(numbers), *numbers))
    changed[place : place + 4] = struct.pack("<I", len(padded) - place)
    return bytes(changed)


def _read_graph(model: _Table, with_constants: bool) -> TfliteGraph:
    graph = model.tables(_SUBGRAPHS)[0]
    buffers = model.tables(_BUFFERS)
    names, constants = [], {}
    for number, tensor in enumerate(graph.tables(_TENSORS)):
        names.append(tensor.text(_NAME))
        kind = _TYPES.get(tensor.number(_TYPE, "<b"))
        at = tensor.number(_BUFFER, "<I")
        raw = buffers[at].vector(0, "u1") if at and kind else None
        if with_constants and raw is not None and len(raw):
            shape = tensor.vector(_SHAPE, "<i4")
            values = np.frombuffer(raw.tobytes(), dtype=kind).reshape(() if shape is None else shape)
            constants[number] = torch.from_numpy(values.copy())
    operators = tuple(
        (_numbers(operator, 1), _numbers(operator, 2))  # inputs, outputs
        for operator in graph.tables(_OPERATORS)
    )
    return TfliteGraph(tuple(names), _numbers(graph, _OUTPUTS), operators, constants)


def _numbers(table: _Table, field: int) -> tuple[int, ...]:
    values = table.vector(field, "<i4")
    return () if values is None else tuple(values.tolist())


class _Table:
    """A table of a FlatBuffer: fields by their place, each of which may be absent."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at
        self.fields = at - self._unpack("<i", at)
        self.n_fields = (self._unpack("<H", self.fields) - 4) // 2

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _unpack(self, kind: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"a place before the file's begin, {at}")
        return int(struct.unpack_from(kind, self.data, at)[0])

    def place(self, field: int) -> int | None:
        """Byte of a field, None if it is absent."""
        offset = self._unpack("<H", self.fields + 4 + 2 * field) if field < self.n_fields else 0
        return self.at + offset if offset else None

    def number(self, field: int, kind: str) -> int:
        place = self.place(field)
        return 0 if place is None else self._unpack(kind, place)

    def vector(self, field: int, kind: str) -> np.ndarray | None:
        place = self.place(field)
        if place is None:
            return None
        at = place + self._unpack("<I", place)
        return np.frombuffer(self.data, dtype=kind, count=self._unpack("<I", at), offset=at + 4)

    def text(self, field: int) -> str:
        values = self.vector(field, "u1")
        return "" if values is None else values.tobytes().decode("utf-8", "replace")

    def tables(self, field: int) -> list[_Table]:
        place = self.place(field)
        if place is None:
            return []
        at = place + self._unpack("<I", place)
        places = range(at + 4, at + 4 + 4 * self._unpack("<I", at), 4)
        return [_Table(self.data, entry + self._unpack("<I", entry)) for entry in places]
