"""Artificial cracks, folds and missing areas in one section.

Each is drawn with numpy, applied in torch. Cracks follow SEAMLeSS (aug.py `crack`, paper section on
cracks): a seam that walks at random from a start in the middle half, a width, a grey filling. The
folds of its `fold_test.fold` are not in the stored sources: here a seam swallows a strip of tissue,
which is pulled in from both sides and less and less with distance (radius).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrace.augment.resample import sample_linear, sample_nearest

Range = tuple[float, float]
CRACK_WIDTH_PX: Range = (4, 32)
FOLD_RADIUS_PX: Range = (40, 100)
SEAM_C: Range = (3, 10)
"""A seam steps aside with probability 1 / c a row; c is drawn from this range (paper)."""
DARK, LIGHT = (0.01, 0.15), (0.85, 0.99)
"""Grey values of a crack's filling (paper); a coin chooses."""
INSIDE = 2


@dataclass(frozen=True)
class SectionDefect:
    """What a defect does to a section of (H, W) pixels.

    `displacement` (2, H, W) px, y and x: what is shown at p was at p + displacement. `inside`
    (H, W): where no tissue is shown, but `fill` (H, W) in [0, 1].
    """

    displacement: Tensor
    inside: Tensor
    fill: Tensor

    def to(self, device: torch.device) -> SectionDefect:
        return SectionDefect(*(t.to(device) for t in (self.displacement, self.inside, self.fill)))


def draw_seam(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Column of a seam at each row, (rows,) int; it starts in the middle half of the columns."""
    start = rng.integers(columns // 4, max(columns - columns // 4, columns // 4 + 1))
    step = rng.random(rows) < 1 / rng.uniform(*SEAM_C)
    sides = rng.choice((-1, 1), rows) if rng.random() < 0.5 else rng.choice((-1, 1))
    return start + np.cumsum(step * sides) - (step * sides)[0]


def _beyond(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """Columns right of a seam, (H, W), negative left of it; and whether it runs along x instead."""
    lying = bool(rng.random() < 0.5)
    rows, columns = shape[::-1] if lying else shape
    seam = draw_seam(rng, rows, columns)
    return np.arange(columns)[None, :] - seam[:, None], lying


def _filling(rng: np.random.Generator, shape: tuple[int, int], noise: float) -> np.ndarray:
    grey = rng.uniform(*(DARK if rng.random() < 0.5 else LIGHT))
    return np.clip(rng.normal(grey, noise, shape), 1 / 255, 1)


def _defect(along: np.ndarray, inside: np.ndarray, fill: np.ndarray, lying: bool) -> SectionDefect:
    """From the displacement across a seam along y; turned where the seam lies along x."""
    parts = np.stack((np.zeros_like(along), along))
    if lying:
        parts, inside, fill = parts[::-1].transpose(0, 2, 1), inside.T, fill.T
    return SectionDefect(
        torch.from_numpy(parts.astype(np.float32).copy()),
        torch.from_numpy(inside.copy()),
        torch.from_numpy(fill.astype(np.float32).copy()),
    )


def draw_crack(
    rng: np.random.Generator, shape: tuple[int, int], width_px: Range = CRACK_WIDTH_PX
) -> SectionDefect:
    """A gap of constant width: what is left of it, or above it, is moved away by that width."""
    beyond, lying = _beyond(rng, shape)
    width = int(rng.integers(int(width_px[0]), max(int(width_px[1]), int(width_px[0]) + 1)))
    inside = (beyond < 0) & (beyond >= -width)
    fill = _filling(rng, inside.shape, 0.05)
    return _defect(np.where(beyond < 0, float(width), 0.0), inside, fill, lying)


def draw_fold(
    rng: np.random.Generator, shape: tuple[int, int], radius_px: Range = FOLD_RADIUS_PX
) -> SectionDefect:
    """A dark line that swallowed a strip of tissue; both sides were pulled in, less far off.

    The strip is 1/4 to 3/4 of the radius wide, so that the rest of the section is not torn.
    """
    beyond, lying = _beyond(rng, shape)
    radius = rng.uniform(*radius_px)
    taken = radius * rng.uniform(0.25, 0.75)
    line = max(2.0, taken / 4)
    pull = np.sign(beyond + 0.5) * taken / 2 * np.exp(-np.abs(beyond) / radius)
    inside = np.abs(beyond) < line / 2
    fill = np.clip(rng.normal(rng.uniform(*DARK), 0.03, inside.shape), 1 / 255, 1)
    return _defect(pull, inside, fill, lying)


def draw_missing(rng: np.random.Generator, shape: tuple[int, int]) -> SectionDefect:
    """A turned ellipse without tissue, black (0) or of one grey; half axes 1/16 to 1/4 a side."""
    rows, columns = np.indices(shape, dtype=np.float32)
    centre = [rng.uniform(0, n) for n in shape]
    axes = [rng.uniform(n / 16, n / 4) for n in shape]
    angle = rng.uniform(0, math.pi)
    y, x = rows - centre[0], columns - centre[1]
    turned = (math.cos(angle) * y + math.sin(angle) * x, math.cos(angle) * x - math.sin(angle) * y)
    inside = sum((part / axis) ** 2 for part, axis in zip(turned, axes, strict=True)) < 1
    grey = 0.0 if rng.random() < 0.5 else rng.uniform(1 / 255, 1)
    fill = np.full(shape, grey)
    return _defect(np.zeros(shape), np.asarray(inside), fill, lying=False)


DRAW = {"crack": draw_crack, "fold": draw_fold, "missing": draw_missing}


def pixel_grid(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Pixel coordinates (2, H, W) float32, y and x."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def pull(
    image: Tensor, displacement: Tensor, corner: tuple[int, int] = (0, 0), outside: str = "zero"
) -> Tensor:
    """`image` (Y, X) float at corner + p + `displacement` (2, H, W) px, bilinear: (H, W).

    `outside` the image: `zero`, or `border` for the nearest pixel.
    """
    return sample_linear(image[None], _points(displacement, corner, image.shape, outside))[0]


def pull_labels(labels: Tensor, displacement: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """`labels` (Y, X) at the pixel nearest to corner + p + `displacement` (2, H, W) px: (H, W).

    0 outside.
    """
    return sample_nearest(labels[None], _points(displacement, corner, labels.shape, "zero"))[0]


def _points(
    displacement: Tensor, corner: tuple[int, int], shape: Sequence[int], outside: str
) -> Tensor:
    """Where in an image of `shape` a section is read, (3, 1, H, W), the first axis being 0."""
    size = (displacement.shape[1], displacement.shape[2])
    y, x = (displacement + pixel_grid(size, displacement.device)).unbind()
    y, x = y + corner[0], x + corner[1]
    if outside == "border":
        y, x = y.clamp(0, shape[0] - 1), x.clamp(0, shape[1] - 1)
    return torch.stack((torch.zeros_like(y), y, x))[:, None]


def apply_defect(image: Tensor, labels: Tensor, defect: SectionDefect) -> tuple[Tensor, Tensor]:
    """The image (H, W) in [0, 1] with the defect, and its labels, 2 inside the defect."""
    shown = torch.where(defect.inside, defect.fill, pull(image, defect.displacement))
    moved = pull_labels(labels, defect.displacement)
    return shown, torch.where(defect.inside, torch.full_like(moved, INSIDE), moved)
