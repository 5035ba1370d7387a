"""Augmentations against gunpowder's definitions, written with scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, zoom

from retrace.augment.elastic import draw_elastic, draw_shifts, rotate_points
from retrace.augment.intensity import change_intensity
from retrace.augment.resample import Coordinates, sample_linear, sample_nearest
from retrace.augment.simple import draw_simple
from retrace.augment.warp import bounding_box, draw_warp, part_of_grid, voxel_grid
from retrace.config.lsd_network import AugmentStep
from retrace.geometry import VoxelBox

STEP: dict[str, Any] = {
    "control_spacing": [4, 4, 10],
    "jitter_sigma": [0.5, 2, 2],
    "rotation": [0, 1.5707963267948966],
    "slip_probability": 0.2,
    "shift_probability": 0.2,
    "max_misalign": 3,
    "subsample": 8,
}
SHAPE = (18, 33, 41)
CPU = torch.device("cpu")


def steps_of(*contents: dict[str, Any]) -> list[AugmentStep]:
    return [AugmentStep.model_validate(content) for content in contents]


def misalignment(step: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The arguments of `draw_shifts` in a step."""
    names = ("slip_probability", "shift_probability", "max_misalign")
    return {name: step[name] for name in names} | changes


def stacked(points: Coordinates) -> torch.Tensor:
    """The rows of coordinates as one tensor (3, ...)."""
    return torch.stack(torch.broadcast_tensors(*points))


def whole(shape: tuple[int, int, int]) -> torch.Tensor:
    return stacked(voxel_grid(VoxelBox((0, 0, 0), shape), CPU))


def gunpowder_transformation(seed: int, step: dict[str, Any]) -> np.ndarray:
    """ElasticAugment's map, built with the package augment: coarse grids enlarged by zoom."""
    rng = np.random.default_rng(seed)
    coarse = [n // step["subsample"] for n in SHAPE]
    angle = rng.uniform(*step["rotation"])
    total = np.stack(
        np.meshgrid(
            *(np.linspace(0, n - 1, c) for n, c in zip(SHAPE, coarse, strict=True)), indexing="ij"
        )
    )
    points = [max(1, round(n / s)) for n, s in zip(SHAPE, step["control_spacing"], strict=True)]
    for axis, sigma in enumerate(step["jitter_sigma"]):
        jitter = rng.normal(scale=sigma, size=points)
        total[axis] += zoom(jitter, np.array(coarse) / points, order=3)
    corners = np.zeros((3, 2, 2, 2))
    centre = (np.array(SHAPE) - 1) / 2
    for index in np.ndindex(2, 2, 2):
        _, y, x = np.array(index) * (np.array(SHAPE) - 1) - centre
        corners[1][index] = np.cos(angle) * y + np.sin(angle) * x - y
        corners[2][index] = -np.sin(angle) * y + np.cos(angle) * x - x
    for axis in (1, 2):
        total[axis] += zoom(corners[axis], np.array(coarse) / 2, order=1)
    full = np.stack([zoom(t, np.array(SHAPE) / coarse, order=1) for t in total])
    shifts = draw_shifts(rng, SHAPE[0], **misalignment(step))
    full[1] += shifts[:, 0][:, None, None]
    full[2] += shifts[:, 1][:, None, None]
    return full


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_elastic_equals_the_reference(seed: int) -> None:
    expected = gunpowder_transformation(seed, STEP)
    drawn = draw_elastic(np.random.default_rng(seed), SHAPE, **STEP)
    points = drawn.source(whole(SHAPE))
    assert np.abs(stacked(points).numpy() - expected).max() < 1e-3
    rng = np.random.default_rng(seed)
    raw = rng.random(SHAPE, dtype=np.float32)
    labels = rng.integers(1, 9, SHAPE)
    got = sample_linear(torch.from_numpy(raw), points).numpy()
    inside = np.all([(p >= 0) & (p <= n - 1) for p, n in zip(expected, SHAPE, strict=True)], axis=0)
    reference = map_coordinates(raw, expected, order=1, mode="constant")
    assert np.abs(got - reference)[inside].max() < 2e-3
    nearest = sample_nearest(torch.from_numpy(labels), points).numpy()
    same = nearest == map_coordinates(labels, expected, order=0, mode="grid-constant")
    assert same.mean() > 0.999  # coordinates half-way between voxels may round either way
    assert (nearest == 0).any()


def test_elastic_without_any_motion_changes_nothing() -> None:
    still = STEP | {"jitter_sigma": [0, 0, 0], "rotation": [0, 0], "max_misalign": 0}
    drawn = draw_elastic(np.random.default_rng(0), SHAPE, **still)
    assert torch.equal(stacked(drawn.source(whole(SHAPE))), whole(SHAPE))
    assert drawn.bounds() == ((0, 0, 0), SHAPE)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_source_box_holds_every_source_coordinate(seed: int) -> None:
    drawn = draw_elastic(np.random.default_rng(seed), SHAPE, **STEP)
    begin, shape = drawn.bounds()
    reached = bounding_box(drawn.source(whole(SHAPE)))
    assert VoxelBox(begin, shape).grow((1, 1, 1)).contains(reached)


def test_rotation_turns_y_towards_x() -> None:
    points = torch.tensor(
        [[2.0], [3.0], [1.0]]
    )  # one right of the centre (2, 2, 2) in y, left in x
    turned = rotate_points(points, (5, 5, 5), np.pi / 2)
    assert torch.allclose(stacked(turned).flatten(), torch.tensor([2.0, 1.0, 1.0]), atol=1e-6)


def test_a_slip_moves_one_section_and_a_shift_all_that_follow() -> None:
    slips = draw_shifts(np.random.default_rng(0), 500, **misalignment(STEP, shift_probability=0))
    assert 60 < (slips != 0).any(axis=1).sum() < 140  # 0.2 of 500, a seventh of them by 0
    assert np.abs(slips).max() == 3
    shifts = draw_shifts(np.random.default_rng(0), 500, **misalignment(STEP, slip_probability=0))
    changes = (np.diff(shifts, axis=0) != 0).any(axis=1).sum()
    assert 60 < changes < 140
    assert (shifts[1:] == shifts[:-1]).all(axis=1).sum() > 350
    none = draw_shifts(np.random.default_rng(0), 50, **misalignment(STEP, max_misalign=0))
    assert not none.any()


@given(
    st.integers(0, 10**6),
    st.sets(st.sampled_from([0, 1, 2])),
    st.sampled_from([[], [1, 2], [0, 1, 2]]),
)
@settings(max_examples=40, deadline=None)
def test_simple_only_flips_and_permutes(seed: int, mirror: set[int], transpose: list[int]) -> None:
    step = {"mirror": sorted(mirror), "transpose": transpose}
    drawn = draw_simple(np.random.default_rng(seed), (3, 4, 5), **step)
    source = torch.arange(np.prod(drawn.shape)).reshape(drawn.shape)
    got = sample_nearest(source, drawn.source(whole((3, 4, 5))))
    flipped = torch.flip(source, [a for a in range(3) if drawn.mirrored[a]])
    back = [drawn.order.index(axis) for axis in range(3)]
    assert torch.equal(got, flipped.permute(back))
    assert all(axis in mirror for axis in range(3) if drawn.mirrored[axis])
    assert all(drawn.order[axis] == axis for axis in range(3) if axis not in transpose)


def test_simple_draws_every_orientation() -> None:
    step = {"mirror": [0, 1, 2], "transpose": [0, 1, 2]}
    drawn = [draw_simple(np.random.default_rng(seed), (4, 4, 4), **step) for seed in range(600)]
    assert len({(d.order, d.mirrored) for d in drawn}) == 48


def test_intensity_is_gunpowders_formula_per_section_and_per_block() -> None:
    raw = torch.rand(4, 6, 7, generator=torch.Generator().manual_seed(0))
    for per_section, axes in ((True, (1, 2)), (False, None)):
        step = {"scale": [0.5, 1.5], "shift": [-0.3, 0.3], "per_section": per_section}
        count = 4 if per_section else 1
        rng = np.random.default_rng(5)
        scale, shift = rng.uniform(0.5, 1.5, count), rng.uniform(-0.3, 0.3, count)
        mean = raw.numpy().mean(axis=axes, keepdims=True)
        scale, shift = scale[:, None, None], shift[:, None, None]
        expected = np.clip(mean + (raw.numpy() - mean) * scale + shift, 0, 1)
        got = change_intensity(raw, np.random.default_rng(5), **step).numpy()
        assert np.allclose(got, expected, atol=1e-6)
        assert got.min() == 0 or got.max() == 1


def test_two_turns_compose_about_the_same_centre() -> None:
    turn = STEP | {"jitter_sigma": [0, 0, 0], "max_misalign": 0}
    steps = [
        {"elastic": turn | {"rotation": [0.3, 0.3]}},
        {"elastic": turn | {"rotation": [0.4, 0.4]}},
    ]
    shape = (6, 20, 20)
    both = draw_warp(np.random.default_rng(0), steps_of(*steps), shape).source(whole(shape))
    once = rotate_points(whole(shape), shape, 0.7)
    assert torch.allclose(stacked(both), stacked(once), atol=1e-4)


def test_steps_are_traced_back_from_the_last() -> None:
    turn = STEP | {"jitter_sigma": [0, 0, 0], "max_misalign": 0, "rotation": [0.3, 0.3]}
    simple = {"mirror": [0, 1, 2], "transpose": [1, 2]}
    shape = (6, 20, 20)
    warp = draw_warp(
        np.random.default_rng(3), steps_of({"simple": simple}, {"elastic": turn}), shape
    )
    (_, last), (origin, first) = warp.steps
    begin = torch.tensor(origin).reshape(3, 1, 1, 1)
    expected = stacked(first.source(stacked(last.source(whole(shape))) - begin)) + begin
    assert torch.allclose(stacked(warp.source(whole(shape))), expected)


def test_reach_covers_what_a_box_is_read_from() -> None:
    warp = draw_warp(np.random.default_rng(1), steps_of({"elastic": STEP}), SHAPE)
    box = VoxelBox((4, 8, 8), (10, 17, 25))
    exact = bounding_box(warp.source(voxel_grid(box, CPU)))
    assert warp.reach(box).grow((1, 2, 2)).contains(exact)


def test_sampling_outside_gives_zero() -> None:
    block = torch.ones(3, 3, 3)
    points = torch.tensor([[1.0, -1.0, 1.0], [1.0, 1.0, 9.0], [1.0, 1.0, 1.0]])
    assert sample_linear(block, points).tolist() == pytest.approx([1, 0, 0])
    assert sample_nearest(block.long(), points).tolist() == [1, 0, 0]


@pytest.mark.parametrize("transpose", [[], [1, 2], [0, 1, 2]])
def test_a_grid_is_displaced_as_its_points_one_by_one(transpose: list[int]) -> None:
    """Products with one matrix per axis equal torch's interpolation of each point."""
    turn = {"simple": {"mirror": [0, 1, 2], "transpose": transpose}}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        warp = draw_warp(rng, steps_of({"elastic": STEP}, turn), SHAPE)
        each = stacked(warp.source(whole(SHAPE)))
        rows = warp.source(voxel_grid(VoxelBox((0, 0, 0), SHAPE), CPU))
        assert torch.allclose(stacked(rows), each, atol=2e-5)


def test_a_grid_of_one_section_is_displaced() -> None:
    box = VoxelBox((4, 0, 0), (1, *SHAPE[1:]))
    drawn = draw_elastic(np.random.default_rng(0), SHAPE, **STEP)
    one = stacked(drawn.source(voxel_grid(box, CPU)))
    assert torch.allclose(one, stacked(drawn.source(whole(SHAPE)))[:, 4:5], atol=2e-5)


def test_a_part_of_a_grid_is_cut_out_of_each_row() -> None:
    box = VoxelBox((1, 2, 3), (2, 3, 4))
    warp = draw_warp(np.random.default_rng(0), steps_of({"elastic": STEP}), SHAPE)
    for points in (voxel_grid(VoxelBox((0, 0, 0), SHAPE), CPU), warp.source(whole(SHAPE))):
        part = stacked(part_of_grid(points, box))
        assert torch.equal(part, stacked(points)[(slice(None), *box.slices())])


def test_compiled_sampling_equals_torchs() -> None:
    """Blocks of other types are sampled by torch's operations, also on GPUs."""
    rng = torch.Generator().manual_seed(0)
    block = torch.rand(7, 8, 9, generator=rng)
    points = torch.rand(3, 5, 11, 13, generator=rng) * 12 - 2
    points[:, 0] = points[:, 0].round()  # on voxels, and half-way between them
    points[:, 1] = points[:, 1].round() + 0.5
    for origin in ((0, 0, 0), (-1, 2, 1)):
        exact = sample_linear(block.double(), points.double(), origin)
        assert torch.allclose(sample_linear(block, points, origin).double(), exact, atol=2e-6)
        labels = (block * 1000).int()
        expected = sample_nearest(labels.long(), points, origin)
        assert torch.equal(sample_nearest(labels, points, origin).long(), expected)
        assert (expected == 0).any() and (expected != 0).any()
