"""Any audio encoder of `transformers`: the encoder "hf:organisation/name" or "hf:FOLDER".

Paper, licence, sample rate and training data are those of the model: see its card on the Hugging Face hub. Nothing but
numbers and settings is taken from there: code in a repository is never run, and pickles are read as tensors only.

Layers, pooled by mean unless said otherwise: conv (models with convolutions on the waveform: their output, before
projection); hidden0..hiddenN as `output_hidden_states=True` gives them; last (what the model calls its last hidden state,
where that is not hiddenN: after a final LayerNorm, an adapter or upsampling); pooled (the model's own clip embedding, where
it has one); projected (CLAP: the embedding in the space that sound and text share, of length 1; `evar.embed_text` reads
texts with the tokenizer of the model's folder). The deepest of these is the default. Codecs have layers of their own: see
`evar/encoders/_hf_codecs.py`.

How a clip comes in, and which frames come out:
    Waveform models (wav2vec2, HuBERT, MERT, WavLM, data2vec-audio, UniSpeech, SEW, Conformer): the clip as long as it is,
        scaled to mean 0 and variance 1 if the model's feature extractor says so; one frame in as many samples as the
        strides multiply to. In a batch, what lies beyond a clip's end is masked in attention and, where the first
        convolution is normalised over time ("group"), left out there, so that a clip's frames are those of the clip
        alone. Models in which padding is heard all the same (data2vec-audio, SEW, Conformer, adapters, batch
        normalisation) declare `batch_invariant = False` and get batches of equal length.
    Wav2Vec2-BERT: its log-mel frames in pairs, 20 ms, padding masked.
    Whisper: its encoder. Clips are zero-padded to 30 s, as the model needs it, and longer ones run in parts of 30 s whose
        frames are joined; only frames that overlap the clip are kept.
    Audio Spectrogram Transformer: log-mel padded to the length it was trained with, longer clips in parts. A frame is a
        column of patches, mean over frequency; only columns inside the clip are kept. The class tokens are in no hidden
        layer, but `pooled` is their mean after the final LayerNorm, over parts the mean by duration.
    EnCodec, DAC, Mimi, X-Codec: the waveform; each layer has a frame rate of its own.
    Everything else (CLAP's audio half and whatever comes): through the model's own feature extractor, in parts of the
        longest clip that it takes; where time and padding lie among the tokens is unknown, so that each layer gives one
        frame a clip (hop 0): the mean over all tokens, padding included, over parts by duration.

Folders of CED, Dasheng, EAT and SSLAM bring code of their own; instead of it, our own classes `Ced`, `Dasheng` and `Eat`
take their tensors, chosen by the `model_type` of config.json (`evar/encoders/_hf_own.py`).

Not supported, and refused with a sentence: other models that bring their own code (but MERT-v1, a HuBERT under a type of
its own, is read as one); models whose audio half AutoModel does not give or that return no hidden states (SpeechT5,
SeamlessM4T v2, the audio encoder of Qwen2.5-Omni, WavTokenizer and other tokenisers); EnCodec of two channels (48 kHz); MERT
with a constant-Q transform.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from evar import download
from evar.config.registry import near_miss
from evar.encoders._hf_codecs import BATCH_SECONDS, DECODING_PARTS, CodecReader
from evar.encoders._hf_loading import build_audio_part, read_config, read_extractor
from evar.encoders._hf_own import OWN_CLASSES, build_own_encoder, read_settings
from evar.encoders._hf_readers import MelPairsReader, Reader, WaveformReader
from evar.encoders._hf_windows import PatchReader, TokenReader, WhisperReader
from evar.encoders._text import ReadsText, TextHalf
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

if TYPE_CHECKING:
    from evar.config.encoder import EncoderConfig

SAMPLE_RATE = 16000  # Hz, where a repository does not say
RATES = ("sampling_rate", "sample_rate")  # settings of codecs and of MERT
#: settings of CLAP's text half, for untrained ones
TEXT_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "pad_token_id", "layer_norm_eps"),
)
DESCRIPTIONS = {
    "conv": "convolutions, before projection",
    "last": "after what follows the last hidden state",
    "pooled": "the model's own clip embedding",
    "projected": "the embedding that sound and text share, length 1",
    "latent": "what the quantiser takes",
}


class HuggingFaceEncoder(ReadsText):
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
        folder = _folder(model, revision, weights)
        config = read_config(transformers, folder)
        extractor = read_extractor(transformers, folder, config)
        part = build_audio_part(transformers, config, weights)
        self.network = part.network
        if part.projection is not None:
            self.projection, self.text_layer = part.projection, "projected"
            self.checkpoint, self._folder = None if weights is None else Path(weights), folder
            told = config.text_config.to_dict()
            self._text = int(config.projection_dim), {name: told[name] for name in TEXT_SIZES if name in told}
        try:
            self.reader = _choose_reader(self.network, extractor, part.projection)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        self.sample_rate = _sample_rate(extractor, config)
        self.min_samples = self.reader.min_samples
        self.batch_invariant = self.reader.invariant
        if isinstance(self.reader, CodecReader):
            self.batch_seconds = BATCH_SECONDS  # type: ignore[misc]
        self.eval()
        self.layer_infos = self._declare_layers(folder)
        self.default_layers = (self.layer_infos[-1].name,)
        # The convolutions of wav2vec2 and its kin; elsewhere a module of that name pools attention maps for a head.
        if isinstance(self.reader, WaveformReader) and hasattr(self.network, "feature_extractor"):
            self.frontend_parameters = ("network.feature_extractor",)

    @classmethod
    def from_config(cls, config: EncoderConfig, *, weights: str | Path | None) -> Encoder:
        """Build from a name's options; `weights` is a model's folder, a checkpoint file, or None for random ones.

        Where config.json names a model of which this toolkit has a class of its own, that class is built, and takes the
        other options.
        """
        model, revision = config.options.get("model", ""), config.options.get("revision")
        folder = _folder(model, revision, weights)
        settings = read_settings(folder)
        if settings.get("model_type") in OWN_CLASSES:
            own = {name: value for name, value in config.options.items() if name not in ("model", "revision")}
            return build_own_encoder(settings, folder, weights, own)
        for option in config.options:
            if option not in ("model", "revision"):
                raise ValueError(f"{config.name} has no option {option!r}; {near_miss(option, ['model', 'revision'])}")
        return cls(**config.options, weights=weights)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        """Count samples, since the input is the waveform (waveform models only): (batch,) -> (batch,) samples."""
        if isinstance(self.reader, WaveformReader):
            return lengths
        return super().network_input_frames(lengths)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        """Compute (batch, samples), scaled as the model's feature extractor says (waveform models only)."""
        if isinstance(self.reader, WaveformReader):
            return self.reader.scale_clips(waveform, lengths)
        return super().network_input(waveform, lengths)

    def valid_frames(self, lengths: Tensor) -> dict[str, Tensor]:
        """Count the frames of each layer as the model's reader does; see the module's docstring.

        (batch,) samples -> layer name -> (batch,) frames.
        """
        return {info.name: self.reader.frames(info.name, lengths) for info in self.layer_infos}

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """Compute every layer, cut where the longest clip's valid frames end.

        (batch, samples) -> layer name -> (batch, time, width).
        """
        states = self.reader.states(waveform, lengths)
        return {name: value[:, : int(self.reader.frames(name, lengths).max())] for name, value in states.items()}

    @property
    def tokenizer_folder(self) -> Path | None:
        """The model's own folder; None for random weights."""
        return None if self.checkpoint is None else self._folder

    def build_text_half(self) -> TextHalf:
        """Make the half of a CLAP that reads, from the model's own folder."""
        from evar.encoders._clap_text import build_laion_text

        width, sizes = self._text
        return build_laion_text(self.checkpoint, width, sizes, self._folder)

    def _declare_layers(self, folder: Path) -> tuple[LayerInfo, ...]:
        """The layers; parameters that none of them depends on are frozen.

        The widths and stages of unknown models are found by running them on a second of noise.
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
        reached = _find_reached(states.values())
        for parameter in self.network.parameters():
            if parameter not in reached:
                parameter.requires_grad_(False)
        return tuple(
            LayerInfo(name, value.shape[2], self.reader.hop(name), "mean", DESCRIPTIONS.get(name, ""))
            for name, value in states.items()
        )


def _folder(model: str, revision: str | None, weights: str | Path | None) -> Path:
    """Where config.json lies: beside whole weights, else in the model's folder on disk or of the hub."""
    if weights is not None and Path(weights).is_dir():
        return Path(weights)
    return download.hub_folder(str(model), revision, with_weights=False)


def _sample_rate(extractor: Any, config: Any) -> int:
    """Hz: what the front-end says, else the settings, else that of most models."""
    said = (getattr(extractor, "sampling_rate", None), *(getattr(config, key, None) for key in RATES))
    return next((int(rate) for rate in said if isinstance(rate, int)), SAMPLE_RATE)


def _choose_reader(network: Any, extractor: Any, projection: Any) -> Reader:
    """The reader of the model's family; ValueError where nothing says how the model takes sound in."""
    kind = network.config.model_type
    if (
        getattr(network, "main_input_name", "") == "input_values"
        and hasattr(network.config, "conv_stride")
        and hasattr(network, "feature_extractor")
    ):
        return WaveformReader(network, extractor)
    if getattr(extractor, "sampling_rate", None) is None:  # none at all, or one for pictures
        raise ValueError(f"nothing says how a {kind} model takes sound in; its folder needs a preprocessor_config.json")
    if kind in DECODING_PARTS:
        return CodecReader(network, extractor)
    families: dict[str, type[Reader]] = {
        "whisper": WhisperReader,
        "audio-spectrogram-transformer": PatchReader,
        "wav2vec2-bert": MelPairsReader,
    }
    if kind in families:
        return families[kind](network, extractor)
    return TokenReader(network, extractor, projection)


def _find_reached(outputs: Any) -> set[Tensor]:
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
