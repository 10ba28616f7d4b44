"""Readers for transformers' models that take clips of one length: a clip is run in parts, and their frames are joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from evar.encoders._hf_readers import Reader

WINDOWS_AT_ONCE = 8  # parts of a fixed length (30 s for Whisper) that run in one forward, however short the clips are


class WindowsReader(Reader):
    """Models that take clips of one length: parts of a clip run apart, their frames are joined.

    Attributes:
        step: samples from one part to the next; None where clips are taken whole.
        window: samples of a part, at least `step`.
    """

    step: int | None = None
    window: int | None = None

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Run the parts of all clips and join their frames: (batch, samples) -> layer name -> (batch, time, width)."""
        parts: list[Tensor] = []
        counts, shares = [], []
        for clip, length in zip(waveform.detach().cpu(), lengths.tolist(), strict=True):
            step = self.step or length
            begins = range(0, self.count_covered_samples(length), step)
            parts += [clip[begin : min(length, begin + (self.window or length))] for begin in begins]
            counts.append(len(begins))
            own = torch.tensor([min(step, length - begin) for begin in begins], dtype=torch.float32)
            shares.append(own / own.sum())
        pieces: dict[str, list[Tensor]] = {}
        for lengths_of_parts, inputs in self._inputs(parts):
            for name, value in self.frames_of(self.run(inputs)).items():
                own_frames = self.frames(name, lengths_of_parts).clamp(max=value.shape[1]).tolist()
                # copies, so that the frames of padding, most of them where clips are short, are let go
                pieces.setdefault(name, []).extend(row[:n].clone() for row, n in zip(value, own_frames, strict=True))
        layers = {}
        for name, rows in pieces.items():
            clips = [rows[sum(counts[:clip]) :][:count] for clip, count in enumerate(counts)]  # (time, width) of parts
            if self.hop(name) == 0:
                clips = [
                    [(torch.stack(clip) * share.to(clip[0])[:, None, None]).sum(0)]
                    for clip, share in zip(clips, shares, strict=True)
                ]
            layers[name] = nn.utils.rnn.pad_sequence([torch.cat(clip) for clip in clips], batch_first=True)
        return layers

    def count_covered_samples(self, length: int) -> int:
        """Count the samples of a clip up to the end of its last frame: what parts must cover."""
        return length

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Map layers in the network's own layout to (parts, time, width)."""
        raise NotImplementedError

    def _inputs(self, parts: list[Tensor]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        """Samples of each part, and what the network takes, for as many parts at once as have one shape and fit."""
        waiting: list[tuple[int, dict[str, Tensor]]] = []
        for part in parts:
            extracted = self.extractor(part.numpy(), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
            inputs = {name: torch.as_tensor(value) for name, value in extracted.items()}
            if "is_longer" in inputs:  # CLAP marks a clip at random where none is longer than it takes
                inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
            is_other = waiting and any(inputs[name].shape != waiting[0][1][name].shape for name in inputs)
            if is_other or len(waiting) == WINDOWS_AT_ONCE:
                yield _stack_parts(waiting)
                waiting = []
            waiting.append((len(part), inputs))
        yield _stack_parts(waiting)


class WhisperReader(WindowsReader):
    """Whisper's encoder: parts of 30 s."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        self.stride = int(network.conv1.stride[0] * network.conv2.stride[0])
        self.step = self.window = int(extractor.n_samples)
        needed = network.config.max_source_positions * self.hop("")
        if self.step != needed:
            raise ValueError(
                f"its feature extractor gives parts of {self.step} samples, but the network takes {needed}; "
                "is preprocessor_config.json that of another model?"
            )

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the layers as they are, which is (parts, time, width)."""
        return layers

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count the frames that begin inside each clip: (batch,) samples -> (batch,) frames."""
        return (lengths + self.hop(name) - 1) // self.hop(name)

    def hop(self, name: str) -> int:
        return int(self.extractor.hop_length) * self.stride


class PatchReader(WindowsReader):
    """Audio Spectrogram Transformer: columns of patches of a log-mel spectrogram of fixed length."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        config, rate = network.config, int(extractor.sampling_rate)
        if extractor.max_length != config.max_length:
            raise ValueError(
                f"its feature extractor gives {extractor.max_length} log-mel frames, but the network takes "
                f"{config.max_length}; is preprocessor_config.json that of another model?"
            )
        self.frame, self.mel_hop = rate // 40, rate // 100
        self.patch, self.stride = int(config.patch_size), int(config.time_stride)
        self.rows = (config.num_mel_bins - self.patch) // config.frequency_stride + 1
        self.columns = (config.max_length - self.patch) // self.stride + 1
        self.step = self.columns * self.stride * self.mel_hop
        self.window = self.frame + (config.max_length - 1) * self.mel_hop
        self.min_samples = self.frame + (self.patch - 1) * self.mel_hop

    def count_covered_samples(self, length: int) -> int:
        return int(self.frames("", torch.tensor(length))) * self.stride * self.mel_hop

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average each column of patches: (parts, token, width) -> (parts, time, width).

        The pooled vector becomes one frame, (parts, 1, width).
        """
        pooled = layers.pop("pooled")
        # (parts, class tokens + row x column, width): rows of frequency, time fastest
        columns = {
            name: value[:, -self.rows * self.columns :].unflatten(1, (self.rows, self.columns)).mean(1)
            for name, value in layers.items()
        }
        return {**columns, "pooled": pooled[:, None]}

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count the columns whose patches lie inside each clip: (batch,) samples -> (batch,) frames."""
        if name == "pooled":
            return torch.ones_like(lengths)
        return ((lengths - self.frame) // self.mel_hop + 1 - self.patch) // self.stride + 1

    def hop(self, name: str) -> int:
        return 0 if name == "pooled" else self.stride * self.mel_hop


class TokenReader(WindowsReader):
    """Reads any other model: one frame for each part, the mean over all its tokens.

    Attributes:
        projection: what turns the pooled vector into the space that sound and text share, or None.
    """

    def __init__(self, network: Any, extractor: Any, projection: Any = None) -> None:
        super().__init__(network, extractor)
        self.projection = projection
        longest = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
        self.step = self.window = int(longest) if longest else None
        self.min_samples = int(extractor.sampling_rate) // 4  # room for the windows and strides of most front-ends

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average the tokens of every layer.

        Args:
            layers: layer name -> (parts, token, width), (parts, width, row, column) or (parts, width).

        Returns:
            layer name -> (parts, 1, width); "projected", scaled to norm 1, is added where there is a `projection`.

        Example:
            >>> from types import SimpleNamespace
            >>> network = SimpleNamespace(forward=lambda input_features: None)
            >>> reader = TokenReader(network, SimpleNamespace(sampling_rate=16000))
            >>> reader.frames_of({"hidden0": torch.tensor([[[1.0], [3.0]]])})["hidden0"].tolist()
            [[[2.0]]]
        """
        if self.projection is not None and "pooled" in layers:
            layers = {**layers, "projected": nn.functional.normalize(self.projection(layers["pooled"]), dim=-1)}
        means = {}
        for name, value in layers.items():
            if value.dim() == 4:  # (parts, width, row, column)
                value = value.flatten(2).transpose(1, 2)
            means[name] = value[:, None] if value.dim() == 2 else value.mean(dim=1, keepdim=True)
        return means

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Count a layer's frames: one for every clip.

        Args:
            name: of the layer.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch,) ones.

        Example:
            >>> from types import SimpleNamespace
            >>> network = SimpleNamespace(forward=lambda input_features: None)
            >>> reader = TokenReader(network, SimpleNamespace(sampling_rate=16000))
            >>> reader.frames("hidden0", torch.tensor([4000, 9000])).tolist()
            [1, 1]
        """
        return torch.ones_like(lengths)

    def hop(self, name: str) -> int:
        return 0


def _stack_parts(parts: list[tuple[int, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    inputs = {name: torch.cat([entry[name] for _, entry in parts]) for name in parts[0][1]}
    return torch.tensor([n_samples for n_samples, _ in parts]), inputs
