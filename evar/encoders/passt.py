"""PaSST: a vision transformer on overlapping log-mel patches, trained with patchout to tag AudioSet.

Paper: Koutini et al., "Efficient Training of Audio Transformers with Patchout", Interspeech 2022. Checkpoints: the releases
of kkoutini/PaSST (code Apache-2.0, the licence of the weights is not stated). Trained on AudioSet-2M with labels, from a
transformer for images (DeiT). Files for clips of 20 and 30 s load with the options `n_columns: 200` and `n_columns: 300`.

Input: 32 kHz. Differences of neighbouring samples (x[n + 1] - 0.97 x[n]), log-mel of 1024 samples every 320 (symmetric Hann
of 800 samples in the middle, centred, mirrored at both ends), power, 128 bands of Kaldi's shape from 0 to 15000 Hz,
(ln(x + 1e-5) + 4.5) / 5. At least 16 frames (4,801 samples); shorter clips are filled with zeros.

Network: patches of 16 x 16 every 10 bands and 10 frames: 12 bands x up to 99 columns (10 s); learned positions of band and
of column are added, those of column from the first on. Two tokens of the whole clip in front, cls and dist. 12 pre-norm
blocks, 768 wide, a final LayerNorm. Fewer than 10 frames at a clip's end belong to no column.

`input="clip"` (default): longer clips are cut into windows of 99 columns that follow each other without a gap, and the last
one has its own length; each goes through the network alone. `input="padded"` is what the original's package for HEAR does
with clips over 10 s: 5 s are mirrored at both ends, windows of 10 s start every 2.5 s, and their vectors are averaged; every
layer is then one vector a clip. The two differ only for clips over 10 s.

Layers block1..block12: the residual stream without the final norm, mean over the 12 bands, one frame for each column (hop
3200), pooled by mean: the mean over all patches. `readout="tokens"` gives instead the mean of LayerNorm(cls) and
LayerNorm(dist) of every block, one vector a clip. scene, the same of the last block (768), is the default, and logits are
the 527 AudioSet tags' (the package for HEAR gives both side by side); those of several windows are averaged.
`outputs` gives the logits, `embed_moments` what the package gives for tasks with time.

Differs from the original: its package refuses clips with more columns than it has positions for, and its training cuts them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._packing import in_chunks
from evar.encoders._patches import PatchGrid
from evar.encoders._preemphasised_mel import PreemphasisedMel
from evar.encoders._vit import Blocks, PatchEmbed, count_patches, with_first
from evar.encoders._windows import average_pieces, run_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

HOP, N_MELS, PATCH = 320, 128, 16
WIDTH, N_HEADS, N_BLOCKS, N_CLASSES = 768, 12, 12, 527
EPSILON, HEAD_EPSILON = 1e-6, 1e-5
INPUTS, READOUTS = ("clip", "padded"), ("patches", "tokens")
#: of the package for HEAR, in samples: a clip's windows, and the windows around moments
SCENE, SCENE_STEP, SCENE_MARGIN = 320_000, 80_000, 160_000
MOMENT, MOMENT_STEP, MOMENT_MARGIN = 5_120, 1_600, 2_560
# Tokens that go through the network at once, with some 50 kB of activations each.
_CHUNK_TOKENS = 8192


class Passt(Encoder):
    """PaSST with every block; see the module's docstring.

    Args:
        input: "clip" (windows that follow each other) or "padded" (overlapping windows, as the package for HEAR).
        readout: what the blocks give: "patches" or "tokens".
        stride: bands, and frames, between patches.
        n_columns: columns of patches that the checkpoint has positions for.
        n_blocks: blocks, for tests.

    Raises:
        ValueError: if an option is none of these.

    Example:
        >>> Passt(n_blocks=1).encode(torch.zeros(1, 32000))["block1"].shape
        torch.Size([1, 9, 768])
    """

    sample_rate = 32000
    has_patches = True
    default_layers = ("scene",)
    ignored_tensors = ("head_dist.",)  # never used

    def __init__(
        self,
        input: str = "clip",
        readout: str = "patches",
        stride: int = 10,
        n_columns: int = 99,
        n_blocks: int = N_BLOCKS,
    ) -> None:
        super().__init__()
        for option, value, known in (("input", input, INPUTS), ("readout", readout, READOUTS)):
            if value not in known:
                raise ValueError(f"no {option} {value!r} for passt; {near_miss(value, known)}")
        self.input, self.readout, self.stride = input, readout, stride
        self.mel = PreemphasisedMel()
        self.min_samples = (PATCH - 1) * HOP + 1
        self.n_bands = count_patches(N_MELS, PATCH, stride)
        self.cls_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.dist_token = nn.Parameter(0.02 * torch.randn(1, 1, WIDTH))
        self.new_pos_embed = nn.Parameter(0.02 * torch.randn(1, 2, WIDTH))
        self.freq_new_pos_embed = nn.Parameter(0.02 * torch.randn(1, WIDTH, self.n_bands, 1))
        self.time_new_pos_embed = nn.Parameter(0.02 * torch.randn(1, WIDTH, 1, n_columns))
        self.patch_embed = PatchEmbed(WIDTH, (PATCH, PATCH), (stride, stride))
        self.blocks = Blocks(n_blocks, WIDTH, N_HEADS, eps=EPSILON)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.head = nn.Sequential(nn.LayerNorm(WIDTH, eps=HEAD_EPSILON), nn.Linear(WIDTH, N_CLASSES))
        has_frames = readout == "patches" and input == "clip"
        note = f"mean over {self.n_bands} bands" if readout == "patches" else "cls and dist, normed"
        self.layer_infos = (
            *(
                LayerInfo(f"block{n}", WIDTH, stride * HOP if has_frames else 0, "mean", note)
                for n in range(1, n_blocks + 1)
            ),
            LayerInfo("scene", WIDTH, 0, "mean", "mean of the normed tokens cls and dist"),
            LayerInfo("logits", N_CLASSES, 0, "mean", "of the AudioSet tags"),
        )

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the log-mel frames of clips: 1 + (samples - 1) // 320.

        Args:
            lengths: (batch,) valid samples of each clip, at 32 kHz.

        Returns:
            (batch,) frames.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("passt").network_input_frames(torch.tensor([32000])).tolist()
            [100]
        """
        return self.mel.frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the normalised log-mel.

        Args:
            waveform: (batch, samples) in [-1, 1] at 32 kHz.
            lengths: (batch,) valid samples of each clip.

        Returns:
            (batch, time, 128).

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("passt", "random", n_blocks=1)
            >>> encoder.network_input(torch.zeros(1, 32000), torch.tensor([32000])).shape
            torch.Size([1, 100, 128])
        """
        return self.mel(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count one frame for each column of patches; layers of the whole clip have one frame.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        columns = self._count_columns(lengths)
        return {info.name: columns if info.hop else torch.ones_like(columns) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every block, the clip's vector, and the logits.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        if self.input == "clip" or int(lengths.max()) <= SCENE:
            layers = self._encode_clips(waveform, lengths)
        else:
            scenes = [
                cut_overlapping(clip[None, :length], SCENE, SCENE_STEP, SCENE_MARGIN)
                if length > SCENE
                else nn.functional.pad(clip[:SCENE], (0, max(0, SCENE - len(clip))))[None]
                for clip, length in zip(waveform, lengths.tolist(), strict=True)
            ]
            counts = torch.tensor([len(windows) for windows in scenes])
            sizes = lengths.clamp(max=SCENE).repeat_interleave(counts.to(lengths.device))
            windows = self._encode_clips(torch.cat(scenes), sizes)
            frames = self._count_columns(sizes)
            layers = {
                info.name: average_pieces(self._average_columns(info, windows[info.name], frames), counts)
                for info in self.layer_infos
            }
        if self.input == "padded":
            frames = self._count_columns(lengths)
            return {info.name: self._average_columns(info, layers[info.name], frames) for info in self.layer_infos}
        return layers

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, 527) logits of the AudioSet tags."""
        return self.forward(waveform, lengths)["logits"][:, 0]

    def embed_moments(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Give a vector every 50 ms, of 160 ms around that moment, as the package for HEAR does.

        Args:
            waveform: (batch, samples) in [-1, 1] at 32 kHz, clips of the same length, over 80 ms.

        Returns:
            (batch, moment, 768) what scene is for these 160 ms, and (moment,) milliseconds.

        Example:
            >>> from evar.encoders import load_encoder
            >>> vectors, moments = load_encoder("passt", "random", n_blocks=1).embed_moments(torch.zeros(1, 32000))
            >>> vectors.shape, moments[-1].item()
            (torch.Size([1, 21, 768]), 1000.0)
        """
        windows = cut_overlapping(waveform.to(self.device), MOMENT, MOMENT_STEP, MOMENT_MARGIN)

        def network(part: Tensor) -> dict[str, Tensor]:
            return {
                "scene": self._encode_clips(part, torch.full((len(part),), MOMENT, device=part.device))["scene"][:, 0]
            }

        vectors = in_chunks(network, windows, _CHUNK_TOKENS // self.n_bands)["scene"]
        vectors = vectors.unflatten(0, (len(waveform), -1))
        return vectors, torch.arange(vectors.shape[1]) * (1000.0 * MOMENT_STEP / self.sample_rate)

    def _count_columns(self, lengths: Tensor) -> Tensor:
        return (self.mel.frames(lengths) - PATCH) // self.stride + 1

    def _average_columns(self, info: LayerInfo, values: Tensor, columns: Tensor) -> Tensor:
        """One vector a clip of a layer: of blocks, the mean over the columns of patches."""
        if values.shape[1] == 1:
            return values
        valid = (
            torch.arange(values.shape[1], device=values.device)[None, :] < columns.clamp(max=values.shape[1])[:, None]
        )
        return (values * valid[:, :, None]).sum(dim=1, keepdim=True) / valid.sum(dim=1)[:, None, None]

    def _encode_clips(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every layer of clips that are cut into windows of as many columns as there are positions."""
        image = self.mel(waveform, lengths).transpose(1, 2)[:, None]  # (batch, 1, band, time)
        patches = self.patch_embed.proj(image).permute(0, 3, 2, 1).flatten(2)  # (batch, column, band x width)
        is_token = self.readout == "tokens"
        n_columns = self.time_new_pos_embed.shape[3]
        return run_windows(
            self._run_network,
            patches,
            self._count_columns(lengths),
            unit=n_columns,
            size=lambda n: n,
            steps=lambda n: n,
            chunk_frames=_CHUNK_TOKENS // self.n_bands,
            per_window=tuple(info.name for info in self.layer_infos if is_token or not info.name.startswith("block")),
        )

    def _run_network(self, columns: Tensor) -> dict[str, Tensor]:
        """(window, column, band x width) -> layer -> (window, column or 1, feature)."""
        patches = columns.unflatten(2, (self.n_bands, -1))  # (window, column, band, width)
        bands, times = self.freq_new_pos_embed, self.time_new_pos_embed[:, :, :, : columns.shape[1]]
        places = (times + bands).permute(0, 3, 2, 1)  # (1, column, band, width)
        grid = PatchGrid((patches + places).flatten(1, 2), self.n_bands, "time", self.patch_out)
        first = torch.cat([self.cls_token, self.dist_token], dim=1) + self.new_pos_embed
        layers, tokens = {}, with_first(first, grid.tokens)
        for number, output in enumerate(self.blocks(tokens), start=1):
            tokens = output
            if self.readout == "tokens":
                layers[f"block{number}"] = self._read_scene(output)
            else:
                layers[f"block{number}"] = grid.lay_out(output[:, 2:]).mean(dim=2)
        layers["scene"] = self._read_scene(tokens)
        layers["logits"] = self.head(layers["scene"])
        return layers

    def _read_scene(self, tokens: Tensor) -> Tensor:
        """(window, token, width) -> (window, 1, width): the mean of the normed tokens of the whole clip."""
        return self.norm(tokens[:, :2]).mean(dim=1, keepdim=True)


def cut_overlapping(waveform: Tensor, size: int, step: int, margin: int) -> Tensor:
    """Mirror clips at both ends and cut overlapping windows out of them.

    Args:
        waveform: (batch, samples), more samples than the margin.
        size: samples of a window.
        step: samples between the beginnings of windows.
        margin: samples that are mirrored at each end.

    Returns:
        (batch x window, size), the windows of a clip one after the other.

    Example:
        >>> cut_overlapping(torch.arange(6.0)[None], size=4, step=2, margin=2)[:, 0].tolist()
        [2.0, 0.0, 2.0, 4.0]
    """
    mirrored = nn.functional.pad(waveform, (margin, margin), mode="reflect")
    return mirrored.unfold(1, size, step).flatten(0, 1)
