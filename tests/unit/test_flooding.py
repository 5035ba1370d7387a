"""Fragments are those of scipy's distances and scikit-image's watershed, voxel for voxel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from retrace.segmentation.distances import squared_distances, window_maxima
from retrace.segmentation.flooding import flood_from_maxima
from retrace.segmentation.fragments import SEED_DISTANCE, flood, watershed_fragments

SHAPES = ((5, 6, 7), (1, 9, 9), (12, 3, 70), (24, 30), (1, 1), (16, 24, 24))


def reference(inside: np.ndarray) -> np.ndarray:
    """What `flood` replaces."""
    distance = ndimage.distance_transform_edt(inside)
    seeds, _ = ndimage.label(ndimage.maximum_filter(distance, SEED_DISTANCE) == distance)
    return np.asarray(watershed(distance.max() - distance, seeds).astype(np.uint64))


@given(st.sampled_from(SHAPES), st.sampled_from((0, 0.02, 0.3, 0.7, 1)), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_random_boundaries(shape: Sequence[int], boundary: float, seed: int) -> None:
    inside = np.random.default_rng(seed).random(shape) >= boundary
    np.testing.assert_array_equal(flood(inside), reference(inside))


@pytest.mark.parametrize("boundary", [0.3, 0.5])
@pytest.mark.parametrize("sigma", [(1, 2, 2), (3, 3, 3)])
def test_smooth_boundaries_with_wide_plateaus(boundary: float, sigma: tuple[int, ...]) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((30, 80, 80)), sigma)
    inside = noise > np.quantile(noise, boundary)
    np.testing.assert_array_equal(flood(inside), reference(inside))


@given(st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_seeds_of_equal_height_in_any_number(values: int, seed: int) -> None:
    depths = np.random.default_rng(seed).integers(0, values, (6, 9, 12), dtype=np.int32)
    maxima = ndimage.maximum_filter(depths, 3)
    seeds, _ = ndimage.label(depths == maxima)
    np.testing.assert_array_equal(flood_from_maxima(depths, maxima), watershed(-depths, seeds))


def test_affinities_of_real_tissue(shared_dir: Path) -> None:
    with h5py.File(shared_dir / "data/fib25/tiny_z032y064x064_64x96x96.h5") as file:
        raw = np.asarray(file["raw"])
    affinities = np.stack([ndimage.gaussian_filter1d(raw, 1, axis) for axis in range(3)])
    affinities = (np.clip(affinities.astype(float) - 60, 0, 127) * 2).astype(np.uint8)
    inside = np.mean(affinities, axis=0, dtype=np.float32) > 127.5
    fragments = watershed_fragments(affinities, in_xy=False)
    assert 0.2 < inside.mean() < 0.9 and fragments.max() > 100
    np.testing.assert_array_equal(fragments, reference(inside))


@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_distances_and_maxima_are_those_of_scipy(shape: Sequence[int], seed: int) -> None:
    inside = np.random.default_rng(seed).random((1, *shape)[-3:]) > 0.05
    inside.flat[0] = False
    squares = squared_distances(inside)
    np.testing.assert_array_equal(np.sqrt(squares), ndimage.distance_transform_edt(inside))
    for window in (1, 4, 10, 11):
        expected = ndimage.maximum_filter(squares, window)
        np.testing.assert_array_equal(window_maxima(squares, window), expected)


def test_a_distance_along_a_long_volume_is_exact() -> None:
    inside = np.ones((1, 1, 3000), bool)
    inside[..., -1] = False
    assert squared_distances(inside)[0, 0, 0] == 2999**2
    np.testing.assert_array_equal(
        squared_distances(inside.reshape(3000, 1, 1)).ravel(), squared_distances(inside).ravel()
    )
