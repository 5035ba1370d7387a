"""Synthetic distortions of sections with their ground-truth displacements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from retrace.alignment.stack_files import Stack
from retrace.augment.artificial_defects import DRAW, SectionDefect, apply_defect, pull
from retrace.errors import ConfigError
from retrace.synthetic.neurites import generate_neurites
from retrace.targets.ternary import INSIDE, ternary


@dataclass(frozen=True)
class Distortion:
    """The random distortion of a section: lengths in pixels, defects as probabilities per section.

    `jitter_px`: greatest translation per axis, in whole pixels. `warp_px`: greatest smooth
    displacement per axis, with control points `spacing_px` apart. `contrast`: gain lies within
    1 +- contrast, brightness shifts by up to a tenth of it. `near_px`: radius of the label 1 around
    a defect.
    """

    jitter_px: int = 4
    warp_px: float = 3.0
    spacing_px: int = 64
    crack: float = 0.0
    fold: float = 0.0
    missing: float = 0.0
    contrast: float = 0.3
    near_px: int = 20

    @property
    def reach_px(self) -> int:
        """Greatest displacement of tissue in pixels, without defects."""
        return int(np.ceil(self.jitter_px + self.warp_px)) + 1


def smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], largest_px: float, spacing_px: int
) -> np.ndarray:
    """A smooth displacement (2, H, W) float32 px, at most `largest_px` per axis."""
    nodes = [max(4, n // spacing_px + 3) for n in shape]
    control = rng.uniform(-1, 1, (2, *nodes))
    axes = [np.linspace(1, n - 2, size) for n, size in zip(nodes, shape, strict=True)]
    where = np.meshgrid(*axes, indexing="ij")
    parts = [ndimage.map_coordinates(c, where, order=3, mode="nearest") for c in control]
    field = np.stack(parts)
    return (field / max(1.0, float(np.abs(field).max())) * largest_px).astype(np.float32)


def draw_field(
    rng: np.random.Generator, shape: tuple[int, int], distortion: Distortion
) -> np.ndarray:
    """Jitter plus smooth warp of one section, (2, H, W) float32 px."""
    far = distortion.jitter_px
    shift = rng.integers(-far, far, 2, endpoint=True).astype(np.float32)
    warp = smooth_field(rng, shape, distortion.warp_px, distortion.spacing_px)
    return warp + shift[:, None, None]


def draw_defects(
    rng: np.random.Generator, shape: tuple[int, int], distortion: Distortion
) -> list[SectionDefect]:
    """Defects of one section (H, W). Each kind has its own random stream, so probabilities of the
    other kinds do not change it."""
    return [
        draw(stream, shape)
        for (kind, draw), stream in zip(DRAW.items(), rng.spawn(len(DRAW)), strict=True)
        if stream.random() < getattr(distortion, kind)
    ]


def distort(
    section: Tensor, rng: np.random.Generator, distortion: Distortion
) -> tuple[Tensor, Tensor, Tensor]:
    """Distorted image (H, W) in [0, 1], ternary defect labels (H, W) uint8, displacement (2, H, W).

    `section` (H + 2m, W + 2m) float32 in [0, 1], m = `reach_px`. The displacement is in px: the
    image at p shows the section at m + p + displacement; it is undefined inside defects.
    """
    margin = distortion.reach_px
    shape = (section.shape[0] - 2 * margin, section.shape[1] - 2 * margin)
    geometry, defects, light = rng.spawn(3)
    field = torch.from_numpy(draw_field(geometry, shape, distortion))
    image = pull(section, field, (margin, margin))
    labels = torch.zeros(shape, dtype=torch.uint8)
    for defect in draw_defects(defects, shape, distortion):
        image, labels = apply_defect(image, labels, defect)
        before = [pull(part, defect.displacement, outside="border") for part in field]
        field = defect.displacement + torch.stack(before)
    labels = ternary(labels == INSIDE, distortion.near_px)
    return change_contrast(image, light, distortion), labels, field


def change_contrast(image: Tensor, rng: np.random.Generator, distortion: Distortion) -> Tensor:
    """Section (H, W) in [0, 1] with random gain about its mean and brightness; zeros stay zeros."""
    gain = 1 + rng.uniform(-1, 1) * distortion.contrast
    shift = rng.uniform(-1, 1) * distortion.contrast / 10
    imaged = image > 0
    mean = image[imaged].mean() if bool(imaged.any()) else image.new_zeros(())
    return torch.where(imaged, (mean + (image - mean) * gain + shift).clamp(1 / 255, 1), image)


def distort_sections(
    sections: np.ndarray, seed: int, distortion: Distortion, name: str = "phantom"
) -> Stack:
    """A stack (S, H, W) of sections (S, H + 2m, W + 2m) uint8, m = `reach_px`, each distorted.

    A section's distortion depends only on the seed and its number. ConfigError if nothing is
    left inside the margin.
    """
    margin = 2 * distortion.reach_px
    if min(sections.shape[1:]) <= margin:
        raise ConfigError(
            f"sections of {list(sections.shape[1:])} px are smaller than the margin of a "
            f"distortion that reaches {distortion.reach_px} px; use larger sections, or lower "
            "`jitter_px` and `warp_px`"
        )
    distorted = [
        distort(
            torch.from_numpy(section.astype(np.float32) / 255),
            np.random.default_rng((seed, number)),
            distortion,
        )
        for number, section in enumerate(sections)
    ]
    images, labels, fields = (torch.stack(parts) for parts in zip(*distorted, strict=True))
    return Stack(name, images, labels, fields)


def phantom_stack(
    shape: Sequence[int],
    seed: int,
    distortion: Distortion | None = None,
    voxel_size_nm: Sequence[float] = (40, 8, 8),
) -> Stack:
    """A stack (S, H, W) of generated neurites, each section distorted on its own.

    ConfigError for fewer than two sections.
    """
    distortion = distortion or Distortion()
    sections, height, width = shape
    if sections < 2:
        raise ConfigError(f"a phantom of {sections} section has no pair; request 2 or more")
    margin = 2 * distortion.reach_px
    raw, _ = generate_neurites((sections, height + margin, width + margin), voxel_size_nm, seed)
    return distort_sections(raw, seed, distortion, f"phantom_{seed}")
