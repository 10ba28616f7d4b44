"""An encoder as a function of the waveform alone: what a file can hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evar.encoders.pooling import count_pooled_features, pool

if TYPE_CHECKING:
    from evar.encoders.base import Encoder
    from evar.encoders.features import LayerInfo
    from evar.tracing.head import LinearHead

#: output of a network that gives one vector a clip
EMBEDDING = "embedding"
#: output of a network with a head
SCORES = "scores"


class WaveformNetwork(nn.Module):
    """Waveforms of one length -> frames of the chosen layers, or one pooled vector a clip.

    Every sample counts as valid, so that no lengths are needed. Clips must have at least the encoder's `min_samples`.

    Args:
        encoder: in evaluation mode.
        layers: names of the layers.
        pooled: give the pooled vectors of the layers, side by side, in place of frames.
        head: module on the pooled vectors, whose `n_classes` is the width of its output; None for none.
        fusion: of the pooled layers: "average", or any other word for side by side.

    Example:
        >>> from evar.encoders import load_encoder
        >>> network = WaveformNetwork(load_encoder("logmel"), ["logmel"], pooled=True)
        >>> network(torch.zeros(2, 16000)).shape, network.output_names
        (torch.Size([2, 128]), ('embedding',))
    """

    def __init__(
        self,
        encoder: Encoder,
        layers: Sequence[str],
        *,
        pooled: bool = False,
        head: LinearHead | None = None,
        fusion: str = "concat",
    ) -> None:
        super().__init__()
        self.head, self.fusion = head, fusion
        self.encoder = encoder
        self.infos = tuple(encoder.layer(name) for name in layers)
        self.pooled = pooled or head is not None

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return tuple(self.outputs)

    @property
    def outputs(self) -> dict[str, LayerInfo | None]:
        """Name of each output -> the layer that it is; None for the pooled vector."""
        if self.head is not None:
            return {SCORES: None}
        return {EMBEDDING: None} if self.pooled else {info.name: info for info in self.infos}

    @property
    def widths(self) -> dict[str, int]:
        """Features of each output."""
        if self.head is not None:
            return {SCORES: max(1, self.head.n_classes)}
        if self.pooled:
            pooled = [count_pooled_features(info.width, info.pooling) for info in self.infos]
            return {EMBEDDING: pooled[0] if self.fusion == "average" else sum(pooled)}
        return {info.name: info.width for info in self.infos}

    def forward(self, waveform: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Run the encoder.

        Args:
            waveform: (batch, samples) float32 in [-1, 1] at the encoder's sample rate.

        Returns:
            (batch, classes) with a head, (batch, width) if pooled, else (batch, time, width) of each layer, a tuple
            where there are several.
        """
        lengths = torch.zeros_like(waveform[:, 0], dtype=torch.int64) + waveform.shape[1]
        features = self.encoder.forward(waveform, lengths)
        frames = self.encoder.valid_frames(lengths)
        found = []
        for info in self.infos:
            counts = frames if isinstance(frames, Tensor) else frames[info.name]
            own = features[info.name][:, : counts[0]]
            found.append(pool(own, counts, info.pooling) if self.pooled else own)
        if self.pooled:
            vectors = torch.stack(found).mean(dim=0) if self.fusion == "average" else torch.cat(found, dim=1)
            return vectors if self.head is None else self.head(vectors)
        return found[0] if len(found) == 1 else tuple(found)
