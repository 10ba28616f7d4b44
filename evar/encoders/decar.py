"""DECAR: EfficientNet-B0 on log-mel, trained to name the cluster that a sound fell into.

Paper: Ghosh et al., "Deep Clustering for General-Purpose Audio Representations", 2021 (arXiv 2110.08895). **No weights
were ever published**: the repository Speech-Lab-IITM/DECAR has neither a file nor a licence. A checkpoint of your own
training loads: `--weights=PATH` of what that code saves (`{"state_dict", "epoch"}`). Trained on AudioSet without
labels, as the paper says.

Input: 16 kHz. Magnitude spectra of 400 samples every 160 in a Fourier transform of 1024 (periodic Hann, whole frames
only), 64 HTK mel bands from 60 to 7800 Hz (triangles linear in mel, peak 1), between 1e-5 and 1e8, natural logarithm.
At least 400 samples; clips of any length go through the network as a whole.

Network: EfficientNet-B0 of the package efficientnet_pytorch with one input channel: zeros around a map follow
TensorFlow's "same" rule, which depends on the map's size; batch normalisation with epsilon 1e-3.

Layers: stem, stage1..stage7 and top, channel x band side by side, one frame in 2, 2, 4, 8, 16, 16, 32, 32 and 32 of the
log-mel; emb (1280): top averaged over the bands, which is the default. All pool by mean: the original's average over
time and bands.

Differs from the original: each clip has its own length; the original fills up the shorter clips of a batch.
"""

from __future__ import annotations

from torch import Tensor

from evar.encoders._b0_encoder import HOP, TOP, B0Encoder
from evar.encoders.features import LayerInfo


class Decar(B0Encoder):
    """DECAR with every stage; see the module's docstring.

    Args:
        share: of the channels of the network, for tests; checkpoints have all (1.0).

    Example:
        >>> import torch
        >>> Decar(share=0.25).eval().encode(torch.zeros(1, 16000))["emb"].shape
        torch.Size([1, 4, 320])
    """

    default_layers = ("emb",)
    ignored_tensors = ("classifier.", "top_layer.", "*._fc.*", "_fc.")

    def __init__(self, share: float = 1.0) -> None:
        width = int(TOP * share)
        super().__init__("tensorflow", share, [LayerInfo("emb", width, 32 * HOP, "mean", "top, mean over the 2 bands")])

    def compute_heads(self, top: Tensor) -> dict[str, Tensor]:
        """Average the last map over its bands: (clips, channel, band, time) -> (clips, time step, channel)."""
        return {"emb": top.mean(dim=2).transpose(1, 2)}
