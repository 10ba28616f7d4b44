"""A convolution and its normalisation as one: the same numbers, none that are out of date, and gradients as ever."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evar.encoders._folding import convolve_and_normalise, halve_by_maximum, rectify


def make_pair(bias: bool = True, affine: bool = True) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=bias), nn.BatchNorm2d(5, affine=affine).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return convolution, norm


@pytest.mark.parametrize(("bias", "affine"), [(True, True), (False, True), (True, False)])
def test_folded_maps_equal_those_of_both_modules(bias: bool, affine: bool) -> None:
    convolution, norm = make_pair(bias, affine)
    maps = torch.randn(2, 3, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(
            convolve_and_normalise(convolution, norm, maps), norm(convolution(maps)), rtol=1e-5, atol=1e-5
        )


def test_a_change_of_weights_statistics_or_epsilon_is_seen() -> None:
    convolution, norm = make_pair()
    maps = torch.randn(1, 3, 8, 8)

    def raise_epsilon() -> None:
        norm.eps = 0.5

    with torch.no_grad():
        convolve_and_normalise(convolution, norm, maps)
        for change in (lambda: convolution.weight.mul_(2.0), lambda: norm.running_var.mul_(3.0), raise_epsilon):  # type: ignore[union-attr]
            before = convolve_and_normalise(convolution, norm, maps)
            change()
            after = convolve_and_normalise(convolution, norm, maps)
            assert not torch.allclose(before, after)
            torch.testing.assert_close(after, norm(convolution(maps)), rtol=1e-5, atol=1e-5)


def test_training_and_gradients_go_through_both_modules() -> None:
    convolution, norm = make_pair()
    maps = torch.randn(4, 3, 8, 8)
    rectify(convolve_and_normalise(convolution, norm, maps)).sum().backward()
    assert convolution.weight.grad is not None and norm.weight.grad is not None
    norm.train()
    with torch.no_grad():
        found = convolve_and_normalise(convolution, norm, maps)
    assert found.detach().mean(dim=(0, 2, 3)).abs().max() < 1e-5, "the batch's own statistics"


@pytest.mark.parametrize("shape", [(2, 3, 6, 8), (1, 2, 7, 5)])
def test_the_maximum_of_blocks_is_that_of_pooling(shape: tuple[int, ...]) -> None:
    maps = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert torch.equal(halve_by_maximum(maps), nn.functional.max_pool2d(maps, 2))
