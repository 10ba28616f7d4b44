"""Tiny networks in files of other runtimes, which tests build and hold against these runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

RATE, WINDOW, STEP, WIDTH = 8000, 1600, 160, 6
YAML = f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayers: [inner, frames, vector]\n"


def kernel() -> np.ndarray:
    """(features, samples of a frame)."""
    return np.random.default_rng(3).standard_normal((WIDTH, STEP)).astype(np.float32) / 8


def build_onnx(path: Path, batch: int | None = None, samples: int | None = WINDOW, **changes: Any) -> Path:
    """A convolution of 160 samples: inner (clip, time, feature), frames after tanh, vector, their mean.

    Args:
        path: of the file to be.
        batch, samples: of the input; None for any number.
        changes: `domain` of the last operator; `external`: whether constants lie in a file beside.
    """
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper = onnx.helper
    value, constant = helper.make_tensor_value_info, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Unsqueeze", ["sound", "one"], ["channel"]),
        helper.make_node("Conv", ["channel", "kernel"], ["map"], strides=[STEP]),
        helper.make_node("Transpose", ["map"], ["inner"], perm=[0, 2, 1]),
        helper.make_node("Tanh", ["inner"], ["frames"]),
        helper.make_node("ReduceMean", ["frames"], ["vector"], axes=[1], keepdims=0, domain=changes.get("domain", "")),
    ]
    constants = [constant(kernel()[:, None], "kernel"), constant(np.array([1], dtype=np.int64), "one")]
    outputs = [value("frames", 1, [batch, None, WIDTH]), value("vector", 1, [batch, WIDTH])]
    graph = helper.make_graph(nodes, "small", [value("sound", 1, [batch, samples])], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if changes.get("external"):
        onnx.save(model, path, save_as_external_data=True, location=changes["external"], size_threshold=100)
    else:
        onnx.save(model, path)
    path.with_suffix(".yaml").write_text(YAML)
    return path


def build_tflite(path: Path) -> Path:
    """The same network in a TensorFlow Lite file, built with the schema that LiteRT brings."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")
    import flatbuffers

    n_frames = WINDOW // STEP
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, graph.tensors, graph.operators = 3, [schema.BufferT()], [], []

    def add_tensor(name: str, shape: list[int], value: np.ndarray | None = None, kind: str = "FLOAT32") -> int:
        tensor, buffer = schema.TensorT(), schema.BufferT()
        tensor.name, tensor.shape, tensor.type = name, shape, getattr(schema.TensorType, kind)
        if value is not None:
            buffer.data = np.frombuffer(value.tobytes(), dtype=np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
        return len(graph.tensors) - 1

    def add_operator(code: int, inputs: list[int], output: int, kind: int = 0, options: Any = None) -> int:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = code, inputs, [output]
        operator.builtinOptionsType, operator.builtinOptions = kind, options
        graph.operators.append(operator)
        return output

    codes = []
    for name in ("RESHAPE", "FULLY_CONNECTED", "TANH", "MEAN"):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        codes.append(code)
    sound = add_tensor("sound", [1, WINDOW])
    shape = add_tensor("shape", [3], np.array([1, n_frames, STEP], dtype=np.int32), "INT32")
    weight, axis = (
        add_tensor("kernel", [WIDTH, STEP], kernel()),
        add_tensor("axis", [1], np.array([1], np.int32), "INT32"),
    )
    dense, mean = schema.FullyConnectedOptionsT(), schema.ReducerOptionsT()
    dense.keepNumDims, mean.keepDims = True, False
    parts = add_operator(0, [sound, shape], add_tensor("parts", [1, n_frames, STEP]))
    inner = add_operator(
        1,
        [parts, weight, -1],
        add_tensor("inner", [1, n_frames, WIDTH]),
        schema.BuiltinOptions.FullyConnectedOptions,
        dense,
    )
    frames = add_operator(2, [inner], add_tensor("frames", [1, n_frames, WIDTH]))
    vector = add_tensor("vector", [1, WIDTH])
    add_operator(3, [frames, axis], vector, schema.BuiltinOptions.ReducerOptions, mean)
    graph.inputs, graph.outputs = [sound], [vector]
    model.operatorCodes, model.subgraphs = codes, [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    path.with_suffix(".yaml").write_text(YAML)
    return path


def reference_values(windows: np.ndarray) -> dict[str, np.ndarray]:
    """What the network computes, by formulas: (n, samples) -> name -> values."""
    inner = windows.reshape(len(windows), -1, STEP) @ kernel().T
    frames = np.tanh(inner)
    return {"inner": inner, "frames": frames, "vector": frames.mean(axis=1)}
