"""Any transformers audio model as an encoder: its own hidden states, whole checkpoints only, nothing from the network."""

from __future__ import annotations

import fnmatch
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from torch import Tensor

from evar import cli, download, embed, results
from evar.cli import run
from evar.config.encoder import load_encoder_config
from evar.encoders import load_encoder
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.contract import check_encoder, relative_l2
from evar.encoders.locating import locate

transformers = load_transformers("the test")

TOLERANCE = 1e-5
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONVOLUTIONS = {
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 4, 16),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SHORTEST = 40  # samples for one frame of these convolutions
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}
WHISPER = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 50, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
CLAP_AUDIO = {
    "patch_embeds_hidden_size": 16, "hidden_size": 64, "depths": [1, 1, 1], "num_attention_heads": [2, 2, 2],
    "spec_size": 64, "window_size": 4, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4],
}  # fmt: skip
CLAP_TEXT = {**BODY, "hidden_size": 16, "num_hidden_layers": 1, "vocab_size": 30}
CLAP_INPUT = {
    "feature_size": 16, "sampling_rate": 8000, "hop_length": 160, "max_length_s": 2, "fft_window_size": 256,
    "frequency_max": 4000, "truncation": "rand_trunc", "padding": "repeatpad",
}  # fmt: skip

# name -> (config class, its settings, feature extractor class, its settings, class of the saved model)
MODELS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "hubert": ("HubertConfig", {**BODY, **CONVOLUTIONS}, "Wav2Vec2FeatureExtractor", {}, "HubertForCTC"),
    "wavlm": ("WavLMConfig", {**BODY, **CONVOLUTIONS}, "Wav2Vec2FeatureExtractor", {"do_normalize": False}, "WavLMModel"),
    "unispeech": ("UniSpeechConfig", {**BODY, **CONVOLUTIONS, **STABLE}, "Wav2Vec2FeatureExtractor", {}, "UniSpeechModel"),
    "unispeech_sat": (
        *("UniSpeechSatConfig", {**BODY, **CONVOLUTIONS}, "Wav2Vec2FeatureExtractor", {}, "UniSpeechSatModel"),
    ),
    "wav2vec2": ("Wav2Vec2Config", {**BODY, **CONVOLUTIONS}, "Wav2Vec2FeatureExtractor", {}, "Wav2Vec2ForPreTraining"),
    "data2vec": (
        *("Data2VecAudioConfig", {**BODY, **CONVOLUTIONS, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5}),
        *("Wav2Vec2FeatureExtractor", {}, "Data2VecAudioModel"),
    ),
    "sew": ("SEWConfig", {**BODY, **CONVOLUTIONS, "squeeze_factor": 2}, "Wav2Vec2FeatureExtractor", {}, "SEWModel"),
    "wav2vec2_bert": ("Wav2Vec2BertConfig", BODY, "SeamlessM4TFeatureExtractor", {}, "Wav2Vec2BertModel"),
    "whisper": (
        *("WhisperConfig", {**WHISPER, "max_source_positions": 50}, "WhisperFeatureExtractor", {"chunk_length": 1}),
        "WhisperForConditionalGeneration",
    ),
    "ast": (
        *("ASTConfig", {**BODY, "max_length": 96}, "ASTFeatureExtractor", {"max_length": 96}),
        "ASTForAudioClassification",
    ),
    "clap": (
        *("ClapConfig", {"audio_config": CLAP_AUDIO, "text_config": CLAP_TEXT, "projection_dim": 8}),
        *("ClapFeatureExtractor", CLAP_INPUT, "ClapModel"),
    ),
}  # fmt: skip


def save(folder: Path, name: str, **changes: Any) -> Path:
    """Write a tiny model of that name, with settings of its config changed, as its authors would."""
    config_class, settings, extractor_class, front_end, model_class = MODELS[name]
    torch.manual_seed(1)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**{**settings, **changes}))
    model.save_pretrained(folder)
    getattr(transformers, extractor_class)(**front_end).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of a model, written once."""
    root = tmp_path_factory.mktemp("models")

    def folder(name: str) -> Path:
        return root / name if (root / name).exists() else save(root / name, name)

    return folder


@pytest.fixture
def copy_of(folder_of: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A function that gives a copy of a model's folder, to be changed."""
    return lambda name: Path(shutil.copytree(folder_of(name), tmp_path / name))


def noise(n_samples: int) -> Tensor:
    """(1, samples)."""
    return 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(5))


def encoded(encoder: Encoder, clip: Tensor) -> dict[str, Tensor]:
    """Layer -> (time, width)."""
    with torch.no_grad():
        return {name: value[0] for name, value in encoder.encode(clip).items()}


def own_states(folder: Path, clip: Tensor) -> tuple[Tensor, ...]:
    """What transformers itself gives for a clip: (token, width) of every hidden state, and of the last one at the end."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    inputs = extractor(clip[0].numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return tuple(state[0] for state in (*output.hidden_states, output.last_hidden_state))


@pytest.mark.parametrize(
    ("name", "weights"),
    [*((name, None) for name in MODELS), ("hubert", "random"), ("whisper", "random"), ("ast", "random")],
)
def test_keeps_the_contract(folder_of, name, weights):
    encoder = load_encoder(f"hf:{folder_of(name)}", weights)
    assert check_encoder(encoder, lambda: load_encoder(f"hf:{folder_of(name)}", weights)) == []
    assert encoder.batch_invariant is (name not in ("data2vec", "sew"))
    assert encoder.weights_label == ("random" if weights else name)


@pytest.mark.parametrize(
    ("name", "layers", "hop", "min_samples", "sample_rate"),
    [
        ("hubert", "conv hidden0 hidden1 hidden2", 320, SHORTEST, 16000),
        ("wavlm", "conv hidden0 hidden1 hidden2", 320, SHORTEST, 16000),
        ("unispeech", "conv hidden0 hidden1 hidden2 last", 320, SHORTEST, 16000),
        ("data2vec", "conv hidden0 hidden1 hidden2", 320, SHORTEST, 16000),
        ("wav2vec2_bert", "hidden0 hidden1 hidden2", 320, 560, 16000),
        ("whisper", "hidden0 hidden1 hidden2", 320, 1, 16000),
        ("ast", "hidden0 hidden1 hidden2 last pooled", 1600, 2800, 16000),
        ("clap", "hidden0 hidden1 hidden2 hidden3 last pooled projected", 0, 2000, 8000),
    ],
)
def test_declares_every_layer(folder_of, name, layers, hop, min_samples, sample_rate):
    encoder = load_encoder(f"hf:{folder_of(name)}")
    assert [info.name for info in encoder.layer_infos] == layers.split()
    assert encoder.default_layers == (layers.split()[-1],) and {info.pooling for info in encoder.layer_infos} == {
        "mean"
    }
    assert {info.hop for info in encoder.layer_infos} == {hop} | ({0} if name == "ast" else set())
    assert (encoder.min_samples, encoder.sample_rate) == (min_samples, sample_rate)
    if name != "clap":
        assert all(info.width == (16 if info.name == "conv" else 32) for info in encoder.layer_infos)


@pytest.mark.parametrize("name", ["hubert", "wavlm", "unispeech", "data2vec"])
def test_waveform_models_give_their_own_states(folder_of, name):
    clip = noise(9000)
    mine, own = encoded(load_encoder(f"hf:{folder_of(name)}"), clip), own_states(folder_of(name), clip)
    n_frames = 9000
    for kernel, stride in zip(CONVOLUTIONS["conv_kernel"], CONVOLUTIONS["conv_stride"], strict=True):
        n_frames = (n_frames - kernel) // stride + 1
    for number, state in enumerate(own[:-1]):
        assert mine[f"hidden{number}"].shape == (n_frames, 32)
        assert relative_l2(mine[f"hidden{number}"], state) < TOLERANCE
    assert relative_l2(mine.get("last", mine["hidden2"]), own[-1]) < TOLERANCE
    # the convolutions' output is what the projection to hidden states takes
    model = transformers.AutoModel.from_pretrained(folder_of(name)).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder_of(name))
    scaled = extractor(clip[0].numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.no_grad():
        assert relative_l2(mine["conv"], model.feature_extractor(scaled)[0].T) < TOLERANCE


def test_front_end_is_that_of_the_feature_extractor(folder_of):
    clip = noise(5000) + 0.3
    scaled = load_encoder(f"hf:{folder_of('hubert')}").frontend(clip)
    own = transformers.Wav2Vec2FeatureExtractor()(clip[0].numpy(), sampling_rate=16000, return_tensors="pt")
    assert relative_l2(scaled, own.input_values) < TOLERANCE
    assert torch.equal(load_encoder(f"hf:{folder_of('wavlm')}").frontend(clip), clip)
    with pytest.raises(NotImplementedError, match="has no front-end of its own"):
        load_encoder(f"hf:{folder_of('whisper')}").frontend(clip)


def test_padding_is_heard_where_a_model_is_declared_so(folder_of):
    for name in ("data2vec", "sew"):
        encoder = load_encoder(f"hf:{folder_of(name)}")
        alone = encoded(encoder, noise(9000))["hidden2"]
        with torch.no_grad():
            padded = encoder.encode(torch.nn.functional.pad(noise(9000), (0, 7000)), torch.tensor([9000]))
        n_frames = int(padded.frames["hidden2"][0])
        assert n_frames == len(alone) and relative_l2(padded["hidden2"][0, :n_frames], alone) > TOLERANCE


@pytest.mark.parametrize(
    ("name", "changes", "last"),
    [
        ("hubert", {"conv_pos_batch_norm": True}, ("hidden2", 32, 320)),
        ("wav2vec2", {"add_adapter": True, "output_hidden_size": 24}, ("last", 24, 320 * 8)),
        ("wav2vec2_bert", {"add_adapter": True, "use_intermediate_ffn_before_adapter": True}, ("last", 32, 320 * 2)),
    ],
)
def test_what_no_mask_covers_is_declared(tmp_path, name, changes, last):
    encoder = load_encoder(f"hf:{save(tmp_path / name, name, **changes)}")
    info = encoder.layer_infos[-1]
    assert not encoder.batch_invariant and (info.name, info.width, info.hop) == last
    assert check_encoder(encoder) == []


def test_wav2vec2_bert_gives_its_own_states(folder_of):
    clip = noise(400 + 160 * 20)  # 21 log-mel frames: the last has no partner
    mine, own = (
        encoded(load_encoder(f"hf:{folder_of('wav2vec2_bert')}"), clip),
        own_states(folder_of("wav2vec2_bert"), clip),
    )
    for number in range(3):
        assert mine[f"hidden{number}"].shape == (10, 32)
        assert relative_l2(mine[f"hidden{number}"], own[number][:10]) < TOLERANCE


def test_whisper_joins_windows_and_keeps_what_overlaps_the_clip(folder_of):
    clip = noise(2 * 16000 + 5001)
    mine = encoded(load_encoder(f"hf:{folder_of('whisper')}"), clip)
    windows = [own_states(folder_of("whisper"), clip[:, begin : begin + 16000]) for begin in (0, 16000, 32000)]
    for number in range(3):
        own = torch.cat([windows[0][number], windows[1][number], windows[2][number][:16]])  # 15.6 frames begin
        assert mine[f"hidden{number}"].shape == (116, 32)
        assert relative_l2(mine[f"hidden{number}"], own) < TOLERANCE


def test_whisper_encodes_35_seconds_from_a_file(tmp_path):
    folder = save(tmp_path / "whisper", "whisper", max_source_positions=1500, encoder_layers=1)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    soundfile.write(tmp_path / "long.wav", noise(35 * 16000)[0].numpy(), 16000, subtype="FLOAT")
    encoder = load_encoder(f"hf:{folder}")
    frames = encoded(encoder, noise(35 * 16000))["hidden1"]
    assert frames.shape == (1750, 32)
    assert relative_l2(frames[1500:], own_states(folder, noise(35 * 16000)[:, 30 * 16000 :])[1][:250]) < TOLERANCE
    np.testing.assert_allclose(embed(encoder, str(tmp_path / "long.wav"))[0], frames.mean(0), rtol=1e-4, atol=1e-5)


def test_ast_gives_columns_of_patches_and_its_own_embedding(folder_of):
    clip = noise(400 + 159 * 160)  # 160 log-mel frames: 15 columns, nine of them in the first window
    mine = encoded(load_encoder(f"hf:{folder_of('ast')}"), clip)
    step = 9 * 10 * 160
    own = [own_states(folder_of("ast"), clip[:, begin : begin + 400 + 95 * 160]) for begin in (0, step)]
    for number, name in enumerate(("hidden0", "hidden1", "hidden2", "last")):
        columns = [states[number][2:].reshape(12, 9, 32).mean(0) for states in own]  # frequency, time
        assert mine[name].shape == (15, 32)
        assert relative_l2(mine[name], torch.cat(columns)[:15]) < TOLERANCE
    heads = [states[-1][:2].mean(0) for states in own]
    shares = torch.tensor([step, clip.shape[1] - step]) / clip.shape[1]
    assert relative_l2(mine["pooled"][0], shares[0] * heads[0] + shares[1] * heads[1]) < TOLERANCE


def test_clap_gives_means_over_tokens_over_parts_by_duration(folder_of):
    folder, clip = folder_of("clap"), noise(3 * 8000)
    encoder = load_encoder(f"hf:{folder}")
    mine, parts = encoded(encoder, clip), [encoded(encoder, clip[:, :16000]), encoded(encoder, clip[:, 16000:])]
    assert encoder.network.__class__.__name__ == "ClapAudioModel" and "text_model" not in str(encoder)
    for name, value in mine.items():
        assert relative_l2(value, (2 * parts[0][name] + parts[1][name]) / 3) < TOLERANCE
    audio = transformers.ClapModel.from_pretrained(folder).eval().audio_model
    inputs = transformers.ClapFeatureExtractor.from_pretrained(folder)(
        clip[0, :16000].numpy(), sampling_rate=8000, return_tensors="pt"
    )
    with torch.no_grad():
        own = audio(input_features=inputs["input_features"], output_hidden_states=True)
    assert relative_l2(parts[0]["hidden1"][0], own.hidden_states[1][0].mean(dim=(1, 2))) < TOLERANCE
    assert relative_l2(parts[0]["pooled"][0], own.pooler_output[0]) < TOLERANCE


def test_fused_clap_hears_no_clip_as_longer_than_it_is(tmp_path):
    folder = save(tmp_path / "clap", "clap", audio_config={**CLAP_AUDIO, "enable_fusion": True})
    extractor = transformers.ClapFeatureExtractor(**{**CLAP_INPUT, "truncation": "fusion"})
    extractor.save_pretrained(folder)
    encoder, clip = load_encoder(f"hf:{folder}"), noise(8000)
    inputs = extractor(clip[0].numpy(), sampling_rate=8000, return_tensors="pt")
    assert inputs["is_longer"].all()  # the front-end picks one of a batch at random where none is
    with torch.no_grad():
        own = encoder.network(input_features=inputs["input_features"], is_longer=torch.zeros(1, 1, dtype=torch.bool))
    assert relative_l2(encoded(encoder, clip)["pooled"], own.pooler_output) < TOLERANCE
    trainable = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trainable and not any("fusion" in name for name in trainable)  # what no layer depends on


def test_training_drops_no_layers_and_masks_nothing(tmp_path):
    folder = save(tmp_path / "hubert", "hubert", layerdrop=0.99, mask_time_prob=0.5, mask_time_length=2, hidden_dropout=0.0,
                  attention_dropout=0.0, activation_dropout=0.0, feat_proj_dropout=0.0)  # fmt: skip
    encoder = load_encoder(f"hf:{folder}")
    frozen = encoded(encoder, noise(9000))
    for name, value in encoded(encoder.train(), noise(9000)).items():
        assert relative_l2(value, frozen[name]) < TOLERANCE
    assert not any("masked_spec_embed" in name for name, _ in encoder.named_parameters())


def test_safetensors_pickles_files_and_half_precision_give_the_same(folder_of, copy_of):
    folder = copy_of("hubert")
    expected = encoded(load_encoder(f"hf:{folder}"), noise(4000))["hidden2"]
    other = load_encoder(f"hf:{folder_of('hubert')}", folder / "model.safetensors")
    assert torch.equal(encoded(other, noise(4000))["hidden2"], expected)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"cannot be loaded"):
        load_encoder(f"hf:{folder}")
    torch.save(state, folder / "pytorch_model.bin")
    assert torch.equal(encoded(load_encoder(f"hf:{folder}"), noise(4000))["hidden2"], expected)
    torch.save({name: tensor.half() for name, tensor in state.items()}, folder / "pytorch_model.bin")
    assert relative_l2(encoded(load_encoder(f"hf:{folder}"), noise(4000))["hidden2"], expected) < 0.01


class Planted:
    """Pickles as a call that writes a file: what a hostile checkpoint does."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.target,))


def test_runs_no_code_of_a_checkpoint_or_repository(copy_of, tmp_path):
    folder = copy_of("hubert")
    (folder / "model.safetensors").unlink()
    torch.save({"x": Planted(tmp_path / "pickle ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot be loaded"):
        load_encoder(f"hf:{folder}")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'module ran')!r}, 'w')\n")
    settings = {"model_type": "own", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="models that bring their own code are not run"):
        load_encoder(f"hf:{folder}", "random")
    assert not list(tmp_path.glob("*ran"))


def test_a_checkpoint_fits_whole_or_not_at_all(copy_of):
    folder = copy_of("hubert")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    assert "lm_head.weight" in state  # heads are no loss
    query = "hubert.encoder.layers.1.attention.q_proj.weight"

    def refusal(**changes: Tensor | None) -> str:
        changed = {name: tensor for name, tensor in {**state, **changes}.items() if tensor is not None}
        safetensors.torch.save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="does not fit HubertModel") as caught:
            load_encoder(f"hf:{folder}")
        return str(caught.value)

    assert "1 tensors missing (encoder.layers.1.attention.q_proj.weight)" in refusal(**{query: None})
    assert f"1 unexpected ({query.replace('.1.', '.7.')})" in refusal(**{query.replace(".1.", ".7."): torch.zeros(2)})
    assert "1 of another shape (encoder.layers.1.attention.q_proj.weight (3, 32) instead of (32, 32))" in refusal(
        **{query: torch.zeros(3, 32)}
    )


def test_whisper_without_its_decoder_is_whole_enough(copy_of):
    folder = copy_of("whisper")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if ".decoder." not in name}
    assert len(kept) < len(state)
    safetensors.torch.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert not any("decoder" in name for name, _ in load_encoder(f"hf:{folder}").named_parameters())


def test_what_is_no_audio_model_is_refused_in_a_sentence(tmp_path, copy_of):
    bert = transformers.BertConfig(**BODY, vocab_size=20)
    transformers.BertModel(bert).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="how a bert model takes sound in"):
        load_encoder(f"hf:{tmp_path / 'bert'}")
    folder = copy_of("ast")
    transformers.ASTFeatureExtractor(max_length=50).save_pretrained(folder)
    with pytest.raises(ValueError, match="50 log-mel frames, but the network takes 96"):
        load_encoder(f"hf:{folder}")
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load_encoder(f"hf:{folder}", "random")
    with pytest.raises(ValueError, match=r"no option 'modle'.*did you mean 'model'"):
        load_encoder(f"hf:{tmp_path / 'bert'}", "random", modle="x")


def test_settings_alone_are_enough_for_random_weights(folder_of, tmp_path):
    for name in ("hubert", "whisper"):
        (tmp_path / name).mkdir()
        shutil.copy(folder_of(name) / "config.json", tmp_path / name)
    assert load_encoder(f"hf:{tmp_path / 'hubert'}", "random").sample_rate == 16000
    with pytest.raises(ValueError, match="parts of 480000 samples, but the network takes 16000"):
        load_encoder(f"hf:{tmp_path / 'whisper'}", "random")  # the class's own front-end hears 30 s


def test_hash_covers_what_changes_numbers_only(copy_of):
    folder = copy_of("hubert")

    def sha256() -> str:
        return locate(load_encoder_config(f"hf:{folder}"), None).sha256

    first = sha256()
    for name in ("README.md", ".gitattributes", "optimizer.pt", "training_args.bin", "pytorch_model.bin", "vocab.json"):
        (folder / name).write_bytes(b"x")
    assert sha256() == first == locate(load_encoder_config(f"hf:{folder}"), folder).sha256
    seen = {first}
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
        seen.add(sha256())
    (folder / "model.safetensors").unlink()
    seen.add(sha256())  # now that of pytorch_model.bin
    assert len(seen) == 5


COMMIT = "c0ffee" + 34 * "0"


def _cached(root: Path, folder: Path, commit: str = COMMIT) -> Path:
    """Lay a model into a hub cache, as the hub's client does, under the name org/name and the tag v1."""
    repository = root / "models--org--name"
    snapshot = Path(shutil.copytree(folder, repository / "snapshots" / commit))
    (repository / "refs").mkdir()
    for reference in ("main", "v1"):
        (repository / "refs" / reference).write_text(commit)
    return snapshot


def test_offline_a_cached_repository_is_found_and_another_is_not(folder_of, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    snapshot = _cached(tmp_path, folder_of("hubert"))
    for name in ("hf:org/name", "hf:org/name@v1"):
        encoder = load_encoder(name)
        assert (encoder.name, encoder.weights_label) == (name, f"hf:org/name@{COMMIT}")
        assert load_encoder(name, "random").weights_label == "random"
    assert encoder.options == {"model": "org/name", "revision": "v1"}
    assert load_encoder(f"hf:{folder_of('hubert')}", "hf:org/name").weights_sha256 == encoder.weights_sha256
    for weights in (None, "random"):
        with pytest.raises(FileNotFoundError) as caught:
            load_encoder("hf:org/none@v2", weights)
        message = str(caught.value)
        assert message.startswith("org/none at v2 is not in the hub's cache") and "hf:FOLDER" in message
        assert "HF_HUB_OFFLINE forbids the network" in message and "\n" not in message
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors or pytorch_model\.bin is missing"):
        load_encoder("hf:org/name")
    with pytest.raises(FileNotFoundError, match="no folder ./none/at/all"):
        load_encoder("hf:./none/at/all")


def test_hub_folder_takes_settings_and_one_format_of_weights(tmp_path, monkeypatch):
    import huggingface_hub

    settings = {"config.json", "preprocessor_config.json"}
    shards = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
    clutter = {
        "README.md",
        "vocab.json",
        "optimizer.bin",
        "onnx/model.onnx",
        "onnx/config.json",
        "adapter.fin.safetensors",
    }
    asked: list[str | None] = []

    def hub_with(name: str, files: set[str]) -> Callable[[bool], set[str]]:
        def snapshot_download(
            repo: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool
        ) -> str:
            asked.append(revision)
            folder = tmp_path / name / "snapshots" / "c0ffee"
            for file in files:
                if any(fnmatch.fnmatch(file, pattern) for pattern in allow_patterns):
                    (folder / file).parent.mkdir(parents=True, exist_ok=True)
                    (folder / file).touch()
            return str(folder)

        def fetched(with_weights: bool) -> set[str]:
            monkeypatch.setenv("EVAR_CACHE", str(tmp_path / name / "cache"))
            monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
            folder = download.hub_folder("org/name", "v1", with_weights)
            return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

        return fetched

    assert hub_with("a", settings | clutter | {"model.safetensors", "pytorch_model.bin"})(False) == settings
    assert hub_with("b", settings | clutter | {"model.safetensors", "pytorch_model.bin"})(True) == settings | {
        "model.safetensors"
    }
    assert hub_with("c", settings | clutter | shards)(True) == settings | shards
    assert hub_with("d", settings | clutter | {"pytorch_model.bin"})(True) == settings | {"pytorch_model.bin"}
    assert set(asked) == {"v1", "c0ffee"}  # weights of the commit that the settings came from
    with pytest.raises(FileNotFoundError, match=r"org/name at v1 has no model\.safetensors or pytorch_model\.bin"):
        hub_with("e", settings | clutter)(True)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json on the Hugging Face hub"):
        hub_with("f", clutter)(True)


def test_a_folder_may_have_an_at_sign(folder_of, tmp_path):
    folder = Path(shutil.copytree(folder_of("hubert"), tmp_path / "me@home"))
    assert load_encoder_config(f"hf:{folder}").options == {"model": str(folder)}
    assert load_encoder_config("hf:org/name@abc").options == {"model": "org/name", "revision": "abc"}
    assert load_encoder(f"hf:{folder}").weights_label == "me@home"


def test_lineval_and_embed_take_a_folder(folder_of, tones):
    root, folder = tones(n_per_class=4), folder_of("wavlm")
    words = ["lineval", f"hf:{folder}", "tones", "--layers=all", f"--out={root / 'results'}"]
    assert run(words) == cli.DONE
    rows = results.load_all(root / "results")
    assert {row.layers for row in rows} == {("conv",), ("hidden0",), ("hidden1",), ("hidden2",)}
    assert {row.encoder for row in rows} == {f"hf:{folder}"}
    first = next((root / "data" / "tones").glob("*.wav"))
    vector = embed(f"hf:{folder}", str(first))
    assert vector.shape == (1, 32) and np.isfinite(vector).all()
