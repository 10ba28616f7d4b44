"""Any network in a TensorFlow SavedModel: the encoder "savedmodel:FOLDER", with what its function returns as layers.

A YAML beside the folder, `FOLDER.yaml`, holds the same facts as for "onnx:FILE" (see that page), and:

- `input`: the name of the argument that is the sound; without it, the first one.
- `call: {function: ...}`: a method ("infer_tf") or a signature ("serving_default"); without it the model itself
  is called.
- `call: {arguments: ...}`: other arguments, numbers or true and false, such as `{sample_rate: 16000}`.
- `call: {is_batched: false}`: the function takes one clip (samples) and returns (frames, feature).

Layers: what the function returns, by the keys of a dictionary, by numbers from 0 for several values, or "output". Tensors
inside of the function cannot be reached.

Numbers are those of TensorFlow. A SavedModel is a program of TensorFlow's operators; one that reads or writes files, runs
Python or opens connections is refused, and no library of operators is loaded. Nothing here is trained: fine-tuning and
random weights are refused.

`trill`, `frill`, `trillsson`, `yamnet.savedmodel` and `perch` are such folders with a ready YAML. Fetch them by hand from
the page that `evar encoders NAME` names, unpack them, and give `--weights=FOLDER`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evar.config.reading import build
from evar.config.registry import near_miss
from evar.encoders._graph_encoder import Graph, GraphEncoder, explain_missing_runtime
from evar.encoders._protobuf import read_fields

#: operators that reach beyond the numbers of a network
REFUSED = (
    "ReadFile", "WriteFile", "MatchingFiles", "SaveV2", "MergeV2Checkpoints", "PyFunc", "PyFuncStateless", "EagerPyFunc",
    "DeleteFile", "LoadDataset", "SaveDataset", "DataServiceDataset", "RpcClient", "RpcCall", "TFRecordDataset",
    "TextLineDataset", "FixedLengthRecordDataset", "WholeFileReader", "WholeFileReaderV2", "XlaHostCompute",
)  # fmt: skip
#: of these, the ones that every SavedModel has in the functions that store and restore its own numbers
_OWN_STORAGE = ("SaveV2", "MergeV2Checkpoints")


@dataclass(frozen=True)
class ModelCall:
    """How the function of a SavedModel is called.

    Attributes:
        function: a method of the model, or a signature; "" calls the model itself.
        arguments: beside the sound: numbers, or true and false.
        is_batched: whether it takes (clips, samples), and not (samples,).
    """

    function: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    is_batched: bool = True

    def __post_init__(self) -> None:
        for name, value in self.arguments.items():
            if not isinstance(value, bool | int | float):
                raise ValueError(f"arguments must be numbers or true and false, got {value!r} for {name}")


class SavedModelEncoder(GraphEncoder):
    """A SavedModel, run by TensorFlow; see the module's docstring.

    Args:
        sample_rate, layers, window, hop, input, gain, min_samples: as for `GraphEncoder`.
        call: what `ModelCall` holds.
    """

    kind = "TensorFlow"

    def __init__(
        self,
        sample_rate: int,
        layers: Any = (),
        window: int = 0,
        hop: int = 0,
        input: str = "",
        gain: float = 1.0,
        min_samples: int = 1,
        call: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(sample_rate, layers, window, hop, input, gain, min_samples)
        self.call = build(dict(call or {}), ModelCall, "call")

    def _open(self, path: Path) -> tuple[Graph, list[str]]:
        refuse_unsafe(path)
        session = _SavedModelSession(path, self)
        return session, []

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Load the folder, and declare its layers from a run on noise."""
        if not self.wanted:
            raise ValueError(f"{path.name}: its YAML must list layers, the keys of what the model returns")
        super().load_checkpoint(path, name)


def refuse_unsafe(folder: Path) -> None:
    """Refuse a folder that is no SavedModel, or whose program does more than compute.

    Args:
        folder: with saved_model.pb.

    Raises:
        ValueError: if it is none, or has an operator that reads or writes files, runs Python or opens connections.
    """
    file = folder / "saved_model.pb"
    if not file.is_file():
        raise ValueError(f"{folder} is no SavedModel: it has no saved_model.pb; is it still packed, or a folder above?")
    try:
        used = _list_operators(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if found := sorted(used.intersection(REFUSED) - set(_OWN_STORAGE)):
        raise ValueError(f"{folder} is refused: its program uses {', '.join(found)}, which do more than compute")


def _list_operators(model: bytes) -> set[str]:
    """Operators of every graph and function of a SavedModel.

    Source: `saved_model.proto`, `meta_graph.proto`, `graph.proto` and `function.proto` of TensorFlow.
    """
    found = set()
    for meta_graph in _parts(model, 2):
        for graph in _parts(meta_graph, 2):
            nodes = [*_parts(graph, 1)]
            for library in _parts(graph, 2):
                nodes += [node for function in _parts(library, 1) for node in _parts(function, 3)]
            found |= {bytes(name).decode("utf-8", "replace") for node in nodes for name in _parts(node, 2)}
    return found


def _parts(message: bytes | memoryview, number: int) -> list[memoryview]:
    return [value for field, value in read_fields(message) if field == number and isinstance(value, memoryview)]


class _SavedModelSession:
    """A SavedModel that is loaded."""

    def __init__(self, path: Path, encoder: SavedModelEncoder) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            import tensorflow
        except ImportError as error:
            raise explain_missing_runtime("a SavedModel", "tensorflow", "tensorflow", error) from error
        try:
            self.model = tensorflow.saved_model.load(str(path))
        except Exception as error:  # TensorFlow raises whatever its parts raise
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"TensorFlow cannot load {path}: {type(error).__name__}: {reason}") from error
        self.tensorflow = tensorflow
        self.call = self._find_function(encoder.call.function, path)
        self.input, self.arguments = encoder.input_name, encoder.call.arguments
        self.is_signature = encoder.call.function in getattr(self.model, "signatures", {})
        self.input_shape: tuple[int | None, ...] = (None, None) if encoder.call.is_batched else (None,)
        self.n_together = 0 if encoder.call.is_batched else 1

    def _find_function(self, name: str, path: Path) -> Any:
        signatures = dict(getattr(self.model, "signatures", {}))
        if name in signatures:
            return signatures[name]
        if not name and callable(self.model):
            return self.model
        found = getattr(self.model, name, None) if name.isidentifier() and not name.startswith("_") else None
        if not callable(found):
            raise ValueError(
                f"{path} has no function {name or '(none is named)'!r}; signatures: "
                f"{near_miss(name, signatures) if signatures else 'none'}; its YAML must say function"
            )
        return found

    def run(self, value: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        sound = self.tensorflow.constant(value)
        named, positional = dict(self.arguments), []
        if self.input:
            named[self.input] = sound
        elif self.is_signature:
            named[next(iter(self.call.structured_input_signature[1]))] = sound
        else:
            positional.append(sound)
        returned = self.call(*positional, **named)
        if isinstance(returned, dict):
            values = {str(key): entry for key, entry in returned.items()}
        elif isinstance(returned, list | tuple):
            values = {str(number): entry for number, entry in enumerate(returned)}
        else:
            values = {"output": returned}
        return {name: entry.numpy() for name, entry in values.items() if hasattr(entry, "numpy")}
