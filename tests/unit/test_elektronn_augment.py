"""ELEKTRONN's warping, grey values and orientations against numbers of the original."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.augment.backward_warp import (
    BackwardWarp,
    apply_warp,
    draw_digits_warp,
    draw_section_warp,
    draw_volume_warp,
    required_source,
)
from retrace.augment.grey import draw_grey_change, grey_change
from retrace.augment.simple import draw_orientation

SECTION = BackwardWarp(10, 2, (1.0, 0.95, 1.05), (0.05, -0.05, 0, 0))
VOLUME = BackwardWarp(10, 2, (1.1, 0.95, 1.05), (0.05, -0.05, 0.08, 0.03), 7)


def test_a_section_is_warped_as_by_the_original() -> None:
    """The original's axes are x, y; ours y, x."""
    block = torch.arange(400).reshape(1, 20, 20).transpose(1, 2)
    warped = apply_warp(block, SECTION, (1, 12, 12))[0].T

    first = [123, 104, 105, 106, 107, 88, 89, 90, 91, 72, 74, 75]
    last = [325, 326, 307, 308, 309, 310, 311, 292, 293, 294, 295, 296]
    assert int(warped.sum()) == 28750
    assert warped[0].tolist() == first
    assert warped[11].tolist() == last


def test_a_volume_is_warped_as_by_the_original() -> None:
    block = torch.arange(8 * 400).reshape(8, 20, 20).transpose(1, 2)
    warped = apply_warp(block, VOLUME, (4, 12, 12)).transpose(1, 2)

    expected = [923, 904, 905, 906, 907, 909, 890, 891, 892, 893, 894, 875]
    assert int(warped.sum()) == 921205
    assert warped[0, 0].tolist() == expected


def test_identity_cuts_the_middle_out_and_a_quarter_turn_is_numpys() -> None:
    block = torch.arange(5 * 12 * 12).reshape(5, 12, 12)

    assert torch.equal(apply_warp(block, BackwardWarp(), (5, 12, 12)), block)
    assert torch.equal(apply_warp(block, BackwardWarp(), (3, 8, 8)), block[1:4, 2:10, 2:10])
    turned = apply_warp(block.transpose(1, 2), BackwardWarp(90), (5, 12, 12)).transpose(1, 2)
    assert np.array_equal(turned.numpy(), np.rot90(block.numpy(), k=3, axes=(1, 2)))


@pytest.mark.parametrize(
    ("warp", "output", "expected"),
    [
        (BackwardWarp(15, 3, (1, 1.1, 1), (0.1, 0.1, 0, 0)), (1, 127, 127), (1, 151, 167)),
        (BackwardWarp(15, 3, (1.1, 1.1, 1.1), (0.1, 0.1, 0.1, 0.1)), (7, 127, 127), (7, 163, 173)),
        (BackwardWarp(twist=15), (7, 127, 127), (7, 157, 157)),
        (BackwardWarp(10), (1, 100, 100), (1, 116, 116)),
    ],
)
def test_required_source(
    warp: BackwardWarp, output: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    assert required_source(warp, output) == expected


@given(st.integers(0, 10_000))
def test_the_required_source_contains_everything_that_is_read(seed: int) -> None:
    warp = draw_volume_warp(np.random.default_rng(seed))
    output = (5, 31, 31)
    source = required_source(warp, output)
    ones = torch.ones(tuple(n + 2 for n in source), dtype=torch.uint8)

    assert apply_warp(ones, warp, output).min() == 1
    assert 0 <= warp.rotation <= 15 - abs(warp.twist)


def test_draws_stay_within_the_documented_ranges() -> None:
    rng = np.random.default_rng(0)
    sections = [draw_section_warp(rng) for _ in range(200)]
    digits = [draw_digits_warp(rng) for _ in range(200)]

    assert max(abs(w.rotation) for w in sections) <= 15
    assert {w.scale[2] for w in sections} == {1.0}
    assert max(abs(w.shear) for w in digits) > 6
    assert {w.rotation for w in digits} == {0.0}
    assert max(abs(t) for w in digits for t in w.stretch) <= 0.25


def test_every_section_of_a_twisted_block_is_turned_by_its_own_angle() -> None:
    block = torch.zeros(3, 21, 21)
    block[:, 10, 10:] = 1
    twisted = apply_warp(block, BackwardWarp(twist=90), (3, 21, 21))

    assert torch.equal(twisted[1], block[1])
    assert not torch.equal(twisted[0], block[0])
    assert torch.equal(twisted[0].flip(0), twisted[2])


def test_grey_values_of_known_numbers() -> None:
    numbers = np.random.RandomState(42).uniform(0, 1, 3).reshape(3, 1)
    grey = grey_change(numbers, [0])

    assert grey.factors[0] == pytest.approx(0.96236204)
    assert grey.summands[0] == pytest.approx(0.13521429)
    assert grey.gammas[0] == pytest.approx(1.37934934)
    changed = grey.apply(torch.full((1, 1, 2, 2), 0.5))
    assert float(changed.max()) == pytest.approx(0.51302981, abs=1e-6)


def test_only_listed_channels_change_and_stay_in_range() -> None:
    image = torch.linspace(0, 1, 24).reshape(2, 3, 4)
    changed = draw_grey_change(np.random.default_rng(3), [1]).apply(image)

    assert torch.equal(changed[0], image[0])
    assert not torch.equal(changed[1], image[1])
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


@pytest.mark.parametrize(
    ("n_dim", "anisotropic", "upright", "count"),
    [(3, True, False, 16), (3, False, False, 48), (2, True, False, 8), (2, True, True, 2)],
)
def test_orientations(n_dim: int, anisotropic: bool, upright: bool, count: int) -> None:
    shape = (3, 3, 3) if n_dim == 3 else (1, 3, 3)
    block = torch.arange(int(np.prod(shape))).reshape(shape)
    rng = np.random.default_rng(0)
    draws = (
        draw_orientation(rng, shape, n_dim, anisotropic=anisotropic, upright_x=upright)
        for _ in range(900)
    )
    orientations = {tuple(drawn.apply(block).flatten().tolist()) for drawn in draws}

    assert len(orientations) == count


def test_turning_reads_where_the_drawn_map_says() -> None:
    rng = np.random.default_rng(5)
    block = torch.rand(2, 4, 4, 4)
    drawn = draw_orientation(rng, (4, 4, 4), 3, anisotropic=False)
    grid = torch.stack(torch.meshgrid(*[torch.arange(4)] * 3, indexing="ij")).float()
    z, y, x = (row.long() for row in drawn.source(grid))

    assert torch.equal(drawn.apply(block), block[:, z, y, x])


def test_a_warp_does_not_depend_on_the_device_or_dtype_of_the_block() -> None:
    warp = replace(SECTION, twist=3.0)
    block = torch.rand(4, 20, 20)
    labels = (block * 9).long()

    assert torch.equal(
        (apply_warp(block, warp, (4, 12, 12)) * 9).long(), apply_warp(labels, warp, (4, 12, 12))
    )
