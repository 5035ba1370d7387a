"""Prepares sections for the network: valid pixels, equalised contrast, missing parts filled."""

from __future__ import annotations

import torch
from torch import Tensor

from retrace.alignment.contrast import DARKEST, normalise_contrast
from retrace.targets.ternary import contract, dilate

EMPTY_RADIUS = 2
"""Radius of a square, pixels: zeros count as missing where such a square is all zeros."""


def valid_mask(images: Tensor) -> Tensor:
    """Which pixels of sections (..., H, W) were imaged, bool: all but areas of 5 x 5 zeros or more.

    Smaller groups of zeros are dark pixels.
    """
    zero = (images == 0).float()
    return dilate(contract(zero, EMPTY_RADIUS), EMPTY_RADIUS) == 0


def prepare_sections(
    image: Tensor, valid: Tensor, *, radius_px: int | None, fill: float
) -> tuple[Tensor, Tensor]:
    """Sections (..., H, W) in [0, 1] with equalised contrast: once with 0, once with a grey fill.

    Invalid pixels (`valid` bool, (..., H, W)) are 0 in the first result and `fill` in the second,
    which the network receives. `radius_px`: radius of the equalisation, None for none. Valid pixels
    of 0 become DARKEST, because the equalisation treats 0 as not imaged.
    """
    even = torch.where(valid, image.clamp(min=DARKEST), 0)
    if radius_px is not None:
        even = normalise_contrast(even, radius_px)
    return even, torch.where(valid, even, float(fill))
