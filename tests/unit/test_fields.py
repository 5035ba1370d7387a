"""The field convention: closed-form cases and properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.displacement import (
    compose,
    downsample,
    folded,
    identity,
    inside,
    inverse,
    jacobian,
    length,
    normalised,
    rotate_180,
    rotate_field_180,
    smooth,
    upsample,
    vote,
    warp,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def smooth_field(side: int, largest: float, seed: int = 0) -> torch.Tensor:
    result = smooth(noise(1, 2, side, side, seed=seed) - 0.5, side / 10)
    return result / result.abs().max() * largest


@given(st.integers(2, 70), st.integers(2, 70))
def test_the_identity_gives_the_image_back_at_every_size(height: int, width: int) -> None:
    image = noise(1, 1, height, width)

    torch.testing.assert_close(warp(image, identity((height, width))), image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [17, 64, 1000])
def test_the_identity_shifts_no_pixel_of_a_ramp(side: int) -> None:
    ramp = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)

    result = warp(ramp, identity((side, side))) - ramp

    assert float(result.abs().max()) < 0.01  # a mixed convention shifts by up to 0.5 px


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_whole_displacements_pull_exactly(dy: int, dx: int) -> None:
    image = noise(1, 1, 32, 40)
    field = torch.tensor([dy, dx], dtype=torch.float32).view(1, 2, 1, 1).expand(1, 2, 32, 40)

    result = warp(image, field)[..., 5:-5, 5:-5]

    expected = torch.roll(image, (-dy, -dx), (-2, -1))[..., 5:-5, 5:-5]
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)


def test_upsampled_fields_mean_the_same_displacement() -> None:
    assert float(upsample(identity((16, 16))).abs().max()) == 0
    constant = torch.tensor([1.5, -2.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)

    torch.testing.assert_close(upsample(constant), 2 * constant.repeat(1, 1, 2, 2))


def test_a_linear_field_survives_upsampling_and_downsampling() -> None:
    fine = torch.arange(32, dtype=torch.float32).mul(0.1).expand(1, 2, 32, 32)

    result = upsample(downsample(fine, 2))

    torch.testing.assert_close(result[..., 2:-2], fine[..., 2:-2], atol=1e-5, rtol=0)


def test_composition_is_one_warp_after_the_other() -> None:
    image = smooth(noise(1, 1, 64, 64), 3)
    first, second = smooth_field(64, 3, 1), smooth_field(64, 2, 2)

    once = warp(image, compose(first, second), "border")
    twice = warp(warp(image, first, "border"), second, "border")

    torch.testing.assert_close(once[..., 8:-8, 8:-8], twice[..., 8:-8, 8:-8], atol=2e-3, rtol=0)


@given(st.integers(0, 50))
def test_the_inverse_undoes_a_field_from_both_sides(seed: int) -> None:
    field = smooth_field(48, 3, seed)

    undone = inverse(field, rounds=20)

    for result in (compose(field, undone), compose(undone, field)):
        assert float(length(result)[..., 8:-8, 8:-8].max()) < 0.1  # bilinear


def test_jacobian_of_a_linear_field_and_of_a_fold() -> None:
    rows = torch.arange(20, dtype=torch.float32)
    field = torch.stack([0.5 * rows[:, None].expand(20, 20), -0.25 * rows.expand(20, 20)])[None]

    torch.testing.assert_close(jacobian(field), torch.full((1, 19, 19), 1.5 * 0.75))
    assert not folded(field).any()
    crossed = torch.stack([-1.5 * rows[:, None].expand(20, 20), torch.zeros(20, 20)])[None]
    assert folded(crossed).all()


def test_turning_an_image_and_its_field_agree() -> None:
    image, field = noise(1, 1, 33, 40), smooth_field(40, 3)[..., :33, :]

    expected = rotate_180(warp(image, field))

    torch.testing.assert_close(
        warp(rotate_180(image), rotate_field_180(field)), expected, atol=1e-4, rtol=0
    )
    torch.testing.assert_close(rotate_field_180(rotate_field_180(field)), field)


def test_inside_marks_pixels_sampled_within_the_image() -> None:
    field = torch.zeros(1, 2, 10, 10)
    field[0, 1] = 3

    result = inside(field)[0, 0]

    assert result[:, :7].all()
    assert not result[:, 7:].any()


def test_normalised_units_are_those_of_the_border_pixels() -> None:
    field = torch.full((1, 2, 11, 21), 10.0)

    result = normalised(field)

    assert result[0, :, 0, 0].tolist() == pytest.approx([2.0, 1.0])


def test_a_vote_leaves_the_outlier_out() -> None:
    truth = smooth_field(32, 2)
    candidates = torch.cat([truth, truth + 0.05, truth + 9])

    result = vote(candidates, temperature=0.1)

    assert float((result - truth[0]).abs().max()) < 0.1
    np.testing.assert_array_equal(vote(truth), truth[0])


def test_a_vote_of_an_even_number_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        vote(torch.zeros(2, 2, 8, 8))
