"""MERT of the hub: a HuBERT for music under a type of its own, whose code is not run.

Li et al., "MERT: Acoustic Music Understanding Model with Large-Scale Self-supervised Training", ICLR 2024. MERT-v0 says
"hubert" in its config.json and needs nothing of this. MERT-v1 says "mert_model". Its network is HuBERT's at 24 kHz, with
one option of its own, `deepnorm`: residual connections after which a LayerNorm follows are scaled by (2 N)^0.25 for N
blocks (Wang et al., "DeepNet: Scaling Transformers to 1,000 Layers", 2022, without the decoder's part). `attention_relax`
changes how the softmax is computed, not its result: the largest logit of a row is subtracted first. The other option,
`feature_extractor_cqt`, feeds a constant-Q transform beside the convolutions; MERT-v1-95M does without, and a model that
sets it is refused.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

MODEL_TYPE = "mert_model"


class NotSupported(ValueError):
    """A model that is understood, but has a part that nothing here computes."""


def hubert_config(transformers: Any, settings: dict[str, Any]) -> Any:
    """Return the settings of the HuBERT that a MERT is.

    Args:
        transformers: the package.
        settings: the content of config.json.

    Returns:
        A `HubertConfig`; its attribute `deepnorm` says whether residuals are scaled.

    Raises:
        NotSupported: if the model also takes a constant-Q transform, or scales residuals of blocks that normalise first.

    Example:
        >>> hubert_config(None, {"deepnorm": True, "do_stable_layer_norm": True})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        evar.encoders._hf_mert.NotSupported: deepnorm needs blocks that normalise last, ...
    """
    if settings.get("feature_extractor_cqt", False):
        raise NotSupported(
            "this MERT takes a constant-Q transform beside the waveform (feature_extractor_cqt), which is not supported; "
            "take a MERT without, such as m-a-p/MERT-v1-95M"
        )
    if settings.get("deepnorm", False) and settings.get("do_stable_layer_norm", False):
        raise NotSupported(
            "deepnorm needs blocks that normalise last, but do_stable_layer_norm asks for the other kind"
        )
    foreign = ("model_type", "auto_map", "architectures", "transformers_version", "_name_or_path")
    return transformers.HubertConfig(**{name: value for name, value in settings.items() if name not in foreign})


def scale_residuals(network: Any) -> None:
    """Scale the residual connections of every block by (2 N)^0.25, N the number of blocks.

    Args:
        network: a `HubertModel` whose blocks normalise after each residual connection.
    """
    blocks = network.encoder.layers
    scaled = _make_scaled_block(type(blocks[0]), (2.0 * len(blocks)) ** 0.25)
    for block in blocks:
        block.__class__ = scaled


def _make_scaled_block(base: Any, alpha: float) -> Any:
    """A subclass of HuBERT's block that computes LayerNorm(alpha x + f(x))."""

    class ScaledBlock(base):
        def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **how: Any) -> Tensor:
            """(batch, time, width) -> the same shape."""
            heard, _ = self.attention(hidden_states, attention_mask=attention_mask, **how)
            hidden_states = self.layer_norm(alpha * hidden_states + self.dropout(heard))
            after: Tensor = self.final_layer_norm(alpha * hidden_states + self.feed_forward(hidden_states))
            return after

    return ScaledBlock
