"""Networks that another runtime executes, with the tensors that a YAML lists as layers: shared by all kinds of files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evar.config.graph_files import GraphLayer
from evar.config.reading import build
from evar.encoders._fixed_windows import VECTOR_FRAMES, count_frames, run_fixed_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

#: windows that share a call where the graph takes any number
WINDOWS_AT_ONCE = 8
#: seconds of noise that a graph for whole clips is measured with
_PROBE_SECONDS = (2.0, 4.0)
_NOISE = 0.1


class Graph(Protocol):
    """A network that is open in its runtime.

    Attributes:
        input_shape: of its one input: a number for each fixed axis, None for the others.
        n_together: clips that a call takes: 0 for any number.
    """

    input_shape: tuple[int | None, ...]
    n_together: int

    def run(self, value: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the network.

        Args:
            value: (clips, samples) float32, or what else `input_shape` says.

        Returns:
            Name of a tensor -> its values; their first axis is that of the clips, or of windows.
        """


class GraphEncoder(Encoder):
    """A network in a file that is opened and run, but not trained, here.

    Args:
        sample_rate: Hz.
        layers: names of tensors; or name of a layer -> what `GraphLayer` holds.
        window: samples that the network hears at once; 0: it takes whole clips.
        hop: samples from one window to the next; 0: a whole window.
        input: name of the input; "" if there is one.
        gain: factor of the waveform, such as 32768 for networks that expect 16-bit samples.
        min_samples: of a network that takes whole clips: shorter ones are filled with zeros.
    """

    runs_file: ClassVar[bool] = True
    kind: ClassVar[str] = "graph"

    def __init__(
        self,
        sample_rate: int,
        layers: Any = (),
        window: int = 0,
        hop: int = 0,
        input: str = "",
        gain: float = 1.0,
        min_samples: int = 1,
    ) -> None:
        super().__init__()
        self.sample_rate, self.window, self.gain = sample_rate, window, gain
        self.min_samples = 1 if window else min_samples
        self.window_hop = hop or window
        if sample_rate < 1 or window < 0 or not 0 <= hop <= window or min_samples < 1:
            raise ValueError(
                f"sample_rate and min_samples must be >= 1, and 0 <= hop <= window, all in samples, got "
                f"sample_rate={sample_rate}, min_samples={min_samples}, hop={hop}, window={window}"
            )
        self.input_name = input
        self.graph: Graph | None = None
        self.wanted = _read_layers(layers)
        self._n_frames: dict[int, dict[str, int]] = {}
        if all(layer.width for layer in self.wanted.values()):
            self._declare({name: (layer.width, layer.frames) for name, layer in self.wanted.items()})

    @abstractmethod
    def _open(self, path: Path) -> tuple[Graph, list[str]]:
        """Open the network, and list the tensors that are layers where the YAML lists none."""

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build; without a file, the encoder can tell about itself what its YAML says, but not encode."""
        encoder = super().from_config(config, weights=None)
        assert isinstance(encoder, GraphEncoder)
        encoder.name = config.name
        if weights is None and not encoder.layer_infos_known:
            encoder.randomise()
        if weights is not None:
            encoder.load_checkpoint(Path(weights), config.name)
        return encoder

    @property
    def layer_infos_known(self) -> bool:
        """Whether the layers are declared, by the YAML or from the file."""
        return bool(getattr(self, "layer_infos", ()))

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Open the file, and declare its layers from a run on noise."""
        self.graph, offered = self._open(path)
        if not self.wanted:
            self.wanted = {tensor: GraphLayer() for tensor in offered}
        fixed = _find_fixed_samples(self.graph.input_shape, path.name)
        if fixed is not None and fixed != self.window:
            raise ValueError(f"{path.name} takes clips of {fixed} samples, but its YAML says window: {self.window}")
        if self.window:
            values = self._run_graph(_noise(1, self.window))
            self._declare({name: (value.shape[2], value.shape[1]) for name, value in values.items()})
        else:
            self._declare_whole_clips()

    def randomise(self) -> None:
        """There are no weights to draw: the network itself is in the file."""
        raise ValueError(
            f"{self.name} is a network that {self.kind} runs from its file, so it has no random weights and cannot be "
            "trained here; give the file itself, with --weights=PATH"
        )

    def _declare(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Declare layers.

        Args:
            sizes: name -> width, and frames of a window or, of a network for whole clips, samples between frames.
        """
        infos = []
        self.frames: dict[str, int] = {}
        for name, layer in self.wanted.items():
            width, count = sizes[name]
            if self.window:
                self.frames[name] = VECTOR_FRAMES if count <= 1 and self.window_hop == self.window else max(1, count)
                step = (
                    self.window / self.frames[name] if count > 1 or self.window_hop == self.window else self.window_hop
                )
                note = layer.note or ("of its window" if count <= 1 else "")
                infos.append(LayerInfo(name, width, max(1, round(step)), layer.pooling, note))
            else:
                infos.append(
                    LayerInfo(name, width, layer.hop or (0 if self.graph is None else count), layer.pooling, layer.note)
                )
        self.layer_infos = tuple(infos)
        if not getattr(self, "default_layers", ()):
            self.default_layers = (infos[-1].name,)

    def _declare_whole_clips(self) -> None:
        counts = []
        for seconds in _PROBE_SECONDS:
            n_samples = max(self.min_samples, int(seconds * self.sample_rate))
            values = self._run_graph(_noise(1, n_samples))
            counts.append((n_samples, {name: value.shape for name, value in values.items()}))
        (short, first), (long, second) = counts
        sizes = {}
        for name, shape in second.items():
            more = shape[1] - first[name][1]
            sizes[name] = (shape[2], max(1, round((long - short) / more)) if more else 0)
        self._declare(sizes)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer; a network for whole clips gave as many for a clip of that length.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        if self.window:
            counts = {
                name: [self._count_frames(length, frames) for length in lengths.tolist()]
                for name, frames in self.frames.items()
            }
        else:
            counts = {name: [self._n_frames[length][name] for length in lengths.tolist()] for name in self.wanted}
        return {name: torch.tensor(value, device=lengths.device) for name, value in counts.items()}

    def _count_frames(self, length: int, frames: int) -> int:
        return count_frames(length, self.window, self.window_hop, frames)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer; see `Encoder.forward`: (batch, samples) -> layer name -> (batch, time, width)."""
        if self.graph is None:
            raise ValueError(f"{self.name} cannot encode without the file that holds its network; pass it as weights")
        if self.window:
            return run_fixed_windows(
                self._run_graph,
                waveform.detach().cpu(),
                lengths.cpu(),
                window=self.window,
                hop=self.window_hop,
                frames=self.frames,
                chunk=self.graph.n_together or WINDOWS_AT_ONCE,
            )
        rows: dict[str, list[Tensor]] = {name: [] for name in self.wanted}
        for clip, length in zip(waveform.detach().cpu(), lengths.tolist(), strict=True):
            values = self._run_graph(clip[None, :length])
            self._n_frames[length] = {name: value.shape[1] for name, value in values.items()}
            for name, value in values.items():
                rows[name].append(value[0])
        return {name: nn.utils.rnn.pad_sequence(values, batch_first=True) for name, values in rows.items()}

    def _run_graph(self, clips: Tensor) -> dict[str, Tensor]:
        """(n, samples) -> layer name -> (n, time, feature)."""
        assert self.graph is not None
        shape, together = self.graph.input_shape, self.graph.n_together
        parts = []
        size = 1 if len(shape) == 1 else together or len(clips)
        for part in clips.split(size):
            missing = size - len(part) if together > 1 else 0
            padded = nn.functional.pad(part * self.gain, (0, 0, 0, missing))
            value = _shape_input(padded.numpy(), shape)
            try:
                outputs = self.graph.run(value)
            except Exception as error:  # each runtime has errors of its own
                reason = " ".join(str(error).split())[:300]
                raise RuntimeError(
                    f"{self.kind} cannot run {self.name} on {tuple(part.shape)} samples: {reason}"
                ) from error
            parts.append({
                name: self._to_frames(name, outputs, len(shape) == 1, size)[: len(part)] for name in self.wanted
            })  # fmt: skip
        return {name: torch.cat([part[name] for part in parts]) for name in self.wanted}

    def _to_frames(self, name: str, outputs: dict[str, NDArray[np.float32]], is_clip: bool, n_clips: int) -> Tensor:
        """A tensor of the graph as (n, time, feature)."""
        layer = self.wanted[name]
        tensor = layer.tensor or name
        if tensor not in outputs:
            from evar.config.registry import near_miss

            raise ValueError(f"the network gives no tensor {tensor!r}; {near_miss(tensor, outputs)}")
        value = torch.from_numpy(np.array(outputs[tensor], dtype=np.float32))
        value = value[None] if is_clip else value
        if value.dim() < 2 or len(value) != n_clips:
            raise ValueError(
                f"the tensor {tensor!r} must have {n_clips} clips along its first axis and features behind, got "
                f"{tuple(value.shape)}; list another"
            )
        axis = layer.time_axis if layer.time_axis > 0 else 1 if value.dim() == 3 else 0
        if value.dim() > 3 and not axis and value[0].numel() != max(value.shape[1:]):
            raise ValueError(
                f"the tensor {tensor!r} has the shape {tuple(value.shape)}, so the YAML must say its time_axis, counted "
                "with the batch as 0 (and mean_axes, if it shall be averaged over some)"
            )
        if layer.mean_axes:
            value = value.mean(dim=layer.mean_axes, keepdim=True)
        value = value.movedim(axis, 1) if axis else value[:, None]
        return value.flatten(2) if value.dim() > 2 else value[:, :, None]


def _shape_input(clips: NDArray[np.float32], shape: Sequence[int | None]) -> NDArray[np.float32]:
    """(n, samples) as the graph takes it: without the batch, or with an axis of one channel."""
    if len(shape) == 1:
        return clips[0]
    if len(shape) == 2:
        return clips
    return clips[:, :, None] if shape[2] == 1 else clips[:, None]


def _find_fixed_samples(shape: Sequence[int | None], name: str) -> int | None:
    """Find how many samples the input must have, if its shape fixes them.

    Raises:
        ValueError: if the shape is not that of a waveform.
    """
    samples = [size for size in shape[1:] if size != 1] if len(shape) == 3 else list(shape[-1:])
    if not 1 <= len(shape) <= 3 or len(samples) > 1 + (None in samples):
        raise ValueError(
            f"{name} takes an input of the shape {tuple(shape)}, and a waveform has (clips, samples), (samples,) or "
            "one more axis of one channel; does it expect a spectrogram?"
        )
    return next((size for size in samples if size is not None), None)


def _read_layers(layers: Any) -> dict[str, GraphLayer]:
    """Layers by name, from a list of tensors or a mapping."""
    if isinstance(layers, Mapping):
        return {str(name): build(dict(value or {}), GraphLayer, f"layer {name}") for name, value in layers.items()}
    if not isinstance(layers, list | tuple) or len(set(map(str, layers))) != len(layers):
        raise ValueError(f"layers must be a list of tensors, each once, or a mapping, got {layers!r}")
    return {str(name): GraphLayer() for name in layers}


def _noise(n_clips: int, n_samples: int) -> Tensor:
    return _NOISE * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(0), device="cpu")


def explain_missing_runtime(what: str, packages: str, extra: str, error: ImportError) -> ImportError:
    """Make the error for a runtime that is not installed.

    Args:
        what: is to be run.
        packages: that have the runtime.
        extra: of this package that brings it.
        error: of the import.

    Example:
        >>> print(explain_missing_runtime("an ONNX file", "onnxruntime", "onnx", ImportError("No module named x")))
        an ONNX file needs onnxruntime (No module named x); pip install "evar-audio[onnx]"
    """
    return ImportError(f'{what} needs {packages} ({error}); pip install "evar-audio[{extra}]"')
