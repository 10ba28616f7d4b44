"""Any module that follows the HEAR 2021 API, as an encoder: the name "hear:MODULE", its checkpoint by --weights.

Paper: Turian et al., "HEAR: Holistic Evaluation of Audio Representations", NeurIPS 2021 Competition, PMLR 166, 2022; the
API is that of https://hearbenchmark.com/hear-api.html. Licence, training data and sample rate are those of the module.

Layers: scene (one embedding a clip, as `get_scene_embeddings` gives it; the default) and timestamps (frames of
`get_timestamp_embeddings`, pooled by mean). The API takes clips of one length only, so batches hold equal lengths
(`batch_invariant = False`). Only PyTorch models are taken. The module's own code is run: install what you trust.
"""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evar.config.own_code import import_typed
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

FUNCTIONS = ("load_model", "get_scene_embeddings", "get_timestamp_embeddings")
SAMPLE_RATES = (16000, 22050, 32000, 44100, 48000)
#: seconds of noise that the frame rate is measured on
_PROBE_SECONDS = 2.0


class HearEncoder(Encoder):
    """A HEAR module behind the one interface.

    Args:
        module: name of an importable module, "hearbaseline.wav2vec2".
        checkpoint: given to its `load_model`; "" calls it without.

    Raises:
        ImportError: if there is no such module.
        ValueError: if it does not follow the API; what is missing is named.
    """

    default_layers = ("scene",)
    batch_invariant = False

    def __init__(self, module: str, checkpoint: str = "") -> None:
        super().__init__()
        try:
            self._api = import_typed(module)
        except ImportError as error:
            raise ImportError(
                f"no module {module!r} that could be imported ({error}); pip install the HEAR model"
            ) from error
        for function in FUNCTIONS:
            if not callable(getattr(self._api, function, None)):
                raise ValueError(f"module {module} has no function {function}, which the HEAR API asks for")
        try:
            self.model = self._api.load_model(checkpoint) if checkpoint else self._api.load_model()
        except Exception as error:  # another's code can fail with anything
            raise ValueError(f"load_model of {module} failed: {type(error).__name__}: {error}") from error
        if not isinstance(self.model, nn.Module):
            raise ValueError(f"load_model of {module} must return a torch.nn.Module, got {type(self.model).__name__}")
        names = ("sample_rate", "scene_embedding_size", "timestamp_embedding_size")
        self.sample_rate, scene_width, frame_width = (self._read_whole_number(name) for name in names)
        self._widths = {"scene": scene_width, "timestamps": frame_width}
        if self.sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate must be one of {', '.join(map(str, SAMPLE_RATES))}, got {self.sample_rate}")
        self.model.eval()
        self.brings_weights = f"load_model of {module}"
        self._n_frames: dict[int, int] = {}
        self.layer_infos = (
            LayerInfo("timestamps", frame_width, self._measure_hop(), "mean", "frames"),
            LayerInfo("scene", scene_width, 0, "mean", "the model's own clip embedding"),
        )

    def _read_whole_number(self, name: str) -> int:
        """Return an attribute of the model as a Python integer; whole numbers of numpy count."""
        value: Any = getattr(self.model, name, None)
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < 1:
            raise ValueError(f"the model of {self._api.__name__} must have a whole number {name}, got {value!r}")
        return int(value)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build; `weights` goes to the module's `load_model`."""
        return cls(str(config.options["module"]), "" if weights is None else str(weights))

    def randomise(self) -> None:
        """Draw every parameter anew, as its layer does when it is made: the untrained baseline."""
        for part in self.model.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count one frame for scene, and as many timestamps as the module gave for a clip of that length.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        counts = [self._n_frames[int(length)] for length in lengths]
        return {"timestamps": torch.tensor(counts, device=lengths.device), "scene": torch.ones_like(lengths)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute both layers; a batch of unequal lengths runs length by length.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        found: list[tuple[Tensor, Tensor]] = [(waveform, waveform)] * len(waveform)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            clips = waveform[rows, :length]
            frames, timestamps = self._call_module("get_timestamp_embeddings", clips)
            scene = self._call_module("get_scene_embeddings", clips)
            self._check(frames, timestamps, scene, len(rows), length)
            self._n_frames[int(length)] = frames.shape[1]
            for at, row in enumerate(rows.tolist()):
                found[row] = (frames[at], scene[at])
        longest = max(frames.shape[0] for frames, _ in found)
        padded = [nn.functional.pad(frames, (0, 0, 0, longest - len(frames))) for frames, _ in found]
        return {"timestamps": torch.stack(padded), "scene": torch.stack([scene for _, scene in found])[:, None]}

    def _call_module(self, function: str, clips: Tensor) -> Any:
        """What a function of the module says of clips (clips, samples)."""
        try:
            return getattr(self._api, function)(clips, self.model)
        except Exception as error:
            raise RuntimeError(f"{function} of {self._api.__name__} failed: {type(error).__name__}: {error}") from error

    def _check(self, frames: Any, timestamps: Any, scene: Any, n_clips: int, length: int) -> None:
        """What the API promises of every answer."""
        for name, value, wanted in (
            ("timestamp embeddings", frames, (n_clips, None, self._widths["timestamps"])),
            ("scene embeddings", scene, (n_clips, self._widths["scene"])),
            ("timestamps", timestamps, (n_clips, None)),
        ):
            shape = tuple(getattr(value, "shape", ()))
            fits = len(shape) == len(wanted) and all(w is None or w == s for w, s in zip(wanted, shape, strict=False))
            if not fits or (name != "timestamps" and value.dtype != torch.float32):
                raise RuntimeError(f"{name} must be float32 {wanted}, got {shape} {getattr(value, 'dtype', None)}")
        if frames.shape[1] != timestamps.shape[1]:
            raise RuntimeError(f"{frames.shape[1]} frames have {timestamps.shape[1]} timestamps")
        self._check_timestamps(torch.as_tensor(timestamps).double(), 1000 * length / self.sample_rate)

    def _check_timestamps(self, timestamps: Tensor, milliseconds: float) -> None:
        """Raise RuntimeError unless timestamps are milliseconds from the start of the clip, one after the other.

        Args:
            timestamps: (clips, frames).
            milliseconds: how long the clips are.
        """
        if not bool(timestamps.isfinite().all()) or bool((timestamps < 0).any()):
            raise RuntimeError(
                "timestamps must be milliseconds from the clip's start, but some are below 0 or no number"
            )
        if bool((timestamps.diff(dim=1) <= 0).any()):
            raise RuntimeError("timestamps must increase from frame to frame, but they do not")
        last = float(timestamps.max())
        if last > milliseconds + 1:
            raise RuntimeError(
                f"the last timestamp is {last:.0f} ms, beyond a clip of {milliseconds:.0f} ms; are they samples in place of "
                "milliseconds?"
            )
        if timestamps.shape[1] > 1 and last < milliseconds / 100:
            raise RuntimeError(
                f"the last timestamp is {last:.4g} ms in a clip of {milliseconds:.0f} ms; are they seconds in place of "
                "milliseconds?"
            )

    def _measure_hop(self) -> int:
        """Return the samples between two timestamps, from a clip of noise that checks the module as well.

        Raises:
            ValueError: if an answer breaks the API, or a second call gives other vectors.
        """
        length = int(_PROBE_SECONDS * self.sample_rate)
        clip = 0.1 * torch.randn(1, length, generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                frames, timestamps = self._call_module("get_timestamp_embeddings", clip)
                scene = self._call_module("get_scene_embeddings", clip)
                self._check(frames, timestamps, scene, 1, length)
                again, _ = self._call_module("get_timestamp_embeddings", clip)
                scene_again = self._call_module("get_scene_embeddings", clip)
        except RuntimeError as error:
            raise ValueError(f"module {self._api.__name__} does not follow the HEAR API: {error}") from error
        for name, first, second in (("timestamp", frames, again), ("scene", scene, scene_again)):
            if first.shape != second.shape or not torch.allclose(first, second, rtol=1e-3, atol=1e-5):
                raise ValueError(
                    f"module {self._api.__name__} gives other {name} embeddings when it is called twice with the same "
                    "clip, so that no score could be computed again; does it draw random numbers?"
                )
        gaps = timestamps[0].double().diff()
        return max(1, round(float(gaps.mean()) * self.sample_rate / 1000)) if len(gaps) else length
