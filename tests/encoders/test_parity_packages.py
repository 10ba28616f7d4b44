"""BEATs, Dasheng and Audio-MAE held against independent packages: same random tensors, same waveform, two blocks.

The packages are in `tests/requirements-parity.txt`; timm needs a torchvision that fits the installed torch.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evar.encoders.base import Encoder
from evar.encoders.contract import relative_l2
from evar.encoders.weights import load_strict

N_BLOCKS = 2
LAYERS = 2e-5  # relative L2 of what the network gives


def need(module: str) -> Any:
    """Import a package, or skip: it, or what it needs, may not fit the installed torch."""
    try:
        return __import__(module, fromlist=["x"])
    except Exception as error:
        pytest.skip(f"{module} cannot be imported: {error}")


def drawn(network: nn.Module) -> nn.Module:
    """Draw every parameter, and the statistics of batch normalisation, at random; eval mode."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point() or tensor.dim() == 0 or "front_end" in name:
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(300 + 100 * noise.abs())
            elif name.endswith("running_mean"):
                tensor.copy_(-20 + 5 * noise)
            elif tensor.dim() == 1:
                tensor.add_(0.1 * noise)
            elif "pos_embed" in name or "token" in name or "relative_attention_bias" in name:
                tensor.copy_(0.5 * noise)
    return network.eval()


def waveforms() -> Tensor:
    """(3, samples): noise that swells, a gliding tone, and a click; each with noise in all bands.

    In bands without sound the spectrum's rounding decides, which is 1e-4 of the logarithm and another in each package.
    """
    time = torch.arange(25000) / 16000
    noise = 0.1 * torch.randn(25000, generator=torch.Generator().manual_seed(1)) * (0.1 + time)
    click = torch.zeros(25000)
    click[9000:9100] = 0.3
    tone = 0.1 * torch.sin(2 * torch.pi * (200 + 900 * time) * time)
    return torch.stack([noise, tone + 0.2 * noise, click + 0.2 * noise])


def filled(encoder: Encoder, state: dict[str, Tensor]) -> Encoder:
    """Our encoder with another implementation's tensors."""
    load_strict(encoder, encoder.convert({"model": state}), "tensors", ignore=encoder.ignored_tensors)
    return encoder.eval()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_beats_gives_what_openbeats_gives():
    from evar.encoders.beats import Beats

    settings = {
        "input_patch_size": 16, "embed_dim": 512, "conv_bias": False, "encoder_layers": N_BLOCKS, "encoder_embed_dim": 768,
        "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12, "layer_norm_first": False, "deep_norm": True,
        "conv_pos": 128, "conv_pos_groups": 16, "relative_position_embedding": True, "num_buckets": 320,
        "max_distance": 800, "gru_rel_pos": True,
    }  # fmt: skip
    package = need("openbeats.beats_encoder")
    other = drawn(package.BeatsEncoder(input_size=1, beats_config=settings, fbank_mean=15.2913, fbank_std=5.90532))
    ours = filled(Beats(n_blocks=N_BLOCKS, mean=15.2913, std=5.90532), other.state_dict())
    clips = waveforms()
    with torch.no_grad():
        features = ours.encode(clips)
        for number, clip in enumerate(clips):
            tokens = other(clip[None], torch.tensor([len(clip)]))[0][0]  # (time x band, width)
            own = tokens.unflatten(0, (-1, 8)).mean(dim=1)
            assert features["block2"][number].shape == own.shape
            assert relative_l2(features["block2"][number], own) < LAYERS
            assert relative_l2(features["block1"][number], own) > 0.01
        ours.norm_stats = (15.41663, 6.55582)  # BEATs' statistics instead of OpenBEATs' are seen
        assert relative_l2(ours.encode(clips)["block2"], features["block2"]) > 1e-3


def test_dasheng_gives_what_the_package_gives():
    from evar.encoders.dasheng import Dasheng

    package = need("dasheng.pretrained.pretrained")
    shape = {"embed_dim": 768, "num_heads": 12, "patch_size": (64, 4), "patch_stride": (64, 4), "target_length": 1008}
    other = drawn(package.Dasheng(depth=N_BLOCKS, **shape))
    ours = filled(Dasheng(n_blocks=N_BLOCKS), other.state_dict())
    clips = waveforms()
    long = torch.cat([clips[0]] * 8)[None]  # 12.5 s: a second piece
    with torch.no_grad():
        features = ours.encode(clips)
        for number, clip in enumerate(clips):
            own = other(clip[None])[0]
            assert features["norm"][number].shape == own.shape
            assert relative_l2(features["norm"][number], own) < LAYERS
            assert relative_l2(features["block2"][number], own) > 0.01
        assert relative_l2(ours.encode(long)["norm"][0], other(long)[0]) < LAYERS


def test_audio_mae_gives_what_timm_gives():
    from evar.encoders.audio_mae import AudioMae

    timm = need("timm.models.vision_transformer")
    shape = {
        "img_size": (1024, 128),
        "patch_size": 16,
        "in_chans": 1,
        "num_classes": 0,
        "embed_dim": 768,
        "num_heads": 12,
    }
    other = drawn(timm.VisionTransformer(depth=N_BLOCKS, **shape))
    ours = filled(AudioMae(n_blocks=N_BLOCKS), other.state_dict())
    clip = torch.cat([waveforms()[0]] * 7)[None, :163760]  # 1,022 frames
    with torch.no_grad():
        logmel = ours.network_input(clip, torch.tensor([clip.shape[1]]))
        mean, std = ours.norm_stats
        image = nn.functional.pad(logmel, (0, 0, 0, 1024 - logmel.shape[1]))
        tokens = other.forward_features((image[:, None] - mean) / (2 * std))[0, 1:]  # (time x band, width), without cls
        features = ours.encode(clip)
    assert relative_l2(features["norm"][0].mean(0), tokens.mean(0)) < LAYERS
    assert relative_l2(features["block2"][0].mean(0), tokens.mean(0)) > 0.01
