"""Max filters with ReLU and phases in one pass, and convolutions as products: torch's results."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from retrace.networks.convolution import _is_product, convolve
from retrace.networks.max_filter import filter_and_split, is_fused
from retrace.networks.phases import split_phases
from retrace.networks.pooling import max_pool
from retrace.znn.graph import ONE, Shape

LAST = torch.channels_last_3d
CASES: list[tuple[tuple[int, ...], Shape, Shape, Shape]] = [
    ((2, 5, 1, 9, 8), (1, 2, 2), (1, 2, 2), ONE),
    ((12, 3, 2, 7, 11), (1, 2, 3), (1, 3, 2), (3, 1, 2)),
    ((2, 2, 3, 4, 4), (1, 4, 1), ONE, (1, 2, 1)),
]
"""Shape of the maps, window, stride, phases before."""


def _values(shape: tuple[int, ...]) -> Tensor:
    """Few different numbers, so that windows hold equal ones, negative ones and zeros."""
    drawn = torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(1)).float()
    return drawn.contiguous(memory_format=LAST)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(("shape", "size", "step", "before"), CASES)
def test_one_pass_gives_the_same_bits_as_three(
    shape: tuple[int, ...], size: Shape, step: Shape, before: Shape, rectify: bool, threads: int
) -> None:
    one = _values(shape).requires_grad_()
    three = one.detach().clone().requires_grad_()
    assert is_fused(one)
    before_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        fused = filter_and_split(one, size, step, before, rectify)
        given = torch.rand(fused.shape, generator=torch.Generator().manual_seed(2))
        fused.backward(given)
    finally:
        torch.set_num_threads(before_threads)
    filtered = max_pool(three.relu() if rectify else three, size, ONE)
    expected = split_phases(filtered, step, before)
    expected.backward(given)
    assert torch.equal(fused, expected)
    assert three.grad is not None and one.grad is not None
    assert torch.equal(one.grad, three.grad)


def test_a_value_that_is_no_number_is_not_hidden() -> None:
    x = _values((1, 2, 1, 6, 6))
    x[0, 0, 0, 2, 3] = torch.nan
    fused = filter_and_split(x, (1, 2, 2), ONE, ONE, True)
    torch.testing.assert_close(fused, max_pool(x.relu(), (1, 2, 2), ONE), equal_nan=True)
    assert fused.isnan().sum() == 4


@pytest.mark.parametrize(
    ("shape", "filters"), [((2, 1, 3, 9, 8), (6, 1, 1, 3, 4)), ((3, 5, 2, 4, 6), (2, 5, 1, 1, 1))]
)
def test_a_convolution_as_a_product_has_the_gradients_of_torch(
    shape: tuple[int, ...], filters: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=generator).requires_grad_(shape[1] > 1)
    weight = torch.randn(filters, generator=generator).requires_grad_()
    bias = torch.randn(filters[0], generator=generator).requires_grad_()
    y = convolve(x, weight, bias, "direct")
    expected = functional.conv3d(x, weight, bias)
    assert _is_product(x, weight.squeeze(2))
    torch.testing.assert_close(y, expected)
    given = torch.randn(y.shape, generator=generator)
    wanted = [t for t in (x, weight, bias) if t.requires_grad]
    ours, theirs = (torch.autograd.grad(out, wanted, given) for out in (y, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
