"""Small random distortions and crops of single images, one draw per image, all in one batch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

KNOTS = 4
"""Control points per axis of the elastic displacement."""


def distort_images(
    images: Tensor,
    rng: np.random.Generator,
    *,
    rotation: float = 0.0,
    shear: float = 0.0,
    scale: float = 0.0,
    shift: float = 0.0,
    elastic: float = 0.0,
) -> Tensor:
    """`images` (N, C, Y, X) rotated, sheared, scaled, shifted and bent; 0 enters at the borders.

    Each argument is the largest amount, drawn uniformly in both directions: `rotation` and `shear`
    in degrees, `scale` as a fraction, `shift` in pixels, `elastic` in pixels of displacement of
    KNOTS x KNOTS control points with bicubic interpolation between them.
    """
    count, _, height, width = images.shape
    numbers = rng.uniform(-1, 1, (count, 6))
    matrices = _affine_matrices(
        angles=numbers[:, 0] * math.radians(rotation),
        shears=numbers[:, 1] * math.radians(shear),
        scales=1 + numbers[:, 2:4] * scale,
        shifts=numbers[:, 4:] * shift,
        shape=(height, width),
    )
    theta = torch.from_numpy(matrices).to(images)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    if elastic:
        knots = torch.from_numpy(rng.uniform(-1, 1, (count, 2, KNOTS, KNOTS))).to(images)
        smooth = functional.interpolate(knots, (height, width), mode="bicubic", align_corners=True)
        sizes = torch.tensor([2 / width, 2 / height], dtype=images.dtype, device=images.device)
        grid = grid + elastic * sizes * smooth.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=False)


def _affine_matrices(
    angles: np.ndarray,
    shears: np.ndarray,
    scales: np.ndarray,
    shifts: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """Matrices (N, 2, 3) for `affine_grid`; `angles` and `shears` (N,) rad, `scales` (N, 2) y x.

    `shifts` (N, 2) x y px in images of `shape` (Y, X).
    """
    scale_y, scale_x = scales.T
    cos, sin = np.cos(angles), np.sin(angles)
    height, width = shape
    matrix = np.empty((len(angles), 2, 3))
    matrix[:, 0, 0], matrix[:, 0, 1] = cos * scale_x, (np.tan(shears) * cos - sin) * scale_y
    matrix[:, 1, 0], matrix[:, 1, 1] = sin * scale_x, (np.tan(shears) * sin + cos) * scale_y
    matrix[:, 0, 2], matrix[:, 1, 2] = shifts[:, 0] * 2 / width, shifts[:, 1] * 2 / height
    return matrix


def random_crop(images: Tensor, rng: np.random.Generator, lost: int) -> Tensor:
    """`images` (N, C, Y, X) less `lost` px per axis, each cropped at one of lost x lost origins.

    ELEKTRONN's MNISTData has `lost` 2: 26 of 28 pixels, at origins 0 and 1.
    """
    origins = rng.integers(0, lost, (len(images), 2))
    shape = [n - lost for n in images.shape[2:]]
    crops = torch.empty((*images.shape[:2], *shape), dtype=images.dtype, device=images.device)
    for y, x in {(int(y), int(x)) for y, x in origins}:
        index = torch.from_numpy(np.flatnonzero((origins == (y, x)).all(axis=1)))
        index = index.to(images.device)
        crops[index] = images[index, :, y : y + shape[0], x : x + shape[1]]
    return crops
