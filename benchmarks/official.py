"""Forward time of our encoders against independent implementations of the same networks, on the same batch.

    python benchmarks/official.py [--encoders=NAME,NAME] [--clips=N] [--seconds=N] [--repeats=N] [--threads=N]
                                  [--clock=wall|processor]

Both get the same noise, in clips of one length, in one process, in turns; ours returns every layer, theirs its last one.
What is held against:

- BYOL-A: its paper's network as plain modules after torchaudio's mel spectrogram;
- CNN14: its paper's network as plain modules after the package `torchlibrosa`;
- BEATs: the package `openbeats`, waveform in, with its own filterbank;
- Dasheng: the package `dasheng`, waveform in, with its own log-mel;
- Audio-MAE, M2D and EAT: `VisionTransformer` of the package `timm`, on which the official code of the three is built, with
  as many tokens, after our own front-end. (EAT normalises after each residual connection, timm's network before it; the
  products are the same.)

    python -m pip install --no-deps openbeats dasheng einops timm torchvision

The ratio is of the shortest times, which bear other load on the machine best. The goal is at most 1.05.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from encoders import processor
from torch import Tensor, nn

from evar.encoders import load_encoder
from evar.encoders.base import Encoder
from evar.extraction.freed_memory import keep_freed_memory

GOAL = 1.05
Call = Callable[[], object]


def openbeats_call(encoder: Encoder, waveform: Tensor) -> Call:
    """BEATs of the package `openbeats`, of the geometry of the published files."""
    from openbeats.beats_encoder import BeatsEncoder

    settings = {
        "input_patch_size": 16, "embed_dim": 512, "conv_bias": False, "encoder_layers": 12, "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12, "layer_norm_first": False, "deep_norm": True,
        "conv_pos": 128, "conv_pos_groups": 16, "relative_position_embedding": True, "num_buckets": 320,
        "max_distance": 800, "gru_rel_pos": True,
    }  # fmt: skip
    network = BeatsEncoder(input_size=1, beats_config=settings).eval()
    lengths = torch.full((len(waveform),), waveform.shape[1])
    return lambda: network(waveform, lengths)


def dasheng_call(encoder: Encoder, waveform: Tensor) -> Call:
    """Dasheng of the package `dasheng`, with random weights."""
    from dasheng.pretrained.pretrained import Dasheng

    width = {"base": 768}[str(encoder.options.get("size", "base"))]
    network = Dasheng(
        embed_dim=width, depth=12, num_heads=12, patch_size=(64, 4), patch_stride=(64, 4), target_length=1008
    )
    network.eval()
    return lambda: network(waveform)


def timm_call(rows: int, columns: Callable[[int], int]) -> Callable[[Encoder, Tensor], Call]:
    """A plain vision transformer of ViT-B's size on patches of 16 x 16, after our front-end.

    Args:
        rows: patches of a time step.
        columns: frames of the front-end -> time steps.
    """

    def build(encoder: Encoder, waveform: Tensor) -> Call:
        from timm.models.vision_transformer import VisionTransformer

        lengths = torch.full((len(waveform),), waveform.shape[1])
        n_columns = columns(encoder.network_input(waveform[:1], lengths[:1]).shape[1])
        network = VisionTransformer(
            img_size=(16 * n_columns, 16 * rows), patch_size=16, in_chans=1, num_classes=0, embed_dim=768, depth=12,
            num_heads=12,
        ).eval()  # fmt: skip

        def call() -> object:
            image = encoder.network_input(waveform, lengths)  # (clip, time, mel)
            missing = 16 * n_columns - image.shape[1]
            image = torch.nn.functional.pad(image, (0, 0, 0, max(0, missing)))[:, : 16 * n_columns, : 16 * rows]
            return network.forward_features(image[:, None])

        return call

    return build


def m2d_call(encoder: Encoder, waveform: Tensor) -> Call:
    """timm's network on units of 608 frames, each by itself and the last as short as it is, as M2D's encoder cuts clips."""
    from timm.models.vision_transformer import VisionTransformer

    lengths, unit = torch.full((len(waveform),), waveform.shape[1]), 608
    network = VisionTransformer(
        img_size=(80, unit), patch_size=16, in_chans=1, num_classes=0, embed_dim=768, depth=12, num_heads=12,
        dynamic_img_size=True,
    ).eval()  # fmt: skip

    def call() -> object:
        image = encoder.network_input(waveform, lengths).transpose(1, 2)[:, None]  # (clip, 1, mel, time)
        units = image.split(unit, dim=3)
        return [network.forward_features(torch.nn.functional.pad(one, (0, -one.shape[3] % 16))) for one in units]

    return call


def byol_a_call(encoder: Encoder, waveform: Tensor) -> Call:
    """The network of BYOL-A's paper as a plain sequence, after torchaudio's mel spectrogram; d = 512."""
    import torchaudio

    mel = torchaudio.transforms.MelSpectrogram(
        sample_rate=16000, n_fft=1024, win_length=1024, hop_length=160, n_mels=64, f_min=60.0, f_max=7800.0
    )
    modules: list[nn.Module] = []
    for n_in in (1, 64, 64):
        modules += [nn.Conv2d(n_in, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    maps = nn.Sequential(*modules).eval()
    vectors = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 512), nn.ReLU()).eval()

    def call() -> object:
        image = ((mel(waveform) + 1.1920929e-07).log() + 5.5) / 5.0  # (clip, mel, time)
        found = vectors(maps(image[:, None]).permute(0, 3, 2, 1).flatten(2))  # (clip, time, feature)
        return found.mean(dim=1) + found.amax(dim=1)

    return call


def cnn14_call(encoder: Encoder, waveform: Tensor) -> Call:
    """The network of the PANNs paper as plain modules, after the front-end of the package `torchlibrosa`."""
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    front = nn.Sequential(
        Spectrogram(n_fft=512, hop_length=160, win_length=512, freeze_parameters=True),
        LogmelFilterBank(sr=16000, n_fft=512, n_mels=64, fmin=50, fmax=8000, amin=1e-10, top_db=None),
    )
    bands, modules, n_in = nn.BatchNorm2d(64).eval(), [], 1
    for number, width in enumerate((64, 128, 256, 512, 1024, 2048)):
        for n_from in (n_in, width):
            modules += [nn.Conv2d(n_from, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        modules.append(nn.AvgPool2d(2 if number < 5 else 1))
        n_in = width
    network, last = nn.Sequential(*modules).eval(), nn.Linear(2048, 2048)

    def call() -> object:
        maps = bands(front(waveform).transpose(1, 3)).transpose(1, 3)  # (clip, 1, time, mel)
        frames = network(maps).mean(dim=3)  # (clip, channel, time)
        return last(frames.amax(dim=2) + frames.mean(dim=2)).relu()

    return call


#: our encoder -> a function that builds a call of the other implementation
OTHERS: dict[str, Callable[[Encoder, Tensor], Call]] = {
    "byol_a.d512": byol_a_call,
    "cnn14.16k": cnn14_call,
    "beats.iter3": openbeats_call,
    "dasheng.base": dasheng_call,
    "eat.base": timm_call(8, lambda n_frames: 64),
    "audio_mae": timm_call(8, lambda n_frames: 64),
    "m2d": m2d_call,
}


def main() -> int:
    """Measure and print; 1 where a ratio is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", default=",".join(OTHERS), help="names with commas between (default: %(default)s)")
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each clip")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "processor"), default="processor")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{time.strftime('%Y-%m-%d')}: {processor()}, torch {torch.__version__}, {os.cpu_count()} cores"
    how = f"{asked.threads} threads, {asked.clock} clock, {asked.repeats} repeats"
    print(f"{where}; {asked.clips} clips of {asked.seconds:g} s, {how}\n")
    print("| encoder | ours (s) | theirs (s) | ratio of the shortest | ratio of the medians |")
    print("|---|---:|---:|---:|---:|")
    ratios = [compare(name, asked) for name in asked.encoders.split(",")]
    return 1 if max(ratios) > GOAL else 0


def compare(name: str, asked: argparse.Namespace) -> float:
    """Time one encoder and its other implementation, print a row, and give the ratio of the shortest times."""
    encoder = load_encoder(name, "random")
    n_samples = int(asked.seconds * encoder.sample_rate)
    waveform = 0.1 * torch.randn(asked.clips, n_samples, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((asked.clips,), n_samples)
    with torch.inference_mode():
        calls = [lambda: encoder.forward(waveform, lengths), OTHERS[name](encoder, waveform)]
        ours, theirs = measure_in_turns(calls, asked.repeats, asked.clock)
    ratio = min(ours) / min(theirs)
    medians = statistics.median(ours) / statistics.median(theirs)
    print(f"| `{name}` | {min(ours):.3f} | {min(theirs):.3f} | {ratio:.2f} | {medians:.2f} |", flush=True)
    return ratio


def measure_in_turns(calls: list[Call], repeats: int, clock: str) -> list[list[float]]:
    """Seconds of both calls by that clock, in turns; each time after a call that is not counted.

    Ours keeps freed memory, as every pass over clips does; the other has the allocator's usual ways.
    """
    now = time.process_time if clock == "processor" else time.perf_counter
    seconds: list[list[float]] = [[], []]
    for _ in range(repeats):
        for call, taken, kept in zip(calls, seconds, (keep_freed_memory(), nullcontext()), strict=True):
            with kept:
                call()
                began = now()
                call()
                taken.append(now() - began)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
