"""Any audio model of the package `mteb`, as an encoder: the name "mteb:ORG/NAME".

Paper: Muennighoff et al., "MTEB: Massive Text Embedding Benchmark", EACL 2023, and its extensions to audio. Licence,
training data and sample rate are those of the model. `mteb` is no requirement of this package: pip install "mteb[audio]". It
fetches checkpoints by its own means.

Layer: embedding (one vector a clip, as `get_audio_embeddings` gives it). The clips of a batch are handed over together and
with their own lengths, as a task of MTEB does, so that `evar check --certificate` finds wrappers that give another vector in
a batch than alone. Gradients do not pass, and the wrapper's own code is run: install what you trust.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

#: seconds of noise that the vector's width is measured on
_PROBE_SECONDS = 1.0
_INSTALL = 'pip install "mteb[audio]"'


class MtebEncoder(Encoder):
    """A model of MTEB behind the one interface.

    Args:
        model: its name there, "MIT/ast-finetuned-audioset-10-10-0.4593".
        revision: of its checkpoint; "" for the one that MTEB names.

    Raises:
        ImportError: if `mteb`, or what it needs for audio, is not installed.
        ValueError: if MTEB has no such model, it takes no audio, or it does not tell its sample rate.
    """

    default_layers = ("embedding",)

    def __init__(self, model: str, revision: str = "") -> None:
        super().__init__()
        try:
            import mteb
        except ImportError as error:
            raise ImportError(f"mteb:{model} needs the package mteb ({error}); {_INSTALL}") from error
        try:
            self.wrapper: Any = mteb.get_model(model, revision or None, "cpu")
        except ImportError as error:
            raise ImportError(f"mteb could not load {model}: {error}; {_INSTALL}") from error
        except Exception as error:  # another's code can fail with anything
            raise ValueError(f"mteb could not load {model}: {type(error).__name__}: {error}") from error
        if not callable(getattr(self.wrapper, "get_audio_embeddings", None)):
            raise ValueError(f"{model} must be a model of MTEB that takes audio, but has no get_audio_embeddings")
        self.sample_rate = self._find_sample_rate(model)
        self.brings_weights = f"mteb's {model}"
        for name, part in vars(self.wrapper).items():
            if isinstance(part, nn.Module):  # counted, and moved to a device, as other encoders are
                self.add_module(f"wrapped_{name}", part.eval())
        noise = 0.1 * torch.randn(
            1, round(_PROBE_SECONDS * self.sample_rate), generator=torch.Generator().manual_seed(0)
        )
        width = self._embed([noise[0]]).shape[1]
        self.layer_infos = (LayerInfo("embedding", width, 0, "mean", "the wrapper's own clip embedding"),)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build; mteb fetches the checkpoint, so that no other can be given."""
        if weights is not None:
            raise ValueError(f"{config.name} takes the checkpoint that mteb names; --weights cannot give another")
        return cls(**{name: str(value) for name, value in config.options.items()})

    def randomise(self) -> None:
        """Draw every parameter anew, as its layer does when it is made: the untrained baseline."""
        for part in self.modules():
            reset = getattr(part, "reset_parameters", None)
            if callable(reset):
                reset()

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count one frame a clip: (batch,) samples -> layer name -> (batch,) frames."""
        return {"embedding": torch.ones_like(lengths)}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Map (batch, samples) to (batch, 1, width); each clip is handed over with its own length."""
        clips = [clip[:length] for clip, length in zip(waveform, lengths.tolist(), strict=True)]
        return {"embedding": self._embed(clips).to(waveform.device)[:, None]}

    def _find_sample_rate(self, model: str) -> int:
        """The rate in Hz that the wrapper resamples to."""
        holders = (self.wrapper, *(getattr(self.wrapper, name, None) for name in ("feature_extractor", "processor")))
        for holder in holders:
            for name in ("sampling_rate", "sample_rate", "target_sampling_rate"):
                value = getattr(holder, name, None)
                if isinstance(value, int) and value > 0:
                    return value
        raise ValueError(f"the wrapper of {model} must tell its sample rate, but has no attribute sampling_rate")

    def _embed(self, clips: Sequence[Tensor]) -> Tensor:
        """(clips, width) vectors of clips (samples,), all in one batch."""
        from torch.utils.data import DataLoader

        items = _Items(
            [{"audio": {"array": clip.detach().cpu().numpy(), "sampling_rate": self.sample_rate}} for clip in clips]
        )
        loader: Any = DataLoader(items, batch_size=len(items), collate_fn=list)  # type: ignore[arg-type]
        try:
            found = self.wrapper.get_audio_embeddings(loader, show_progress_bar=False)
        except Exception as error:  # another's code can fail with anything
            raise RuntimeError(f"the wrapper of mteb failed: {type(error).__name__}: {error}") from error
        vectors = torch.as_tensor(found).float()
        if vectors.ndim != 2 or len(vectors) != len(clips):
            raise RuntimeError(f"the wrapper must give ({len(clips)}, width) vectors, got shape {tuple(vectors.shape)}")
        return vectors


class _Items:
    """Clips as MTEB's data sets hold them."""

    features = ("audio",)

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return dict(self._items[position])
