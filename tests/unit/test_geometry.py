"""Boxes: closed-form cases and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.cropping import centre_crop, middle
from retrace.errors import DataError
from retrace.geometry import NmBox, VoxelBox, blocks

corners = st.tuples(*[st.integers(-50, 50)] * 3)
shapes = st.tuples(*[st.integers(1, 40)] * 3)
boxes = st.builds(VoxelBox, corners, shapes)


def test_three_touching_blocks_tile_a_row() -> None:
    tiles = list(blocks(VoxelBox((0, 0, 5), (1, 1, 7)), (1, 1, 3)))

    assert [(b.offset[2], b.shape[2]) for b in tiles] == [(5, 3), (8, 3), (11, 1)]


@given(boxes, shapes)
def test_blocks_cover_every_voxel_once(box: VoxelBox, block_shape: tuple[int, int, int]) -> None:
    if box.size // (block_shape[0] * block_shape[1] * block_shape[2]) > 500:
        return
    tiles = list(blocks(box, block_shape))

    assert sum(t.size for t in tiles) == box.size
    assert all(box.contains(t) for t in tiles)


@given(boxes, boxes)
def test_intersection_is_symmetric_and_inside_both(a: VoxelBox, b: VoxelBox) -> None:
    common = a.intersect(b)

    assert common == b.intersect(a)
    assert common.is_empty or (a.contains(common) and b.contains(common))


def test_of_an_odd_excess_the_larger_half_is_at_the_end() -> None:
    row = np.arange(7)[None]

    assert centre_crop(row, [4]).tolist() == [[1, 2, 3, 4]]
    assert torch.equal(centre_crop(torch.from_numpy(row), [1, 4])[0], torch.arange(1, 5))
    assert VoxelBox((5, 5, 5), (1, 1, 7)).central((1, 1, 4)) == VoxelBox((5, 5, 6), (1, 1, 4))
    assert middle(row, [9]).shape == (1, 7) and middle(row, [3]).tolist() == [[2, 3, 4]]


@given(boxes)
def test_nm_and_voxels_are_inverse(box: VoxelBox) -> None:
    assert box.to_nm((20, 9, 9)).to_voxels((20, 9, 9)) == box


def test_a_box_off_the_grid_is_refused() -> None:
    with pytest.raises(DataError, match="no multiple of the voxel size"):
        NmBox((10, 0, 0), (20, 9, 9)).to_voxels((20, 9, 9))


def test_types_are_kept_apart() -> None:
    assert VoxelBox((0, 0, 0), (1, 1, 1)) != NmBox((0, 0, 0), (1, 1, 1))


def test_slices_are_relative_to_an_origin() -> None:
    assert VoxelBox((5, 6, 7), (1, 2, 3)).slices((5, 5, 5)) == (
        slice(0, 1),
        slice(1, 3),
        slice(2, 5),
    )
