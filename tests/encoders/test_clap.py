"""CLAP: sound and text as the official programs and transformers compute them; known mistakes are seen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import golden_more
import golden_more_g4_clap
import numpy as np
import pytest
import torch
from golden_compare import GoldenSet, make_waves, relative
from torch import nn

import evar
from evar.encoders import load_encoder
from evar.encoders._clap_htsat import HtsatClap
from evar.encoders._logmel import mel_filterbank
from evar.storage.feature_store import FeatureStore

G4 = GoldenSet("g4")
CPU = torch.device("cpu")
#: golden model -> waves: the three of the set are compared by `golden_more` outside of this test, which takes a minute
WAVES = {"laion_clap": ("A",), "ms_clap_2023": ("D",)}


def limit(model: str, key: str) -> tuple[str, float]:
    """The tolerances that the set recommends (CPU, float32)."""
    return ("largest", 1e-2) if "front" in key else ("relative", 2e-5)


@pytest.fixture(scope="module")
def checkpoint(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Callable[[str], Path]]]:
    """A golden model, and a function that writes fake checkpoints in official layouts, once each; deleted afterwards."""
    folder = tmp_path_factory.mktemp(request.param)
    written: dict[str, Path] = {}

    def write(layout: str) -> Path:
        if layout not in written:
            place = folder / (layout if "_hf" in layout else f"{layout}.pt")
            written[layout] = G4.fake_weights.write_checkpoint(layout, place)
        return written[layout]

    yield request.param, write
    golden_more_g4_clap._loaded.cache_clear()
    shutil.rmtree(folder)


def zeros_in_place_of_copies(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    fill = lambda samples, n_samples, _: nn.functional.pad(samples, (0, n_samples - len(samples)))  # noqa: E731
    patch.setattr("evar.encoders._clap_audio.fill_piece", fill)


def bicubic_without_corners(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    real = nn.functional.interpolate
    patch.setattr(nn.functional, "interpolate", lambda *given, **how: real(*given, **{**how, "align_corners": False}))


def filters_for_44_kilohertz(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    filters = torch.from_numpy(mel_filterbank(44100, 1024, 64, 50.0, 14000.0).T.copy())
    patch.setattr(encoder.mel, "_double", {CPU: (encoder.mel._double[CPU][0], filters)})


def htk_mel(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    filters = torch.from_numpy(mel_filterbank(encoder.filters_rate, 1024, 64, 50.0, 14000.0, "htk").T.copy())
    patch.setattr(encoder.mel, "_double", {CPU: (encoder.mel._double[CPU][0], filters)})


def tanh_gelu(encoder: Any, patch: pytest.MonkeyPatch) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.GELU):
            patch.setattr(module, "approximate", "tanh")


#: mistake -> what it changes at least: a third of what the set says of wave B, or less, as measured, on wave A
MISTAKES: dict[str, list[tuple[Any, float]]] = {
    "laion_clap": [(zeros_in_place_of_copies, 0.1), (bicubic_without_corners, 1e-4), (htk_mel, 0.1), (tanh_gelu, 5e-5)],
    "ms_clap_2023": [
        (zeros_in_place_of_copies, 0.1),
        (bicubic_without_corners, 5e-4),
        (filters_for_44_kilohertz, 0.1),
        (tanh_gelu, 5e-5),
    ],
}


@pytest.mark.parametrize("checkpoint", list(WAVES), indirect=True)
def test_golden_arrays_and_known_mistakes(checkpoint: tuple[str, Callable[[str], Path]]) -> None:
    model, write = checkpoint
    rate = golden_more_g4_clap.RATES[model]
    for wave in WAVES[model]:
        ours = golden_more.compute(model, make_waves(wave, (rate,)), write)
        assert set(ours) == G4.names(model, wave), f"{model}: every array of the set must be computed"
        assert G4.differences(model, wave, ours, limit) == []
    encoder = golden_more_g4_clap.load(golden_more_g4_clap.NAMES[model], write(model))
    samples = torch.from_numpy(make_waves(wave, (rate,))[rate])[None]
    right = ours["emb"]
    for mistake, least in MISTAKES[model]:
        with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
            mistake(encoder, patch)
            wrong = encoder.encode(samples)["norm"][0, 0].numpy()
        changed = relative(wrong, right)
        assert changed > least, f"{mistake.__name__} of {model} changes emb by {changed:.1e}"
        assert G4.differences(model, wave, {"emb": wrong}, limit) != [], f"{mistake.__name__} was not seen"


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ClapModel as the hub has it, with its tokenizer and front-end; every number is random."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clap_hub")
    n_tokens = write_tokenizer(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    torch.manual_seed(0)
    text = {
        "vocab_size": n_tokens,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 80,
        "type_vocab_size": 1,
        "projection_dim": 512,
    }
    audio = {
        "patch_embeds_hidden_size": 96,
        "hidden_size": 96,
        "depths": [2],
        "num_attention_heads": [4],
        "num_hidden_layers": 1,
        "projection_dim": 512,
    }
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=512)
    model = transformers.ClapModel(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)
    front_end = transformers.ClapFeatureExtractor(frequency_min=50, truncation="rand_trunc", padding="repeatpad")
    front_end.save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, special: list[str]) -> int:
    """A tokenizer on bytes with a few merges; returns its number of tokens."""
    letters = [chr(n) for n in (*range(33, 127), *range(161, 173), *range(174, 324))]
    merges = ["d o", "do g", "Ġ r", "a i"]
    words = [*special, *letters, *(merge.replace(" ", "") for merge in merges)]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return len(words)


TEXTS = ["dog", "a voice says seven in Spanish, and rain falls", "rain!"]


def test_sound_text_and_similarity_are_those_of_transformers(hub_folder: Path) -> None:
    """The same folder as clap.laion and by its hub name; both halves, and the matrix of similarities."""
    import transformers

    model = transformers.ClapModel.from_pretrained(hub_folder).eval()
    front_end = transformers.ClapFeatureExtractor.from_pretrained(hub_folder)
    reader = transformers.RobertaTokenizer(vocab=str(hub_folder / "vocab.json"), merges=str(hub_folder / "merges.txt"))
    clips = 0.1 * torch.randn(2, 30000, generator=torch.Generator().manual_seed(1))
    sound = front_end(list(clips.numpy()), sampling_rate=48000, return_tensors="pt")
    sound["is_longer"] = torch.zeros_like(sound["is_longer"])
    with torch.inference_mode():
        theirs = model(**sound, **reader(TEXTS, padding="max_length", max_length=77, return_tensors="pt"))
    for encoder in (load_encoder("clap.laion", hub_folder, n_blocks=2), load_encoder(f"hf:{hub_folder}")):
        ours = evar.embed(encoder, clips), evar.embed_text(encoder, TEXTS)
        assert relative(ours[0], theirs.audio_embeds) < 2e-5
        assert relative(ours[1], theirs.text_embeds) < 2e-5
        matrix = float(model.logit_scale_a.detach().exp()) * ours[0] @ ours[1].T
        assert relative(matrix, theirs.logits_per_audio.detach()) < 2e-5
        assert relative(evar.embed_text(encoder, TEXTS[0]), ours[1][:1]) < 2e-6, "a text's vector is its own"


def test_an_official_file_holds_the_same_halves(hub_folder: Path, tmp_path: Path) -> None:
    """The hub's tensors under the names of an official file, with the tokenizer in a folder beside it."""
    from safetensors.torch import load_file

    from evar.encoders._clap_names import to_laion_names

    state, was_hub = to_laion_names(load_file(hub_folder / "model.safetensors"))
    hub = load_encoder("clap.laion", hub_folder, n_blocks=2)
    tags = hub.network.tscam_conv.state_dict()
    state |= {f"audio_branch.tscam_conv.{name}": value for name, value in tags.items()}
    state["text_branch.embeddings.position_ids"] = torch.arange(80)[None]  # as older files hold it
    names = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 15, "name": "fake", "state_dict": names}, tmp_path / "clap.pt")
    (tmp_path / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(hub_folder / name, tmp_path / "tokenizer")
    official = load_encoder("clap.laion", tmp_path / "clap.pt", n_blocks=2)
    assert was_hub and any(name.startswith("text_branch.") for name in state)
    clip = 0.1 * torch.randn(1, 24000, generator=torch.Generator().manual_seed(2))
    assert np.array_equal(evar.embed(official, clip), evar.embed(hub, clip))
    # the number of heads stands in a hub's config.json only; an official file has one for every 64 features
    assert evar.embed_text(official, TEXTS).shape == evar.embed_text(hub, TEXTS).shape
    assert not np.array_equal(evar.embed_text(official, ["dog"]), evar.embed_text(hub, ["dog"]))
    shutil.copy(hub_folder / "config.json", tmp_path)
    alike = load_encoder("clap.laion", tmp_path / "clap.pt", n_blocks=2)
    (tmp_path / "tokenizer/merges.txt").rename(tmp_path / "merges.txt")
    (tmp_path / "tokenizer/vocab.json").rename(tmp_path / "vocab.json")
    assert relative(evar.embed_text(alike, TEXTS), evar.embed_text(hub, TEXTS)) < 2e-6


def test_texts_are_stored_and_the_tokenizer_is_part_of_their_key(hub_folder: Path, tmp_path: Path) -> None:
    encoder: Any = load_encoder("clap.laion", hub_folder, n_blocks=2)
    store = FeatureStore(tmp_path / "store")
    first = evar.embed_text(encoder, [*TEXTS, "dog"], store)
    assert np.array_equal(first[0], first[3]) and len(store.contents()) == 1
    assert store.contents()[0]["clips"] == 3 and store.contents()[0]["clip"] == "texts"
    encoder.text_half.network = None  # nothing is computed again
    assert np.array_equal(evar.embed_text(encoder, ["rain!", "dog"], store), first[[2, 0]])
    other = shutil.copytree(hub_folder, tmp_path / "other")
    (other / "merges.txt").write_text("#version: 0.2\nd o\n")
    changed = load_encoder("clap.laion", other, n_blocks=2)
    assert changed.weights_sha256 == encoder.weights_sha256
    assert not np.array_equal(evar.embed_text(changed, ["dog"], store), first[:1])


def test_what_is_missing_is_named(hub_folder: Path, tmp_path: Path) -> None:
    by_name: Any = load_encoder("clap.laion", hub_folder, n_blocks=2)
    told = by_name.text_sha256
    assert by_name._text_half is None and by_name.text_half.tokenizer.sha256 == told, "a hash needs no network"
    bare = shutil.copytree(hub_folder, tmp_path / "bare")
    (bare / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer.json or vocab.json and merges.txt.*roberta-base"):
        evar.embed_text(load_encoder("clap.laion", bare, n_blocks=2), "dog")
    with pytest.raises(ValueError, match="reads no text"):
        evar.embed_text("logmel", "dog")
    encoder = load_encoder("clap.laion", hub_folder, n_blocks=2)
    with pytest.raises(ValueError, match="none empty"):
        evar.embed_text(encoder, ["dog", " "])
    with pytest.warns(RuntimeWarning, match=r"1 of 2 texts have more than 77 tokens"):
        evar.embed_text(encoder, ["dog", "x " * 100])


@pytest.mark.parametrize("name", ["clap.ms2022", "clap.ms2023"])
def test_text_of_ms_clap_follows_its_authors(name: str, tmp_path: Path) -> None:
    """GPT-2: the token that ends the text, found by counting the tokens that are not "!"; BERT: the first token."""
    transformers = pytest.importorskip("transformers")
    from evar.encoders._clap_audio import SumProjection
    from evar.encoders._clap_text import build_ms_text
    from evar.encoders._text import BERT, GPT2

    torch.manual_seed(0)
    is_gpt2 = name == "clap.ms2023"
    if is_gpt2:
        n_tokens = write_tokenizer(tmp_path, ["!!", "<|endoftext|>"])
        network = transformers.GPT2Model(transformers.GPT2Config(vocab_size=n_tokens, n_embd=64, n_layer=2, n_head=1))
    else:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "dog", "rain", "a"]
        (tmp_path / "vocab.txt").write_text("\n".join(words))
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1, "intermediate_size": 96}
        network = transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes))
    projection = SumProjection(64, 32)
    state = {f"caption_encoder.base.{key}": value for key, value in network.state_dict().items()}
    state |= {f"caption_encoder.projection.{key}": value for key, value in projection.state_dict().items()}
    torch.save({"model": state}, tmp_path / "clap.pth")
    ending = " <|endoftext|>" if is_gpt2 else ""
    made = build_ms_text(
        *(GPT2, "last") if is_gpt2 else (BERT, "first"),
        *(tmp_path / "clap.pth", 32),
        longest=77 if is_gpt2 else 100,
        ending=ending,
    )
    texts = ["a dog", "rain a dog rain"]
    for text, ours in zip(texts, made.read(texts, CPU).detach(), strict=True):
        if is_gpt2:
            tokenizer = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
            ids = tokenizer(text + ending)["input_ids"]
            assert ids[-1] == 1
            ids = torch.tensor([ids + [0] * (77 - len(ids))])
            state = network.eval()(input_ids=ids).last_hidden_state[0, int((ids != 0).sum()) - 1]
        else:
            tokenizer = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
            state = network.eval()(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0, 0]
        assert relative(ours, projection(state).detach()) < 2e-5


@pytest.mark.parametrize("name", ["clap.laion", "clap.ms2023"])
def test_clips_of_any_length(name: str) -> None:
    """Silence, half a second and more than a piece: the same alone and in a batch, and nothing is cut off."""
    encoder: Any = load_encoder(name, "random", n_blocks=2)
    assert isinstance(encoder, HtsatClap)
    n_long = encoder.piece + encoder.sample_rate // 2
    clips = torch.zeros(3, n_long)
    lengths = torch.tensor([n_long, encoder.sample_rate // 2, 1000])
    noise = torch.randn(n_long, generator=torch.Generator().manual_seed(0))
    clips[0], clips[1, : lengths[1]] = 0.1 * noise, 0.1 * noise[: lengths[1]]
    with torch.inference_mode():
        together = encoder.encode(clips, lengths)["proj"][:, 0]
        for clip, length, both in zip(clips, lengths.tolist(), together, strict=True):
            alone = encoder.encode(clip[None, :length])["proj"][0, 0]
            assert torch.isfinite(alone).all() and relative(both, alone) < 1e-5
        longer = clips[:1].clone()
        longer[0, encoder.piece :] = 0.5  # what lies behind the first piece counts
        assert relative(encoder.encode(longer)["proj"][0, 0], together[0]) > 1e-4
        weight = encoder.piece / n_long
        parts = encoder.encode(clips[:1, : encoder.piece]), encoder.encode(clips[:1, encoder.piece :])
        joined = weight * parts[0]["norm"] + (1 - weight) * parts[1]["norm"]
        assert relative(encoder.encode(clips[:1])["norm"], joined) < 1e-5, "pieces count by their duration"


@pytest.mark.skipif(not G4.full.is_file(), reason="the full golden set is not at hand")
def test_kept_files_are_those_of_the_set() -> None:
    G4.check_kept_files()


def test_a_checkpoint_of_another_clap_is_named() -> None:
    """By its tensors' names and shapes; and every tensor of MS-CLAP 2022 is found under its published name."""
    from evar.encoders import describe_encoder
    from evar.encoders._checkpoints import recognise

    kernel = torch.zeros(96, 1, 4, 4)
    for state, name in (
        ({"module.audio_branch.patch_embed.proj.weight": kernel}, "clap.laion"),
        ({"audio_model.audio_encoder.patch_embed.proj.weight": torch.zeros(128, 1, 4, 4)}, "clap.laion_music"),
        ({"audio_encoder.base.htsat.bn0.weight": kernel}, "clap.ms2023"),
        ({"audio_encoder.base.conv_block1.conv1.weight": kernel}, "clap.ms2022"),
    ):
        found = recognise(state)
        assert found is not None and found.encoder == name
    encoder = describe_encoder("clap.ms2022")
    own = set(encoder.state_dict())
    published = {
        key.replace("audio_projection.", "audio_encoder.projection.").replace("audio.", "audio_encoder.base.")
        for key in own
    }
    assert set(encoder.convert({"model": dict.fromkeys(published, kernel)})) == own
