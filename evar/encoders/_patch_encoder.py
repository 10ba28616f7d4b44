"""What encoders share whose network is a transformer on the patches of a spectrogram: windows, bands, the list of layers."""

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
        unit: frames of a window; 0: the whole clip goes through the network at once, whatever its length.
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
        """The network on windows of one size.

        Args:
            spectrogram: (window, frames, mel) as `prepare` gives it; zeros beyond a window's own frames.

        Yields:
            Each layer's name and grid (window, time, band, width); of layers with hop 0 (window, 1, 1, width).
        """

    def prepare(self, spectrogram: Tensor) -> Tensor:
        """What is done to the (batch, frames, mel) of `network_input` before windows are cut and filled with zeros.

        Here nothing; families that fill after normalisation normalise here, the others in `every_layer`.
        """
        return spectrogram

    def grid(self, tokens: Tensor, order: str) -> PatchGrid:
        """The patches of windows, (window, time x band, width), without those that training hides."""
        return PatchGrid(tokens, self.n_bands, order, self.patch_out)

    def window_size(self, n_frames: int) -> int:
        """Frames of a window with so many frames that the network is given: here what its patches cover."""
        return self.patch + (self.window_steps(n_frames) - 1) * self.step

    def window_steps(self, n_frames: int) -> int:
        """Time steps that a window with so many frames gives: here the patches that fit."""
        return max(0, (n_frames - self.patch) // self.step + 1)

    def patch_layers(self, names: dict[str, str], width: int, hop: int) -> tuple[LayerInfo, ...]:
        """Layers with one frame a time step: name -> note, the note on the bands being added."""
        bands = "bands side by side" if self.side_by_side else "mean over bands"
        notes = {name: f"{note}, {bands}" if self.n_bands > 1 else note for name, note in names.items()}
        total = width * self.n_bands if self.side_by_side else width
        return tuple(LayerInfo(name, total, hop, "mean", note) for name, note in notes.items())

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Time steps of all windows; one of layers with hop 0."""
        steps = count_steps(self.network_input_frames(lengths), self.unit, self.window_steps)
        return {info.name: steps if info.hop else steps.clamp(max=1) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every layer, bands side by side or averaged."""

        def network(spectrogram: Tensor) -> dict[str, Tensor]:
            merged = Tensor.flatten if self.side_by_side else Tensor.mean
            return {name: merged(grid, 2) for name, grid in self.every_layer(spectrogram)}

        return self._in_windows(network, waveform, lengths)

    def tokens(self, waveform: Tensor, lengths: Tensor | None = None, layer: str = "") -> Tensor:
        """Every token of one layer, over time and frequency.

        Args:
            waveform, lengths: as for `encode`.
            layer: name of a layer with frames; "": the default layer.

        Returns:
            (batch, time, band, width).

        Raises:
            ValueError: if there is no layer of that name, or the input is malformed.
        """
        info = self.layer(layer or self.default_layers[0])
        width = info.width // self.n_bands if self.side_by_side else info.width
        waveform, lengths = self._checked_input(waveform, lengths)

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
