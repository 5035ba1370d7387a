"""Mutex watershed on known affinities."""

from __future__ import annotations

import numpy as np
import pytest

from retrace.errors import ConfigError
from retrace.segmentation.mutex import biases, mutex_segments

DIRECT = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
FAR = [*DIRECT, [0, 0, -6]]


def _rod(channels: int) -> np.ndarray:
    """One rod along x, certain everywhere."""
    return np.full((channels, 2, 2, 24), 0.95, dtype=np.float32)


def test_a_membrane_separates_fragments() -> None:
    affinities = _rod(3)
    affinities[2, :, :, 12] = 0.1
    segments = mutex_segments(affinities, DIRECT, biases(DIRECT, 0.5, 0.5))
    assert segments.dtype == np.uint64
    assert len(np.unique(segments)) == 2
    assert (segments[..., :12] != segments[..., 12:13]).all()


def test_a_gap_in_the_membrane_is_closed_by_long_range_repulsion_only() -> None:
    affinities = _rod(4)
    affinities[3] = 0.5
    affinities[2, :, :, 12] = 0.6  # a weak membrane that direct affinities miss
    bias = biases(FAR, 0.5, 0.5)
    assert len(np.unique(mutex_segments(affinities, FAR, bias))) == 1
    affinities[3, :, :, 12:18] = 0.02  # the affinities 6 voxels apart across it detect it
    assert len(np.unique(mutex_segments(affinities, FAR, bias))) == 2


def test_the_bias_decides_what_attracts() -> None:
    affinities = _rod(3)
    affinities[2, :, :, 12] = 0.6
    apart = mutex_segments(affinities, DIRECT, biases(DIRECT, 0.7, 0.7))
    together = mutex_segments(affinities, DIRECT, biases(DIRECT, 0.5, 0.5))
    assert (len(np.unique(apart)), len(np.unique(together))) == (2, 1)
    np.testing.assert_array_equal(biases(FAR, 0.4, 0.8), [0.4, 0.4, 0.4, 0.8])


def test_uint8_is_scaled_and_repeats() -> None:
    affinities = np.random.default_rng(0).integers(0, 256, (3, 8, 20, 20), dtype=np.uint8)
    bias = biases(DIRECT, 0.5, 0.5)
    first = mutex_segments(affinities, DIRECT, bias)
    np.testing.assert_array_equal(first, mutex_segments(affinities, DIRECT, bias))
    scaled = mutex_segments((affinities / 255).astype(np.float64), DIRECT, bias)
    assert len(np.unique(first)) == len(np.unique(scaled)) > 10


def test_isolated_voxels_are_background() -> None:
    segments = mutex_segments(np.zeros((3, 4, 4, 4)), DIRECT, biases(DIRECT, 0.5, 0.5))
    assert not segments.any()


def test_channels_must_match_the_neighborhood() -> None:
    with pytest.raises(ConfigError, match="4 affinity channels.*3"):
        mutex_segments(_rod(4), DIRECT, biases(DIRECT, 0.5, 0.5))
