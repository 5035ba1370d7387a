"""Fragments: watershed in 3-D and by section, filters, masks, numbering."""

from __future__ import annotations

import numpy as np
import pytest

from retrace.geometry import VoxelBox
from retrace.segmentation.fragments import (
    drop_weak,
    flood,
    renumber,
    watershed_fragments,
)
from retrace.storage.volumes import Volume, mask_on_grid


def _cells(shape: tuple[int, int, int] = (12, 30, 60)) -> np.ndarray:
    """Affinities (3, Z, Y, X) uint8 of three adjacent cells along x, membranes 2 wide."""
    affinities = np.full((3, *shape), 240, dtype=np.uint8)
    affinities[..., 19:21] = 10
    affinities[..., 39:41] = 10
    return affinities


def _ids(fragments: np.ndarray) -> list[int]:
    return [int(v) for v in fragments[6, 15, [8, 30, 50]]]


def test_three_cells_become_three_fragments() -> None:
    fragments = renumber(watershed_fragments(_cells(), in_xy=False))
    assert fragments.dtype == np.uint64
    assert len(set(_ids(fragments))) == 3
    # Everything is flooded: the membranes belong to one of the cells.
    assert set(np.unique(fragments)) == {1, 2, 3}


def test_sections_are_fragmented_one_by_one() -> None:
    fragments = watershed_fragments(_cells(), in_xy=True)
    per_section = [set(np.unique(section)) for section in fragments]
    assert all(len(ids) == 3 for ids in per_section)
    assert len(set.union(*per_section)) == 3 * len(fragments)
    assert fragments.min() == 1


def test_float_and_uint8_affinities_agree() -> None:
    cells = _cells()
    as_float = (cells / 255).astype(np.float32)
    for in_xy in (False, True):
        first = watershed_fragments(cells, in_xy=in_xy)
        np.testing.assert_array_equal(first, watershed_fragments(as_float, in_xy=in_xy))


def test_long_range_channels_draw_no_boundary() -> None:
    cells = _cells()
    far = np.concatenate([cells, np.zeros((9, *cells.shape[1:]), dtype=np.uint8)])
    expected = watershed_fragments(cells, in_xy=False)
    np.testing.assert_array_equal(watershed_fragments(far, in_xy=False), expected)


def test_section_mode_ignores_affinities_across_sections() -> None:
    cells = _cells()
    expected = watershed_fragments(cells, in_xy=True)
    cells[0] = 0
    np.testing.assert_array_equal(watershed_fragments(cells, in_xy=True), expected)


def test_seeds_are_maxima_within_ten_voxels() -> None:
    # Two discs of radius 10 whose centres are 14 apart: one waist, two maxima, two fragments.
    y, x = np.mgrid[:40, :60]
    two = ((y - 20) ** 2 + (x - 20) ** 2 < 100) | ((y - 20) ** 2 + (x - 37) ** 2 < 100)
    fragments = flood(two)
    assert fragments[20, 15] != fragments[20, 42]
    # Only 4 apart they are one.
    one = ((y - 20) ** 2 + (x - 20) ** 2 < 100) | ((y - 20) ** 2 + (x - 24) ** 2 < 100)
    assert flood(one)[20, 15] == flood(one)[20, 29]


def test_weak_fragments_become_background() -> None:
    cells = _cells()
    fragments = renumber(watershed_fragments(cells, in_xy=False))
    first, middle, last = _ids(fragments)
    cells[:, :, :, 21:39] = 60
    kept = drop_weak(cells, fragments, 0.5, in_xy=False)
    assert set(np.unique(kept)) == {0, first, last}
    assert (kept[fragments == middle] == 0).all()
    np.testing.assert_array_equal(drop_weak(cells, fragments, 0.01, in_xy=False), fragments)


def test_weakness_in_sections_is_that_of_y_and_x() -> None:
    cells = _cells()
    fragments = watershed_fragments(cells, in_xy=True)
    cells[0] = 0  # torn from section to section, well connected inside
    assert drop_weak(cells, fragments, 0.5, in_xy=True).all()
    assert not drop_weak(cells, fragments, 0.7, in_xy=False).any()


def test_numbers_follow_the_order_of_appearance() -> None:
    ids = np.array([[[7, 7, 0, 3], [9, 3, 7, 1 << 60]]], dtype=np.uint64)
    expected = [[[1, 1, 0, 2], [3, 2, 1, 4]]]
    np.testing.assert_array_equal(renumber(ids), expected)


@pytest.mark.parametrize("offset_nm", [(0, 0, 0), (40, 0, 16)])
def test_coarse_mask_is_placed_by_its_world_coordinates(offset_nm: tuple[int, int, int]) -> None:
    coarse = Volume(
        np.random.default_rng(0).integers(0, 2, (6, 5, 7), dtype=np.uint8),
        (40, 16, 16),
        offset_nm,
        "mask",
    )
    box = VoxelBox((3, 2, 1), (8, 7, 9))
    mask = mask_on_grid(coarse, box, (20, 8, 8))
    for index in np.ndindex(*box.shape):
        world = [(o + i) * v + v / 2 for o, i, v in zip(box.offset, index, (20, 8, 8), strict=True)]
        at = [int((w - o) // v) for w, o, v in zip(world, offset_nm, (40, 16, 16), strict=True)]
        inside = all(0 <= a < n for a, n in zip(at, (6, 5, 7), strict=True))
        assert mask[index] == (bool(coarse.array[tuple(at)]) if inside else False)
