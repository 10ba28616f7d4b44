"""A tiny encoder, tones with labels, and a configuration folder for them: what the pipeline's tests run on."""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import soundfile
import torch
import yaml
from torch import Tensor, nn

from evar.encoders.base import Encoder
from evar.encoders.features import LayerInfo

RATE = 8000
HOP = 400


class Bands(Encoder):
    """Log energy in 16 bands of non-overlapping frames, and a layer that carries the level only."""

    sample_rate = RATE
    layer_infos = (LayerInfo("level", 1, HOP, "mean"), LayerInfo("bands", 16, HOP, "mean"))
    default_layers = ("bands",)
    min_samples = HOP
    calls: list[int] = []  # clips of each forward, over all instances

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((16,), gain))

    def valid_frames(self, lengths: Tensor) -> Tensor:
        return lengths // HOP

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        Bands.calls.append(len(waveform))
        frames = waveform.unfold(1, HOP, HOP)  # (batch, time, HOP)
        power = torch.fft.rfft(frames).abs().square()[..., 1:193].unflatten(-1, (16, 12)).sum(-1)  # (batch, time, 16)
        logs = torch.log(power + 1e-4)
        return {"level": logs.mean(-1, keepdim=True), "bands": logs * self.scale}


class Fragile(Bands):
    """Padding changes its vectors, so it must be given equal lengths."""

    batch_invariant = False

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        if len(set(lengths.tolist())) > 1 or int(lengths[0]) != waveform.shape[1]:
            raise RuntimeError("a batch of unequal lengths reached an encoder that is not batch-invariant")
        return super().forward(waveform, lengths)


class Normalised(Bands):
    """Bands of a log spectrum that is normalised by a mean and a standard deviation, bent so that these matter."""

    default_norm_stats = "train"

    def __init__(self) -> None:
        super().__init__()
        self.norm_stats = (-3.0, 2.5)

    def network_input(self, waveform: Tensor, lengths: Tensor) -> Tensor:
        frames = waveform.unfold(1, HOP, HOP)  # (batch, time, HOP)
        power = torch.fft.rfft(frames).abs().square()[..., 1:193].unflatten(-1, (16, 12)).sum(-1)  # (batch, time, 16)
        return torch.log(power + 1e-4)

    def network_input_frames(self, lengths: Tensor) -> Tensor:
        return lengths // HOP

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        Bands.calls.append(len(waveform))
        mean, std = self.norm_stats or (0.0, 1.0)
        logs = torch.tanh((self.network_input(waveform, lengths) - mean) / std)
        return {"level": logs.mean(-1, keepdim=True), "bands": logs * self.scale}


class Twins(Bands):
    """Two layers of equal width, of which the first is deaf; pooled in ways that do and do not commute with sums."""

    layer_infos = (LayerInfo("deaf", 16, HOP, "mean"), LayerInfo("bands", 16, HOP, "mean"))

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        bands = super().forward(waveform, lengths)["bands"]
        return {"deaf": torch.sin(1e4 * bands), "bands": bands}


class PeakTwins(Twins):
    layer_infos = (LayerInfo("deaf", 16, HOP, "mean"), LayerInfo("bands", 16, HOP, "mean_plus_max"))


class Moments(Bands):
    """Mean and deviation of the samples of each frame: two numbers that can be told from what was written."""

    layer_infos = (LayerInfo("moments", 2, HOP, "mean"),)
    default_layers = ("moments",)

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        frames = waveform.unfold(1, HOP, HOP)  # (batch, time, HOP)
        return {"moments": torch.stack([frames.mean(-1), frames.std(-1, correction=0)], dim=-1)}


class Reader(Bands):
    """Reads text too: a sentence about a low, middle or high tone lies where such a tone lies; "not" means the next one."""

    text_layer = "bands"
    text_sha256 = "toy"
    read: list[str] = []  # every text that was read, over all instances

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        layers = super().forward(waveform, lengths)
        return {**layers, "bands": layers["bands"] - layers["bands"].mean(-1, keepdim=True)}

    def encode_text(self, texts: list[str]) -> Tensor:
        Reader.read += texts
        words = ["low", "middle", "high"]
        numbers = [next((n for n, word in enumerate(words) if word in text), 0) + ("not" in text) for text in texts]
        with torch.no_grad():
            seeds = [1000 + len(text) for text in texts]
            tones = np.stack([tone(number % 3, seed) for number, seed in zip(numbers, seeds, strict=True)])
            return self.encode(torch.from_numpy(tones))["bands"].mean(dim=1)


class Broken(Bands):
    """Fails at its first forward."""

    def forward(self, waveform: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("this encoder is broken on purpose")


def tone(label: int, seed: int, seconds: float = 0.5) -> np.ndarray:
    """(samples,) float32: a tone whose frequency tells the label, with noise, at RATE."""
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (500 + 700 * label) * time + random.uniform(0, 6))
    return (wave + 0.02 * random.standard_normal(len(time))).astype(np.float32)


#: kind of task -> what the index says of a tone
TOLD = {"multiclass": {}, "multilabel": {"middle": "low;high"}, "regression": {"low": "0", "middle": "1", "high": "2"}}


@functools.cache
def noise_with_bands(seed: int, seconds: float = 3.0, rate: int = 16000) -> np.ndarray:
    """Noise (samples,) in bands that come and go: nothing like another seed's."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    time = np.arange(n) / rate
    wave = np.zeros(n)
    for _ in range(200):
        start, length, pitch = (
            rng.uniform(0, seconds),
            rng.uniform(0.1, 0.5),
            np.exp(rng.uniform(np.log(300), np.log(2000))),
        )
        wave += np.exp(-(((time - start) / length) ** 2)) * np.sin(2 * np.pi * pitch * time + rng.uniform(0, 6))
    noise = (0.2 * wave / np.abs(wave).max() + 0.001 * rng.standard_normal(n)).astype(np.float32)
    noise.flags.writeable = False  # every caller gets the same array
    return noise


def write_config(
    root: Path,
    *,
    n_per_class: int = 12,
    folds: bool = False,
    shuffled: bool = False,
    unequal: bool = False,
    kind: str = "multiclass",
) -> Path:
    """Write `root/config` (encoders toy and toy_...; task tones) and `root/data/tones/*.wav`.

    Labels of kind multilabel are "low" and "high", and a middle tone is both; of kind regression 0, 1 and 2.

    Returns:
        The folder to set EVAR_CONFIG to.
    """
    config = root / "config"
    for folder in ("encoders", "tasks"):
        (config / folder).mkdir(parents=True, exist_ok=True)
    classes_of = {"toy": "Bands", "toy_fragile": "Fragile", "toy_broken": "Broken", "toy_normalised": "Normalised"}
    classes_of |= {"toy_twins": "Twins", "toy_peak_twins": "PeakTwins"}
    for name, class_name in classes_of.items():
        entry = {
            "implementation": f"toy:{class_name}",
            "description": "bands",
            "trained_on": "nothing",
            "citation": "none",
        }
        (config / "encoders" / f"{name}.yaml").write_text(yaml.safe_dump(entry))
    data = root / "data" / "tones"
    data.mkdir(parents=True, exist_ok=True)
    labels = ["low", "middle", "high"]
    rows, random = [], np.random.default_rng(7)
    for label in range(3):
        for number in range(n_per_class):
            path = f"{labels[label]}_{number}.wav"
            seconds = 0.3 + 0.05 * (number % 7) if unequal else 0.5
            soundfile.write(data / path, tone(label, 100 * label + number, seconds), RATE)
            part = str(1 + number % 3) if folds else ("train", "train", "valid", "test")[number % 4]
            told = labels[int(random.integers(3))] if shuffled else labels[label]
            rows.append([path, TOLD[kind].get(told, told), part, f"{label}-{number}"])
    with open(config / "tasks" / "tones.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "fold" if folds else "split", "group"])
        writer.writerows(rows)
    task = {
        "title": "tones", "version": "1", "kind": "multiclass", "metric": "accuracy", "classes": labels,
        "clip_seconds": None, "pad": "none", "crop": "head", "index": "tones.csv", "folder": "tones",
        "splits": "folds" if folds else "published", "source": "made by the tests", "licence": "CC0-1.0",
        "citation": "none", "access": "free", "expected": {"clips": 3 * n_per_class, "classes": 3},
    }  # fmt: skip
    if kind != "multiclass":
        classes, metric = (["low", "high"], "mean_average_precision") if kind == "multilabel" else ([], "pearson")
        task |= {"kind": kind, "metric": metric, "classes": classes}
        task["expected"] = {"clips": 3 * n_per_class, "classes": len(classes)}
    (config / "tasks" / "tones.yaml").write_text(yaml.safe_dump(task))
    return config
