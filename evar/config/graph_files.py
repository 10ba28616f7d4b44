"""Networks that another runtime executes: the names "onnx:FILE", "tflite:FILE" and "savedmodel:FOLDER"."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from evar.config.reading import read_mapping

#: prefix of a name -> the class that runs it
GRAPH_CLASSES = {
    "onnx": "evar.encoders.onnx_file:OnnxEncoder",
    "tflite": "evar.encoders.tflite_file:TfliteEncoder",
    "savedmodel": "evar.encoders.saved_model:SavedModelEncoder",
}
#: keys of the YAML beside the file that tell about the network; all others are options of the class
_FACTS = ("description", "trained_on", "citation", "licence", "default_layers", "pooling")


def split_graph_name(name: str) -> tuple[str, str]:
    """Return the kind and the path of a name such as "onnx:FILE"; two empty texts for any other name.

    Example:
        >>> split_graph_name("onnx:some/model.onnx"), split_graph_name("crepe.tiny")
        (('onnx', 'some/model.onnx'), ('', ''))
    """
    kind, colon, path = name.partition(":")
    return (kind, path) if colon and kind in GRAPH_CLASSES else ("", "")


def name_graph(name: str) -> str:
    """Make the name that tables print: the kind and the name of the file, without its folder.

    Example:
        >>> name_graph("onnx:some/folder/model.onnx")
        'onnx:model.onnx'
    """
    kind, path = split_graph_name(name)
    return f"{kind}:{Path(path).expanduser().resolve().name}"


def find_settings(path: Path) -> Path:
    """Find the YAML of a file or folder: beside it, with .yaml as suffix, or behind a folder's name.

    Example:
        >>> find_settings(Path("models/perch.onnx")).as_posix()
        'models/perch.yaml'
    """
    return path.with_name(f"{path.name}.yaml") if path.is_dir() else path.with_suffix(".yaml")


def read_graph_settings(name: str) -> dict[str, Any]:
    """Read what `EncoderConfig` takes, from the YAML beside the file.

    Args:
        name: "onnx:FILE", "tflite:FILE" or "savedmodel:FOLDER".

    Returns:
        Arguments of `EncoderConfig`, `weights` as a dictionary.

    Raises:
        FileNotFoundError: if there is no such file, or no YAML beside it; the message tells what to write.
        ValueError: if the YAML lacks what is needed, or has ill-typed keys.
    """
    kind, text = split_graph_name(name)
    path = Path(text).expanduser().resolve()
    what = "FOLDER" if kind == "savedmodel" else "FILE"
    if not text or not path.exists():
        raise FileNotFoundError(f"expected {kind}:{what} with a path that exists, got {name!r}; there is no {path}")
    if path.is_dir() != (kind == "savedmodel"):
        is_a = "folder" if path.is_dir() else "file"
        raise ValueError(f"expected {kind}:{what}, got {name!r}, which is a {is_a}")
    settings = find_settings(path)
    if not settings.is_file():
        raise FileNotFoundError(
            f"{path.name} needs {settings} beside it, with at least sample_rate (Hz) and layers (names of tensors), and "
            "window (samples) where the network takes clips of one length; see docs/your_encoder.md"
        )
    data = read_mapping(settings)
    if "sample_rate" not in data:
        raise ValueError(f"{settings} must say sample_rate, the rate in Hz that the network expects")
    unsaid = f"not stated in {settings.name}"
    facts = {key: data.pop(key) for key in _FACTS if key in data}
    return {
        "name": name_graph(name),
        "implementation": GRAPH_CLASSES[kind],
        "description": facts.get("description", f"the network in {path.name}, run by another runtime"),
        "trained_on": facts.get("trained_on", unsaid),
        "citation": facts.get("citation", unsaid),
        "default_layers": facts.get("default_layers", []),
        "pooling": facts.get("pooling", ""),
        "weights": {"kind": "file", "file": str(path), "licence": facts.get("licence", unsaid)},
        "options": data,
    }


def make_graph_absolute(name: str) -> str:
    """Return a name that means the same from every folder.

    Example:
        >>> make_graph_absolute("onnx:/some/model.onnx")
        'onnx:/some/model.onnx'
    """
    kind, path = split_graph_name(name)
    return f"{kind}:{Path(path).expanduser().resolve()}"


def list_kinds() -> str:
    """List the prefixes, for an error.

    Example:
        >>> list_kinds()
        'onnx:, tflite:, savedmodel:'
    """
    return ", ".join(f"{kind}:" for kind in GRAPH_CLASSES)


@dataclasses.dataclass(frozen=True)
class GraphLayer:
    """What a YAML says about one layer of such a network.

    Attributes:
        tensor: its name in the file; "" where the layer has the same name.
        width: features of a frame, where the file is not there to tell.
        frames: of a full window; 1 is one vector a window, 0 unknown.
        hop: samples between frames of a network that takes whole clips; 0: as measured on noise, or unknown.
        time_axis: axis that is time, counted with the batch as axis 0; -1: axis 1 of three, and none of two.
        mean_axes: axes to take the mean over, counted the same way.
        pooling: over time.
        note: for tables.
    """

    tensor: str = ""
    width: int = 0
    frames: int = 0
    hop: int = 0
    time_axis: int = -1
    mean_axes: tuple[int, ...] = ()
    pooling: str = "mean"
    note: str = ""
