"""Codecs, MERT and CLAP's shared space by `hf:` name, held against transformers' own networks; small models, offline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from evar.encoders import load_encoder
from evar.encoders._transformers import load_transformers
from evar.encoders.base import Encoder
from evar.encoders.contract import check_encoder, relative_l2

transformers = load_transformers("the test")

TOLERANCE = 1e-5
SEANET = {
    "num_filters": 4, "hidden_size": 16, "upsampling_ratios": [4, 5, 2], "codebook_size": 16, "sampling_rate": 8000,
    "num_residual_layers": 1,
}  # fmt: skip
DAC = {
    "encoder_hidden_size": 4, "decoder_hidden_size": 32, "downsampling_ratios": [2, 5, 4], "upsampling_ratios": [4, 5, 2],
    "hidden_size": 16, "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4, "sampling_rate": 8000,
}  # fmt: skip
HUBERT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": (16, 16, 16), "conv_kernel": (10, 3, 2), "conv_stride": (5, 4, 16), "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
SPEECH = {**HUBERT, "conv_kernel": (10, 3, 3), "conv_stride": (5, 4, 2), "hidden_size": 16, "intermediate_size": 32}
MIMI = {
    **SEANET, "frame_rate": 100.0, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "head_dim": 8, "intermediate_size": 32, "num_quantizers": 2, "num_semantic_quantizers": 1, "codebook_dim": 16,
    "vector_quantization_hidden_dimension": 16, "upsample_groups": 16, "sliding_window": 10,
}  # fmt: skip
# name -> (config class, settings, feature extractor class, settings, model class)
CODECS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], str]] = {
    "encodec": ("EncodecConfig", SEANET, "EncodecFeatureExtractor", {"sampling_rate": 8000}, "EncodecModel"),
    "encodec_symmetric": (
        *("EncodecConfig", {**SEANET, "use_causal_conv": False}, "EncodecFeatureExtractor", {"sampling_rate": 8000}),
        "EncodecModel",
    ),
    "mimi": ("MimiConfig", MIMI, "EncodecFeatureExtractor", {"sampling_rate": 8000}, "MimiModel"),
    "dac": ("DacConfig", DAC, "DacFeatureExtractor", {"sampling_rate": 8000, "hop_length": 40}, "DacModel"),
    "xcodec": (
        *("XcodecConfig", {"acoustic_model_config": DAC, "semantic_model_config": SPEECH, "target_bandwidths": [2, 4]}),
        *("DacFeatureExtractor", {"sampling_rate": 16000, "hop_length": 40}, "XcodecModel"),
    ),
}  # fmt: skip
LAYERS = {
    "encodec": "block1:2 block2:10 block3:40 lstm:40 latent:40",
    "encodec_symmetric": "block1:2 block2:10 block3:40 lstm:40 latent:40",
    "mimi": "block1:2 block2:10 block3:40 hidden0:40 hidden1:40 hidden2:40 latent:80",
    "dac": "block1:2 block2:10 block3:40 latent:40",
    "xcodec": "block1:2 block2:10 block3:40 acoustic:40 semantic:40 latent:40",
}


def save(folder: Path, entry: tuple[str, dict[str, Any], str, dict[str, Any], str]) -> Path:
    """Write a small model as its authors would, every parameter drawn at random."""
    config_class, settings, extractor_class, front_end, model_class = entry
    torch.manual_seed(2)
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**settings))
    with torch.no_grad():
        for parameter in model.parameters():  # some start as zeros and ones, which would hide mistakes
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    getattr(transformers, extractor_class)(**front_end).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def codec_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that gives the folder of a codec, written once."""
    root = tmp_path_factory.mktemp("codecs")
    return lambda name: root / name if (root / name).exists() else save(root / name, CODECS[name])


def noise(n_samples: int) -> Tensor:
    """(1, samples)."""
    return 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(5))


def encoded(encoder: Encoder, clip: Tensor) -> dict[str, Tensor]:
    """Layer -> (time, width)."""
    with torch.no_grad():
        return {name: value[0] for name, value in encoder.encode(clip).items()}


def to_quantiser(folder: Path, clip: Tensor) -> Tensor:
    """(time, width): what transformers' own `encode` hands to its quantiser for the clip, as its front-end gives it."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    inputs = extractor(clip[0].numpy(), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    seen: list[Tensor] = []
    method = "forward" if model.config.model_type == "dac" else "encode"
    original = getattr(model.quantizer, method)

    def spy(latent: Tensor, *rest: Any, **more: Any) -> Any:
        seen.append(latent)
        return original(latent, *rest, **more)

    setattr(model.quantizer, method, spy)
    with torch.no_grad():
        model.encode(inputs["input_values"])
    return seen[0][0].T


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("weights", [None, "random"])
def test_codecs_keep_the_contract(codec_of, name, weights):
    encoder = load_encoder(f"hf:{codec_of(name)}", weights)
    assert check_encoder(encoder, lambda: load_encoder(f"hf:{codec_of(name)}", weights)) == []
    assert encoder.batch_invariant is (name in ("encodec", "mimi"))


@pytest.mark.parametrize("name", CODECS)
def test_codecs_declare_each_layer_with_its_own_hop(codec_of, name):
    encoder = load_encoder(f"hf:{codec_of(name)}")
    assert " ".join(f"{info.name}:{info.hop}" for info in encoder.layer_infos) == LAYERS[name]
    assert encoder.default_layers == ("latent",) and encoder.sample_rate == (16000 if name == "xcodec" else 8000)
    assert not any("decoder" in key or "quantizer" in key for key in encoder.state_dict())


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("n_samples", [4000, 4037])
def test_latent_is_what_the_codec_itself_quantises(codec_of, name, n_samples):
    mine, own = (
        encoded(load_encoder(f"hf:{codec_of(name)}"), noise(n_samples)),
        to_quantiser(codec_of(name), noise(n_samples)),
    )
    hop = 80 if name == "mimi" else 40
    n_frames = n_samples // hop if name in ("encodec", "mimi") else -(-n_samples // hop)
    assert mine["latent"].shape == (n_frames, own.shape[1]) and len(own) == -(-n_samples // hop)
    assert relative_l2(mine["latent"], own[:n_frames]) < TOLERANCE
    assert relative_l2(mine["latent"].flip(0), own[:n_frames]) > 1e-3  # frames in another order are seen


def test_encodecs_blocks_are_its_strided_convolutions(codec_of):
    clip, mine = noise(4000), encoded(load_encoder(f"hf:{codec_of('encodec')}"), noise(4000))
    model, value, seen = transformers.EncodecModel.from_pretrained(codec_of("encodec")).eval(), clip[:, None], []
    with torch.no_grad():
        for module in model.encoder.layers:
            value = module(value)
            if type(module).__name__ == "EncodecLSTM" or getattr(getattr(module, "conv", None), "stride", (1,))[0] > 1:
                seen.append(value[0].T)
    for name, own in zip(("block1", "block2", "block3", "lstm"), seen, strict=True):
        assert mine[name].shape == own.shape and relative_l2(mine[name], own) < TOLERANCE


def test_mimis_hidden_states_are_those_of_its_transformer(codec_of):
    mine = encoded(load_encoder(f"hf:{codec_of('mimi')}"), noise(4000))
    model = transformers.MimiModel.from_pretrained(codec_of("mimi")).eval()
    with torch.no_grad():
        own = model.encoder(noise(4000)[:, None], output_hidden_states=True).hidden_states
    assert len(own) == 3
    for number, state in enumerate(own):
        assert relative_l2(mine[f"hidden{number}"], state[0]) < TOLERANCE


@pytest.mark.parametrize("name", CODECS)
def test_a_codecs_clip_gives_the_same_frames_alone_and_beside_another(codec_of, name):
    encoder = load_encoder(f"hf:{codec_of(name)}")
    n_samples = 2003 if encoder.batch_invariant else 4000
    first, second = noise(4000)[:, :n_samples], noise(4000).flip(1)
    alone = encoded(encoder, first)
    batch = torch.cat([torch.nn.functional.pad(first, (0, 4000 - n_samples)), second])
    with torch.no_grad():
        together = encoder.encode(batch, torch.tensor([n_samples, 4000]))
    for info in encoder.layer_infos:
        n_frames = int(together.frames[info.name][0])
        assert n_frames == len(alone[info.name])
        assert relative_l2(together[info.name][0, :n_frames], alone[info.name]) < TOLERANCE


def test_codecs_that_are_not_supported_say_so(tmp_path):
    stereo = {**SEANET, "audio_channels": 2, "normalize": True, "chunk_length_s": 1.0, "overlap": 0.01}
    entry = ("EncodecConfig", stereo, "EncodecFeatureExtractor", {"feature_size": 2}, "EncodecModel")
    with pytest.raises(ValueError, match=r"takes 2 channels .* not supported; take one of a single channel"):
        load_encoder(f"hf:{save(tmp_path / 'stereo', entry)}")


def test_a_codecs_checkpoint_needs_its_encoder_and_no_decoder(codec_of, tmp_path):
    state = safetensors.torch.load_file(codec_of("dac") / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if name.startswith("encoder.")}
    safetensors.torch.save_file(kept, tmp_path / "half.safetensors", metadata={"format": "pt"})
    half = load_encoder(f"hf:{codec_of('dac')}", tmp_path / "half.safetensors")
    whole = load_encoder(f"hf:{codec_of('dac')}")
    assert torch.equal(encoded(half, noise(800))["latent"], encoded(whole, noise(800))["latent"])
    del kept["encoder.conv1.weight"]
    safetensors.torch.save_file(kept, tmp_path / "half.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors missing \(encoder\.conv1\.weight\)"):
        load_encoder(f"hf:{codec_of('dac')}", tmp_path / "half.safetensors")


def save_mert(folder: Path, **options: Any) -> Path:
    """Write a small MERT-v1: HuBERT's tensors beside a config.json of another type that names code of its own."""
    torch.manual_seed(3)
    transformers.HubertModel(transformers.HubertConfig(**HUBERT)).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=24000).save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    own = {
        "model_type": "mert_model", "architectures": ["MERTModel"], "sample_rate": 24000, "attention_relax": -1.0,
        "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
        "deepnorm": False, "feature_extractor_cqt": False, "feature_extractor_cqt_bins": 336,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps({**settings, **own, **options}))
    (folder / "modeling_MERT.py").write_text("raise RuntimeError('ran')\n")
    return folder


@pytest.mark.parametrize("deepnorm", [False, True])
def test_mert_is_a_hubert_of_music(tmp_path, deepnorm):
    folder, clip = save_mert(tmp_path / "mert", deepnorm=deepnorm, attention_relax=32.0), noise(9000)
    encoder = load_encoder(f"hf:{folder}")
    assert check_encoder(encoder, lambda: load_encoder(f"hf:{folder}")) == []
    assert encoder.sample_rate == 24000 and encoder.batch_invariant
    assert [info.name for info in encoder.layer_infos] == ["conv", "hidden0", "hidden1", "hidden2"]
    model = transformers.HubertModel(transformers.HubertConfig(**HUBERT)).eval()
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"), strict=False)
    if deepnorm:  # LayerNorm(a x + f(x)) is LayerNorm(x + f(x) / a) with an epsilon that is a^2 times smaller
        alpha = (2 * 2) ** 0.25
        with torch.no_grad():
            for block in model.encoder.layers:
                for module in (block.attention.out_proj, block.feed_forward.output_dense):
                    module.weight.div_(alpha)
                    module.bias.div_(alpha)
                block.layer_norm.eps = block.final_layer_norm.eps = model.config.layer_norm_eps / alpha**2
    with torch.no_grad():
        scaled = (clip - clip.mean()) / (clip.var(unbiased=False) + 1e-7).sqrt()
        own = model(scaled, output_hidden_states=True).hidden_states
    mine = encoded(encoder, clip)
    for number, state in enumerate(own):
        assert relative_l2(mine[f"hidden{number}"], state[0]) < TOLERANCE
    plain = encoded(load_encoder(f"hf:{save_mert(tmp_path / 'plain')}"), clip)
    assert (relative_l2(plain["hidden2"], own[2][0]) > 1e-3) is deepnorm


def test_mert_v0_says_hubert_and_loads_as_one(tmp_path):
    folder = save_mert(tmp_path / "mert")
    settings = json.loads((folder / "config.json").read_text())
    for name in ("auto_map", "architectures"):
        del settings[name]
    (tmp_path / "v0").mkdir()
    for file in folder.iterdir():
        (tmp_path / "v0" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "v0" / "config.json").write_text(json.dumps({**settings, "model_type": "hubert"}))
    first, second = (encoded(load_encoder(f"hf:{path}"), noise(9000)) for path in (folder, tmp_path / "v0"))
    assert torch.equal(first["hidden2"], second["hidden2"])


def test_mert_with_a_constant_q_transform_is_refused(tmp_path):
    folder = save_mert(tmp_path / "mert", feature_extractor_cqt=True)
    with pytest.raises(ValueError, match=r"constant-Q transform .* not supported; take a MERT without"):
        load_encoder(f"hf:{folder}")
    folder = save_mert(tmp_path / "other", deepnorm=True, do_stable_layer_norm=True)
    with pytest.raises(ValueError, match="deepnorm needs blocks that normalise last"):
        load_encoder(f"hf:{folder}", "random")


def test_claps_projection_is_its_audio_features(tmp_path):
    audio = {
        "patch_embeds_hidden_size": 16, "hidden_size": 64, "depths": [1, 1, 1], "num_attention_heads": [2, 2, 2],
        "spec_size": 64, "window_size": 4, "num_mel_bins": 16, "patch_size": 4, "patch_stride": [4, 4],
        "projection_dim": 8,
    }  # fmt: skip
    text = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 30,
        "projection_dim": 8,
    }  # fmt: skip
    front_end = {
        "feature_size": 16, "sampling_rate": 8000, "hop_length": 160, "max_length_s": 2, "fft_window_size": 256,
        "frequency_max": 4000, "truncation": "rand_trunc", "padding": "repeatpad",
    }  # fmt: skip
    settings = {"audio_config": audio, "text_config": text, "projection_dim": 8}
    folder = save(tmp_path / "clap", ("ClapConfig", settings, "ClapFeatureExtractor", front_end, "ClapModel"))
    encoder = load_encoder(f"hf:{folder}")
    assert encoder.default_layers == ("projected",)
    info = encoder.layer("projected")
    assert (info.width, info.hop) == (8, 0)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    clips = [noise(16000), noise(16000).flip(1)]
    for clip in clips:
        inputs = extractor(clip[0].numpy(), sampling_rate=8000, return_tensors="pt")
        with torch.no_grad():
            own = model.get_audio_features(input_features=inputs["input_features"]).pooler_output[0]
        assert relative_l2(encoded(encoder, clip)["projected"][0], own) < TOLERANCE
    with torch.no_grad():  # a clip of two parts beside another: the mean of its parts
        batch = encoder.encode(torch.cat([torch.cat(clips, 1), torch.nn.functional.pad(clips[0], (0, 16000))]),
                               torch.tensor([32000, 16000]))  # fmt: skip
    parts = [encoded(encoder, clip)["projected"][0] for clip in clips]
    assert relative_l2(batch["projected"][0, 0], (parts[0] + parts[1]) / 2) < TOLERANCE
    assert relative_l2(batch["projected"][1, 0], parts[0]) < TOLERANCE
    state = safetensors.torch.load_file(folder / "model.safetensors")
    del state["audio_projection.linear1.weight"]
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors missing \(audio_projection\.linear1\.weight\)"):
        load_encoder(f"hf:{folder}")
