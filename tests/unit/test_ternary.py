"""Algebra of masks: properties of its operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from retrace.errors import DataError
from retrace.targets.ternary import (
    ceil_binary,
    check_ternary,
    contract,
    dilate,
    intersect,
    invert,
    low_pass,
    ternary,
    union,
)


@st.composite
def masks(draw: st.DrawFn) -> Tensor:
    """Labels 0, 1, 2 of a small section, in one of the types that occur."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    seed = draw(st.integers(0, 2**32 - 1))
    dense = draw(st.sampled_from([0.02, 0.3, 0.9]))
    rng = np.random.default_rng(seed)
    labels = rng.integers(1, 3, shape) * (rng.random(shape) < dense)
    return torch.from_numpy(labels).to(draw(st.sampled_from([torch.uint8, torch.float32])))


radii = st.integers(0, 4)


@given(one=masks(), radius=radii)
def test_dilation_and_contraction_keep_order_type_and_labels(one: Tensor, radius: int) -> None:
    wide, narrow = dilate(one, radius), contract(one, radius)

    assert bool((narrow <= one).all() and (one <= wide).all())
    assert wide.dtype == narrow.dtype == one.dtype
    assert set(torch.unique(wide).tolist()) <= set(torch.unique(one).tolist())
    assert set(torch.unique(narrow).tolist()) <= set(torch.unique(one).tolist())


@given(one=masks(), radius=radii)
def test_contraction_is_the_dilation_of_the_inverse(one: Tensor, radius: int) -> None:
    assert torch.equal(contract(one, radius), invert(dilate(invert(one), radius)))
    assert torch.equal(invert(invert(one)), one)


@given(one=masks(), radius=radii)
def test_closing_twice_is_closing_once_and_only_fills(one: Tensor, radius: int) -> None:
    closed = low_pass(one, radius)

    assert torch.equal(low_pass(closed, radius), closed)
    assert bool((closed >= one).all())


@given(one=masks(), first=radii, second=radii)
def test_radii_add_up(one: Tensor, first: int, second: int) -> None:
    assert torch.equal(dilate(dilate(one, first), second), dilate(one, first + second))
    assert torch.equal(contract(contract(one, first), second), contract(one, first + second))


@given(one=masks(), seed=st.integers(0, 99))
def test_union_and_intersection_are_bounds_and_absorb(one: Tensor, seed: int) -> None:
    other = one.flatten()[
        torch.randperm(one.numel(), generator=torch.Generator().manual_seed(seed))
    ]
    other = other.reshape(one.shape)

    assert torch.equal(union(one, other), union(other, one))
    assert torch.equal(union(one, intersect(one, other)), one)
    assert torch.equal(intersect(one, union(one, other)), one)
    assert torch.equal(invert(union(one, other)), intersect(invert(one), invert(other)))
    assert torch.equal(union(one, one, other), union(one, other))


@given(one=masks(), radius=radii)
def test_every_1_is_near_a_2_and_nothing_else_is(one: Tensor, radius: int) -> None:
    """By the Chebyshev distance, pixel by pixel."""
    inside = one == 2
    labels = ternary(inside, radius)
    rows, columns = torch.nonzero(inside, as_tuple=True)
    grid = torch.stack(torch.meshgrid(*map(torch.arange, one.shape), indexing="ij"))
    far = torch.full(one.shape, 10**6)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        distance = torch.maximum((grid[0] - row).abs(), (grid[1] - column).abs())
        far = torch.minimum(far, distance)

    assert labels.dtype == torch.uint8
    assert torch.equal(labels, (far <= radius).to(torch.uint8) + inside.to(torch.uint8))


def test_booleans_resampled_masks_and_gradients() -> None:
    flags = torch.zeros(5, 5, dtype=torch.bool)
    flags[2, 2] = True
    wide = dilate(flags, 1)
    soft = torch.tensor([0.0, 1e-4, 0.7], requires_grad=True)

    assert wide.dtype == torch.bool
    assert int(wide.sum()) == 9
    assert torch.equal(contract(wide, 1), flags)
    assert ceil_binary(soft).tolist() == [0, 1, 1]
    assert not union(soft, soft).requires_grad
    assert not dilate(soft[None], 1).requires_grad


def test_other_labels_are_refused() -> None:
    check_ternary(torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="holds .5"):
        check_ternary(torch.tensor([0.0, 5.0]))


@given(one=masks(), radius=radii)
def test_dilation_is_max_pooling(one: Tensor, radius: int) -> None:
    pooled = functional.max_pool2d(one[None].float(), 2 * radius + 1, 1, radius)[0]

    assert torch.equal(dilate(one, radius).float(), pooled)
    assert torch.equal(dilate(one > 0, radius), pooled > 0)
