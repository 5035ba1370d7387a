"""Artificial cracks, folds and missing areas in a section.

Cracks follow SEAMLeSS (aug.py `crack`; Mitchell et al. 2019 on cracks): a seam that walks randomly
from a start in the middle half, with a width and a grey filling. The source of SEAMLeSS's folds
(`fold_test.fold`) is not public; here a fold swallows a strip of tissue along a seam and pulls
tissue in from both sides, less and less with distance (radius).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from retrace.augment.resample import sample_linear, sample_nearest
from retrace.targets.ternary import INSIDE

UniformRange = tuple[float, float]
"""Ends of a uniform distribution."""
CRACK_WIDTH_PX: UniformRange = (4, 32)
FOLD_RADIUS_PX: UniformRange = (40, 100)
SEAM_C: UniformRange = (3, 10)
"""A seam steps aside with probability 1 / c per row; range of c (Mitchell et al. 2019)."""
DARK, LIGHT = (0.01, 0.15), (0.85, 0.99)
"""Grey values of a crack's filling, each with probability 1/2 (Mitchell et al. 2019)."""


@dataclass(frozen=True)
class SectionDefect:
    """The effect of a defect on a section of (H, W) pixels."""

    displacement: Tensor
    """(2, H, W) px, y and x: pixel p shows what was at p + displacement."""
    inside: Tensor
    """(H, W) bool: where `fill` replaces tissue."""
    fill: Tensor
    """(H, W) in [0, 1]."""

    def to(self, device: torch.device) -> SectionDefect:
        """A copy on `device`."""
        return SectionDefect(*(t.to(device) for t in (self.displacement, self.inside, self.fill)))


def draw_seam(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Column of a seam in each row, (rows,) int; it starts in the middle half of the columns."""
    start = rng.integers(columns // 4, max(columns - columns // 4, columns // 4 + 1))
    step = rng.random(rows) < 1 / rng.uniform(*SEAM_C)
    sides = rng.choice((-1, 1), rows) if rng.random() < 0.5 else rng.choice((-1, 1))
    return start + np.cumsum(step * sides) - (step * sides)[0]


def _distance_to_seam(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """Signed distance in columns from a seam along y, and whether to transpose it to run along x.

    (H, W), or (W, H) if transposed; negative left of the seam.
    """
    transposed = bool(rng.random() < 0.5)
    rows, columns = shape[::-1] if transposed else shape
    seam = draw_seam(rng, rows, columns)
    return np.arange(columns)[None, :] - seam[:, None], transposed


def _filling(rng: np.random.Generator, shape: tuple[int, int], noise: float) -> np.ndarray:
    """Grey values (H, W) in (0, 1], dark or light, with Gaussian noise."""
    grey = rng.uniform(*(DARK if rng.random() < 0.5 else LIGHT))
    return np.clip(rng.normal(grey, noise, shape), 1 / 255, 1)


def _defect(
    across: np.ndarray, inside: np.ndarray, fill: np.ndarray, transposed: bool
) -> SectionDefect:
    """A defect from the displacement across a seam along y, transposed if the seam is along x."""
    field = np.stack((np.zeros_like(across), across))
    if transposed:
        field, inside, fill = field[::-1].transpose(0, 2, 1), inside.T, fill.T
    return SectionDefect(
        torch.from_numpy(field.astype(np.float32).copy()),
        torch.from_numpy(inside.copy()),
        torch.from_numpy(fill.astype(np.float32).copy()),
    )


def draw_crack(
    rng: np.random.Generator, shape: tuple[int, int], width_px: UniformRange = CRACK_WIDTH_PX
) -> SectionDefect:
    """A crack in a section of `shape` (H, W): a gap of constant width along a seam.

    Tissue to the left of the seam, or above it, is moved away by the width.
    """
    distance, transposed = _distance_to_seam(rng, shape)
    width = int(rng.integers(int(width_px[0]), max(int(width_px[1]), int(width_px[0]) + 1)))
    inside = (distance < 0) & (distance >= -width)
    fill = _filling(rng, inside.shape, 0.05)
    return _defect(np.where(distance < 0, float(width), 0.0), inside, fill, transposed)


def draw_fold(
    rng: np.random.Generator, shape: tuple[int, int], radius_px: UniformRange = FOLD_RADIUS_PX
) -> SectionDefect:
    """A fold in a section of `shape` (H, W): a dark line that swallowed a strip of tissue.

    Tissue on both sides is pulled in, decaying exponentially with the distance over the radius. The
    strip is 1/4 to 3/4 of the radius wide, which does not tear the rest of the section.
    """
    distance, transposed = _distance_to_seam(rng, shape)
    radius = rng.uniform(*radius_px)
    swallowed = radius * rng.uniform(0.25, 0.75)
    line = max(2.0, swallowed / 4)
    across = np.sign(distance + 0.5) * swallowed / 2 * np.exp(-np.abs(distance) / radius)
    inside = np.abs(distance) < line / 2
    fill = np.clip(rng.normal(rng.uniform(*DARK), 0.03, inside.shape), 1 / 255, 1)
    return _defect(across, inside, fill, transposed)


def draw_missing(rng: np.random.Generator, shape: tuple[int, int]) -> SectionDefect:
    """A missing area in a section of `shape` (H, W): a rotated ellipse, black (0) or of one grey.

    Its half axes are 1/16 to 1/4 of the sides.
    """
    rows, columns = np.indices(shape, dtype=np.float32)
    centre = [rng.uniform(0, n) for n in shape]
    axes = [rng.uniform(n / 16, n / 4) for n in shape]
    angle = rng.uniform(0, math.pi)
    y, x = rows - centre[0], columns - centre[1]
    rotated = (math.cos(angle) * y + math.sin(angle) * x, math.cos(angle) * x - math.sin(angle) * y)
    inside = sum((part / axis) ** 2 for part, axis in zip(rotated, axes, strict=True)) < 1
    grey = 0.0 if rng.random() < 0.5 else rng.uniform(1 / 255, 1)
    fill = np.full(shape, grey)
    return _defect(np.zeros(shape), np.asarray(inside), fill, transposed=False)


DRAW = {"crack": draw_crack, "fold": draw_fold, "missing": draw_missing}
"""By kind of defect, the function that draws one."""


def pixel_grid(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Pixel coordinates (2, H, W) float32, y and x, of an image of `shape` (H, W)."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def pull(
    image: Tensor, displacement: Tensor, corner: tuple[int, int] = (0, 0), outside: str = "zero"
) -> Tensor:
    """(H, W): `image` (Y, X) float at p + corner + `displacement` (2, H, W) px, bilinear.

    Outside the image: 0 with "zero", the nearest pixel with "border".
    """
    return sample_linear(image[None], _points(displacement, corner, image.shape, outside))[0]


def pull_labels(labels: Tensor, displacement: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
    """(H, W): `labels` (Y, X) nearest to p + corner + `displacement` (2, H, W) px, 0 outside."""
    return sample_nearest(labels[None], _points(displacement, corner, labels.shape, "zero"))[0]


def _points(
    displacement: Tensor, corner: tuple[int, int], shape: Sequence[int], outside: str
) -> Tensor:
    """Coordinates (3, 1, H, W) at which an image of `shape` is read, as if it were section 0."""
    size = (displacement.shape[1], displacement.shape[2])
    y, x = (displacement + pixel_grid(size, displacement.device)).unbind()
    y, x = y + corner[0], x + corner[1]
    if outside == "border":
        y, x = y.clamp(0, shape[0] - 1), x.clamp(0, shape[1] - 1)
    return torch.stack((torch.zeros_like(y), y, x))[:, None]


def apply_defect(image: Tensor, labels: Tensor, defect: SectionDefect) -> tuple[Tensor, Tensor]:
    """`image` (H, W) in [0, 1] with the defect, and `labels` (H, W) with INSIDE in the defect."""
    with_defect = torch.where(defect.inside, defect.fill, pull(image, defect.displacement))
    moved = pull_labels(labels, defect.displacement)
    return with_defect, torch.where(defect.inside, torch.full_like(moved, INSIDE), moved)
