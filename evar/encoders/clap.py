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
batch normalisation over the bands. `clap.ms2023` hears 44.1 kHz through filters made for 32 kHz, as its authors do.

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

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from evar.encoders._clap_audio import SumProjection, run_pieces, two_layers
from evar.encoders._clap_htsat import HtsatClap
from evar.encoders._clap_names import to_laion_names
from evar.encoders._clap_text import SMALL_BERT, SMALL_GPT2, build_laion_text, build_ms_text
from evar.encoders._packing import count_missing
from evar.encoders._text import BERT, GPT2, ReadsText, TextHalf
from evar.encoders.cnn14 import Cnn14
from evar.encoders.features import LayerInfo
from evar.encoders.pooling import mean_plus_max
from evar.encoders.weights import state_dict_of

PIECES_AT_ONCE = 4


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
        """Map (batch, width) to (batch, 512) of length 1."""
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
            >>> file = {"state_dict": {"module.audio_branch.norm.bias": torch.ones(1)}}
            >>> list(describe_encoder("clap.laion").convert(file))
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
        return build_laion_text(self.checkpoint, self.projected_width, SMALL_BERT if self.is_small else None)


class ClapMs2023(HtsatClap):
    """MS-CLAP 2023; see the module's docstring.

    Args:
        size, input, n_blocks: as for `HtsatClap`.

    Example:
        >>> ClapMs2023(n_blocks=2).encode(torch.zeros(1, 44100))["proj"].shape
        torch.Size([1, 1, 1024])
    """

    sample_rate = 44100
    language = GPT2
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
        return build_ms_text(
            *(GPT2, "last", self.checkpoint, self.projected_width),
            longest=77,
            ending=" <|endoftext|>",
            untrained=SMALL_GPT2 if self.is_small else None,
        )


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
    language = BERT
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
        """Count log-mel frames, 1 + samples // 320: (batch,) samples -> (batch,) frames."""
        return self.audio.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the log-mel in decibels of clips as they are, before repetition: (batch, samples) -> (batch, time, 64)."""
        least = self.audio.mel.min_samples
        waveform = nn.functional.pad(waveform, (0, count_missing(waveform.shape[1], least)))
        return self.audio.network_input(waveform, lengths.clamp(min=least))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        """Count one frame a clip, in every layer: (batch,) samples -> (batch,) frames."""
        return torch.ones_like(lengths)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer of CNN14 over a clip's pieces, and the projection; time is 1.

        (batch, samples) -> layer name -> (batch, time, width).
        """

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
        untrained = SMALL_BERT if self.is_small else None
        return build_ms_text(BERT, "first", self.checkpoint, 1024, longest=100, untrained=untrained)
