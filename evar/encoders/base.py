"""The one interface of all encoders: `encode` gives every layer of a batch of clips in one forward."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from evar.config.registry import near_miss
from evar.encoders._checkpoints import load_or_explain
from evar.encoders._names import NamedLayers, head_method, is_declaration, move_declaration, refuse_taken_name
from evar.encoders._undrawn import undrawn
from evar.encoders.features import LayerFeatures, LayerInfo
from evar.encoders.weights import state_dict_of

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig
    from evar.encoders._patches import PatchOut

_INDEX = re.compile(r"[+-]?\d+")  # a layer by its position


class Encoder(nn.Module, ABC):
    """A pre-trained network that turns waveforms into frames of every layer.

    A model writes `__init__` (its options as keyword arguments), `forward`, `valid_frames` and, where the published
    file's names differ from its own, `convert`. Everything else is here.

    Attributes:
        name: row label, set by `load_encoder` ("crepe.tiny").
        sample_rate: Hz that `encode` expects.
        layer_infos: what `forward` returns, shallow to deep; checked at every call. Written as `layers` it is understood
            too, and read as `layers` where the author has no modules of that name.
        default_layers: the layers that the model's paper uses frozen; several are concatenated.
        min_samples: shorter clips are zero-padded to this by `encode`.
        batch_invariant: False where padding or batch-mates change a clip's vector; such clips are batched by length.
        batch_seconds: seconds of audio in one batch of `extract`, unless a batch size is given; this limits memory.
        has_patches: whether the network honours `patch_out`.
        frontend_parameters: first words of the names of the parameters that turn the waveform into the network's input,
            for front-ends that were trained.
        patch_out: patches that are hidden from the network in training; None hides nothing.
        ignored_tensors: name patterns of tensors that a published checkpoint may hold beyond the network's own.
        revision: raise it when the same weights and options give other numbers; part of every cache key.
        norm_stats: (mean, std) of the input normalisation where the encoder has one, else None.
        default_norm_stats: what `--norm_stats=default` means where it has one: "constants" (the `norm_stats` of the
            class) or "train" (statistics of the training clips of each round, as the model's paper does).
        extra_files: files beside the checkpoint that change the output; hashed into `weights_sha256`.
        store_name: name under which features are stored: encoders that differ in their default layers only share them.
        weights_label: where the checkpoint came from, "random", or "none" for an encoder without parameters.
        weights_sha256: hash of the checkpoint, or of the random parameters.
        options: the effective options that it was built with.
        asked_as: the argument of `load_encoder`: a name, the path of a YAML, "module:Class" or "hf:...".
        trained_on: data that the checkpoint has seen, as its YAML says.
        brings_weights: of encoders that load their own weights when they are built: where these came from; else "".
        text_layer: of encoders that read text too (`evar.encoders._text`): the layer that lies in the space of texts.
    """

    sample_rate: int
    layer_infos: tuple[LayerInfo, ...]
    layers: Any = NamedLayers()
    default_layers: tuple[str, ...]
    min_samples: int = 1
    batch_invariant: bool = True
    batch_seconds: ClassVar[float] = 160.0
    has_patches: ClassVar[bool] = False
    frontend_parameters: tuple[str, ...] = ()
    ignored_tensors: ClassVar[tuple[str, ...]] = ()
    revision: ClassVar[int] = 1
    default_norm_stats: ClassVar[str] = "constants"

    name: str = ""
    store_name: str = ""
    extra_files: tuple[Path, ...] = ()
    norm_stats: tuple[float, float] | None = None
    weights_label: str = "random"
    weights_sha256: str = ""
    options: Mapping[str, Any] = {}
    asked_as: str = ""
    trained_on: str = ""
    brings_weights: str = ""
    text_layer: str = ""
    patch_out: PatchOut | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        move_declaration(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "layers" and is_declaration(value):
            name, value = "layer_infos", tuple(value)
        refuse_taken_name(self, Encoder, name, value)
        super().__setattr__(name, value)

    def randomise(self) -> None:
        """Draw new random weights, for encoders that load their own (`brings_weights`) when they are built."""

    @abstractmethod
    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every declared layer of a batch; call `encode` instead, which checks and pads.

        Args:
            waveform: (batch, samples) float32 in [-1, 1] at `sample_rate`, zero beyond each clip's length.
            lengths: (batch,) valid samples, each >= `min_samples`.

        Returns:
            layer name -> (batch, time, feature), in the declared order; time is at least the largest of
            `valid_frames(lengths)`, and frames beyond the valid ones of a clip are ignored.
        """

    @abstractmethod
    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor] | Tensor:
        """Count the frames that depend on a clip's own samples: (batch,) samples -> (batch,) frames, each >= 1.

        One tensor where all layers share a frame rate, else layer name -> tensor.
        """

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute the input of the network before it is normalised by statistics; `forward` starts here. Call `frontend`.

        Args:
            waveform, lengths: as for `forward`.

        Returns:
            (batch, time, mel) log-mel, or (batch, samples) for encoders that work on the waveform.
        """
        raise NotImplementedError(f"{self.name or type(self).__name__} has no front-end of its own")

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count the frames of `network_input` that hold the clip's own sound: (batch,) samples -> (batch,) frames."""
        raise NotImplementedError(f"{self.name or type(self).__name__} has no front-end of its own")

    def classify(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Run the checkpoint's own classifier, (batch, classes), for encoders that keep it. Call `outputs`."""
        named_head = head_method(type(self))
        if named_head is not None:
            return named_head(self, waveform, lengths)
        raise ValueError(
            f"{self.name or type(self).__name__} has no classifier head; encoders with one are cnn14, ast, wav2vec2 "
            "(an encoder of your own gets one by the method classify)"
        )

    def convert(self, checkpoint: dict[str, Any]) -> dict[str, Tensor]:
        """Rename the tensors of the published checkpoint to this module's own names (default: unwrapped, as they are)."""
        return state_dict_of(checkpoint)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build from a YAML's options; `weights` is a checkpoint file, or None for random parameters.

        Raises:
            ValueError: if an option is unknown or of another type, or the checkpoint does not fit; the first differences
                are named.
        """
        import inspect

        known = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
        for option in config.options:
            if option not in known:
                raise ValueError(f"{config.name} has no option {option!r}; {near_miss(option, known)}")
        try:
            with nullcontext() if weights is None else undrawn():
                encoder = cls(**config.options)
        except TypeError as error:
            if not config.options:
                raise  # the class is at fault, not its YAML
            raise ValueError(f"{config.name} cannot be built with the options {config.options}: {error}") from error
        if weights is not None:
            encoder.load_checkpoint(Path(weights), config.name)
        return encoder

    def load_checkpoint(self, path: Path, name: str) -> None:
        """Take every parameter from a checkpoint file or folder: all of it fits, or nothing is changed.

        A family overrides this that takes more than tensors from the file, such as statistics of its input.

        Args:
            path: of the file or folder.
            name: of the encoder's YAML, for errors.

        Raises:
            ValueError: if it does not fit; the message names the kind of file, or the first differences.
        """
        load_or_explain(self, self.convert, path, name, self.ignored_tensors)

    @property
    def device(self) -> torch.device:
        """Device of the parameters; without parameters, the device of the buffers, or the CPU."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def layer(self, name: str | int) -> LayerInfo:
        """Find the declared layer of that name or position.

        Args:
            name: a layer's name; or its position among the declared layers, as a number or a text of digits: 0 is the
                first, -1 the last. (A layer whose name is a number is found by its name.)

        Raises:
            ValueError: if there is none.

        Example:
            >>> from evar.encoders import load_encoder
            >>> encoder = load_encoder("crepe.tiny", "random")
            >>> encoder.layer("conv2").name, encoder.layer(0).name, encoder.layer("-1").name
            ('conv2', 'conv1', 'pitch')
        """
        for info in self.layer_infos:
            if info.name == name:
                return info
        who, known = self.name or type(self).__name__, [info.name for info in self.layer_infos]
        if isinstance(name, int) or _INDEX.fullmatch(name):
            if -len(known) <= int(name) < len(known):
                return self.layer_infos[int(name)]
            raise ValueError(
                f"no layer {name} in {who}; its {len(known)} layers are 0 ({known[0]}) to {len(known) - 1} ({known[-1]}), "
                f"or {-len(known)} to -1 from the end"
            )
        raise ValueError(f"no layer {name!r} in {who}; {near_miss(name, known)}")

    def layer_names(self, asked: Iterable[str | int]) -> tuple[str, ...]:
        """Return the names of layers that are given by name or position.

        Args:
            asked: names or positions, as `layer` takes them.

        Raises:
            ValueError: if there is no such layer, or one is given twice.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("crepe.tiny", "random").layer_names(["0", "conv3", -1])
            ('conv1', 'conv3', 'pitch')
        """
        words = [word.strip() if isinstance(word, str) else word for word in asked]
        names = tuple(self.layer(word).name for word in words)
        if not names or len(set(names)) != len(names):
            raise ValueError(
                f"layers must be named once each, and at least one, got {', '.join(map(str, words)) or 'none'}"
                + (f", which are {', '.join(names)}" if list(names) != words else "")
            )
        return names

    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> LayerFeatures:
        """Compute the frames of every layer, in one forward.

        Args:
            waveform: (batch, samples) float32 in [-1, 1] at `sample_rate`.
            lengths: (batch,) valid samples of each clip, 1..samples; None if all samples are valid. What lies
                beyond a clip's length is set to zero first, and clips shorter than `min_samples` are zero-padded.

        Returns:
            Layer name -> (batch, time, feature) with the valid frames of each clip.

        Raises:
            ValueError: if the waveform or lengths have another shape, type or range.
            RuntimeError: if the encoder returns other layers, widths or frames than it declares.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("logmel").encode(torch.zeros(2, 16000), torch.tensor([16000, 8000])).frames["logmel"].tolist()
            [101, 51]
        """
        waveform, lengths = self._check_input(waveform, lengths)
        features = self.forward(waveform, lengths)
        frames = self.valid_frames(lengths)
        if isinstance(frames, Tensor):
            frames = {info.name: frames for info in self.layer_infos}
        self._check_output(features, frames, len(waveform))
        return LayerFeatures(features, frames)

    @contextmanager
    def normalising_by(self, norm_stats: tuple[float, float] | None) -> Iterator[None]:
        """Hold other input statistics for a while: (mean, std), or None for an encoder without."""
        before, self.norm_stats = self.norm_stats, norm_stats
        try:
            yield
        finally:
            self.norm_stats = before

    def frontend(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the log-mel (or the normalised waveform) that the network sees, before normalisation by `norm_stats`.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, time, mel) or, for encoders that work on the waveform, (batch, samples).

        Raises:
            ValueError: if the waveform or lengths have another shape, type or range.
            NotImplementedError: if the encoder has no front-end apart from its network.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("ced.tiny", "random", n_blocks=1).frontend(torch.zeros(1, 16000)).shape
            torch.Size([1, 101, 64])
        """
        return self.network_input(*self._check_input(waveform, lengths))

    def outputs(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compute the outputs of the checkpoint's own classifier: tags, class logits, or CTC logits of each frame.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, classes) or (batch, time, classes), as the encoder's card says.

        Raises:
            ValueError: if the encoder or its checkpoint has no head, or the input is malformed.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("ced.tiny", "random", n_blocks=1).outputs(torch.zeros(1, 16000)).shape
            torch.Size([1, 527])
        """
        return self.classify(*self._check_input(waveform, lengths))

    def input_moments(self, waveform: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Count, sum and sum of squares of each clip's own front-end values: what pooled statistics are made of.

        Args:
            waveform, lengths: as for `encode`.

        Returns:
            (batch, 3) float64; mean = sum / count and variance = squares / count - mean^2 over any set of clips.

        Raises:
            NotImplementedError: if the encoder has no front-end.

        Example:
            >>> from evar.encoders import load_encoder
            >>> load_encoder("ced.tiny", "random", n_blocks=1).input_moments(torch.zeros(1, 16000))[0, 0].item()  # 101 x 64
            6464.0
        """
        waveform, lengths = self._check_input(waveform, lengths)
        values = self.network_input(waveform, lengths).to("cpu", torch.float64)  # (batch, time, mel)
        frames = self.network_input_frames(lengths).cpu()
        values = values.reshape(*values.shape[:2], -1)
        valid = (torch.arange(values.shape[1])[None, :] < frames[:, None])[:, :, None]
        values = values.masked_fill(~valid, 0.0)
        count = (frames * values.shape[2]).double()
        return torch.stack([count, values.sum(dim=(1, 2)), values.square().sum(dim=(1, 2))], dim=1)

    def _check_input(self, waveform: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        if waveform.dim() != 2 or waveform.dtype != torch.float32 or 0 in waveform.shape:
            raise ValueError(
                f"waveform must be (batch, samples) float32, got {tuple(waveform.shape)} {waveform.dtype}"
                + ("; add a batch axis with waveform[None]" if waveform.dim() == 1 else "")
            )
        n_clips, n_samples = waveform.shape
        if lengths is None:
            lengths = torch.full((n_clips,), n_samples)
        lengths = lengths.detach().to("cpu", torch.int64)
        if lengths.shape != (n_clips,) or int(lengths.min()) < 1 or int(lengths.max()) > n_samples:
            raise ValueError(
                f"lengths must be {n_clips} values in 1..{n_samples}, got {lengths.tolist()[:8]}; "
                "are they in seconds or frames instead of samples?"
            )
        device = self.device
        waveform, lengths = waveform.to(device), lengths.to(device)
        if int(lengths.min()) < n_samples:
            padding = torch.arange(n_samples, device=device)[None, :] >= lengths[:, None]
            waveform = waveform.masked_fill(padding, 0.0)
        if n_samples < self.min_samples:
            waveform = nn.functional.pad(waveform, (0, self.min_samples - n_samples))
        return waveform, lengths.clamp(min=self.min_samples)

    def _check_output(self, features: Mapping[str, Tensor], frames: Mapping[str, Tensor], n_clips: int) -> None:
        who = self.name or type(self).__name__
        declared = [info.name for info in self.layer_infos]
        if list(features) != declared or set(frames) != set(declared):
            raise RuntimeError(f"{who} declares layers {declared}, but forward returned {list(features)}")
        for info in self.layer_infos:
            value, valid = features[info.name], frames[info.name]
            if value.dim() != 3 or value.shape[0] != n_clips or value.shape[2] != info.width:
                raise RuntimeError(
                    f"{who} layer {info.name}: expected ({n_clips}, time, {info.width}), got {tuple(value.shape)}"
                )
            if int(valid.min()) < 1 or int(valid.max()) > value.shape[1]:
                raise RuntimeError(
                    f"{who} layer {info.name}: valid frames must lie in 1..{value.shape[1]}, got {valid.tolist()[:8]}"
                )
