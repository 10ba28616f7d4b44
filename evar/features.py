"""A public import path that stays: the data types that encoders return (they live in `evar.encoders.features`)."""

from evar.encoders.features import LayerFeatures, LayerInfo

__all__ = ["LayerFeatures", "LayerInfo"]
