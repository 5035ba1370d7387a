"""Sections as the network sees them: what of them is valid, even contrast, missing parts filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from retrace.alignment.contrast import DARKEST, normalise
from retrace.targets.ternary import contract, dilate

EMPTY_RADIUS = 2
"""A zero counts as missing where all of a square of that radius around some pixel is zero."""


def valid_mask(images: Tensor) -> Tensor:
    """Where sections (..., H, W) show something, bool: not in areas of 5 x 5 zeros or more.

    A single pixel that happens to be 0 is a dark pixel.
    """
    zero = (images == 0).float()
    return dilate(contract(zero, EMPTY_RADIUS), EMPTY_RADIUS) == 0


def prepared(image: Tensor, valid: Tensor, network: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """A section (..., H, W) in [0, 1] with even contrast, twice: missing parts 0, and filled.

    `valid` bool (..., H, W). A valid pixel of 0 becomes DARKEST: for the normaliser 0 is what was
    not imaged. The second is what the network takes: what is missing has the grey that it sees as
    nothing (`input: mean`).
    """
    contrast = network["contrast"]
    seen = torch.where(valid, image.clamp(min=DARKEST), 0)
    if contrast["method"] == "equalise":
        seen = normalise(seen, contrast["radius_px"])
    return seen, torch.where(valid, seen, float(network["input"]["mean"]))
