"""Compiled comparisons of maps are those that torch computes for gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from retrace.networks.cost_volume import local_correlation, window_means
from retrace.networks.pooling import halve


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 5, 9, 14), (1, 3, 1, 2)])
def test_compiled_values_and_gradients_agree_with_torch_in_float64(
    shape: tuple[int, ...], threads: int
) -> None:
    pair = [maps(*shape), maps(*shape).flip(0).roll(3, -1)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        compiled = values_and_gradients([x.clone().requires_grad_() for x in pair])
        without_gradients = window_means(local_correlation(*pair, 2), 3)
    finally:
        torch.set_num_threads(before)
    in_torch = values_and_gradients([x.double().requires_grad_() for x in pair])

    for one, other in zip([*compiled, without_gradients], [*in_torch, in_torch[0]], strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-6, rtol=1e-4)


def values_and_gradients(pair: list[torch.Tensor]) -> list[torch.Tensor]:
    """Averaged costs, and the gradients of both maps of an uneven sum of them."""
    values = window_means(local_correlation(*pair, 2), 3)
    weights = torch.linspace(-1, 2, values.numel(), dtype=values.dtype).view(values.shape)
    return [values.detach(), *torch.autograd.grad((values * weights).sum(), pair)]


def test_means_are_those_of_the_pixels_inside_the_window() -> None:
    x = maps(2, 3, 11, 17).requires_grad_()
    whole = functional.avg_pool2d(x, 5, 1, 2, count_include_pad=False)

    torch.testing.assert_close(window_means(x, 2), whole)
    torch.testing.assert_close(window_means(x.detach(), 2), whole.detach())


@pytest.mark.parametrize("shape", [(1, 2, 6, 8), (2, 1, 7, 5)])
def test_halving_is_max_pooling(shape: tuple[int, ...]) -> None:
    x = maps(*shape)

    assert torch.equal(halve(x), functional.max_pool2d(x, 2))
    assert torch.equal(halve(x.requires_grad_()), functional.max_pool2d(x, 2))
