"""CLAP: networks for sound and for text whose vectors lie in one space, trained on clips and their captions.

Papers: Wu et al., "Large-scale contrastive language-audio pretraining with feature fusion and keyword-to-caption
augmentation", ICASSP 2023 (LAION-CLAP); Elizalde et al., "CLAP: Learning audio concepts from natural language supervision",
ICASSP 2023 (`clap.ms2022`), and "Natural language supervision for general-purpose audio representations", ICASSP 2024
(`clap.ms2023`). Checkpoints: files of the hub's repository `lukewys/laion_clap` (code CC0; the licence of the weights is not
stated) or a folder of a hub port such as `laion/clap-htsat-unfused`; `CLAP_weights_2022.pth` and `CLAP_weights_2023.pth`
of `microsoft/msclap` (MIT). Models with feature fusion are not supported.

Sound: `clap.laion` takes 48 kHz in pieces of 10 s (480,000 samples), `clap.ms2023` 44.1 kHz in pieces of 7 s (308,700), and
`clap.ms2022` 44.1 kHz in pieces of 5 s (220,500). Shorter clips are repeated: LAION-CLAP fills what is left after whole
copies with zeros, MS-CLAP cuts the last copy. Log-mel of 1024 samples every 480 (LAION-CLAP) or 320, periodic Hann,
centred, clip mirrored at both ends, power, 64 Slaney bands of area 1 from 50 to 14000 Hz, 10 log10(max(x, 1e-10)) dB; a
batch normalisation over the bands. `clap.ms2023` hears 44.1 kHz through filters that were made for 32 kHz, as its authors do.

Network: HTS-AT (see `htsat`; `clap.ms2022`: CNN14, see `cnn14`), then a projection: linear, ReLU, linear to 512
(LAION-CLAP), or two linear layers with a sum and a LayerNorm to 1024 (MS-CLAP).

Layers patch, block1..block12, merge1..merge3 and norm of HTS-AT, each the mean over all tokens; block1..block6 and fc1 of
CNN14, mean plus max over time; and proj, the default, which lies in the space of the texts: of length 1 in LAION-CLAP, as it
comes in MS-CLAP. One vector a clip (hop 0): what is repeated and stretched stands at no fixed time. `input="clip"` of the
HTS-AT models gives a clip its own length in place of repetition.

Text: `evar.embed_text(encoder, texts)`. RoBERTa, at most 77 tokens (LAION-CLAP), GPT-2, 77 (2023), BERT, 100 (2022; this
number and the layout of its file were not seen). The tokenizer's files are read from beside the checkpoint.

Differs from the originals: they cut long clips at random, and here a long clip is several pieces, whose vectors are averaged
by duration; LAION-CLAP's program rounds files to 16 bits first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._clap_audio import SumProjection, run_pieces, two_layers
from evar.encoders._clap_names import split_laion_text, to_laion_names
from evar.encoders._logmel import MelSpectrogram, mel_filterbank
from evar.encoders._swin import N_MELS, AudioSwin, unfold
from evar.encoders._text import BERT, GPT2, ROBERTA, ReadsText, TextHalf, Tokenizer
from evar.encoders.cnn14 import Cnn14
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean_plus_max
from evar.encoders.weights import read_checkpoint, state_dict_of

POWER_FLOOR, F_MIN, F_MAX, N_FFT = 1e-10, 50.0, 14000.0, 1024
INPUTS = ("repeated", "clip")
#: size of HTS-AT -> width, blocks of each stage
SIZES = {"tiny": (96, (2, 2, 6, 2)), "base": (128, (2, 2, 12, 2))}
HEADS = (4, 8, 16, 32)
PIECES_AT_ONCE = 4


class HtsatClap(ReadsText):
    """A CLAP whose audio half is HTS-AT.

    Args:
        size: of HTS-AT, "tiny" or "base".
        input: "repeated" (short clips fill a piece by repetition) or "clip" (a clip has its own length).
        n_blocks: blocks of HTS-AT, for tests: those of whole stages; untrained text halves then have one block.

    Raises:
        ValueError: if an option is none of these.
    """

    text_layer = "proj"
    default_layers = ("proj",)
    piece: ClassVar[int]
    hop: ClassVar[int]
    filters_rate: ClassVar[int]
    fill: ClassVar[str]

    def __init__(self, size: str = "tiny", input: str = "repeated", n_blocks: int = 0) -> None:
        super().__init__()
        for option, value, known in (("size", size, SIZES), ("input", input, INPUTS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for clap; {near_miss(value, known)}")
        width, depths = SIZES[size]
        stages = dict(zip(accumulate(depths), range(1, 5), strict=True))  # blocks -> stages
        if n_blocks and n_blocks not in stages:
            raise ValueError(f"clap needs n_blocks {', '.join(map(str, stages))}, got {n_blocks}")
        n_stages = stages[n_blocks] if n_blocks else 4
        self.input, self.is_small = input, bool(n_blocks)
        self.min_samples = 1 if input == "repeated" else N_FFT // 2 + 1
        self.mel = MelSpectrogram(
            sample_rate=self.filters_rate,
            n_fft=N_FFT,
            hop=self.hop,
            n_mels=N_MELS,
            f_min=F_MIN,
            f_max=F_MAX,
            center="reflect",
            double=True,
        )
        self.network = AudioSwin(width, depths[:n_stages], HEADS[:n_stages])
        self.audio_projection = self.build_projection(self.network.width)
        self.has_tags = True
        note = "mean over tokens"
        self.layer_infos = (
            *(LayerInfo(name, width, 0, "mean", note) for name, width in self.network.layer_widths().items()),
            LayerInfo("proj", self.projected_width, 0, "mean", self.projection_note),
        )

    projected_width: ClassVar[int]
    projection_note: ClassVar[str]

    def build_projection(self, n_in: int) -> nn.Module:
        """Make the projection into the space that sound and text share."""
        raise NotImplementedError

    def project(self, vectors: Tensor) -> Tensor:
        """(batch, width) of the layer norm -> (batch, width) of the layer proj."""
        projected: Tensor = self.audio_projection(vectors)
        return projected

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter, and remember where the text half is."""
        super().load_checkpoint(path, name)
        self.checkpoint = path

    def check_filters(self, given: Tensor) -> None:
        """Refuse a checkpoint whose own mel filters (bin, band) are others than this encoder's."""
        own = torch.from_numpy(mel_filterbank(self.filters_rate, N_FFT, N_MELS, F_MIN, F_MAX).T.copy())
        if given.shape != own.shape or not torch.allclose(given.double(), own, atol=1e-5):
            raise ValueError(
                f"the checkpoint's mel filters {tuple(given.shape)} are others than those for {self.filters_rate} Hz, "
                f"{F_MIN:g} to {F_MAX:g} Hz; was it trained with another front-end?"
            )

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + samples // hop."""
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels of clips as they are, before repetition: (batch, samples) -> (batch, time, 64)."""
        waveform = nn.functional.pad(waveform, (0, max(0, self.mel.min_samples - waveform.shape[1])))
        return decibels(self.mel(waveform, lengths.clamp(min=self.mel.min_samples)))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """One vector a clip, of every layer."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every layer's mean over all tokens, and the projection."""
        return self._run(self._read_layers, waveform, lengths)

    def time_steps(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Give the final LayerNorm at each of the 32 time steps of a piece, averaged over the 2 bands.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 32 steps, width); those of a repeated clip are steps of all its copies.
        """

        def read(pieces: Tensor) -> dict[str, Tensor]:
            return {"steps": unfold(dict(self.network(self._images(pieces)))["norm"]).mean(dim=2).flatten(1)}

        steps = self._run(read, *self._checked_input(waveform, lengths))["steps"]
        return steps[:, 0].unflatten(1, (-1, self.network.width))

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, 527) probabilities of the AudioSet tags, by the head that HTS-AT brought along.

        Raises:
            ValueError: if the checkpoint came without it (hub folders).
        """
        if not self.has_tags:
            raise ValueError(f"the checkpoint of {self.name or 'clap'} has no head for tags (tscam_conv)")

        def read(pieces: Tensor) -> dict[str, Tensor]:
            return {
                "tags": self.network.tag_steps(dict(self.network(self._images(pieces)))["norm"]).mean(dim=1).sigmoid()
            }

        return self._run(read, waveform, lengths)["tags"][:, 0]

    def _run(self, read: Any, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        fill = self.fill if self.input == "repeated" else ""
        return run_pieces(
            read, waveform, lengths, piece=self.piece, fill=fill, at_once=PIECES_AT_ONCE, least=self.min_samples
        )

    def _images(self, pieces: Tensor) -> Tensor:
        return self.network.to_image(decibels(self.mel(pieces)), repeat=False)

    def _read_layers(self, pieces: Tensor) -> dict[str, Tensor]:
        """(piece, samples) -> layer -> (piece, width)."""
        layers = {name: tokens.mean(dim=(1, 2)) for name, tokens in self.network(self._images(pieces))}
        layers["proj"] = self.project(layers["norm"])
        return layers


class ClapLaion(HtsatClap):
    """LAION-CLAP without feature fusion; see the module's docstring.

    Args:
        size, input, n_blocks: as for `HtsatClap`.

    Example:
        >>> ClapLaion(n_blocks=2).encode(torch.zeros(1, 48000))["proj"].shape
        torch.Size([1, 1, 512])
    """

    sample_rate = 48000
    piece, hop, filters_rate, fill = 480_000, 480, 48000, "whole"
    projected_width, projection_note = 512, "the space that sound and text share, length 1"
    # Formulas, layers that are never used, the text half (which is built when a text is read), and what only training needs.
    ignored_tensors = (
        *("network.spectrogram_extractor.", "network.logmel_extractor.", "network.head.", "audio_transform."),
        *("*.relative_position_index", "*.attn_mask", "text_", "logit_scale"),
    )

    def build_projection(self, n_in: int) -> nn.Module:
        """Make the two linear layers."""
        return two_layers(n_in, self.projected_width)

    def project(self, vectors: Tensor) -> Tensor:
        """(batch, width) -> (batch, 512) of length 1."""
        return nn.functional.normalize(self.audio_projection(vectors), dim=-1)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of an official file, or of a hub folder, to this module's own names.

        Args:
            checkpoint: what the file holds, wrappers included.

        Returns:
            tensor name of this module -> tensor; those of the text half keep their names.

        Raises:
            ValueError: if its mel filters are others, or it is a model with feature fusion.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> list(describe_encoder("clap.laion").convert({"state_dict": {"module.audio_branch.norm.bias": torch.ones(1)}}))
            ['network.norm.bias']
        """
        state, was_hub = to_laion_names(state_dict_of(checkpoint))
        if any(".fusion_model." in name or ".mel_conv2d." in name for name in state):
            raise ValueError("the checkpoint is a CLAP with feature fusion, which is not supported; use an unfused one")
        if (filters := state.get("audio_branch.logmel_extractor.melW")) is not None:
            self.check_filters(filters)
        own = {name.replace("audio_branch.", "network.", 1): value for name, value in state.items()}
        if was_hub:  # hub folders have no head for tags
            self.has_tags = False
            tags = self.network.tscam_conv.state_dict()
            own |= {f"network.tscam_conv.{name}": torch.zeros_like(value) for name, value in tags.items()}
        return own

    def build_text_half(self) -> TextHalf:
        """RoBERTa, its pooled first token, two linear layers, length 1."""
        projection = partial(two_layers, n_out=self.projected_width)
        if self.checkpoint is None:
            tokenizer = Tokenizer(ROBERTA, None, 77)
            small = {"num_hidden_layers": 1, "vocab_size": 300} if self.is_small else {}
            return TextHalf(ROBERTA, "pooler", projection, tokenizer, normalised=True, settings=small)
        state, _ = to_laion_names(state_dict_of(read_checkpoint(self.checkpoint)))
        folder = self.checkpoint if self.checkpoint.is_dir() else self.checkpoint.parent
        return TextHalf(
            ROBERTA,
            "pooler",
            projection,
            Tokenizer(ROBERTA, folder, 77),
            normalised=True,
            state=split_laion_text(state, self.checkpoint),
            settings=read_text_settings(folder),
            where=self.checkpoint,
        )


class ClapMs2023(HtsatClap):
    """MS-CLAP 2023; see the module's docstring.

    Args:
        size, input, n_blocks: as for `HtsatClap`.

    Example:
        >>> ClapMs2023(n_blocks=2).encode(torch.zeros(1, 44100))["proj"].shape
        torch.Size([1, 1, 1024])
    """

    sample_rate = 44100
    piece, hop, filters_rate, fill = 308_700, 320, 32000, "cyclic"
    projected_width, projection_note = 1024, "the space that sound and text share"
    ignored_tensors = (
        *("network.spectrogram_extractor.", "network.logmel_extractor.", "network.head."),
        *("*.relative_position_index", "*.attn_mask", "caption_encoder.", "logit_scale"),
    )

    def build_projection(self, n_in: int) -> nn.Module:
        """Make the two linear layers with a sum and a LayerNorm."""
        return SumProjection(n_in, self.projected_width)

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published file to this module's own names.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> file = {"model": {"audio_encoder.base.htsat.norm.bias": torch.ones(1)}}
            >>> list(describe_encoder("clap.ms2023").convert(file))
            ['network.norm.bias']
        """
        state = state_dict_of(checkpoint)
        if (filters := state.get("audio_encoder.base.htsat.logmel_extractor.melW")) is not None:
            self.check_filters(filters)
        return {
            name.replace("audio_encoder.base.htsat.", "network.").replace(
                "audio_encoder.projection.", "audio_projection."
            ): (value)
            for name, value in state.items()
        }

    def build_text_half(self) -> TextHalf:
        """GPT-2, the state of the token that ends the text, and the projection."""
        longest, ending = 77, " <|endoftext|>"
        if self.checkpoint is None:
            tokenizer = Tokenizer(GPT2, None, longest)
            small = {"n_layer": 1, "vocab_size": 300} if self.is_small else {}
            return build_ms_text(GPT2, "last", tokenizer, self.projected_width, settings=small)
        tokenizer = Tokenizer(GPT2, self.checkpoint.parent, longest, ending=ending, padding=0)
        return build_ms_text(GPT2, "last", tokenizer, self.projected_width, self.checkpoint)


class ClapMs2022(ReadsText):
    """MS-CLAP 2022, whose audio half is CNN14; see the module's docstring.

    Args:
        small_text: whether an untrained text half has one block only, for tests.

    Example:
        >>> encoder = ClapMs2022()  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 44100))["proj"].shape  # doctest: +SKIP
        torch.Size([1, 1, 1024])
    """

    sample_rate = 44100
    text_layer = "proj"
    default_layers = ("proj",)
    ignored_tensors = ("audio.spectrogram_extractor.", "audio.logmel_extractor.", "caption_encoder.", "logit_scale")
    piece: ClassVar[int] = 220_500
    batch_seconds = 80.0

    def __init__(self, small_text: bool = False) -> None:
        super().__init__()
        self.is_small = small_text
        self.audio = Cnn14(self.sample_rate)
        self.audio_projection = SumProjection(2048, 1024)
        self.layer_infos = (
            *(
                LayerInfo(info.name, info.width, 0, "mean", "mean plus max over time")
                for info in self.audio.layer_infos[:-1]
            ),
            LayerInfo("fc1", 2048, 0, "mean", "of mean plus max over time"),
            LayerInfo("proj", 1024, 0, "mean", "the space that sound and text share"),
        )

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter, and remember where the text half is."""
        super().load_checkpoint(path, name)
        self.checkpoint = path

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published file to this module's own names.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> file = {"model": {"audio_encoder.base.bn0.bias": torch.ones(1)}}
            >>> list(describe_encoder("clap.ms2022").convert(file))
            ['audio.bn0.bias']
        """
        return {
            name.replace("audio_encoder.base.", "audio.").replace(
                "audio_encoder.projection.", "audio_projection."
            ): value
            for name, value in state_dict_of(checkpoint).items()
        }

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + samples // 320."""
        return self.audio.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels of clips as they are, before repetition: (batch, samples) -> (batch, time, 64)."""
        least = self.audio.mel.min_samples
        waveform = nn.functional.pad(waveform, (0, max(0, least - waveform.shape[1])))
        return self.audio.network_input(waveform, lengths.clamp(min=least))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """One vector a clip, of every layer."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every layer of CNN14 over a clip's pieces, and the projection."""

        def read(pieces: Tensor) -> dict[str, Tensor]:
            sizes = torch.full((len(pieces),), pieces.shape[1], device=pieces.device)
            frames = self.audio.valid_frames(sizes)
            found = self.audio(pieces, sizes)
            layers = {name: mean_plus_max(value, frames[name]) for name, value in found.items() if name != "fc1"}
            layers["fc1"] = found["fc1"][:, 0]
            return {**layers, "proj": self.audio_projection(layers["fc1"])}

        return run_pieces(read, waveform, lengths, piece=self.piece, fill="cyclic", at_once=PIECES_AT_ONCE)

    def build_text_half(self) -> TextHalf:
        """BERT, the state of its first token, and the projection."""
        if self.checkpoint is None:
            small = {"num_hidden_layers": 1, "vocab_size": 300} if self.is_small else {}
            return build_ms_text(BERT, "first", Tokenizer(BERT, None, 100), 1024, settings=small)
        return build_ms_text(BERT, "first", Tokenizer(BERT, self.checkpoint.parent, 100), 1024, self.checkpoint)


def decibels(power: Tensor) -> Tensor:
    """Power of mel bands as decibels, at least -100.

    Example:
        >>> decibels(torch.tensor([1.0, 0.0])).tolist()
        [0.0, -100.0]
    """
    return 10.0 * power.clamp(min=POWER_FLOOR).log10()


def build_ms_text(
    language: Any,
    readout: str,
    tokenizer: Tokenizer,
    width: int,
    checkpoint: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TextHalf:
    """Make the text half of an MS-CLAP.

    Args:
        language, readout, tokenizer: as for `TextHalf`.
        width: of the shared space.
        checkpoint: the published file; None for random numbers.
        settings: of an untrained network, over the published ones.
    """
    state = None
    if checkpoint is not None:
        every = state_dict_of(read_checkpoint(checkpoint))
        parts = {"network": "caption_encoder.base.", "projection": "caption_encoder.projection."}
        state = {
            part: {name.removeprefix(before): value for name, value in every.items() if name.startswith(before)}
            for part, before in parts.items()
        }
        if not state["network"]:
            raise ValueError(f"{checkpoint.name} holds no caption_encoder: it is the half that hears alone")
    projection = partial(SumProjection, n_out=width)
    return TextHalf(
        language, readout, projection, tokenizer, normalised=False, state=state, settings=settings, where=checkpoint
    )


def read_text_settings(folder: Path) -> dict[str, Any]:
    """Read what a hub folder's config.json says of the text half beyond its tensors; nothing for official files."""
    try:
        told = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("text_config") or {}
    except (OSError, ValueError, AttributeError):
        return {}
    names = ("num_attention_heads", "layer_norm_eps", "pad_token_id", "hidden_act")
    return {name: told[name] for name in names if name in told}
