"""The untrained watershed finds bright cells between dark membranes, and chooses parameters."""

from __future__ import annotations

import numpy as np
import pytest

from retrace.errors import DataError
from retrace.evaluation.ground_truth import GroundTruth
from retrace.evaluation.untrained import (
    MAX_VOXELS,
    WatershedRegion,
    choose_parameters,
    parameter_grid,
    raw_watershed,
    score_region,
    too_large,
)
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume

VOXEL = (10, 10, 10)


def cells(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Raw of 2 x 2 x 2 bright cells of 12^3 voxels with dark walls, and their labels."""
    index = np.arange(24)
    labels = np.arange(1, 9).reshape(2, 2, 2).repeat(12, 0).repeat(12, 1).repeat(12, 2)
    wall = np.isin(index % 12, (0, 11))
    walls = wall[:, None, None] | wall[None, :, None] | wall[None, None, :]
    raw = np.where(walls, 60.0, 190.0)
    raw += np.random.default_rng(1).normal(0, noise, raw.shape)
    return raw.clip(0, 255).astype(np.uint8), labels.astype(np.uint32)


def region(noise: float) -> WatershedRegion:
    raw, labels = cells(noise)
    box = VoxelBox((0, 0, 0), (24, 24, 24))
    origin = (0, 0, 0)
    return WatershedRegion(
        Volume(raw, VOXEL, origin, "raw"), GroundTruth(Volume(labels, VOXEL, origin, "labels")), box
    )


def test_finds_clean_cells() -> None:
    chosen = choose_parameters([region(10)])

    assert score_region(region(10), chosen)["voi_sum"] < 0.05


def test_choice_is_the_best_of_the_grid() -> None:
    noisy = region(60)
    chosen = choose_parameters([noisy])
    tried = {item: score_region(noisy, item)["voi_sum"] for item in parameter_grid(VOXEL)}

    assert min(tried.values()) == tried[chosen]
    assert max(tried.values()) > tried[chosen]


def test_smoothing_is_in_nm() -> None:
    raw, _ = cells(30)
    item = next(iter(parameter_grid((40, 10, 10))))

    coarse = raw_watershed(raw, (40, 10, 10), item)
    assert coarse.max() > raw_watershed(raw, VOXEL, item).max()


def test_large_regions_are_left_out() -> None:
    small = region(0)
    large = WatershedRegion(small.raw, small.ground_truth, VoxelBox((0, 0, 0), (MAX_VOXELS, 1, 2)))

    assert too_large([small]) is None
    assert str(MAX_VOXELS) in str(too_large([small, large]))


def test_other_voxel_size_is_refused() -> None:
    wrong = region(0)
    raw = Volume(wrong.raw.array, (8, 8, 8), (0, 0, 0), "raw")
    with pytest.raises(DataError, match="equal ones"):
        choose_parameters([WatershedRegion(raw, wrong.ground_truth, wrong.box)])
