"""Growing boundaries against gunpowder's erosion of one label after the other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

from retrace.targets.boundary import grow_boundary


def reference(labels: np.ndarray, mask: np.ndarray | None, steps: int, only_xy: bool) -> np.ndarray:
    """gunpowder's `GrowBoundary.__grow`, reimplemented from its definition."""
    if only_xy and labels.ndim == 3:
        masks = [None] * len(labels) if mask is None else mask
        sections = zip(labels, masks, strict=True)
        return np.stack([reference(section, m, steps, only_xy) for section, m in sections])
    foreground = np.zeros(labels.shape, bool)
    for label in np.unique(labels[labels != 0]):
        inside = labels == label
        if mask is not None:
            inside |= mask == 0
        foreground |= binary_erosion(inside, iterations=steps, border_value=1)
    return np.where(foreground, labels, 0)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    steps=st.integers(1, 3),
    only_xy=st.booleans(),
    masked=st.sampled_from([None, 0.0, 0.3, 0.8, 1.0]),
    grain=st.integers(1, 4),
)
def test_equals_the_erosion_of_every_label(
    seed: int,
    shape: tuple[int, int, int],
    steps: int,
    only_xy: bool,
    masked: float | None,
    grain: int,
) -> None:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 4, [-(-n // grain) for n in shape])
    labels = coarse.repeat(grain, 0).repeat(grain, 1).repeat(grain, 2)
    labels = labels[: shape[0], : shape[1], : shape[2]].copy()
    mask = None if masked is None else (random.random(shape) >= masked).astype(np.uint8)

    tensors = (torch.from_numpy(labels), None if mask is None else torch.from_numpy(mask))
    ours = grow_boundary(*tensors, steps=steps, only_xy=only_xy)

    np.testing.assert_array_equal(ours, reference(labels, mask, steps, only_xy))


def two_slabs() -> torch.Tensor:
    labels = torch.ones(6, 4, 6, dtype=torch.int64)
    labels[..., 3:] = 2
    labels[3:] += 2
    return labels


def test_07_in_sections_only_the_boundary_in_y_and_x_grows() -> None:
    labels = two_slabs()

    in_xy, in_3d = grow_boundary(labels, only_xy=True), grow_boundary(labels)

    assert not in_xy[..., 2:4].any() and torch.equal(in_xy[..., :2], labels[..., :2])
    assert not in_3d[2:4].any() and in_3d[0, 0].tolist() == [1, 1, 0, 0, 2, 2]


def test_07_a_masked_out_area_does_not_erode_its_neighbour() -> None:
    labels = two_slabs()[:3]
    mask = torch.ones_like(labels)
    mask[..., 3:] = 0

    assert torch.equal(grow_boundary(labels, mask)[..., :3], labels[..., :3])


@pytest.mark.parametrize("steps", [1, 2])
def test_steps_set_the_width(steps: int) -> None:
    row = grow_boundary(two_slabs(), steps=steps, only_xy=True)[0, 0]

    assert (row == 0).sum().item() == 2 * steps


def test_the_input_is_left_as_it_is() -> None:
    labels = two_slabs()
    grow_boundary(labels)

    assert torch.equal(labels, two_slabs())
