"""Local equalisation: against the rank filter that SEAMLeSS used, and its closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import rank
from skimage.morphology import disk

from retrace.alignment.contrast import DARKEST, equalise, normalise_contrast, radius_at


def section(side: int = 96) -> np.ndarray:
    """(side, side) uint8: texture whose brightness and contrast change across it, none of it 0."""
    rng = np.random.default_rng(0)
    smooth = np.kron(rng.normal(0, 1, (side // 4, side // 4)), np.ones((4, 4)))
    across = np.linspace(0.2, 1, side)
    image = 90 + 80 * across[None] + 30 * across[:, None] * smooth + rng.normal(0, 5, (side, side))
    return np.clip(np.round(image), 1, 255).astype(np.uint8)


@pytest.mark.parametrize("radius", [9, 21, 42])
def test_it_is_the_rank_filter_but_for_a_few_grey_values(radius: int) -> None:
    image = section()
    image[10:30, 40:60] = 0
    equalised = equalise(torch.from_numpy(image).float() / 255, radius).numpy() * 255
    oracle = rank.equalize(image, disk(radius), mask=image > 0)
    apart = np.abs(equalised - oracle)[image > 0]

    assert apart.mean() < 4
    assert np.percentile(apart, 99) < 16
    assert (equalised[image == 0] == 0).all()


def test_contrast_of_the_input_does_not_matter() -> None:
    """Equalisation depends only on the order of grey values."""
    image = torch.from_numpy(section()).float() / 255
    darker = image * 0.5 + 0.1

    assert (normalise_contrast(image, 21) - normalise_contrast(darker, 21)).abs().max() < 0.02


def test_values_fill_the_range_and_missing_pixels_stay() -> None:
    images = torch.from_numpy(section()).float().div(255).repeat(2, 1, 1)
    images[1, :20] = 0
    normalised = normalise_contrast(images, 21)

    assert normalised.shape == images.shape
    assert torch.equal(normalised == 0, images == 0)
    for one in normalised:
        assert float(one[one > 0].min()) == pytest.approx(DARKEST)
        assert float(one.max()) == pytest.approx(1)


def test_empty_and_constant_sections_do_not_break() -> None:
    empty, flat = torch.zeros(1, 16, 16), torch.full((1, 16, 16), 0.4)

    assert torch.equal(normalise_contrast(empty, 5), empty)
    assert torch.equal(normalise_contrast(flat, 5), torch.full_like(flat, DARKEST))


def test_the_radius_follows_the_mip() -> None:
    assert [radius_at(mip) for mip in (0, 2, 5, 8, 300)] == [256, 85, 42, 28, 1]
