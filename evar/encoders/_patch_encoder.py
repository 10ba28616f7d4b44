"""Shared parts of encoders that run a transformer on patches of a spectrogram: windows, bands, the list of layers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor

from evar.encoders._patches import PatchGrid
from evar.encoders._windows import count_steps, run_windows
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

# Tokens that go through the network at once, with some 50 kB of activations each.
_CHUNK_TOKENS = 8192


class PatchEncoder(Encoder):
    """A transformer on the patches of a spectrogram.

    A family sets the attributes below when it is built, and writes `network_input`, `network_input_frames` and
    `every_layer`. Every clip is cut into windows of `unit` frames; windows of one size share a forward; the time steps of
    a clip's windows are put in a row. No clip sees another's length.

    Attributes:
        unit: frames of a window; 0: the whole clip goes through the network at once.
        patch: frames that a patch covers.
        step: frames between the time steps of patches.
        n_bands: patches over frequency.
        side_by_side: True: the bands of a time step stand side by side in a frame, as the official wrapper for downstream
            tasks gives them. False: a frame is their mean.
    """

    has_patches = True
    unit: int = 0
    patch: int
    step: int
    n_bands: int
    side_by_side: bool = False

    @abstractmethod
    def every_layer(self, spectrogram: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Run the network on windows of one size.

        Args:
            spectrogram: (window, frames, mel) as `prepare` gives it; zeros beyond a window's own frames.

        Yields:
            Each layer's name and grid (window, time, band, width); of layers with hop 0 (window, 1, 1, width).

        Example:
            >>> import torch
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("mae_ast.patch", "random", n_blocks=1)
            >>> [(name, tuple(grid.shape)) for name, grid in encoder.every_layer(torch.zeros(1, 32, 128))]
            [('block1', (1, 2, 8, 768))]
        """

    def prepare(self, spectrogram: Tensor) -> Tensor:
        """Change the log-mel of a batch before windows are cut and filled with zeros.

        Here nothing happens; families that fill after normalisation normalise here, the others in `every_layer`.

        Args:
            spectrogram: (batch, frames, mel) of `network_input`.

        Returns:
            (batch, frames, mel).

        Example:
            >>> import torch
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("mae_ast.patch", n_blocks=1).prepare(torch.ones(1, 1, 2)).tolist()
            [[[1.0, 1.0]]]
        """
        return spectrogram

    def grid(self, tokens: Tensor, order: str) -> PatchGrid:
        """Lay the patches of windows on a grid, without those that training hides.

        Args:
            tokens: (window, time x band, width) of all patches, with their positions.
            order: "time" or "frequency", as for `grid_of`.

        Returns:
            The grid; its `tokens` are those that the network sees.

        Example:
            >>> import torch
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("mae_ast.patch", n_blocks=1).grid(torch.zeros(1, 16, 768), "time").tokens.shape
            torch.Size([1, 16, 768])
        """
        return PatchGrid(tokens, self.n_bands, order, self.patch_out)

    def window_size(self, n_frames: int) -> int:
        """Return how many frames of a window the network is given: here what its patches cover.

        Args:
            n_frames: frames of the window.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("mae_ast.patch", n_blocks=1).window_size(98)  # 6 patches of 16 frames
            96
        """
        return self.patch + (self.window_steps(n_frames) - 1) * self.step

    def window_steps(self, n_frames: int) -> int:
        """Return how many time steps a window gives: here the patches that fit.

        Args:
            n_frames: frames of the window.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("mae_ast.patch", n_blocks=1).window_steps(98)
            6
        """
        return max(0, (n_frames - self.patch) // self.step + 1)

    def patch_layers(self, names: dict[str, str], width: int, hop: int) -> tuple[LayerInfo, ...]:
        """Describe layers with one frame a time step.

        Args:
            names: layer name -> note; the note on the bands is added.
            width: of a token.
            hop: samples between time steps.

        Returns:
            The layers, in the same order; the bands of a frame that stand side by side make it wider.

        Example:
            >>> from evar.encoders import describe_encoder
            >>> encoder = describe_encoder("mae_ast.patch", n_blocks=1)
            >>> [(info.width, info.note) for info in encoder.patch_layers({"block1": "output"}, 768, 2560)]
            [(6144, 'output, bands side by side')]
        """
        bands = "bands side by side" if self.side_by_side else "mean over bands"
        notes = {name: f"{note}, {bands}" if self.n_bands > 1 else note for name, note in names.items()}
        total = width * self.n_bands if self.side_by_side else width
        return tuple(LayerInfo(name, total, hop, "mean", note) for name, note in notes.items())

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the time steps of all windows of each clip; one of layers with hop 0.

        Args:
            lengths: (batch,) valid samples of each clip.

        Returns:
            layer name -> (batch,) time steps.

        Example:
            >>> import torch
            >>> from evar.encoders import describe_encoder
            >>> describe_encoder("mae_ast.patch", n_blocks=1).valid_frames(torch.tensor([16000]))["block1"].tolist()
            [6]
        """
        steps = count_steps(self.network_input_frames(lengths), self.unit, self.window_steps)
        return {info.name: steps if info.hop else steps.clamp(max=1) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Give every layer, bands side by side or averaged; call `encode` instead, which checks and pads.

        Args:
            waveform: (batch, samples) in [-1, 1] at `sample_rate`, zero beyond each clip's length.
            lengths: (batch,) valid samples of each clip.

        Returns:
            layer name -> (batch, time, feature).

        Example:
            >>> import torch
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("mae_ast.patch", "random", n_blocks=1)
            >>> encoder(torch.zeros(1, 8000), torch.tensor([8000]))["block1"].shape
            torch.Size([1, 3, 6144])
        """

        def network(spectrogram: Tensor) -> dict[str, Tensor]:
            merged = Tensor.flatten if self.side_by_side else Tensor.mean
            return {name: merged(grid, 2) for name, grid in self.every_layer(spectrogram)}

        return self._in_windows(network, waveform, lengths)

    def tokens(self, waveform: Tensor, lengths: Tensor | None = None, layer: str = "") -> Tensor:
        """Return every token of one layer, over time and frequency.

        Args:
            waveform, lengths: as for `encode`.
            layer: name of a layer with frames; "": the default layer.

        Returns:
            (batch, time, band, width).

        Raises:
            ValueError: if there is no layer of that name, or the input is malformed.

        Example:
            >>> import torch
            >>> from evar.encoders import load_encoder
            >>> load_encoder("mae_ast.patch", "random", n_blocks=1).tokens(torch.zeros(1, 8000)).shape
            torch.Size([1, 3, 8, 768])
        """
        info = self.layer(layer or self.default_layers[0])
        width = info.width // self.n_bands if self.side_by_side else info.width
        waveform, lengths = self._check_input(waveform, lengths)

        def network(spectrogram: Tensor) -> dict[str, Tensor]:
            return {name: grid.flatten(2) for name, grid in self.every_layer(spectrogram) if name == info.name}

        flat = self._in_windows(network, waveform, lengths)[info.name]  # (batch, time, band x width)
        return flat.unflatten(2, (-1, width))

    def _in_windows(
        self, network: Callable[[Tensor], dict[str, Tensor]], waveform: Tensor, lengths: Tensor
    ) -> dict[str, Tensor]:
        return run_windows(
            network,
            self.prepare(self.network_input(waveform, lengths)),
            self.network_input_frames(lengths),
            unit=self.unit,
            size=self.window_size,
            steps=self.window_steps,
            chunk_frames=_CHUNK_TOKENS * self.step // self.n_bands,
            per_window=tuple(info.name for info in self.layer_infos if not info.hop),
        )
