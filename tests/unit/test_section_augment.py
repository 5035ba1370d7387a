"""Augmentation of stacks and of the network's input: ranges, geometry, zeros, seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.augment.sections import (
    MIN_CUT_PX,
    PERIODS_MEAN,
    _draw_window,
    augment_input,
    augment_stack,
    draw_corruption,
    draw_rectangle,
    draw_stack_warp,
    largest_jitter,
    weighted_draw,
)
from retrace.config.seamless_network import StackAugment

seeds = st.integers(0, 2**32 - 1)


def blobs(sections: int, side: int) -> torch.Tensor:
    """(S, D, D) booleans: the same large square in every section."""
    stack = torch.zeros(sections, side, side, dtype=torch.uint8)
    stack[:, side // 4 : side // 2, side // 4 : side // 2] = 2
    return stack


@pytest.mark.parametrize(
    ("levels", "most", "worst", "mean"),
    [(5, 5, 14.1, 3.7), (7, 22, 62.2, 14.3), (8, 45, 127.3, 28.7)],
)
def test_jitter_has_the_published_range_and_mean(
    levels: int, most: int, worst: float, mean: float
) -> None:
    """The table of the specification: d, the farthest pair, and mean |k|."""
    far = largest_jitter(2 ** (levels - 1))
    draws = weighted_draw(np.random.default_rng(0), far, 2, 4, 20000)

    assert far == most
    assert 2 * math.sqrt(2) * far == pytest.approx(worst, abs=0.1)
    assert draws.min() >= 1
    assert draws.max() <= most
    assert draws.mean() == pytest.approx(mean, rel=0.02)
    share = np.bincount(draws, minlength=most + 1)
    assert share[most] / share[1] == pytest.approx(4, rel=0.5)


def settings(jitter_px: float = 8, **changes: Any) -> StackAugment:
    content = {"jitter_px": jitter_px, "rotation": 0.004, "scale": 0.005, "input": True}
    return StackAugment(**(content | changes))


def augmented(
    images: torch.Tensor,
    masks: torch.Tensor,
    seed: int,
    crop: int | None = None,
    **changes: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Augmented images, masks, valid and known displacements of an unmodified stack."""
    valid = torch.ones_like(masks)
    known = torch.zeros(len(images), 2, *images.shape[1:])
    rng = np.random.default_rng(seed)
    return augment_stack(images, masks, valid, known, rng, settings(**changes), crop)


@given(seed=seeds, levels=st.integers(1, 8))
def test_no_section_moves_farther_than_the_limit(seed: int, levels: int) -> None:
    warp = draw_stack_warp(np.random.default_rng(seed), 5, 64, settings(2 ** (levels - 1)))
    far = largest_jitter(2 ** (levels - 1))
    lengths = np.linalg.norm(warp.shifts, axis=1)

    # Turning and a scale near 1 keep lengths; sections that are not moved stay exactly.
    assert lengths.max() <= far * math.sqrt(2) * 1.05
    assert np.allclose(np.linalg.det(warp.matrices), 1, atol=0.1)


@given(seed=seeds)
def test_masks_go_where_images_go(seed: int) -> None:
    masks = blobs(3, 48)
    images, labels, valid, known = augmented(masks.float() / 2, masks, seed, crop=40, cut=False)
    clear = (images > 0.75) | (images < 0.25)

    assert images.shape == labels.shape == valid.shape == (3, 40, 40)
    assert known.shape == (3, 2, 40, 40)
    assert torch.equal((images > 0.5)[clear], (labels == 2)[clear])
    assert set(torch.unique(labels).tolist()) <= {0, 2}
    assert float(clear.float().mean()) > 0.8


@given(seed=seeds)
def test_cuts_blank_the_images_and_are_marked_invalid(seed: int) -> None:
    ones = torch.ones(2, 200, 200)
    still: dict[str, Any] = {"jitter_px": 0, "rotation": 0, "scale": 0, "turn": 0}
    images, labels, valid, _ = augmented(ones, ones.to(torch.uint8), seed, **still)
    rows = (images.amax(2) == 0).sum(1)
    columns = (images.amax(1) == 0).sum(1)

    assert torch.equal(images > 0, valid > 0)
    assert bool((labels == 1).all())
    assert min(*rows, *columns) >= MIN_CUT_PX
    assert max(*rows, *columns) <= 200 // 5


def test_without_moves_and_cuts_nothing_changes() -> None:
    images = torch.rand(2, 32, 32)
    still: dict[str, Any] = {"jitter_px": 0, "rotation": 0, "scale": 0, "turn": 0, "cut": False}
    augmented_images, masks, valid, known = augmented(images, blobs(2, 32), 0, **still)

    assert torch.allclose(augmented_images, images, atol=1e-5)
    assert torch.equal(masks, blobs(2, 32))
    assert bool(valid.all())
    assert float(known.abs().max()) < 1e-5


@given(seed=seeds)
def test_a_smooth_warp_stays_within_its_range_and_is_each_sections_own(seed: int) -> None:
    chosen = settings(0, rotation=0, scale=0, turn=0, cut=False, warp_px=3, spacing_px=16)
    warp = draw_stack_warp(np.random.default_rng(seed), 2, 64, chosen)

    first, second = (warp.displacement(z, (64, 64), torch.device("cpu")) for z in (0, 1))

    assert float(first.abs().max()) <= 3 * 1.5  # cubic interpolation overshoots
    assert float(first.diff(dim=-1).abs().max()) < 1  # no folds
    assert not torch.allclose(first, second)


def test_the_known_displacement_is_the_one_applied_also_after_another() -> None:
    """A ramp shows where each pixel was read; earlier displacements are included."""
    rows = torch.arange(64.0)[:, None] + torch.zeros(64)
    before = torch.stack((torch.full((64, 64), 3.0), torch.zeros(64, 64))).repeat(6, 1, 1, 1)
    ramp = (rows + 1).repeat(6, 1, 1)
    ones = torch.ones(6, 64, 64)
    for crop in (None, 24):
        rng = np.random.default_rng(4)
        images, _, valid, known = augment_stack(
            ramp, ones, ones, before, rng, settings(16, cut=False), crop
        )
        corner = _draw_window(_after_warp(4), (64, 64), crop)[0].start
        side = images.shape[1]
        here = torch.arange(corner, corner + side, dtype=torch.float32)[:, None]
        inner = valid.bool() & (images > 1.5) & (images < 63.5)
        expected = here + 1 + known[:, 0] - 3
        assert float(inner.float().mean()) > 0.3
        assert torch.allclose(images[inner], expected[inner], atol=0.01)
        assert float((known[:, 0] - 3).abs().max()) > 1


def _after_warp(seed: int) -> np.random.Generator:
    """The generator after a warp was drawn from its children."""
    rng = np.random.default_rng(seed)
    draw_stack_warp(rng, 6, 64, settings(16))
    return rng


def test_stacks_turn_by_any_angle_and_sections_a_little() -> None:
    """Half of the stacks, source and target together, from 0 to 2 pi; each section slightly."""
    warps = [draw_stack_warp(np.random.default_rng(seed), 6, 64, settings()) for seed in range(400)]
    matrices = np.stack([warp.matrices for warp in warps])
    angles = np.arctan2(matrices[..., 0, 1], matrices[..., 0, 0])
    apart = np.angle(np.exp(1j * (angles - angles[:, :1])))
    scales = np.linalg.det(matrices) ** -0.5
    turned = np.abs(angles).max(1) > 0.03

    assert turned.mean() == pytest.approx(0.5, abs=0.08)
    assert np.histogram(angles[turned, 0], 8, (-np.pi, np.pi))[0].min() > 10
    assert np.abs(apart).max() < 0.03
    assert apart.std() == pytest.approx(0.004, rel=0.3)
    assert np.abs(scales - 1).max() < 0.03


def test_seeds_reproduce_both_augmentations() -> None:
    images, masks = torch.rand(3, 64, 64), blobs(3, 64)
    one, same, other = (augmented(images, masks, s)[0] for s in (1, 1, 2))
    first, again, else_ = (
        augment_input(images[0], np.random.default_rng(s), settings())[0] for s in (1, 1, 2)
    )
    off, cut = augment_input(images[0], np.random.default_rng(1), settings(input=False))

    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(first, again)
    assert not torch.equal(first, else_)
    assert torch.equal(off, images[0])
    assert not cut.any()


@given(seed=seeds)
def test_zeros_stay_zero_and_what_was_imaged_stays_above(seed: int) -> None:
    image = torch.rand(40, 40).clamp_min(0.1)
    image[:7] = 0
    before = image.clone()
    spoilt, cut = augment_input(image, np.random.default_rng(seed), settings())

    assert torch.equal(image, before)
    assert torch.equal(spoilt == 0, image == 0)
    assert cut.shape == image.shape
    assert bool(torch.isfinite(spoilt).all())


def test_every_kind_of_degradation_has_its_probability() -> None:
    drawn = [draw_corruption(np.random.default_rng(seed), (32, 24)) for seed in range(800)]
    share = {
        "noise": np.mean([bool(d.noise) for d in drawn]),
        "contrast": np.mean([bool(d.contrast) for d in drawn]),
        "missing": np.mean([d.missing is not None for d in drawn]),
        "waves": np.mean([d.waves is not None for d in drawn]),
    }

    assert share["noise"] == pytest.approx(0.5, abs=0.06)
    assert share["contrast"] == pytest.approx(0.5, abs=0.06)
    assert share["missing"] == pytest.approx(0.25, abs=0.05)
    # No gradient a third of the time, and then no tiling a third of that.
    assert share["waves"] == pytest.approx(8 / 9, abs=0.04)
    assert {len(d.noise) for d in drawn} == {0, 1, 2}
    assert {len(d.contrast) for d in drawn} == {0, 1, 2, 3, 4}
    assert all(0.5 <= d.gain <= 2 and 0 <= d.offset <= 0.5 for d in drawn)
    assert all(0.5 <= f <= 2 for d in drawn for _, f in d.contrast)
    assert max(float(np.abs(d.waves).max()) for d in drawn if d.waves is not None) <= 2 * 0.3


def test_gradients_have_the_published_number_of_periods() -> None:
    """Median 12, mean 17.8, 95 % at most 53."""
    periods = (1 + np.random.default_rng(0).exponential(PERIODS_MEAN, 100_000)).astype(int)

    assert np.median(periods) == 12
    assert periods.mean() == pytest.approx(17.8, abs=0.2)
    assert np.percentile(periods, 95) == pytest.approx(53, abs=1)


@given(seed=seeds)
def test_rectangles_are_no_larger_than_half_the_section(seed: int) -> None:
    rectangle = draw_rectangle(np.random.default_rng(seed), 64)
    inside = rectangle.inside((64, 64), torch.device("cpu"))

    assert max(rectangle.half) <= 16
    assert int(inside.sum()) <= 34 * 34


def test_cutouts_have_one_value_before_brightness_changes() -> None:
    image = torch.rand(64, 64).clamp_min(0.1)
    for seed in range(60):
        drawn = draw_corruption(np.random.default_rng(seed), (64, 64))
        if drawn.missing is None or drawn.waves is not None:
            continue
        spoilt, cut = drawn(image)
        if bool(cut.any()):
            assert float(spoilt[cut].std(unbiased=False)) < 1e-6
            return
    raise AssertionError("no seed cut data out")
