"""Any audio model of `transformers` that returns hidden states: the encoder "hf:organisation/name" or "hf:FOLDER".

Paper, licence, sample rate and training data are those of the model: see its card on the Hugging Face hub. Nothing but
numbers and settings is taken from there: code in a repository is never run, and pickles are read as tensors only.

Layers, pooled by mean unless said otherwise: conv (models with convolutions on the waveform: their output, before
projection); hidden0..hiddenN as `output_hidden_states=True` gives them; last (what the model calls its last hidden state,
where that is not hiddenN: after a final LayerNorm, an adapter or upsampling); pooled (the model's own clip embedding, where
it has one). The deepest of these is the default.

How a clip comes in, and which frames come out:
    Waveform models (wav2vec2, HuBERT, WavLM, data2vec-audio, UniSpeech, SEW, Conformer): the clip as long as it is, scaled
        to mean 0 and variance 1 where the model's feature extractor says so; one frame in as many samples as the strides
        multiply to. In a batch, what lies beyond a clip's end is masked in attention and, where the first convolution is
        normalised over time ("group"), left out there, so that a clip's frames are those of the clip alone. Models in
        which padding is heard all the same (data2vec-audio, SEW, Conformer, adapters, batch normalisation) declare
        `batch_invariant = False` and get batches of equal length.
    Wav2Vec2-BERT: its log-mel frames in pairs, 20 ms, padding masked.
    Whisper: its encoder. Clips are zero-padded to 30 s, as the model needs it, and longer ones run in parts of 30 s whose
        frames are joined; only frames that overlap the clip are kept.
    Audio Spectrogram Transformer: log-mel padded to the length it was trained with, longer clips in parts. A frame is a
        column of patches, mean over frequency; only columns inside the clip are kept. The class tokens are in no hidden
        layer, but `pooled` is their mean after the final LayerNorm, over parts the mean by duration.
    Everything else (CLAP's audio half and whatever comes): through the model's own feature extractor, in parts of the
        longest clip that it takes; where time and padding lie among the tokens is unknown, so that each layer gives one
        frame a clip (hop 0): the mean over all tokens, padding included, over parts by duration.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from evar import download
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.wav2vec2 import _normalised_over_time, standardised
from evar.features import LayerInfo
from evar.registry import near_miss
from evar.weights import read_checkpoint, state_dict_of

if TYPE_CHECKING:
    from evar.config import EncoderConfig

SAMPLE_RATE = 16000  # Hz, where a repository does not say
WINDOWS_AT_ONCE = 8  # parts of a fixed length (30 s for Whisper) that run in one forward, however short the clips are
# Waveform models in which a mask keeps a clip's frames from hearing padding; all others get batches of equal length.
MASKABLE = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat")
AUDIO_PARTS = ("audio_model", "audio_tower", "audio_encoder")  # of models of sound and text
DESCRIPTIONS = {
    "conv": "convolutions, before projection",
    "last": "after what follows the last hidden state",
    "pooled": "the model's own clip embedding",
}
# Heads whose names look like parts of the body: the linear layer of speaker verification.
HEADS = ("feature_extractor.weight", "feature_extractor.bias")


class HuggingFaceEncoder(Encoder):
    """A `transformers` audio model with every hidden state; see the module's docstring.

    Args:
        model: "organisation/name" of the Hugging Face hub, or a folder with config.json and preprocessor_config.json.
        revision: commit, tag or branch of the hub's repository.
        weights: None for random ones; the folder of a whole model (it brings its own config.json); or a checkpoint file
            that fits `model`.

    Raises:
        ValueError: if it is no audio model that `transformers` knows, or the checkpoint does not fit.
        OSError: if files are missing.
        ImportError: if `transformers` is not installed.

    Example:
        >>> encoder = HuggingFaceEncoder("facebook/hubert-base-ls960")  # doctest: +SKIP
        >>> encoder.encode(torch.zeros(1, 16000))["hidden12"].shape  # doctest: +SKIP
        torch.Size([1, 49, 768])
    """

    batch_seconds = 40.0  # as wav2vec2: 200 numbers of the first convolution a sample

    def __init__(self, model: str, revision: str | None = None, *, weights: str | Path | None = None) -> None:
        super().__init__()
        transformers = load_transformers("a model of the Hugging Face hub")
        if weights is not None and Path(weights).is_dir():
            folder = Path(weights)
        else:
            folder = download.hub_folder(str(model), revision, with_weights=False)
        config = _config(transformers, folder)
        extractor = _extractor(transformers, folder, config)
        self.network = _network(transformers, config, weights)
        try:
            self.reader = _reader(self.network, extractor)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        self.sample_rate = int(getattr(extractor, "sampling_rate", None) or SAMPLE_RATE)
        self.min_samples = self.reader.min_samples
        self.batch_invariant = self.reader.invariant
        self.eval()
        self.layers = self._declared(folder)
        self.default_layers = (self.layers[-1].name,)
        # The convolutions of wav2vec2 and its kin; elsewhere a module of that name pools attention maps for a head.
        if isinstance(self.reader, _Waveform) and hasattr(self.network, "feature_extractor"):
            self.frontend_parameters = ("network.feature_extractor",)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build from a name's options; `weights` is a model's folder, a checkpoint file, or None for random ones."""
        for option in config.options:
            if option not in ("model", "revision"):
                raise ValueError(f"{config.name} has no option {option!r}; {near_miss(option, ['model', 'revision'])}")
        return cls(**config.options, weights=weights)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Samples: the input is the waveform (waveform models only)."""
        if isinstance(self.reader, _Waveform):
            return lengths
        return super().network_input_frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples), scaled as the model's feature extractor says (waveform models only)."""
        if isinstance(self.reader, _Waveform):
            return self.reader.scaled(waveform, lengths)
        return super().network_input(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """By layer; see the module's docstring."""
        return {info.name: self.reader.frames(info.name, lengths) for info in self.layers}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Every layer, cut where the longest clip's valid frames end."""
        states = self.reader.states(waveform, lengths)
        return {name: value[:, : int(self.reader.frames(name, lengths).max())] for name, value in states.items()}

    def _declared(self, folder: Path) -> tuple[LayerInfo, ...]:
        """The layers; parameters that none of them depends on are frozen.

        Widths and stages of models that nobody has listed are known only from running them: a second of noise does.
        """
        n_samples = max(self.min_samples, self.sample_rate)
        noise = torch.randn(1, n_samples, generator=torch.Generator().manual_seed(0)) * 0.1
        # The graph tells which parameters count; what a backward pass would need is not kept.
        with (
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing),
        ):
            try:
                states = self.reader.states(noise, torch.tensor([n_samples]))
            except Exception as error:  # whatever somebody's model raises
                reason = " ".join(str(error).split())[:300]
                raise ValueError(
                    f"the {self.network.config.model_type} model of {folder} cannot encode a second of sound "
                    f"({type(error).__name__}: {reason}); is it an audio model that returns hidden states?"
                ) from error
        reached = _reached(states.values())
        for parameter in self.network.parameters():
            if parameter not in reached:
                parameter.requires_grad_(False)
        return tuple(
            LayerInfo(name, value.shape[2], self.reader.hop(name), "mean", DESCRIPTIONS.get(name, ""))
            for name, value in states.items()
        )


class _Reader:
    """How a family of models takes clips in, and which frames its layers have.

    Attributes:
        min_samples: shortest clip that gives a frame.
        invariant: whether a clip's frames are the same in any batch.
        has_last: whether the last hidden state is another than the last of the hidden states; known after a first run.
    """

    min_samples = 1
    invariant = True

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor = network, extractor
        self.has_last: bool | None = None
        self.takes = set(inspect.signature(network.forward).parameters)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Layer name -> (batch, time, width), shallow to deep; arguments as for `Encoder.forward`."""
        raise NotImplementedError

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Valid frames of a layer: (batch,) samples -> (batch,) frames."""
        raise NotImplementedError

    def hop(self, name: str) -> int:
        """Samples between a layer's frames; 0 for one frame a clip."""
        raise NotImplementedError

    def run(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Layer name -> what the network gives, in its own layout."""
        device = next(self.network.parameters()).device
        inputs = {name: value.to(device) for name, value in inputs.items() if name in self.takes}
        output = self.network(**inputs, output_hidden_states=True, return_dict=True)
        hidden, last = output.hidden_states, getattr(output, "last_hidden_state", None)
        if not hidden:
            raise ValueError("it returns no hidden states")
        if self.has_last is None:
            self.has_last = last is not None and not torch.equal(last, hidden[-1])
        layers = {f"hidden{number}": state for number, state in enumerate(hidden)}
        if self.has_last:
            layers["last"] = last
        if getattr(output, "pooler_output", None) is not None:
            layers["pooled"] = output.pooler_output
        return layers


class _Waveform(_Reader):
    """Convolutions on the waveform, then a transformer: wav2vec2 and its kin."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        config = network.config
        self.kernels, self.strides = tuple(config.conv_kernel), tuple(config.conv_stride)
        self.squeeze = int(getattr(config, "squeeze_factor", 1))  # SEW joins neighbouring frames
        self.has_adapter = bool(getattr(config, "add_adapter", False))
        self.invariant = (
            config.model_type in MASKABLE and not self.has_adapter and not getattr(config, "conv_pos_batch_norm", False)
        )
        self.norm = _own_frames_norm(network) if self.invariant else None
        self.min_samples = self.squeeze
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            self.min_samples = (self.min_samples - 1) * stride + kernel

    def scaled(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """(batch, samples); with `do_normalize`, each clip with mean 0 and variance 1 over its own samples."""
        if not getattr(self.extractor, "do_normalize", True):
            return waveform
        return standardised(waveform, lengths)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        inputs = {"input_values": self.scaled(waveform, lengths)}
        is_padded = bool((lengths < waveform.shape[1]).any())
        if is_padded:
            inside = torch.arange(waveform.shape[1], device=waveform.device)[None, :] < lengths[:, None]
            inputs["attention_mask"] = inside.long()  # (batch, samples)
        maps: list[Tensor] = []
        hook = self.network.feature_extractor.register_forward_hook(lambda *call: maps.append(call[2]))
        try:
            if self.norm is not None and is_padded:
                self.norm.frames = (lengths - self.kernels[0]) // self.strides[0] + 1
            layers = self.run(inputs)
        finally:
            hook.remove()
            if self.norm is not None:
                self.norm.frames = None
        return {"conv": maps[0].transpose(1, 2), **layers}  # (batch, width, time) -> (batch, time, width)

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """(samples - kernel) // stride + 1 over all convolutions; then as squeezing or an adapter leaves them."""
        if name == "last" and self.has_adapter:
            return self.network._get_feat_extract_output_lengths(lengths).long()
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            lengths = (lengths - kernel) // stride + 1
        if name == "conv":
            return lengths
        return lengths // self.squeeze * (self.squeeze if name == "last" else 1)

    def hop(self, name: str) -> int:
        hop = int(np.prod(self.strides))
        if name == "last" and self.has_adapter:
            return hop * int(self.network.config.adapter_stride**self.network.config.num_adapter_layers)
        return hop * (self.squeeze if name.startswith("hidden") else 1)


class _OwnFramesNorm(nn.GroupNorm):
    """Group normalisation over time that leaves out what lies beyond each clip's `frames`, where they are set."""

    frames: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        if self.frames is None:
            return super().forward(input)
        return _normalised_over_time(input, self.frames, self)


def _own_frames_norm(network: Any) -> _OwnFramesNorm | None:
    """Put it in the place of the first convolution's normalisation, with the same parameters, where there is one."""
    block = network.feature_extractor.conv_layers[0]
    norm = getattr(block, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return None
    block.layer_norm = _OwnFramesNorm(norm.num_groups, norm.num_channels, norm.eps)
    block.layer_norm.weight, block.layer_norm.bias = norm.weight, norm.bias
    return block.layer_norm


class _MelPairs(_Reader):
    """Wav2Vec2-BERT: log-mel frames of 25 ms every 10 ms, joined in pairs, normalised by band over the clip."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        rate = int(extractor.sampling_rate)
        self.frame, self.step, self.stride = rate // 40, rate // 100, int(extractor.stride)
        self.min_samples = self.frame + (self.stride - 1) * self.step
        self.invariant = not getattr(network.config, "add_adapter", False)

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        clips = [clip[:length].numpy() for clip, length in zip(waveform.detach().cpu(), lengths.tolist(), strict=True)]
        rate = self.extractor.sampling_rate
        how = {"sampling_rate": rate, "padding": True, "return_attention_mask": True, "return_tensors": "pt"}
        return self.run(dict(self.extractor(clips, **how)))

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """((samples - 400) // 160 + 1) // 2 at 16 kHz, then as an adapter leaves them."""
        frames = ((lengths - self.frame) // self.step + 1) // self.stride
        if name == "last" and getattr(self.network.config, "add_adapter", False):
            return self.network._get_feat_extract_output_lengths(frames).long()
        return frames

    def hop(self, name: str) -> int:
        config, hop = self.network.config, self.step * self.stride
        if name == "last" and getattr(config, "add_adapter", False):
            return hop * int(config.adapter_stride**config.num_adapter_layers)
        return hop


class _Windows(_Reader):
    """Models that take clips of one length: parts of a clip run apart, their frames are joined.

    Attributes:
        step: samples from one part to the next; None where clips are taken whole.
        window: samples of a part, at least `step`.
    """

    step: int | None = None
    window: int | None = None

    def states(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        parts: list[Tensor] = []
        counts, shares = [], []
        for clip, length in zip(waveform.detach().cpu(), lengths.tolist(), strict=True):
            step = self.step or length
            begins = range(0, self.covered(length), step)
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

    def covered(self, length: int) -> int:
        """Samples of a clip up to the end of its last frame: what parts must cover."""
        return length

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Layers in the network's own layout -> (parts, time, width)."""
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
                yield _stacked(waiting)
                waiting = []
            waiting.append((len(part), inputs))
        yield _stacked(waiting)


class _Whisper(_Windows):
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
        return layers

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Frames that begin inside the clip."""
        return (lengths + self.hop(name) - 1) // self.hop(name)

    def hop(self, name: str) -> int:
        return int(self.extractor.hop_length) * self.stride


class _Patches(_Windows):
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

    def covered(self, length: int) -> int:
        return int(self.frames("", torch.tensor(length))) * self.stride * self.mel_hop

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        pooled = layers.pop("pooled")
        # (parts, class tokens + row x column, width): rows of frequency, time fastest
        columns = {
            name: value[:, -self.rows * self.columns :].unflatten(1, (self.rows, self.columns)).mean(1)
            for name, value in layers.items()
        }
        return {**columns, "pooled": pooled[:, None]}

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        """Columns whose patches lie inside the clip."""
        if name == "pooled":
            return torch.ones_like(lengths)
        return ((lengths - self.frame) // self.mel_hop + 1 - self.patch) // self.stride + 1

    def hop(self, name: str) -> int:
        return 0 if name == "pooled" else self.stride * self.mel_hop


class _Tokens(_Windows):
    """Any other model: the mean over its tokens, whatever they are."""

    def __init__(self, network: Any, extractor: Any) -> None:
        super().__init__(network, extractor)
        longest = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
        self.step = self.window = int(longest) if longest else None
        self.min_samples = int(extractor.sampling_rate) // 4  # room for the windows and strides of most front-ends

    def frames_of(self, layers: dict[str, Tensor]) -> dict[str, Tensor]:
        means = {}
        for name, value in layers.items():
            if value.dim() == 4:  # (parts, width, row, column)
                value = value.flatten(2).transpose(1, 2)
            means[name] = value[:, None] if value.dim() == 2 else value.mean(dim=1, keepdim=True)
        return means

    def frames(self, name: str, lengths: Tensor) -> Tensor:
        return torch.ones_like(lengths)

    def hop(self, name: str) -> int:
        return 0


def _stacked(parts: list[tuple[int, dict[str, Tensor]]]) -> tuple[Tensor, dict[str, Tensor]]:
    inputs = {name: torch.cat([entry[name] for _, entry in parts]) for name in parts[0][1]}
    return torch.tensor([n_samples for n_samples, _ in parts]), inputs


def _reader(network: Any, extractor: Any) -> _Reader:
    kind = network.config.model_type
    if (
        getattr(network, "main_input_name", "") == "input_values"
        and hasattr(network.config, "conv_stride")
        and hasattr(network, "feature_extractor")
    ):
        return _Waveform(network, extractor)
    if getattr(extractor, "sampling_rate", None) is None:  # none at all, or one for pictures
        raise ValueError(f"nothing says how a {kind} model takes sound in; its folder needs a preprocessor_config.json")
    families: dict[str, type[_Reader]] = {
        "whisper": _Whisper,
        "audio-spectrogram-transformer": _Patches,
        "wav2vec2-bert": _MelPairs,
    }
    return families.get(kind, _Tokens)(network, extractor)


def _reached(outputs: Any) -> set[Tensor]:
    """The parameters on which outputs depend, read off the autograd graph."""
    waiting = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen, parameters = set(waiting), set()
    while waiting:
        node = waiting.pop()
        if hasattr(node, "variable"):
            parameters.add(node.variable)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return parameters


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without reports and bars: what they say becomes an error here, or is of no consequence."""
    logging = transformers.utils.logging
    level, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bar:
            logging.enable_progress_bar()


def _config(transformers: Any, folder: Path) -> Any:
    """The model's settings, without what would make training or a forward a matter of chance."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"the folder {folder} has no config.json; is it a transformers model's folder?")
    try:
        with _quiet(transformers):
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # JSON, unknown types, settings that contradict each other
        raise ValueError(
            f"{folder / 'config.json'} is none that transformers {transformers.__version__} knows "
            f"({' '.join(str(error).split())[:200]}); models that bring their own code are not run"
        ) from error
    for part in (config, getattr(config, "audio_config", None)):
        # Layers dropped at random would leave hidden states out; masks over time are an aid of pre-training.
        for key, value in (("layerdrop", 0.0), ("encoder_layerdrop", 0.0), ("apply_spec_augment", False)):
            if hasattr(part, key):
                setattr(part, key, value)
        for key in ("mask_time_prob", "mask_feature_prob"):
            if hasattr(part, key):
                setattr(part, key, 0.0)
    return config


def _extractor(transformers: Any, folder: Path, config: Any) -> Any:
    """The model's own front-end; where the folder does not describe it, its class's defaults, or None for waveforms."""
    try:
        with _quiet(transformers):
            if any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
                return transformers.AutoFeatureExtractor.from_pretrained(
                    folder, trust_remote_code=False, local_files_only=True
                )
            kind = transformers.FEATURE_EXTRACTOR_MAPPING.get(type(config), None)
            return kind() if kind is not None else None
    except Exception as error:
        raise ValueError(
            f"the feature extractor of {folder} cannot be built ({' '.join(str(error).split())[:200]}); "
            "it needs the preprocessor_config.json of an audio model"
        ) from error


def _network(transformers: Any, config: Any, weights: str | Path | None) -> Any:
    """The part of a model that hears, with random or loaded weights, float32."""
    if weights is None:
        with _quiet(transformers):
            model = transformers.AutoModel.from_config(config, trust_remote_code=False)
        return _audio_part(model)[1].float()
    path = Path(weights)
    how: dict[str, Any] = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    try:
        if not path.is_dir():  # the file of a model whose settings lie elsewhere
            how["state_dict"] = state_dict_of(read_checkpoint(path))
        with _quiet(transformers):
            model, report = transformers.MODEL_MAPPING[type(config)].from_pretrained(
                path if path.is_dir() else None, **how, ignore_mismatched_sizes=True, local_files_only=True
            )
    except Exception as error:  # cut off files, pickles that hold code, types without a model
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path} cannot be loaded as a transformers model ({type(error).__name__}: {reason})"
        ) from error
    name, network = _audio_part(model)
    _check_report(report, model, f"{name}." if name else "", path)
    return network


def _audio_part(model: Any) -> tuple[str, Any]:
    """A model's encoder or audio half, with its name inside the model; the whole where it is nothing else."""
    part = model
    for name in AUDIO_PARTS:
        if isinstance(getattr(model, name, None), nn.Module):
            part = getattr(model, name)
    if part is model and getattr(model.config, "is_encoder_decoder", False):
        part = model.get_encoder()
    return next(name for name, module in model.named_modules() if module is part), part


def _check_report(report: dict[str, Any], model: Any, part: str, path: Path) -> None:
    """Refuse a checkpoint that lacks tensors of the audio part, or has others than heads beyond it."""
    own = {name for name, _ in model.named_children()} | {name for name, _ in model.named_parameters(recurse=False)}
    base = f"{model.base_model_prefix}."

    def is_head(name: str) -> bool:
        if name.rpartition(".")[2] in ("masked_spec_embed", "num_batches_tracked") or name in HEADS:
            return True
        return not name.startswith(base) and name.partition(".")[0] not in own

    missing = sorted(name for name in report["missing_keys"] if name.startswith(part))
    unexpected = sorted(name for name in report["unexpected_keys"] if not is_head(name))
    unlike = sorted(
        f"{entry[0]} {tuple(entry[1])} instead of {tuple(entry[2])}"
        for entry in report["mismatched_keys"]
        if entry[0].startswith(part)
    )
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("tensors missing", missing), ("unexpected", unexpected), ("of another shape", unlike))
        if names
    ]
    if problems:
        raise ValueError(
            f"{path.name} does not fit {type(model).__name__}: {', '.join(problems)}; "
            "is its config.json that of another model, or the checkpoint incomplete?"
        )
