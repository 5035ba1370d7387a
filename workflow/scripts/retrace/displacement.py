"""Displacement fields, in the convention of all alignment code.

A field is (N, 2, H, W) float32 in pixels of its own grid: channel 0 along y (rows), channel 1 along
x (columns). It is a backward map: `warp(image, field)` at r is `image` at r + field(r), bilinear,
0 outside. A pixel of a k times coarser grid covers k x k fine pixels, as after pooling: the centre
of coarse pixel i is at k i + (k - 1) / 2 (align_corners=False in torch). SEAMLeSS of 2018 used
absolute grids with align_corners=True in units of half the image; `normalised` converts to those.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional


@lru_cache(maxsize=16)
def _pixels(height: int, width: int, device: torch.device) -> Tensor:
    """The y and x of each pixel, (2, H, W)."""
    rows = torch.arange(height, dtype=torch.float32, device=device)
    columns = torch.arange(width, dtype=torch.float32, device=device)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))


def identity(shape: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """The zero field (1, 2, H, W); `shape` (H, W)."""
    return torch.zeros(1, 2, *shape, device=device)


def read_positions(field: Tensor) -> Tensor:
    """The y and x (N, 2, H, W) at which each pixel reads, in pixels."""
    return field + _pixels(field.shape[-2], field.shape[-1], field.device)


def warp(image: Tensor, field: Tensor, outside: str = "zeros") -> Tensor:
    """`image` (N, C, H, W) read at r + field(r), as (N, C, h, w) for a field (N, 2, h, w).

    The grid of the field starts at the first pixel of the image. `outside`: `zeros`, or `border`
    for the value of the nearest pixel.
    """
    height, width = image.shape[-2:]
    positions = read_positions(field)
    y = (2 * positions[:, 0] + 1) / height - 1
    x = (2 * positions[:, 1] + 1) / width - 1
    grid = torch.stack([x, y], dim=-1).to(image.dtype)
    return functional.grid_sample(image, grid, "bilinear", outside, align_corners=False)


def inside(field: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Whether each pixel reads inside the image of `shape` (H, W), as (N, 1, H, W) bool."""
    height, width = shape or field.shape[-2:]
    y, x = read_positions(field).unbind(1)
    margin = 1e-3  # so that rounding does not put a border pixel outside
    rows = (y >= -margin) & (y <= height - 1 + margin)
    return (rows & (x >= -margin) & (x <= width - 1 + margin))[:, None]


def compose(old: Tensor, new: Tensor) -> Tensor:
    """The field (N, 2, H, W) that is `old` followed by `new`: new(r) + old(r + new(r)).

    warp(image, compose(old, new)) = warp(warp(image, old), new), up to interpolation.
    """
    return new + warp(old, new, "border")


def inverse(field: Tensor, rounds: int = 5) -> Tensor:
    """The field g (N, 2, H, W) px that undoes `field`: compose(field, g) is near zero.

    By fixed-point iteration g = -field(r + g). Converges if the field changes by less than one
    pixel between neighbouring pixels (Chen et al. 2008, Med. Phys. 35:81).
    """
    undone = -field
    for _ in range(rounds):
        undone = -warp(field, undone, "border")
    return undone


def add_fields(old: Tensor, new: Tensor) -> Tensor:
    """Additive composition, as in SEAMLeSS archives of 2018: equal to `compose` to first order."""
    return old + new


def upsample(field: Tensor, factor: int = 2) -> Tensor:
    """The field on a grid `factor` times finer, in pixels of that grid."""
    if factor == 1:
        return field
    finer = functional.interpolate(field, scale_factor=factor, mode="bilinear", align_corners=False)
    return finer * factor


def downsample(field: Tensor, factor: int) -> Tensor:
    """The field on a grid `factor` times coarser, in pixels of that grid: mean of each window."""
    return functional.avg_pool2d(field, factor) / factor


def rotate_180(image: Tensor) -> Tensor:
    """An image (..., H, W) rotated by 180 degrees."""
    return image.flip(-2, -1)


def rotate_field_180(field: Tensor) -> Tensor:
    """A field (N, 2, H, W) rotated by 180 degrees: its vectors change sign."""
    return -rotate_180(field)


def normalised(field: Tensor) -> Tensor:
    """The field in SEAMLeSS' units: -1 and 1 are the centres of opposite border pixels."""
    height, width = field.shape[-2:]
    scale = field.new_tensor([2 / max(height - 1, 1), 2 / max(width - 1, 1)])
    return field * scale[None, :, None, None]


def jacobian(field: Tensor) -> Tensor:
    """Determinant of the map r -> r + field(r) between neighbouring pixels, (N, H - 1, W - 1).

    From forward differences. The map folds where it is at most 0.
    """
    down = field[..., 1:, :-1] - field[..., :-1, :-1]
    right = field[..., :-1, 1:] - field[..., :-1, :-1]
    return (1 + down[:, 0]) * (1 + right[:, 1]) - down[:, 1] * right[:, 0]


def folded(field: Tensor) -> Tensor:
    """Whether the field folds, (N, H - 1, W - 1) bool."""
    return jacobian(field) <= 0


def length(field: Tensor) -> Tensor:
    """Length of each vector, px, (N, H, W)."""
    return torch.linalg.vector_norm(field, dim=1)


def roughness(field: Tensor) -> Tensor:
    """Mean of |grad u|^2 + |grad v|^2 (N,) of a field (u, v), from forward differences."""
    down = (field[..., 1:, :] - field[..., :-1, :]).square().sum(1).mean((-2, -1))
    right = (field[..., 1:] - field[..., :-1]).square().sum(1).mean((-2, -1))
    return down + right


def vote(fields: Tensor, temperature: float = 1.0, reduced: float = 8.0) -> Tensor:
    """Combines an odd number of candidates (N, 2, H, W) into a field (2, H, W) without outliers.

    Vector voting as in corgie and zetta_utils. The cost of each majority of N // 2 + 1 candidates
    is the mean distance of its pairs, px, smoothed with a Gaussian of `reduced` px. A softmin of
    the costs, with `temperature`, gives the weights of the majorities; a candidate's weight is the
    sum over the majorities that contain it. ValueError for an even number.
    """
    count = len(fields)
    if count % 2 == 0:
        raise ValueError(f"{count} fields; vector voting needs an odd number")
    if count == 1:
        return fields[0]
    majorities = list(combinations(range(count), count // 2 + 1))
    costs = torch.stack([_spread(fields[list(group)], reduced) for group in majorities])
    majority_weights = torch.softmax(-costs / temperature, dim=0)  # (majorities, H, W)
    weights = torch.zeros(count, *fields.shape[-2:], device=fields.device)
    for group, weight in zip(majorities, majority_weights, strict=True):
        weights[list(group)] += weight / len(group)
    return (fields * weights[:, None]).sum(0)


def _spread(fields: Tensor, sigma: float) -> Tensor:
    """Mean distance (H, W) of all pairs of fields (N, 2, H, W), smoothed by `sigma` px."""
    pairs = [
        length((fields[i] - fields[j])[None])
        for i in range(len(fields))
        for j in range(i + 1, len(fields))
    ]
    mean = torch.stack(pairs).mean(0)[:, None]
    return smooth(mean, sigma)[0, 0] if sigma > 0 else mean[0, 0]


def smooth(image: Tensor, sigma: float) -> Tensor:
    """`image` (N, C, H, W) smoothed by a Gaussian of `sigma` px; its border is mirrored."""
    radius = min(int(3 * sigma + 0.5), *(size - 1 for size in image.shape[-2:]))
    steps = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel = kernel / kernel.sum()
    channels = image.shape[1]
    padded = functional.pad(image, [radius] * 4, mode="reflect")
    rows = kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(
        functional.conv2d(padded, rows, groups=channels), columns, groups=channels
    )
