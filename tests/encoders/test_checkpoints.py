"""Checkpoints of every family in their official layouts: what fits loads, and what does not is refused in one sentence.

The files hold every tensor of the official ones under its name and shape, but each as one number that stands for all of
its elements, so that a checkpoint of 300 MB takes some kilobytes.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_golden import FAKE_WEIGHTS
from torch import Tensor, nn

from evar.config.encoder import load_encoder_config
from evar.download import addresses
from evar.encoders import load_encoder
from evar.encoders.locating import locate
from evar.encoders.msm_mae import position_table

State = dict[str, Tensor]
#: encoder -> manifest of its official file, wrapper around the tensors, where the file lies
FAMILIES: dict[str, tuple[str, str | None, str]] = {
    "vggish": ("vggish", None, "vggish.pth"),
    "cnn14.16k": ("cnn14_16k", "model", "Cnn14_16k.pth"),
    "cnn14.32k": ("cnn14_32k", "model", "Cnn14.pth"),
    "ast": ("ast", None, "audioset.pth"),
    "wav2vec2.base": ("wav2vec2_hf", None, "pytorch_model.bin"),
    "byol_a.d512": ("byola_d512", None, "d512.pth"),
    "byol_a.d1024": ("byola_d1024", None, "d1024.pth"),
    "byol_a2": ("byola2", None, "v2.pth"),
    "msm_mae.208": ("msm_mae_80x208", "model", "80x208p16x16_0422/checkpoint-100.pth"),
}
#: encoder -> a tensor of its official file, and what our network calls it
TENSORS = {
    "vggish": ("features.8.weight", "conv3_2.weight"),
    "cnn14.16k": ("conv_block4.bn1.running_var", "conv_block4.bn1.running_var"),
    "cnn14.32k": ("fc1.bias", "fc1.bias"),
    "ast": ("module.v.blocks.7.mlp.fc1.weight", "blocks.7.mlp.fc1.weight"),
    "wav2vec2.base": (
        "wav2vec2.encoder.layers.5.attention.v_proj.bias",
        "network.wav2vec2.encoder.layers.5.attention.v_proj.bias",
    ),
    "byol_a.d512": ("features.4.weight", "features.4.weight"),
    "byol_a.d1024": ("fc.3.bias", "fc.3.bias"),
    "byol_a2": ("fc.0.bias", "fc.0.bias"),
    "msm_mae.208": ("blocks.3.attn.q_bias", "blocks.3.attn.q_bias"),
}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own; networks start with whatever memory holds, since drawing 80 M numbers takes seconds."""
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path / "cache"))
    for name in ("kaiming_uniform_", "kaiming_normal_", "uniform_", "normal_", "xavier_uniform_", "trunc_normal_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def official(encoder: str, value: float = 0.5) -> State:
    """Every tensor of the encoder's official file, each one number in memory; formulas where the loader checks them."""
    state = {
        name: torch.full((1,) * len(shape), value).expand(shape)
        for name, shape in FAKE_WEIGHTS.load_manifest(FAMILIES[encoder][0]).items()
    }
    state = {name: tensor.long() if name.endswith("tracked") else tensor for name, tensor in state.items()}
    if encoder.startswith("cnn14"):
        rate = {"16k": (16000, 512, 64, 50, 8000), "32k": (32000, 1024, 64, 50, 14000)}[encoder[-3:]]
        state["logmel_extractor.melW"] = torch.from_numpy(FAKE_WEIGHTS.slaney_mel(*rate)).float()
    if "pos_embed" in state:
        state["pos_embed"] = position_table(13)
    return state


def write(folder: Path, encoder: str, state: State | None = None, file: str | None = None) -> Path:
    _, wrapper, usual = FAMILIES[encoder]
    path = folder / (file or usual)
    path.parent.mkdir(parents=True, exist_ok=True)
    state = official(encoder) if state is None else state
    torch.save({wrapper: state} if wrapper else state, path)
    assert path.stat().st_size < 4e6
    return path


def refusal(encoder: str, path: Any, kind: type[Exception] = ValueError, **options: Any) -> str:
    """What `load_encoder` says: one sentence in one line."""
    with pytest.raises(kind) as caught:
        load_encoder(encoder, path, **options)
    message = str(caught.value)
    assert type(caught.value) is kind or kind is OSError
    assert "\n" not in message and 20 < len(message) < 600
    return message


@pytest.mark.parametrize("encoder", list(FAMILIES))
def test_official_layout_loads_whole(encoder: str, tmp_path: Path) -> None:
    path = write(tmp_path, encoder)
    loaded = load_encoder(encoder, path)
    assert loaded.weights_label == path.name
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, tensor in loaded.state_dict().items():
        if name != "pos_embed" and "num_batches_tracked" not in name and "masked_spec_embed" not in name:
            assert bool((tensor == 0.5).all()), name


@pytest.mark.parametrize("encoder", list(FAMILIES))
def test_missing_tensor_is_named(encoder: str, tmp_path: Path) -> None:
    theirs, ours = TENSORS[encoder]
    state = official(encoder)
    shape = tuple(state.pop(theirs).shape)
    message = refusal(encoder, write(tmp_path, encoder, state))
    name = Path(FAMILIES[encoder][2]).name
    assert re.match(re.escape(name) + r" does not fit \w+: 1 of \d+ tensors missing ", message)
    assert f"({ours} {shape})" in message and "unexpected" not in message


@pytest.mark.parametrize("encoder", list(FAMILIES))
def test_extra_tensor_is_named(encoder: str, tmp_path: Path) -> None:
    prefix = "module." if encoder == "ast" else ""
    state = {**official(encoder), f"{prefix}projector.weight": torch.zeros(3, 2)}
    message = refusal(encoder, write(tmp_path, encoder, state))
    assert re.search(r": 1 unexpected \(\S*projector\.weight \(3, 2\)\); is this the checkpoint of another", message)


@pytest.mark.parametrize("encoder", list(FAMILIES))
def test_wrong_shape_is_named_with_both(encoder: str, tmp_path: Path) -> None:
    theirs, ours = TENSORS[encoder]
    state = official(encoder)
    right = tuple(state[theirs].shape)
    wrong = (right[0] + 1, *right[1:])
    state[theirs] = torch.zeros((1,) * len(wrong)).expand(wrong)
    message = refusal(encoder, write(tmp_path, encoder, state))
    assert f"tensors of another shape or kind ({ours} {wrong} instead of {right})" in message


@pytest.mark.parametrize(
    ("encoder", "other"),
    [(name, other) for name in FAMILIES for other in ("vggish", "byol_a2", "msm_mae.208") if other != name],
)
def test_another_family_s_checkpoint_is_refused(encoder: str, other: str, tmp_path: Path) -> None:
    message = refusal(encoder, write(tmp_path, other, file="other.pth"))
    assert message.startswith("other.pth ")
    assert "is this the checkpoint of another encoder?" in message or "use byol_a2" in message


class Planted:
    """Pickles as a call: what a hostile checkpoint does."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("encoder", list(FAMILIES))
@pytest.mark.parametrize("where", ["whole", "beside the tensors", "plain pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(encoder: str, where: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    plant = Planted(f"echo > '{trace}'")
    path = write(tmp_path, encoder)
    if where == "plain pickle":
        path.write_bytes(pickle.dumps({"model": plant}, protocol=2))
    else:
        torch.save(plant if where == "whole" else {**official(encoder), "epoch": plant}, path)
    message = refusal(encoder, path)
    assert re.search(r"is refused because it holds (posix|nt|os)\.system, and a checkpoint may hold only", message)
    assert not trace.exists()
    pickle.loads(pickle.dumps(plant))  # noqa: S301 - the plant works where nothing guards
    assert trace.exists()


@pytest.mark.parametrize(("encoder", "other", "rates"), [("32k", "16k", "16000 32000"), ("16k", "32k", "32000 16000")])
def test_cnn14_of_the_other_rate_is_refused(encoder: str, other: str, rates: str, tmp_path: Path) -> None:
    """The networks have the same shapes: only the mel filters in the file tell."""
    path = write(tmp_path, f"cnn14.{other}")
    trained, works = rates.split()
    assert refusal(f"cnn14.{encoder}", path) == (
        f"{path.name} was trained at {trained} Hz, but this encoder works at {works} Hz; use cnn14.{other}"
    )


def test_cnn14_with_filters_of_no_known_rate_is_refused(tmp_path: Path) -> None:
    state = official("cnn14.16k")
    state["logmel_extractor.melW"] = torch.from_numpy(FAKE_WEIGHTS.slaney_mel(8000, 256, 64, 50, 4000)).float()
    message = refusal("cnn14.16k", write(tmp_path, "cnn14.16k", state))
    assert "holds mel filters (129, 64) that belong to no known CNN14" in message


def test_cnn14_without_its_tags_gives_layers_and_no_outputs(tmp_path: Path) -> None:
    state = {name: value for name, value in official("cnn14.16k").items() if not name.startswith("fc_audioset")}
    loaded = load_encoder("cnn14.16k", write(tmp_path, "cnn14.16k", state))
    with pytest.raises(ValueError, match=r"^the checkpoint of cnn14\.16k has no fc_audioset; use the published file$"):
        loaded.outputs(torch.zeros(1, 5000))


@pytest.mark.parametrize(
    ("encoder", "given", "fits"),
    [
        ("byol_a.d512", "byol_a.d1024", "byol_a.d1024"),
        ("byol_a.d1024", "byol_a.d512", "byol_a.d512"),
        ("byol_a.d512", "byol_a2", "byol_a2"),
    ],
)
def test_byol_a_of_another_width_is_refused(encoder: str, given: str, fits: str, tmp_path: Path) -> None:
    path = write(tmp_path, given)
    width = {"byol_a.d512": 512, "byol_a.d1024": 1024, "byol_a2": 2048}
    assert refusal(encoder, path) == (
        f"{path.name} is of width {width[given]}, but {encoder} has {width[encoder]}; use {fits}"
    )


def test_byol_a_of_2021_is_refused_as_2022(tmp_path: Path) -> None:
    message = refusal("byol_a2", write(tmp_path, "byol_a.d1024"))
    assert "d1024.pth does not fit ByolA2: " in message and "features.8.weight (64, 64, 3, 3)" in message


@pytest.mark.parametrize(
    ("encoder", "folder", "ending"),
    [
        ("msm_mae.208", "80x512p16x16_paper", "; use msm_mae.512"),
        ("msm_mae.512", "80x208p16x16_0422", "; use msm_mae.208"),
        ("msm_mae.208", "80x608p16x16", "; write a YAML with base: msm_mae.208 and that unit_frames"),
        ("msm_mae.208", "80x208p16x8_x", "; write a YAML with base: msm_mae.208 and that unit_frames"),
    ],
)
def test_msm_mae_folder_of_another_geometry_is_refused(encoder: str, folder: str, ending: str, tmp_path: Path) -> None:
    path = write(tmp_path, "msm_mae.208", file=f"{folder}/checkpoint-100.pth")
    message = refusal(encoder, path)
    frames = {"msm_mae.208": 208, "msm_mae.512": 512}[encoder]
    told = re.match(r"(\d+)x(\d+)p(\d+)x(\d+)", folder)
    assert told
    assert message.startswith(
        f"the folder {folder} tells {told[1]} mels x {told[2]} frames in patches of {told[3]} x {told[4]}, but {encoder} "
        f"has 80 x {frames} and 16 x 16"
    )
    assert message.endswith(ending)


def test_msm_mae_in_a_folder_that_tells_nothing_is_judged_by_its_tensors(tmp_path: Path) -> None:
    path = write(tmp_path, "msm_mae.208", file="mine/checkpoint-100.pth")
    load_encoder("msm_mae.208", path)
    assert "pos_embed (1, 66, 768) instead of (1, 161, 768)" in refusal("msm_mae.512", path)


def test_msm_mae_with_another_table_of_positions_is_refused(tmp_path: Path) -> None:
    state = official("msm_mae.208")
    grid = state["pos_embed"][:, 1:].unflatten(1, (5, 13)).transpose(1, 2).flatten(1, 2)
    state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], grid], dim=1)  # time major
    message = refusal("msm_mae.208", write(tmp_path, "msm_mae.208", state))
    assert "has another table of positions than MSM-MAE's sines and cosines" in message


@pytest.mark.parametrize(
    ("file", "key", "wrong", "right"),
    [
        ("config.json", "hidden_size", 384, "768"),
        ("config.json", "time_stride", 16, "10"),
        ("config.json", "max_length", 128, "1024"),
        ("preprocessor_config.json", "max_length", 128, "1024"),
        ("preprocessor_config.json", "sampling_rate", 8000, "16000"),
        ("preprocessor_config.json", "mean", -6.6, "-4.2677393"),
    ],
)
def test_ast_folder_of_another_geometry_is_refused(
    file: str, key: str, wrong: float, right: str, tmp_path: Path
) -> None:
    folder = tmp_path / "hub"
    shutil.copytree(FAKE_WEIGHTS.MANIFESTS / "hf" / "ast_hf", folder)
    torch.save(FAKE_WEIGHTS.ast_to_hub(official("ast")), folder / "pytorch_model.bin")
    settings = json.loads((folder / file).read_text())
    assert str(settings[key]) == right
    (folder / file).write_text(json.dumps({**settings, key: wrong}))
    message = refusal("ast", folder)
    assert f"is another AST: {key} is {wrong}, but ast needs {right}; try hf:" in message


def test_ast_folder_of_the_hub_loads_whole(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    shutil.copytree(FAKE_WEIGHTS.MANIFESTS / "hf" / "ast_hf", folder)
    torch.save(FAKE_WEIGHTS.ast_to_hub(official("ast")), folder / "pytorch_model.bin")
    loaded = load_encoder("ast", folder)
    assert all(bool((tensor == 0.5).all()) for tensor in loaded.state_dict().values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"do_stable_layer_norm": True}, "has do_stable_layer_norm True, but wav2vec2.base needs False; use "),
        ({"model_type": "hubert"}, "holds a hubert model, not a wav2vec2; use the encoder hf:"),
    ],
)
def test_wav2vec2_folder_of_another_architecture_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    shutil.copytree(FAKE_WEIGHTS.MANIFESTS / "hf" / "wav2vec2", tmp_path / "hub")
    write(tmp_path / "hub", "wav2vec2.base")
    assert load_encoder("wav2vec2.base", tmp_path / "hub").layer_infos[-1].name == "logits"
    path = tmp_path / "hub" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    assert message in refusal("wav2vec2.base", tmp_path / "hub")


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_weights_inside_a_zip_load_as_the_file_itself(tmp_path: Path) -> None:
    path = write(tmp_path, "byol_a.d512")
    plain = load_encoder("byol_a.d512", path)
    archive = tmp_path / "release.zip"
    junk = {"__MACOSX/deep/._d512.pth": b"junk", "deep/README.txt": b"read me"}
    zipped(archive, **{**junk, "deep/d512.pth": path.read_bytes()})
    for _ in range(2):  # unpacked, then found unpacked
        loaded = load_encoder("byol_a.d512", archive)
        assert loaded.weights_label == "release.zip"
        assert loaded.weights_sha256 == plain.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in plain.state_dict().items())
    unpacked = [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert [file.name for file in unpacked] == ["d512.pth"]
    # Another archive of that name is another place: nothing stale is read.
    write(tmp_path, "byol_a.d512", official("byol_a.d512", 0.25))
    zipped(archive, **{"deep/d512.pth": path.read_bytes()})
    again = load_encoder("byol_a.d512", archive)
    assert again.weights_sha256 != plain.weights_sha256
    assert float(again.state_dict()["fc.0.bias"][0]) == 0.25


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.pth": b"a", "b.pth": b"b"}, r"must hold one checkpoint, got \['a\.pth', 'b\.pth'\]; unpack it yourself"),
        ({"a.txt": b"a"}, r"must hold one checkpoint, got \['a\.txt'\]; unpack it yourself"),
        ({"../a.pth": b"a"}, r"release\.zip is refused: its member '\.\./a\.pth' is a link or leads outside"),
    ],
    ids=["two", "none", "outside"],
)
def test_a_zip_with_another_number_of_checkpoints_or_a_way_out_is_refused(
    members: dict[str, bytes], message: str, tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "release.zip", **members)
    kind = OSError if "../a.pth" in members else ValueError
    assert re.search(message, refusal("byol_a.d512", archive, kind))
    assert not [file for file in tmp_path.rglob("a.*") if file.is_file()]


@pytest.mark.parametrize(
    "member", ["../../out/a.pth", "out/../../a.pth", "C:/out/a.pth", "out\\..\\a.pth", "{}/out/a.pth"]
)
def test_a_refused_zip_leaves_no_folder_and_reads_no_file_outside(member: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "release.zip", **{member.format(tmp_path): b"numbers"})
    before = sorted(tmp_path.rglob("*"))
    assert "is a link or leads outside" in refusal("byol_a.d512", archive, OSError)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.pth").write_bytes(b"numbers of somebody else")
    assert "is a link or leads outside" in refusal("byol_a.d512", archive, OSError)
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "out", tmp_path / "out" / "a.pth"])


def test_a_zip_that_breaks_off_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "release.zip", **{"deep/a.pth": b"numbers" * 100})
    archive.write_bytes(archive.read_bytes().replace(b"numbersnumbers", b"numbersNumbers", 1))
    assert "is not a whole zip archive" in refusal("byol_a.d512", archive, OSError)
    assert not [file for file in (tmp_path / "cache").rglob("*") if file.is_file()]


def test_weights_of_a_page_tell_where_to_get_them() -> None:
    message = refusal("msm_mae.208", None, FileNotFoundError)
    assert message == (
        "the weights of msm_mae.208 have no address that can be fetched without you: get "
        "80x208p16x16_0422/checkpoint-100.pth from https://github.com/nttcslab/msm-mae/releases (licence: evaluation only "
        "(NTT's licence of the repository; no redistribution)) and pass its path as weights"
    )


class Server:
    """Serves `content` under every path, and counts."""

    def __init__(self) -> None:
        self.content, self.n_requests, self.address = b"", 0, ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.n_requests += 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.content)))
            self.end_headers()
            self.wfile.write(state.content)

        def log_message(self, *_: object) -> None:
            pass

    for name in ("EVAR_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(addresses, "RETRY_SECONDS", 0.0)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{running.server_port}/files"
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield state
    running.shutdown()
    running.server_close()


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """A function that writes `encoders/NAME.yaml` into a configuration folder that comes first."""
    folder = tmp_path / "config" / "encoders"
    folder.mkdir(parents=True)
    monkeypatch.setenv("EVAR_CONFIG", str(tmp_path / "config"))

    def add(name: str, text: str) -> None:
        (folder / f"{name}.yaml").write_text(text)

    return add


#: `echo 'what is up, doc?'` without a line's end, as the Git book hashes it
DOC, DOC_BLOB = b"what is up, doc?", "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
DOC_SHA256 = hashlib.sha256(DOC).hexdigest()


def published(address: str, *identity: str) -> str:
    keys = "".join(f"  {line}\n" for line in identity)
    return f"base: byol_a.d512\nweights:\n  kind: url\n  licence: MIT\n  urls: [{address}/d512.pth]\n{keys}"


@pytest.mark.parametrize(
    "identity", [f'sha256_prefix: "{DOC_SHA256[:8]}"', f"git_blob: {DOC_BLOB}", f"git_blob: {DOC_BLOB.upper()}"]
)
def test_a_published_file_of_the_right_identity_is_taken(
    server: Server, configured: Callable[[str, str], None], identity: str
) -> None:
    server.content = DOC
    configured("mine", published(server.address, identity))
    for _ in range(2):
        found = locate(load_encoder_config("mine"), None)
        assert (found.path.read_bytes(), found.sha256) == (DOC, DOC_SHA256)
        assert found.label == f"{server.address}/d512.pth"
    assert server.n_requests == 1


@pytest.mark.parametrize(
    ("identity", "what"),
    [(f'sha256_prefix: "{DOC_SHA256[:8]}"', "sha256 prefix"), (f"git_blob: {DOC_BLOB}", "git blob")],
)
def test_a_published_file_of_another_identity_is_refused(
    server: Server, configured: Callable[[str, str], None], tmp_path: Path, identity: str, what: str
) -> None:
    server.content = b"another version"
    got = {
        "sha256 prefix": hashlib.sha256(server.content).hexdigest()[:8],
        "git blob": hashlib.sha1(b"blob 15\0another version").hexdigest(),
    }[what]
    configured("mine", published(server.address, identity))
    expected = identity.partition(": ")[2].strip('"')
    for _ in range(2):
        message = refusal("mine", None, OSError)
        assert f"has {what} {got}, but mine expects {expected}; was another version fetched?" in message
    assert server.n_requests == 1
    (fetched,) = (tmp_path / "cache" / "weights").rglob("d512.pth")
    assert str(fetched) in message and message.endswith("Delete the file to fetch it again")


def test_a_refused_file_is_fetched_anew_once_it_is_deleted(
    server: Server, configured: Callable[[str, str], None], tmp_path: Path
) -> None:
    """What the refusal advises must help."""
    server.content = b"another version"
    configured("mine", published(server.address, f"git_blob: {DOC_BLOB}"))
    refusal("mine", None, OSError)
    (fetched,) = (tmp_path / "cache" / "weights").rglob("d512.pth")
    fetched.unlink()
    server.content = DOC
    assert locate(load_encoder_config("mine"), None).sha256 == DOC_SHA256
    assert server.n_requests == 2


def test_a_published_zip_is_checked_as_it_came_and_hashed_by_its_member(
    server: Server, configured: Callable[[str, str], None], tmp_path: Path
) -> None:
    path = write(tmp_path, "byol_a.d512")
    server.content = zipped(tmp_path / "x.zip", **{"d512.pth": path.read_bytes()}).read_bytes()
    configured("mine", published(server.address, f"sha256: {hashlib.sha256(server.content).hexdigest()}"))
    loaded = load_encoder("mine")
    assert loaded.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.weights_label == f"{server.address}/d512.pth"
    given = load_encoder("byol_a.d512", f"{server.address}/other.zip?token=secret")
    assert (given.weights_sha256, given.weights_label) == (loaded.weights_sha256, f"{server.address}/other.zip")


def test_a_variant_takes_everything_from_its_base_but_what_it_says() -> None:
    variant, base = load_encoder_config("cnn14.fusion_3_6"), load_encoder_config("cnn14.16k")
    assert (variant.name, variant.base, base.base) == ("cnn14.fusion_3_6", "cnn14.16k", "")
    assert variant.default_layers == ("block3", "block6") and base.default_layers == ()
    for key in ("implementation", "weights", "options", "trained_on"):
        assert getattr(variant, key) == getattr(base, key)
    assert variant.description != base.description


def test_variants_share_their_features_with_their_base(tmp_path: Path) -> None:
    path = write(tmp_path, "cnn14.16k")
    base, variant = load_encoder("cnn14.16k", path), load_encoder("cnn14.fusion_3_6", path)
    assert (base.name, variant.name) == ("cnn14.16k", "cnn14.fusion_3_6")
    assert base.store_name == variant.store_name == "cnn14.16k"
    assert base.weights_sha256 == variant.weights_sha256 and base.options == variant.options
    assert (base.default_layers, variant.default_layers) == (("fc1",), ("block3", "block6"))


def test_options_of_a_variant_replace_its_base_s_one_by_one(configured: Callable[[str, str], None]) -> None:
    configured(
        "parent", "base: ''\nimplementation: m:C\ndescription: d\ntrained_on: t\ncitation: c\noptions: {a: 1, b: 2}"
    )
    configured("child", "base: parent\noptions: {b: 3, c: 4}")
    child = load_encoder_config("child")
    assert child.options == {"a": 1, "b": 3, "c": 4} and child.implementation == "m:C"
    configured("grandchild", "base: child")
    with pytest.raises(
        ValueError, match=r"grandchild\.yaml: base must be an encoder that has none itself, got 'child'"
    ):
        load_encoder_config("grandchild")
    configured("orphan", "base: parant")
    with pytest.raises(ValueError, match="no encoder 'parant'; .*did you mean 'parent'"):
        load_encoder_config("orphan")
    configured("odd", "base: parent\ndefault_layer: [x]")
    with pytest.raises(ValueError, match=r"odd\.yaml has unknown key 'default_layer'; .*did you mean 'default_layers'"):
        load_encoder_config("odd")


def test_a_variant_with_a_layer_that_is_not_there_is_refused(
    configured: Callable[[str, str], None], tmp_path: Path
) -> None:
    configured("mine", "base: byol_a.d512\ndefault_layers: [conv4]")
    message = refusal("mine", write(tmp_path, "byol_a.d512"))
    assert message.startswith("no layer 'conv4' in ") and "conv1, conv2, conv3, fc1, fc2" in message


def pca_file(path: Path, value: float = 0.1, **changes: Tensor) -> Path:
    state = {"pca_eigen_vectors": torch.full((128, 128), value), "pca_means": torch.zeros(128, 1), **changes}
    torch.save(state, path)
    return path


def test_files_beside_the_checkpoint_change_its_hash(tmp_path: Path) -> None:
    """The features differ, so a cache must not take one for the other."""
    path = write(tmp_path, "vggish")
    first, second = pca_file(tmp_path / "first.pth"), pca_file(tmp_path / "second.pth", 0.2)
    plain = load_encoder("vggish", path)
    with_first, with_second = (load_encoder("vggish", path, pca=str(pca)) for pca in (first, second))
    assert plain.extra_files == () and with_first.extra_files == (first,)
    assert len({encoder.weights_sha256 for encoder in (plain, with_first, with_second)}) == 3
    moved = Path(shutil.copy(first, tmp_path / "moved.pth"))
    assert load_encoder("vggish", path, pca=str(moved)).weights_sha256 == with_first.weights_sha256
    assert "pca" in [info.name for info in with_first.layer_infos] and "pca" not in [
        info.name for info in plain.layer_infos
    ]


def test_a_file_beside_the_checkpoint_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "vggish")
    wrong = pca_file(tmp_path / "wrong.pth", pca_means=torch.zeros(128))
    message = refusal("vggish", path, pca=str(wrong))
    assert "must hold pca_eigen_vectors (128, 128) and pca_means (128, 1), got " in message
    torch.save({"pca_means": Planted(f"echo > '{tmp_path / 'trace'}'")}, wrong)
    assert "is refused because it holds" in refusal("vggish", path, pca=str(wrong))
    assert not (tmp_path / "trace").exists()
    assert "no weights 'none.pth'" in refusal("vggish", path, FileNotFoundError, pca=str(tmp_path / "none.pth"))
