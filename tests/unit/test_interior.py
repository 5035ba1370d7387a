"""Affinities of boundary maps: blocks equal the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrace.geometry import VoxelBox
from retrace.segmentation.interior import from_interior
from retrace.storage.volumes import Volume

SHAPE = (4, 6, 5)
MAP = np.random.default_rng(0).integers(0, 256, (2, *SHAPE), dtype=np.uint8)
AFFINITIES = from_interior(Volume(MAP, (40, 4, 4), (80, 8, 8), "map"))


def test_an_affinity_is_the_smaller_interior_value_of_its_voxels() -> None:
    inside = np.zeros((1, 2, 2, 2), np.float32)
    inside[0] = [[[0.9, 0.2], [0.7, 0.6]], [[0.8, 0.1], [0.3, 1.0]]]

    affinities = from_interior(Volume(inside, (1, 1, 1), (0, 0, 0), "map"))
    values = affinities.read(affinities.box)

    np.testing.assert_allclose(values[0, 1], [[0.8, 0.1], [0.3, 0.6]])
    np.testing.assert_allclose(values[1, :, 1], [[0.7, 0.2], [0.3, 0.1]])
    np.testing.assert_allclose(values[2, :, :, 1], [[0.2, 0.6], [0.1, 0.3]])
    for axis in range(3):  # the first voxel has no lower neighbour
        first = np.take(values[axis], 0, axis)
        np.testing.assert_array_equal(first, np.take(inside[0], 0, axis))


@given(st.tuples(*(st.tuples(st.integers(0, n - 1), st.integers(1, n)) for n in SHAPE)))
def test_a_box_is_cut_from_the_whole(parts: tuple[tuple[int, int], ...]) -> None:
    begin = [b for b, _ in parts]
    shape = tuple(min(length, n - b) for (b, length), n in zip(parts, SHAPE, strict=True))
    offset = tuple(b + o for b, o in zip(begin, AFFINITIES.box.offset, strict=True))
    box = VoxelBox((offset[0], offset[1], offset[2]), (shape[0], shape[1], shape[2]))

    whole = AFFINITIES.read(AFFINITIES.box)
    part = tuple(slice(b, b + n) for b, n in zip(begin, shape, strict=True))

    np.testing.assert_array_equal(AFFINITIES.read(box), whole[(slice(None), *part)])
    assert AFFINITIES.channels == 3 and AFFINITIES.dtype == np.uint8
