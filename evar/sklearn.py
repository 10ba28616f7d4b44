"""`Embedding`: an encoder as a transformer of scikit-learn, for pipelines, grid searches and cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from evar.config.registry import near_miss

if TYPE_CHECKING:
    from typing_extensions import Self

    from evar.encoders.base import Encoder


class Embedding(TransformerMixin, BaseEstimator):
    """Turn clips into vectors of a frozen encoder, as a step of a `sklearn.pipeline.Pipeline`.

    Nothing is learnt in `fit`, so that vectors of test clips depend on no other clip. The encoder is loaded at the first use
    and is left out when the transformer is cloned, copied or sent to another process.

    Args:
        encoder: name, as for `evar.load_encoder`.
        layers: None for the encoder's default layers; "all", or names or positions of layers.
        fusion: "concat" or "average"; what makes one vector of several layers.
        weights: as for `evar.load_encoder`.
        sample_rate: Hz of waveforms; None means the encoder's own rate.
        pooling: over time; None pools each layer as it declares.
        batch_size: clips a batch; None bounds a batch by seconds of audio.
        device: as for `evar.load_encoder`.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> rng = np.random.default_rng(0)
        >>> clips = [level * rng.normal(size=16000) for level in (0.001, 0.002, 0.2, 0.3)]
        >>> pipeline = make_pipeline(Embedding("logmel"), LogisticRegression()).fit(clips, ["low", "low", "high", "high"])
        >>> pipeline.predict([0.25 * rng.normal(size=8000)]).tolist()
        ['high']
    """

    def __init__(
        self,
        encoder: str = "logmel",
        *,
        layers: str | Sequence[str | int] | None = None,
        fusion: str = "concat",
        weights: str | None = None,
        sample_rate: int | None = None,
        pooling: str | None = None,
        batch_size: int | None = None,
        device: str = "auto",
    ) -> None:
        self.encoder = encoder
        self.layers = layers
        self.fusion = fusion
        self.weights = weights
        self.sample_rate = sample_rate
        self.pooling = pooling
        self.batch_size = batch_size
        self.device = device

    def fit(self, X: Any, y: Any = None) -> Self:
        """Load the encoder and check the settings; X and y are not looked at.

        Raises:
            ValueError: if a setting is not legal.
        """
        from evar.extraction.embed import selection
        from evar.extraction.fusion import FUSIONS

        if self.fusion not in FUSIONS:
            raise ValueError(f"no fusion {self.fusion!r}; {near_miss(self.fusion, FUSIONS)}")
        selection(self._load(), self.layers, self.fusion, self.pooling)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the vectors of clips.

        Args:
            X: clips, as `evar.embed` takes them: paths, waveforms, or (batch, samples).

        Returns:
            (clips, width) float32.

        Raises:
            ValueError: if a clip cannot be used; it is named.
        """
        from evar.extraction.embed import embed

        clips = X if hasattr(X, "shape") and X.dtype != object else list(X)
        if not isinstance(clips, list) and np.asarray(clips).dtype.kind in "US":  # an array of paths
            clips = [str(path) for path in np.asarray(clips).ravel()]
        return embed(
            self._load(), clips, self.layers, self.fusion,
            sample_rate=self.sample_rate, pooling=self.pooling, batch_size=self.batch_size, errors="raise",
        )  # fmt: skip

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the names of the columns: the layer and the number of the feature, "conv5_17"."""
        from evar.encoders.pooling import count_pooled_features
        from evar.extraction.embed import selection

        encoder = self._load()
        names, _ = selection(encoder, self.layers, self.fusion, self.pooling)
        columns = []
        for name in names if self.fusion == "concat" else names[:1]:
            info = encoder.layer(name)
            stem = name if self.fusion == "concat" else self.fusion
            columns += [f"{stem}_{n}" for n in range(count_pooled_features(info.width, self.pooling or info.pooling))]
        return np.array(columns, dtype=object)

    def _load(self) -> Encoder:
        """The encoder; loaded again where a setting of it has changed."""
        from evar.encoders import load_encoder

        key = (self.encoder, self.weights, self.device)
        held = self.__dict__.get("_held")
        if held is None or held[0] != key:
            held = (key, load_encoder(self.encoder, self.weights, device=self.device))
            self._held = held
        encoder: Encoder = held[1]
        return encoder

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_held", None)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        return tags
