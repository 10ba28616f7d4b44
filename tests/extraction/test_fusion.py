"""Fusions: pure functions that commute with the store, and those that are fitted on training clips."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from evar.encoders.pooling import POOLINGS, pool
from evar.extraction.fusion import commutes, fuse, pca

RNG = np.random.default_rng(0)


def frames(
    n_clips: int = 6, time: int = 9, width: int = 5, n_layers: int = 3
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Layers (clips, time, width) at one frame rate, and valid frames."""
    made = [torch.from_numpy(RNG.normal(size=(n_clips, time, width)).astype(np.float32)) for _ in range(n_layers)]
    return made, torch.tensor([9, 3, 5, 1, 9, 2])


@pytest.mark.parametrize("pooling", POOLINGS)
def test_concat_commutes_with_every_pooling(pooling: str) -> None:
    layers, lengths = frames()
    joined = pool(torch.cat(layers, dim=2), lengths, pooling).numpy()
    vectors = {str(at): pool(layer, lengths, pooling).numpy() for at, layer in enumerate(layers)}
    fused = fuse(vectors, "concat")
    assert commutes("concat", [pooling])
    # mean_std puts all means before all deviations: the same numbers in another order
    assert np.sort(fused, axis=1) == pytest.approx(np.sort(joined, axis=1), abs=1e-6)
    if pooling != "mean_std":
        assert fused == pytest.approx(joined, abs=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_average_and_weighted_sums_commute_with_what_is_linear_only(pooling: str) -> None:
    layers, lengths = frames()
    weights = [0.5, 0.3, 0.2]
    for shares in ([1 / 3] * 3, weights):
        before = sum(share * layer for share, layer in zip(shares, layers, strict=True))
        pooled = pool(before, lengths, pooling).numpy()
        after = sum(share * pool(layer, lengths, pooling).numpy() for share, layer in zip(shares, layers, strict=True))
        is_same = np.allclose(pooled, after, atol=1e-5)
        assert is_same == (pooling in ("mean", "last"))
        assert commutes("average", [pooling]) == commutes("weighted", [pooling, "mean"]) == is_same


def test_average_of_vectors() -> None:
    layers = {"a": np.float32([[1, 2]]), "b": np.float32([[3, 6]])}
    assert fuse(layers, "average").tolist() == [[2, 4]]
    assert fuse(layers, "weighted").tolist() == [[1, 2, 3, 6]]  # the probe sums


def test_pca_equals_scikit_learn() -> None:
    layers = {"a": RNG.normal(size=(50, 7)).astype(np.float32), "b": 9 * RNG.normal(size=(50, 4)).astype(np.float32)}
    train = np.arange(30)
    ours = pca(layers, train, width=6)
    scaled = [StandardScaler().fit(v[train]).transform(v) / np.sqrt(v.shape[1]) for v in layers.values()]
    joined = np.concatenate(scaled, axis=1)
    theirs = PCA(6, svd_solver="full").fit(joined[train]).transform(joined)
    signs = np.sign((ours * theirs).sum(axis=0))
    assert ours * signs == pytest.approx(theirs, abs=1e-4)


def test_pca_of_more_features_than_clips_keeps_every_distance_of_training_clips() -> None:
    layers = {"a": RNG.normal(size=(20, 40)).astype(np.float32), "b": RNG.normal(size=(20, 60)).astype(np.float32)}
    train = np.arange(15)
    ours = pca(layers, train)
    assert ours.shape == (20, 14)  # 15 centred clips span 14 directions
    scaled = [StandardScaler().fit(v[train]).transform(v) / np.sqrt(v.shape[1]) for v in layers.values()]
    joined = np.concatenate(scaled, axis=1)[train]
    assert ours[train] @ ours[train].T == pytest.approx(joined @ joined.T, abs=1e-4)


def test_pca_does_not_look_at_other_clips() -> None:
    layers = {"a": RNG.normal(size=(20, 4)).astype(np.float32)}
    changed = {"a": layers["a"].copy()}
    changed["a"][15:] = 1e6
    train = np.arange(15)
    assert np.array_equal(pca(layers, train)[:15], pca(changed, train)[:15])
    changed["a"][15:] = np.nan  # clips that cannot be read
    assert np.isnan(fuse(changed, "pca", train)[15:]).all()
    assert np.isfinite(fuse(changed, "pca", train)[:15]).all()


def test_pca_weighs_layers_alike_whatever_their_width() -> None:
    wide = np.repeat(RNG.normal(size=(200, 1)), 300, axis=1).astype(np.float32)
    narrow = RNG.normal(size=(200, 1)).astype(np.float32)
    fused = pca({"wide": wide, "narrow": narrow}, np.arange(200))
    assert fused.shape == (200, 2)
    assert fused.var(axis=0) == pytest.approx([1.0, 1.0], abs=0.2)


@pytest.mark.parametrize(
    ("layers", "fusion", "said"),
    [
        ({"a": (3, 2), "b": (3, 4)}, "average", "average needs layers of equal width, got {'a': 2, 'b': 4}"),
        ({"a": (3, 2), "b": (3, 4)}, "weighted", "weighted needs layers of equal width"),
        ({"a": (3, 2), "b": (2, 2)}, "concat", "the same clips in each"),
        ({"a": (3, 2), "b": (3, 2)}, "conact", "did you mean 'concat'?"),
        ({"a": (3, 2), "b": (3, 2)}, "none", "no fusion 'none' for 2 layers"),
        ({"a": (3, 2), "b": (3, 2)}, "pca", "no fusion 'pca'"),
    ],
)
def test_what_does_not_fit_is_told(layers: dict[str, tuple[int, int]], fusion: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        fuse({name: np.zeros(shape, np.float32) for name, shape in layers.items()}, fusion)


def test_pca_of_clips_that_are_alike_is_told() -> None:
    with pytest.raises(ValueError, match="training clips that differ"):
        pca({"a": np.ones((5, 3), np.float32)}, np.arange(5))
    with pytest.raises(ValueError, match="at least 2 training clips"):
        pca({"a": np.ones((5, 3), np.float32)}, np.arange(1))
