"""Small changes of single images, each image by a draw of its own, all at once on the device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

KNOTS = 4
"""Points an axis that the elastic displacement is drawn at."""


def distort(images: Tensor, rng: np.random.Generator, settings: Mapping[str, float]) -> Tensor:
    """`images` (N, C, Y, X) turned, scaled, sheared, shifted and bent; what comes in is 0.

    Each amount is the largest one: `rotation` and `shear` in degrees, `scale` as a share, `shift`
    and `elastic` (displacement of the knots, smooth between them) in pixels.
    """
    count, _, height, width = images.shape
    numbers = rng.uniform(-1, 1, (count, 6))
    theta = torch.from_numpy(_affine(numbers, settings, height, width)).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    if settings.get("elastic"):
        knots = torch.from_numpy(rng.uniform(-1, 1, (count, 2, KNOTS, KNOTS))).to(images)
        smooth = functional.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
        sizes = torch.tensor([2 / width, 2 / height], dtype=images.dtype, device=images.device)
        grid = grid + settings["elastic"] * sizes * smooth.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _affine(
    numbers: np.ndarray, settings: Mapping[str, Any], height: int, width: int
) -> np.ndarray:
    """Matrices (N, 2, 3) of `numbers` (N, 6) in [-1, 1]."""
    angle = numbers[:, 0] * math.radians(settings.get("rotation", 0))
    shear = numbers[:, 1] * math.radians(settings.get("shear", 0))
    scale_y, scale_x = (1 + numbers[:, 2:4] * settings.get("scale", 0)).T
    shift = numbers[:, 4:] * settings.get("shift", 0)
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.empty((len(numbers), 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * scale_x, (np.tan(shear) * cos - sin) * scale_y
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * scale_x, (np.tan(shear) * sin + cos) * scale_y
    matrix[:, 0, 2], matrix[:, 1, 2] = shift[:, 0] * 2 / width, shift[:, 1] * 2 / height
    return matrix


def shift_crop(images: Tensor, rng: np.random.Generator, lost: int) -> Tensor:
    """(N, C, Y, X) less `lost` pixels an axis, each image at one of lost x lost origins.

    ELEKTRONN's MNISTData has the origins 0 and 1 of 26 in 28 pixels, for `lost` 2.
    """
    origins = rng.integers(0, lost, (len(images), 2))
    shape = [n - lost for n in images.shape[2:]]
    cut = torch.empty((*images.shape[:2], *shape), dtype=images.dtype, device=images.device)
    for y, x in {(int(y), int(x)) for y, x in origins}:
        index = torch.from_numpy(np.flatnonzero((origins == (y, x)).all(axis=1)))
        index = index.to(images.device)
        cut[index] = images[index, :, y : y + shape[0], x : x + shape[1]]
    return cut


def centre_cut(images: Tensor, lost: int) -> Tensor:
    """(N, C, Y, X) less `lost` pixels an axis, the same on both sides."""
    begin = lost // 2
    return images[
        ..., begin : images.shape[-2] - lost + begin, begin : images.shape[-1] - lost + begin
    ]
