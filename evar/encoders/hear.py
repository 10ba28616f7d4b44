"""Any module that follows the HEAR 2021 API, as an encoder: the name "hear:MODULE", its checkpoint by --weights.

Paper: Turian et al., "HEAR: Holistic Evaluation of Audio Representations", NeurIPS 2021 Competition, PMLR 166, 2022; the
API is that of https://hearbenchmark.com/hear-api.html. Licence, training data and sample rate are those of the module.

Layers: scene (one embedding a clip, as `get_scene_embeddings` gives it; the default) and timestamps (frames of
`get_timestamp_embeddings`, pooled by mean). The API takes clips of one length only, so batches hold equal lengths
(`batch_invariant = False`). Only PyTorch models are taken. The module's own code is run: install what you trust.
"""

from __future__ import annotations

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
        numbers = {}
        for name in ("sample_rate", "scene_embedding_size", "timestamp_embedding_size"):
            value: Any = getattr(self.model, name, None)
            if type(value) is not int:
                raise ValueError(f"the model of {module} must have a whole number {name}, got {value!r}")
            numbers[name] = value
        self.sample_rate: int = numbers["sample_rate"]
        if self.sample_rate not in SAMPLE_RATES:
            raise ValueError(f"sample_rate must be one of {', '.join(map(str, SAMPLE_RATES))}, got {self.sample_rate}")
        self.model.eval()
        self.brings_weights = f"load_model of {module}"
        self._n_frames: dict[int, int] = {}
        self.layer_infos = (
            LayerInfo("timestamps", numbers["timestamp_embedding_size"], self._measured_hop(), "mean", "frames"),
            LayerInfo("scene", numbers["scene_embedding_size"], 0, "mean", "the model's own clip embedding"),
        )

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
        """One for scene; as many timestamps as the module gave for a clip of that length."""
        counts = [self._n_frames[int(length)] for length in lengths]
        return {"timestamps": torch.tensor(counts, device=lengths.device), "scene": torch.ones_like(lengths)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Both layers; a batch of unequal lengths runs length by length."""
        found: list[tuple[Tensor, Tensor]] = [(waveform, waveform)] * len(waveform)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero()[:, 0]
            clips = waveform[rows, :length]
            frames, timestamps = self._called("get_timestamp_embeddings", clips)
            scene = self._called("get_scene_embeddings", clips)
            self._check(frames, timestamps, scene, len(rows), length)
            self._n_frames[int(length)] = frames.shape[1]
            for at, row in enumerate(rows.tolist()):
                found[row] = (frames[at], scene[at])
        longest = max(frames.shape[0] for frames, _ in found)
        padded = [nn.functional.pad(frames, (0, 0, 0, longest - len(frames))) for frames, _ in found]
        return {"timestamps": torch.stack(padded), "scene": torch.stack([scene for _, scene in found])[:, None]}

    def _called(self, function: str, clips: Tensor) -> Any:
        """What a function of the module says of clips (clips, samples)."""
        try:
            return getattr(self._api, function)(clips, self.model)
        except Exception as error:
            raise RuntimeError(f"{function} of {self._api.__name__} failed: {type(error).__name__}: {error}") from error

    def _check(self, frames: Any, timestamps: Any, scene: Any, n_clips: int, length: int) -> None:
        """What the API promises of every answer."""
        for name, value, wanted in (
            ("timestamp embeddings", frames, (n_clips, None, self.model.timestamp_embedding_size)),
            ("scene embeddings", scene, (n_clips, self.model.scene_embedding_size)),
            ("timestamps", timestamps, (n_clips, None)),
        ):
            shape = tuple(getattr(value, "shape", ()))
            fits = len(shape) == len(wanted) and all(w is None or w == s for w, s in zip(wanted, shape, strict=False))
            if not fits or (name != "timestamps" and value.dtype != torch.float32):
                raise RuntimeError(f"{name} must be float32 {wanted}, got {shape} {getattr(value, 'dtype', None)}")
        if frames.shape[1] != timestamps.shape[1]:
            raise RuntimeError(f"{frames.shape[1]} frames have {timestamps.shape[1]} timestamps")
        last, milliseconds = float(timestamps.max()), 1000 * length / self.sample_rate
        if last > milliseconds + 1:
            raise RuntimeError(
                f"the last timestamp is {last:.0f} ms, beyond a clip of {milliseconds:.0f} ms; are they seconds?"
            )

    def _measured_hop(self) -> int:
        """Samples between two timestamps, from a clip of noise."""
        clip = 0.1 * torch.randn(1, int(_PROBE_SECONDS * self.sample_rate), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            _, timestamps = self._called("get_timestamp_embeddings", clip)
        gaps = timestamps[0].double().diff()
        return max(1, round(float(gaps.mean()) * self.sample_rate / 1000)) if len(gaps) else clip.shape[1]
