"""Alignment losses on closed-form fields, their weights and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrace.alignment.losses import (
    SMOOTHNESS,
    SOFT_PX,
    Lambdas,
    Sections,
    border_mask,
    centred_jacobian_map,
    consensus_error,
    jacobian_map,
    known_field_error,
    laplacian_map,
    similarity_error,
    similarity_map,
    similarity_weights,
    smoothness_error,
    smoothness_weights,
    variation_map,
    warped_labels,
)
from retrace.displacement import identity, rotate_180, rotate_field_180, warp

LAMBDAS = Lambdas(2, 0.04, 0, 5, 0, 1)


def linear(side: int, slope: float) -> torch.Tensor:
    """A field whose x component grows by `slope` px a pixel along x."""
    field = torch.zeros(1, 2, side, side)
    field[0, 1] = slope * torch.arange(side)
    return field


def sections(side: int = 40, seed: int = 0) -> Sections:
    image = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(seed))
    zero = torch.zeros_like(image)
    return Sections(image, zero, torch.ones_like(image), zero)


def with_defect(side: int = 40) -> Sections:
    """A band of label 2 with label 1 around it."""
    plain = sections(side, seed=1)
    mask = torch.zeros(1, 1, side, side)
    mask[..., side // 2 - 5 : side // 2 + 5] = 1
    mask[..., side // 2 - 2 : side // 2 + 2] = 2
    return Sections(plain.image, mask, plain.valid, plain.cutout)


@pytest.mark.parametrize("kind", SMOOTHNESS)
@given(dy=st.floats(-9, 9), dx=st.floats(-9, 9))
def test_a_constant_field_costs_nothing(kind: str, dy: float, dx: float) -> None:
    field = torch.tensor([dy, dx]).view(1, 2, 1, 1).expand(1, 2, 20, 24)

    assert float(SMOOTHNESS[kind](field).abs().max()) < 1e-9


def test_a_linear_field_costs_what_the_formulas_say() -> None:
    field = linear(32, 0.1)
    inner = (..., slice(1, -1), slice(1, -1))

    assert float(laplacian_map(field)[inner].max()) < 1e-10
    torch.testing.assert_close(jacobian_map(field)[inner], torch.full((1, 30, 30), 0.04))
    torch.testing.assert_close(variation_map(field)[inner], torch.full((1, 30, 30), 0.2))
    assert float(centred_jacobian_map(field).max()) < 1e-10


@pytest.mark.parametrize("side", [64, 256, 1024])
@pytest.mark.parametrize("slope", [0.05, 0.2])
def test_the_sum_of_jacob_does_not_depend_on_the_resolution(side: int, slope: float) -> None:
    error = smoothness_error(linear(side, slope), torch.ones(1, 1, side, side), "jacob")

    assert float(error) == pytest.approx(16 * slope**2, rel=0.001 if side > 64 else 0.002)


def test_total_variation_in_normalised_units() -> None:
    side, slope = 128, 0.1
    inner = torch.zeros(1, 1, side, side)
    inner[..., 1:-1, 1:-1] = 1

    error = smoothness_error(linear(side, slope), inner, "tv")

    assert float(error) / (side - 2) ** 2 == pytest.approx(2 * slope * 2 / (side - 1), rel=1e-4)


def test_laplacian_is_the_squared_deviation_from_four_neighbours() -> None:
    field = torch.zeros(1, 2, 5, 5)
    field[0, 0, 2, 2] = 4

    laplacian = laplacian_map(field)[0]

    assert float(laplacian[2, 2]) == 16
    assert float(laplacian[2, 1]) == 1
    assert float(laplacian[0].abs().max()) == 0


def test_similarity_is_divided_by_the_valid_pixels_not_by_the_weights() -> None:
    errors = similarity_map(torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 1, 4, 4))
    border = torch.ones(1, 1, 4, 4)
    border[..., :2] = 0

    assert float(similarity_error(errors, 3 * border, border)) == pytest.approx(0.75)
    assert float(similarity_error(errors, border * 0, border * 0)) == 0


def test_without_defects_all_weights_are_one_inside() -> None:
    source, target = sections(), sections(seed=1)
    field = identity((40, 40))
    border = border_mask(source, target, field, 5)

    similar = similarity_weights(source, target, field, border, LAMBDAS)
    smooth = smoothness_weights(source, target, field, border, LAMBDAS, 3)

    for weights in (similar, smooth):
        torch.testing.assert_close(weights[..., 5:-5, 5:-5], torch.ones(1, 1, 30, 30))


def test_defects_get_their_lambdas() -> None:
    source, target = with_defect(), sections(seed=1)
    field = identity((40, 40))
    border = border_mask(source, target, field, 0)

    similar = similarity_weights(source, target, field, border, LAMBDAS)[0, 0, 20]
    smooth = smoothness_weights(source, target, field, border, LAMBDAS, 2)[0, 0, 20]

    assert similar[10] == 1
    assert similar[15] == LAMBDAS.near_similarity
    assert similar[16:24].abs().max() == 0  # the defect, dilated by 2
    assert smooth[20] < 0.02  # blurred by 5 x 5 px once more
    assert 0 < smooth[16] < 0.3
    assert smooth[5] == pytest.approx(1, abs=1e-5)


def test_smoothness_in_a_defect_is_relaxed_by_lambda3() -> None:
    relaxed = Lambdas(2, 0.04, 0.5, 5, 0, 0)
    source = with_defect()
    field = identity((40, 40))
    ones = torch.ones_like(source.image)

    weight = smoothness_weights(source, sections(), field, ones, relaxed, 1)[0, 0, 20, 20]

    assert float(weight) == pytest.approx(0.5, abs=0.2)


def test_no_gradient_comes_from_defects_of_the_target() -> None:
    source, target = sections(), with_defect()
    prediction = source.image.clone().requires_grad_()
    field = identity((40, 40))
    border = border_mask(source, target, field, 0)
    weights = similarity_weights(source, target, field, border, LAMBDAS)
    assert not torch.equal(source.image, target.image)

    similarity_error(similarity_map(prediction, target.image), weights, border).backward()

    assert prediction.grad is not None
    there = prediction.grad[0, 0].abs().sum(0) > 0
    assert not there[18:22].any()
    assert there[5]


def test_cutouts_of_both_sections_are_excluded() -> None:
    plain = sections()
    cutout = torch.zeros_like(plain.image)
    cutout[..., 10:15, 10:15] = 1
    cut = Sections(plain.image, plain.mask, plain.valid, cutout)
    field = identity((40, 40))
    border = border_mask(plain, plain, field, 0)

    for pair in ((cut, plain), (plain, cut)):
        weights = similarity_weights(*pair, field, border, LAMBDAS)
        assert float(weights[..., 10:15, 10:15].max()) == 0
        assert float(weights[..., 20:30, 20:30].min()) == 1


def test_a_dark_pixel_is_valid_and_a_missing_one_is_not() -> None:
    plain = sections()
    dark = plain.image.clone()
    dark[..., 20, 20] = 0
    valid = plain.valid.clone()
    valid[..., :, :10] = 0
    source = Sections(dark, plain.mask, valid, plain.cutout)

    border = border_mask(source, plain, identity((40, 40)), 2)[0, 0]

    assert border[20, 20] == 1
    assert border[20, 11] == 0
    assert border[20, 12] == 1


def test_a_warped_label_is_the_largest_one_sampled() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4] = 2
    field = torch.zeros(1, 2, 8, 8)
    field[0, 1] = 0.4

    warped = warped_labels(mask, field)[0, 0, 0].tolist()

    assert warped == [0, 0, 0, 1, 2, 0, 0, 0]


def test_consensus_of_an_equivariant_answer_is_zero_and_a_drift_costs() -> None:
    field = torch.rand(1, 2, 20, 20, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 1, 20, 20)

    assert float(consensus_error(field, rotate_field_180(field), ones, ones)) == 0
    drift = torch.ones(1, 2, 20, 20)
    expected = 2 * (2 * 2 / 19) ** 2  # a drift of 1 px per axis is 2 px away from its own turn
    assert float(consensus_error(drift, drift, ones, ones)) == pytest.approx(expected)


def test_a_field_that_undoes_a_shift_has_no_supervised_error() -> None:
    applied = torch.full((1, 2, 30, 30), 3.0)
    still, border = torch.zeros_like(applied), torch.ones(1, 1, 30, 30)

    def error(field: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> float:
        return float(known_field_error(field, source, target, border, squared=True))

    assert error(-applied, applied, still) == pytest.approx(0, abs=1e-9)
    assert error(applied, still, applied) == pytest.approx(0, abs=1e-9)
    assert error(still, applied, still) == pytest.approx(2 * (3 * 2 / 29) ** 2)


def test_the_endpoint_error_is_in_pixels_and_of_what_is_counted() -> None:
    far = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(1, 2, 30, 30)
    still, counted = torch.zeros(1, 2, 30, 30), torch.zeros(1, 1, 30, 30)
    assert float(known_field_error(still, far, still, counted)) == 0

    counted[..., :3] = 1

    assert float(known_field_error(still, far, still, counted)) == pytest.approx(5, abs=2e-3)
    assert float(known_field_error(still, far, far, counted)) == pytest.approx(SOFT_PX)


def test_the_sign_of_a_field_is_that_of_the_shift_of_the_source() -> None:
    target = sections(64).image
    shift = torch.tensor([2.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 64, 64)
    source = warp(target, -shift)  # source(r) = target(r - shift)

    moved = warp(source, shift)[..., 8:-8, 8:-8]

    torch.testing.assert_close(moved, target[..., 8:-8, 8:-8], atol=1e-4, rtol=0)
    torch.testing.assert_close(rotate_180(rotate_180(target)), target)
