"""Networks in ONNX, TensorFlow Lite and SavedModel files: equal to their runtimes, of any length, refused where unsafe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_graphs
import torch
from small_graphs import RATE, WINDOW, build_onnx, build_tflite, reference_values

from evar import config
from evar.encoders import contract, describe_encoder, load_encoder
from evar.encoders._graph_encoder import GraphEncoder
from evar.encoders._protobuf import write_field
from evar.encoders.contract import relative_l2
from evar.encoders.saved_model import refuse_unsafe
from evar.encoders.variants import write_variant

TOLERANCE = 1e-5
BUILDERS = {"onnx": build_onnx, "tflite": build_tflite}


def noise(n_samples: int, n_clips: int = 1) -> torch.Tensor:
    return 0.1 * torch.randn(n_clips, n_samples, generator=torch.Generator().manual_seed(1))


def run_onnxruntime(path: Path, windows: np.ndarray) -> dict[str, np.ndarray]:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip(("frames", "vector"), session.run(["frames", "vector"], {"sound": windows}), strict=True))


def run_litert(path: Path, windows: np.ndarray) -> dict[str, np.ndarray]:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    kept = interpreter.Interpreter(str(path), experimental_preserve_all_tensors=True)
    kept.allocate_tensors()
    numbers = {entry["name"]: entry["index"] for entry in kept.get_tensor_details()}
    found: dict[str, list[np.ndarray]] = {"inner": [], "frames": [], "vector": []}
    for window in windows:
        kept.set_tensor(numbers["sound"], window[None])
        kept.invoke()
        for name, values in found.items():
            values.append(kept.get_tensor(numbers[name])[0].copy())
    return {name: np.stack(values) for name, values in found.items()}


RUNTIMES = {"onnx": run_onnxruntime, "tflite": run_litert}


@pytest.mark.parametrize("kind", BUILDERS)
def test_layers_equal_the_runtime_and_keep_the_contract(kind: str, tmp_path: Path) -> None:
    path = BUILDERS[kind](tmp_path / f"small.{kind}")
    encoder = load_encoder(f"{kind}:{path}")
    windows = noise(2 * WINDOW)
    features = encoder.encode(windows)
    expected = {
        **reference_values(windows.reshape(2, -1).numpy()),
        **RUNTIMES[kind](path, windows.reshape(2, -1).numpy()),
    }
    for name in ("inner", "frames"):
        assert relative_l2(features[name][0], torch.from_numpy(expected[name].reshape(20, -1))) < TOLERANCE, name
    assert relative_l2(features["vector"][0, ::10], torch.from_numpy(expected["vector"])) < TOLERANCE
    assert encoder.default_layers == ("vector",) and encoder.weights_label == f"small.{kind}"
    assert [info.hop for info in encoder.layer_infos] == [160, 160, 160] and encoder.name == f"{kind}:small.{kind}"
    assert contract.check_named(f"{kind}:{path}") == []
    other = expected["vector"].copy()
    other[1] += 1e-3
    assert relative_l2(features["vector"][0, ::10], torch.from_numpy(other)) > 10 * TOLERANCE


def test_no_sample_is_left_out_and_a_last_window_counts_by_its_share(tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{build_onnx(tmp_path / 'small.onnx')}")
    waveform = noise(WINDOW + 200)
    features = encoder.encode(waveform)
    assert {name: int(count) for name, count in features.frames.items()} == {"inner": 12, "frames": 12, "vector": 12}
    waveform[0, -1] += 0.5
    assert not encoder.encode(waveform)["inner"].equal(features["inner"])
    padded = torch.nn.functional.pad(waveform[:, WINDOW:], (0, WINDOW - 200))
    expected = reference_values(padded.numpy())
    assert relative_l2(encoder.encode(waveform)["vector"][0, 10], torch.from_numpy(expected["vector"][0])) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 3])
def test_a_fixed_batch_gives_the_same_numbers(batch: int, tmp_path: Path) -> None:
    free = load_encoder(f"onnx:{build_onnx(tmp_path / 'free.onnx')}")
    fixed = load_encoder(f"onnx:{build_onnx(tmp_path / 'fixed.onnx', batch)}")
    waveform, lengths = noise(4 * WINDOW, 2), torch.tensor([4 * WINDOW, 1000])
    for name, value in free.encode(waveform, lengths).items():
        assert relative_l2(fixed.encode(waveform, lengths)[name], value) < TOLERANCE


def test_overlapping_windows_whole_clips_and_gain(tmp_path: Path) -> None:
    path = build_onnx(tmp_path / "small.onnx")
    path.with_suffix(".yaml").write_text(
        f"sample_rate: {RATE}\nwindow: {WINDOW}\nhop: 400\ngain: 2.0\nlayers: [vector]\n"
    )
    waveform = noise(WINDOW + 800)
    features = load_encoder(f"onnx:{path}").encode(waveform)["vector"][0]
    windows = 2 * waveform[0].unfold(0, WINDOW, 400).numpy()
    assert relative_l2(features, torch.from_numpy(reference_values(windows)["vector"])) < TOLERANCE
    whole = build_onnx(tmp_path / "whole.onnx", samples=None)
    whole.with_suffix(".yaml").write_text(f"sample_rate: {RATE}\nmin_samples: 160\nlayers: [frames, vector]\n")
    encoder = load_encoder(f"onnx:{whole}")
    assert [info.hop for info in encoder.layer_infos] == [160, 0] and contract.check_encoder(encoder) == []
    found = encoder.encode(waveform)["vector"][0]
    assert relative_l2(found, torch.from_numpy(reference_values(waveform.numpy())["vector"])) < TOLERANCE


def test_maps_say_which_axis_is_time(tmp_path: Path) -> None:
    path = build_onnx(tmp_path / "small.onnx")
    text = f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayers:\n  by_time: {{tensor: map, time_axis: 2}}\n"
    path.with_suffix(".yaml").write_text(
        text + "  mean: {tensor: map, time_axis: 1, mean_axes: [2], pooling: mean_plus_max}\n"
    )
    encoder = load_encoder(f"onnx:{path}")
    waveform = noise(WINDOW)
    features, inner = encoder.encode(waveform), reference_values(waveform.numpy())["inner"][0]
    assert relative_l2(features["by_time"][0], torch.from_numpy(inner)) < TOLERANCE
    assert relative_l2(features["mean"][0, :, 0], torch.from_numpy(inner.mean(axis=0))) < TOLERANCE
    assert encoder.layer("mean").pooling == "mean_plus_max"


def test_numbers_beside_the_file_count_and_stay_beside_it(tmp_path: Path) -> None:
    path = build_onnx(tmp_path / "small.onnx", external="numbers.bin")
    encoder = load_encoder(f"onnx:{path}")
    waveform = noise(WINDOW)
    expected = reference_values(waveform.numpy())["frames"][0]
    assert relative_l2(encoder.encode(waveform)["frames"][0], torch.from_numpy(expected)) < TOLERANCE
    numbers = tmp_path / "numbers.bin"
    numbers.write_bytes(bytes(8) + numbers.read_bytes()[8:])
    assert load_encoder(f"onnx:{path}").weights_sha256 != encoder.weights_sha256
    numbers.rename(tmp_path / "elsewhere.bin")
    with pytest.raises(FileNotFoundError, match=r"keeps numbers in numbers.bin, which is not beside it"):
        load_encoder(f"onnx:{path}")
    path.write_bytes(path.read_bytes().replace(b"numbers.bin", b"../mbers.bi"))
    with pytest.raises(ValueError, match="is refused: it keeps numbers in '../mbers.bi', outside of its folder"):
        load_encoder(f"onnx:{path}")


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("layers: [vector]\n", "must say sample_rate"),
        (f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayers: [vektor]\n", "no tensor 'vektor'.*did you mean 'vector'"),
        (f"sample_rate: {RATE}\nwindow: {WINDOW // 2}\nlayers: [vector]\n", "takes clips of 1600 samples, but.*window: 800"),
        (f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayer: [vector]\n", "has no option 'layer'.*did you mean 'layers'"),
        (f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayers: {{a: {{tensr: vector}}}}\n", "unknown key 'tensr'"),
        (f"sample_rate: {RATE}\nwindow: {WINDOW}\ninput: noise\nlayers: [vector]\n", "has the inputs sound; its YAML must name"),  # noqa: E501
    ],
)  # fmt: skip
def test_a_wrong_yaml_says_what_is_wrong(kind: str, yaml: str, said: str, tmp_path: Path) -> None:
    path = BUILDERS[kind](tmp_path / f"small.{kind}")
    path.with_suffix(".yaml").write_text(yaml)
    with pytest.raises(ValueError, match=said):
        load_encoder(f"{kind}:{path}")


@pytest.mark.parametrize("kind", BUILDERS)
def test_other_files_are_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    path.with_suffix(".yaml").write_text(small_graphs.YAML)
    with pytest.raises(FileNotFoundError, match=f"expected {kind}:FILE with a path that exists"):
        load_encoder(f"{kind}:{path}")
    for content in (b"", b"hello, this is a text", b"\x80\x04\x95" + bytes(50), torch.zeros(9).numpy().tobytes()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no (ONNX|TensorFlow Lite) file"):
            load_encoder(f"{kind}:{path}")
    whole = BUILDERS[kind](tmp_path / f"whole.{kind}").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot|is no|has no tensor"):
        load_encoder(f"{kind}:{path}")
    (tmp_path / "whole.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs .*whole.yaml beside it, with at least sample_rate"):
        load_encoder(f"{kind}:{tmp_path / f'whole.{kind}'}")


def test_operators_of_its_own_and_spectrograms_are_refused(tmp_path: Path) -> None:
    path = build_onnx(tmp_path / "own.onnx", domain="some.library")
    with pytest.raises(ValueError, match="onnxruntime cannot open own.onnx"):
        load_encoder(f"onnx:{path}")
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, value = onnx.helper, onnx.helper.make_tensor_value_info
    mel, node = value("mel", 1, [None, 1, 64, 100]), onnx.helper.make_node("Identity", ["mel"], ["vector"])
    graph = helper.make_graph([node], "mel", [mel], [value("vector", 1, [None, 1, 64, 100])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    path.with_suffix(".yaml").write_text(small_graphs.YAML.replace("inner, frames, ", ""))
    with pytest.raises(ValueError, match="does it expect a spectrogram"):
        load_encoder(f"onnx:{path}")


@pytest.mark.parametrize(
    ("kind", "module", "said"),
    [("onnx", "onnxruntime", "onnxruntime"), ("tflite", "ai_edge_litert.interpreter", "ai-edge-litert")],
)
def test_a_missing_runtime_says_what_to_install(
    kind: str, module: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = BUILDERS[kind](tmp_path / f"small.{kind}")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(ImportError, match=rf'needs {said} .*pip install "evar-audio\[{kind}\]"'):
        load_encoder(f"{kind}:{path}")


def test_what_needs_training_is_refused_and_layers_are_fused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build_onnx(tmp_path / "small.onnx")
    with pytest.raises(ValueError, match="a network that onnxruntime runs from its file, so it has no random weights"):
        load_encoder(f"onnx:{path}", "random")
    assert next(load_encoder(f"onnx:{path}").parameters(), None) is None  # what finetune.py refuses
    assert describe_encoder(f"onnx:{path}").layer_infos[-1].width == small_graphs.WIDTH
    with monkeypatch.context() as patch:
        patch.setenv("EVAR_CONFIG", str(tmp_path / "own"))
        write_variant(f"onnx:{path}", ["inner", "vector"], "small.pair")
        pair = load_encoder("small.pair")
    assert pair.default_layers == ("inner", "vector") and len(pair.encode(noise(WINDOW))) == 3
    assert config.make_absolute(f"onnx:{path}") == f"onnx:{path.resolve()}"
    assert config.display_name(f"onnx:{path}") == "onnx:small.onnx"


READY = [
    name
    for name in config.names("encoders")
    if config.load_encoder_config(name)
    .implementation.partition(":")[0]
    .endswith(("onnx_file", "saved_model", "tflite_file"))
]


def test_ready_descriptions_tell_their_layers_and_where_the_file_is() -> None:
    assert {"perch2", "perch", "trill", "frill", "trillsson", "yamnet.savedmodel"} <= set(READY)
    for name in READY:
        encoder = describe_encoder(name)
        assert isinstance(encoder, GraphEncoder) and encoder.layer(encoder.default_layers[0]).width > 100
        with pytest.raises(
            FileNotFoundError, match="no address that can be fetched without you: get .* and pass its path"
        ):
            load_encoder(name)
        with pytest.raises(ValueError, match="without the file that holds its network"):
            encoder.encode(torch.zeros(1, 100))


def test_perch_2_loads_by_its_ready_yaml(tmp_path: Path) -> None:
    """A graph with the input and outputs of Perch 2: spatial_embedding (clip, time, band, feature), embedding their mean."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, value = onnx.helper, onnx.helper.make_tensor_value_info
    numbers = {"begin": [0], "end": [16 * 4 * 1536], "axes": [1], "shape": [-1, 16, 4, 1536]}
    nodes = [
        helper.make_node("Slice", ["inputs", "begin", "end", "axes"], ["cut"]),
        helper.make_node("Reshape", ["cut", "shape"], ["spatial_embedding"]),
        helper.make_node("ReduceMean", ["spatial_embedding"], ["embedding"], axes=[1, 2], keepdims=0),
    ]
    constants = [onnx.numpy_helper.from_array(np.array(entry, dtype=np.int64), name) for name, entry in numbers.items()]
    outputs = [value("embedding", 1, [None, 1536]), value("spatial_embedding", 1, [None, 16, 4, 1536])]
    graph = helper.make_graph(nodes, "perch", [value("inputs", 1, [None, 160000])], outputs, constants)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "perch_v2.onnx"
    )
    encoder, waveform = load_encoder("perch2", tmp_path / "perch_v2.onnx"), noise(160000)
    features, cut = encoder.encode(waveform), waveform[0, : 16 * 4 * 1536].reshape(16, 4, 1536)
    assert relative_l2(features["spatial"][0], cut.mean(dim=1)) < TOLERANCE
    assert relative_l2(features["embedding"][0, 0], cut.mean(dim=(0, 1))) < TOLERANCE
    described = describe_encoder("perch2")
    assert encoder.layer_infos == described.layer_infos and encoder.default_layers == described.default_layers


def saved_model(*operators: str) -> bytes:
    """A SavedModel whose graph, and a function of its library, have these operators."""
    nodes = [write_field(1, b"node") + write_field(2, name.encode()) for name in operators]
    function = write_field(1, write_field(3, nodes[-1]))
    graph = b"".join(write_field(1, node) for node in nodes[:-1]) + write_field(2, function)
    return write_field(1, 1) + write_field(2, write_field(2, graph))


def test_a_saved_model_that_does_more_than_compute_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no saved_model.pb; is it still packed"):
        refuse_unsafe(tmp_path)
    file = tmp_path / "saved_model.pb"
    file.write_bytes(saved_model("MatMul", "SaveV2", "Relu"))
    refuse_unsafe(tmp_path)
    for operators in (("MatMul", "WriteFile"), ("PyFunc", "Relu"), ("ReadFile", "Relu")):
        file.write_bytes(saved_model(*operators))
        with pytest.raises(ValueError, match="is refused: its program uses .*, which do more than compute"):
            refuse_unsafe(tmp_path)
    file.write_bytes(b"\x0f" * 20)
    with pytest.raises(ValueError, match="cannot be read"):
        refuse_unsafe(tmp_path)


def test_a_saved_model_equals_tensorflow(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip(
        "tensorflow", reason="TensorFlow is not installed (600 MB; only this test uses it)"
    )

    class Small(tensorflow.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.kernel = tensorflow.Variable(small_graphs.kernel().T)

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None, None], tensorflow.float32)])
        def __call__(self, samples: Any) -> Any:
            frames = tensorflow.tanh(tensorflow.signal.frame(samples, 160, 160) @ self.kernel)
            return {"frames": frames, "vector": tensorflow.reduce_mean(frames, axis=1)}

        @tensorflow.function(input_signature=[tensorflow.TensorSpec([None], tensorflow.float32)])
        def one(self, samples: Any) -> Any:
            return tensorflow.tanh(tensorflow.signal.frame(samples, 160, 160) @ self.kernel), samples

    folder, model, waveform = tmp_path / "small", Small(), noise(WINDOW + 500)
    tensorflow.saved_model.save(model, str(folder))
    settings = tmp_path / "small.yaml"
    settings.write_text(f"sample_rate: {RATE}\nwindow: {WINDOW}\nlayers: [frames, vector]\n")
    encoder = load_encoder(f"savedmodel:{folder}")
    assert contract.check_encoder(encoder) == [] and len(encoder.weights_sha256) == 64
    expected = model(waveform[:, :WINDOW].numpy())
    for name in ("frames", "vector"):
        reference = torch.from_numpy(expected[name].numpy()[0])
        found = encoder.encode(waveform[:, :WINDOW])[name][0]
        assert relative_l2(found if name == "frames" else found[0], reference) < TOLERANCE
    settings.write_text(
        f"sample_rate: {RATE}\nmin_samples: 160\ncall: {{function: one, is_batched: false}}\nlayers: ['0']\n"
    )
    whole = load_encoder(f"savedmodel:{folder}")
    assert whole.layer_infos[0].hop == 160 and contract.check_encoder(whole) == []
    assert (
        relative_l2(whole.encode(waveform)["0"][0], torch.from_numpy(model.one(waveform[0].numpy())[0].numpy()))
        < TOLERANCE
    )
    for text, said in (
        ("call: {function: two}\n", "has no function 'two'"),
        ("call: {function: _one}\n", "has no function"),
    ):
        settings.write_text(f"sample_rate: {RATE}\nlayers: [frames]\n{text}")
        with pytest.raises(ValueError, match=said):
            load_encoder(f"savedmodel:{folder}")
