"""BEATs, ATST, EAT, CED and Dasheng on one block: file layouts, long clips, official rules, errors that name the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from golden_compare import GoldenSet
from safetensors.torch import save_file
from torch import Tensor

from evar import config
from evar.encoders import contract, load_encoder
from evar.encoders._filterbanks import DecibelMel
from evar.encoders.atst import AtstClip, AtstFrame, central
from evar.encoders.base import Encoder
from evar.encoders.beats import Beats
from evar.encoders.ced import Ced
from evar.encoders.contract import relative_l2
from evar.encoders.dasheng import Dasheng
from evar.encoders.eat import Eat

FAKE = GoldenSet("g2").fake_weights
TOLERANCE = 1e-5
State = dict[str, Tensor]


@cache
def one_block(layout: str) -> State:
    """The fake tensors of an official layout with the first block only."""
    manifest = {
        name: shape
        for name, shape in FAKE.load_manifest(layout).items()
        if not re.search(r"(blocks|layers)\.([1-9]|1\d)\.", name) or "decoder" in name
    }
    return FAKE.fake_state_dict(manifest, 0)


def built(kind: type[Encoder], **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(n_blocks=1, **options).eval()


def sound(n_samples: int, seed: int = 0) -> Tensor:
    """(1, samples): noise with a swell, so that no two pieces are alike."""
    noise = 0.1 * torch.randn(1, n_samples, generator=torch.Generator().manual_seed(seed))
    return noise * torch.linspace(0.0, 7.0, n_samples).sin()


def same_tensors(first: Encoder, second: Encoder) -> None:
    theirs = second.state_dict()
    assert {name: torch.equal(value, theirs[name]) for name, value in first.state_dict().items()} == dict.fromkeys(
        theirs, True
    )


def hub(folder: Path, state: State) -> Path:
    folder.mkdir()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    return folder


def renamed(state: State, *changes: tuple[str, str], drop: str = "~") -> State:
    result = {}
    for name, value in state.items():
        if not name.startswith(drop):
            for old, new in changes:
                name = re.sub(old, new, name)
            result[name] = value
    return result


def test_the_hub_s_folders_hold_what_the_official_files_hold(tmp_path: Path) -> None:
    eat = one_block("eat")
    torch.save({"cfg": {}, "model": {**eat, "_ema": {"x": torch.ones(1)}}, "args": None}, tmp_path / "eat.pt")
    pairs = [("eat.base", tmp_path / "eat.pt", hub(tmp_path / "eat", FAKE.eat_to_hub(eat)))]
    for name, layout in (("ced.tiny", "ced_tiny"), ("dasheng.base", "dasheng")):
        state, file = one_block(layout), tmp_path / f"{layout}.pt"
        torch.save({"model": state, "config": {}} if layout == "dasheng" else state, file)
        change = (r"init_bn\.1", "init_bn") if layout == "ced_tiny" else ("~", "~")
        ours = renamed(state, change, (r"^(?!outputlayer)", "encoder."), drop="front_end")
        pairs.append((name, file, hub(tmp_path / layout, ours)))
    for name, file, folder in pairs:
        first, second = load_encoder(name, file, n_blocks=1), load_encoder(name, folder, n_blocks=1)
        same_tensors(first, second)
        assert float(first.state_dict()["blocks.0.attn.qkv.weight"].std()) > 0.05  # drawn by the fake, not by us


def test_an_older_eat_file_has_fewer_positions(tmp_path: Path) -> None:
    state = dict(one_block("eat"))
    name = "modality_encoders.IMAGE.fixed_positional_encoder.positions"
    torch.save({"model": state}, tmp_path / "new.pt")
    torch.save({"model": {**state, name: state[name][:, :512]}}, tmp_path / "old.pt")
    new, old = (load_encoder("eat.base", tmp_path / file, n_blocks=1) for file in ("new.pt", "old.pt"))
    assert relative_l2(old.positions, new.positions) < 1e-5  # the original computes its table in float32


def test_the_teacher_of_atst_is_taken_from_every_layout(tmp_path: Path) -> None:
    clip, frame = one_block("atst_clip"), one_block("atst_frame")
    parts = {
        p: renamed({k: v for k, v in clip.items() if k.startswith(p)}, (f"^{p}.", "")) for p in ("student", "teacher")
    }
    teacher = renamed(parts["teacher"], (r"^module\.backbone\.", ""))
    layouts: dict[str, list[Any]] = {
        "atst_clip": [
            {**parts, "epoch": 1},
            {"state_dict": {f"model.teacher.encoder.{name}": value for name, value in teacher.items()}},
            teacher,
        ],
        "atst_frame": [
            {"state_dict": frame, "hyper_parameters": {}},
            {
                "state_dict": {
                    **renamed(frame, ("norm_frame", "norm")),
                    "model.teacher.encoder.cls_token": torch.ones(1, 1, 768),
                }
            },
            {
                "state_dict": renamed(
                    {k: v for k, v in frame.items() if "teacher.encoder" in k}, ("model.teacher.", "encoder.")
                )
            },
        ],
    }
    for name, checkpoints in layouts.items():
        loaded = []
        for number, checkpoint in enumerate(checkpoints):
            torch.save(checkpoint, tmp_path / f"{name}{number}.ckpt")
            loaded.append(load_encoder(name, tmp_path / f"{name}{number}.ckpt", n_blocks=1))
        for other in loaded[1:]:
            same_tensors(loaded[0], other)
        key = next(k for k in (clip if name == "atst_clip" else frame) if "teacher" in k and k.endswith("pos_embed"))
        assert torch.equal(loaded[0].pos_embed, (clip if name == "atst_clip" else frame)[key])


def test_beats_reads_its_cfg(tmp_path: Path) -> None:
    state, file = one_block("beats"), tmp_path / "beats.pt"

    def load(**changes: Any) -> Any:
        torch.save({"cfg": {**FAKE.BEATS_CFG, **changes}, "model": state}, file)
        return load_encoder("beats.iter3", file, n_blocks=1)

    first = load()
    assert first.max_distance == 800 and first.norm_stats == (15.41663, 6.55582)
    other = load(max_distance=1280, fbank_mean=15.0, fbank_std=5.0)
    assert other.max_distance == 1280 and other.norm_stats == (15.0, 5.0)
    with pytest.raises(
        ValueError, match="beats.pt is another BEATs: its cfg has deep_norm False, but beats.iter3 needs True"
    ):
        load(deep_norm=False)
    kernel = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(768, 768, 128, groups=16), dim=2)
    with torch.no_grad():
        kernel.parametrizations.weight.original0.copy_(state["encoder.pos_conv.0.weight_g"])
        kernel.parametrizations.weight.original1.copy_(state["encoder.pos_conv.0.weight_v"])
    assert relative_l2(first.pos_conv.weight, kernel.weight) < 1e-6
    torch.save({"cfg": FAKE.BEATS_CFG, "model": {f"encoder.{name}": value for name, value in state.items()}}, file)
    same_tensors(first, load_encoder("openbeats.base", file, n_blocks=1))
    torch.save({"encoder.patch_embedding.weight": torch.ones(1), "decoder.linear_out.weight": torch.ones(1)}, file)
    with pytest.raises(ValueError, match="fine-tuned with ESPnet, which no encoder takes; use the pre-trained file"):
        load_encoder("openbeats.base", file)


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    def write(name: str, content: Any) -> Path:
        torch.save(content, tmp_path / name)
        return tmp_path / name

    head = {"fc_norm.weight": torch.ones(768), "head.weight": torch.ones(527, 768)}
    ced = one_block("ced_tiny")
    files = {
        "beats": write("beats", {"model": one_block("beats")}),
        "tuned beats": write("tuned_beats", {"cfg": FAKE.BEATS_FT, "model": one_block("beats_ft")}),
        "large beats": write(
            "large_beats", {"model": {**one_block("beats"), "post_extract_proj.weight": torch.ones(1024, 512)}}
        ),
        "eat": write("eat", {"model": one_block("eat")}),
        "tuned eat": write("tuned_eat", {"model": renamed({**one_block("eat"), **head}, ("^", "model."))}),
        "clip": write("clip", {"teacher": renamed(one_block("atst_clip"), ("^teacher.", ""), drop="student")}),
        "frame": write("frame", {"state_dict": one_block("atst_frame")}),
        "ced": write("ced", ced),
        "start": write("start", renamed(ced, drop="outputlayer")),
        "dasheng": write("dasheng", {"model": one_block("dasheng")}),
        "tuned dasheng": write("tuned_dasheng", {**one_block("dasheng"), "outputlayer.1.weight": torch.ones(527, 768)}),
    }
    cases = [
        ("beats.iter3", "tuned beats", "a BEATs fine-tuned on AudioSet (base)", "use beats.as2m"),
        ("beats.as2m", "beats", "a pre-trained BEATs (base)", "use beats.iter3, beats.iter3_plus or openbeats.base"),
        ("openbeats.base", "large beats", "a pre-trained BEATs (large)", "use openbeats.large"),
        ("beats.iter3", "eat", "a pre-trained EAT or SSLAM (base)", "use eat.base or sslam"),
        ("eat.base", "tuned eat", "an EAT or SSLAM fine-tuned on AudioSet (base)", "use eat.as2m or sslam.as2m"),
        ("eat.large", "eat", "a pre-trained EAT or SSLAM (base)", "use eat.base or sslam"),
        ("atst_clip", "frame", "an ATST-Frame", "use atst_frame"),
        ("atst_frame", "clip", "an ATST-Clip", "use atst_clip"),
        ("ced.mini", "ced", "a CED of width 192", "use ced.tiny"),
        ("ced.tiny", "dasheng", "a pre-trained Dasheng of width 768", "use dasheng.base"),
        (
            "dasheng.base",
            "start",
            "what CED's training starts from, without tags",
            "use the tagger's file, with ced.tiny",
        ),
        ("dasheng.base", "tuned dasheng", "a Dasheng fine-tuned on AudioSet", "use dasheng.as2m"),
        ("vggish", "ced", "a CED of width 192", "use ced.tiny"),
    ]
    for name, file, what, encoder in cases:
        few = {} if name == "vggish" else {"n_blocks": 1}
        with pytest.raises(ValueError) as caught:
            load_encoder(name, files[file], **few)
        expected = f"{files[file].name} is {what}, which {name} does not take; {encoder} ("
        assert str(caught.value).startswith(expected), caught.value
    with pytest.raises(ValueError, match=r"^ced does not fit Ced: .* tensors missing"):
        load_encoder("ced.tiny", files["ced"], n_blocks=2)  # the right encoder, but not all is there


VARIANTS: list[tuple[Callable[..., Any], dict[str, str]]] = [
    (Beats, {"bands": "side_by_side"}),
    (AtstClip, {}),
    (AtstClip, {"input": "padded"}),
    (AtstFrame, {"input": "padded"}),
    (AtstFrame, {"input": "lineareval"}),
    (Eat, {"input": "padded"}),
    (Eat, {"readout": "cls"}),
    (Eat, {"readout": "side_by_side"}),
    (Ced, {"size": "tiny", "input": "padded"}),
    (Ced, {"size": "tiny"}),
    (Dasheng, {"input": "padded"}),
]


@torch.inference_mode()
@pytest.mark.parametrize(("kind", "options"), VARIANTS, ids=lambda value: getattr(value, "__name__", str(value)))
def test_clips_of_several_pieces_are_the_same_alone_and_in_a_batch(kind: Any, options: dict[str, str]) -> None:
    encoder = built(kind, **options)
    lengths = [205000, 97000, 9000]  # 12.8, 6.1 and 0.6 s
    batch = torch.cat([torch.nn.functional.pad(sound(n, n), (0, lengths[0] - n), value=0.3) for n in lengths])
    together = encoder.encode(batch, torch.tensor(lengths))
    for row, n_samples in enumerate(lengths):
        alone = encoder.encode(sound(n_samples, n_samples))
        for name, value in alone.items():
            assert int(together.frames[name][row]) == value.shape[1]
            assert relative_l2(together[name][row, : value.shape[1]], value[0]) < TOLERANCE, (name, n_samples)
            assert bool(value.isfinite().all())
    assert list(contract.check_clips(encoder)) == [] or options.get("input") == "padded" or options.get("readout")


@torch.inference_mode()
@pytest.mark.parametrize(
    ("kind", "options", "seconds"),
    [
        (Eat, {}, (10.0, 10.24)),
        (Ced, {"size": "tiny"}, (5.0, 10.1)),
        (Dasheng, {}, (10.0,)),
        (AtstClip, {}, (6.0,)),
        (AtstFrame, {}, (10.0,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_default_is_official_at_the_official_length(kind: Any, options: Any, seconds: tuple[float, ...]) -> None:
    default, official = built(kind, **options), built(kind, input="padded", **options)
    for length in seconds:
        clip = sound(int(16000 * length))
        for name, value in official.encode(clip).items():
            assert relative_l2(default.encode(clip)[name].mean(1), value.mean(1)) < TOLERANCE, (name, length)
    longer = sound(210000)
    cut = relative_l2(default.encode(longer)[name].mean(1), official.encode(longer)[name].mean(1))
    assert cut > 100 * TOLERANCE  # which is why there are two


@torch.inference_mode()
def test_nothing_is_cut_by_default() -> None:
    clip = sound(330000)
    for encoder in (
        built(Beats),
        built(AtstClip),
        built(AtstFrame),
        built(Eat),
        built(Ced, size="tiny"),
        built(Dasheng),
    ):
        first = encoder.encode(clip)
        other = encoder.encode(torch.cat([clip[:, :-4000], 0.5 * sound(4000, 3)], dim=1))
        name = encoder.default_layers[0]
        n_frames, hop = first[name].shape[1], encoder.layer(name).hop
        assert abs(n_frames * hop - clip.shape[1]) < 3 * hop
        assert relative_l2(other[name][:, -1], first[name][:, -1]) > 1e-3


@torch.inference_mode()
def test_ced_leaves_out_the_last_whole_piece_where_the_original_does() -> None:
    default, official = built(Ced, size="tiny"), built(Ced, size="tiny", input="padded")
    for frames, expected in ((1012, 63), (1013, 126), (2023, 126), (2024, 63), (2025, 189), (3036, 126)):
        clip = sound((frames - 1) * 160)
        ours, theirs = default.encode(clip)["norm"], official.encode(clip)["norm"]
        assert theirs.shape[1] == expected
        assert ours.shape[1] == frames // 1012 * 63 + frames % 1012 // 16
        assert relative_l2(theirs[:, :63], ours[:, :63]) < TOLERANCE
    probabilities = official.outputs(sound(322000))  # 2013 frames: two pieces, whose probabilities are averaged
    norm = official.encode(sound(322000))["norm"]
    by_hand = (official.tags(norm[:, :63].mean(1)) + official.tags(norm[:, 63:].mean(1))) / 2
    assert relative_l2(probabilities, by_hand) < TOLERANCE
    assert (
        relative_l2(default.outputs(sound(322000)), default.tags(default.encode(sound(322000))["norm"].mean(1)))
        < TOLERANCE
    )


@torch.inference_mode()
def test_dasheng_keeps_the_filled_tokens_of_a_rest_of_one_to_three_frames() -> None:
    default, official = built(Dasheng), built(Dasheng, input="padded")
    for frames, ours, theirs in (
        (1008, 252, 252),
        (1009, 252, 504),
        (1011, 252, 504),
        (1012, 253, 253),
        (1500, 375, 375),
    ):
        clip = sound((frames - 1) * 160)
        assert default.encode(clip)["norm"].shape[1] == ours
        assert official.encode(clip)["norm"].shape[1] == theirs
    filled, own = official.encode(clip)["norm"], default.encode(clip)["norm"]
    assert relative_l2(filled[:, :252], own[:, :252]) < TOLERANCE < relative_l2(filled[:, 252:], own[:, 252:])


@torch.inference_mode()
def test_atst_follows_the_official_rules_for_several_chunks() -> None:
    clip = sound(230000)  # 14.4 s
    centre, length = central(clip, torch.tensor([230000]), 192000)
    assert torch.equal(centre, clip[:, 19000:211000]) and length.tolist() == [192000]
    tokens = built(AtstClip).encode(centre)["block1"][0]  # 601 and 600 frames: 150 tokens each
    first = torch.cat([tokens[0, :768], tokens[:150, 768:].sum(0) / 300])
    second = torch.cat([tokens[150, :768], tokens[150:, 768:].mean(0)])
    official = built(AtstClip, input="padded").encode(clip)["block1"][0, 0]
    assert len(tokens) == 300 and relative_l2(official, (first + second) / 2) < TOLERANCE
    tokens = built(AtstFrame).encode(clip)["block1"][0]  # 1001 and 437 frames
    official = built(AtstFrame, input="padded").encode(clip)["block1"][0, 0]
    assert len(tokens) == 359 and relative_l2(official, (tokens[:250].mean(0) + tokens[250:].mean(0)) / 2) < TOLERANCE
    tokens = built(AtstFrame).encode(centre)["block1"][0]  # 1001 and 200 frames: the rest does not count
    official = built(AtstFrame, input="lineareval").encode(clip)["block1"][0, 0]
    assert len(tokens) == 300 and relative_l2(official, tokens[:250].mean(0)) < TOLERANCE


def test_silence_beside_a_tone_lies_top_db_below_it() -> None:
    tone = torch.zeros(2, 16000)
    tone[0, :8000] = torch.sin(2 * torch.pi * 1000 * torch.arange(8000) / 16000)
    tone[1] = 1e-3 * tone[0]
    for top_db in (80.0, 120.0):
        decibels = DecibelMel(512, 0.0, 8000.0, top_db)(tone, torch.tensor([16000, 12000]))
        for row in decibels:
            assert float(row.max() - row.min()) == pytest.approx(min(top_db, float(row.max()) + 100), abs=1e-4)


def test_options_that_do_not_exist_are_named() -> None:
    for name, options, said in (
        ("beats.iter3", {"bands": "sum"}, "no bands 'sum' for beats; it has mean, side_by_side"),
        ("openbeats.large", {"size": "huge"}, "no size 'huge' for beats; it has base, large"),
        ("eat.base", {"readout": "clss"}, "did you mean 'cls'?"),
        ("ced.tiny", {"input": "pad"}, "no input 'pad' for ced; it has clip, padded"),
        ("dasheng.base", {"size": "600M"}, "no size '600M' for dasheng; it has base, 0.6B, 1.2B"),
        ("atst_clip", {"input": "lineareval"}, "no input 'lineareval' for AtstClip; it has clip, padded"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            load_encoder(name, "random", **options)
    with pytest.raises(ValueError, match=re.escape("has no classifier head; eat.as2m has one")):
        load_encoder("eat.base", "random", n_blocks=1).outputs(torch.zeros(1, 16000))
    with pytest.raises(ValueError, match=re.escape("has no classifier head; beats.as2m has one")):
        load_encoder("beats.iter3", "random", n_blocks=1).outputs(torch.zeros(1, 16000))


def test_every_checkpoint_says_where_it_is() -> None:
    for name in config.names("encoders"):
        if name.partition(".")[0] in (
            "beats",
            "openbeats",
            "atst_clip",
            "atst_frame",
            "eat",
            "sslam",
            "ced",
            "dasheng",
        ):
            source = config.load_encoder_config(name).weights
            assert source is not None and source.licence and (source.urls or source.repo or source.page)
