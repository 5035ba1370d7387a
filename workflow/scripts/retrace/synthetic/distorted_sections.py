"""Generated stacks with known displacements: for the demo, the tests, and to judge by."""

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
from retrace.synthetic.neurites import generate
from retrace.targets.ternary import INSIDE, ternary


@dataclass(frozen=True)
class Distortion:
    """What is done to each section; pixels, and probabilities of one section.

    `jitter_px`: greatest whole translation per axis. `warp_px`: greatest smooth displacement per
    axis, on control points `spacing_px` apart. `contrast`: how far gain may be from 1; a tenth of
    it is added or taken as brightness. `near_px`: radius of the label 1 around a defect.
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
        """How far tissue may be moved, without defects."""
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
    """The defects of one section. The draws of one kind do not depend on the others' chances."""
    streams = rng.spawn(len(DRAW))
    chances = {name: getattr(distortion, name) for name in DRAW}
    return [
        DRAW[name](stream, shape)
        for (name, chance), stream in zip(chances.items(), streams, strict=True)
        if stream.random() < chance
    ]


def distort(
    section: Tensor, rng: np.random.Generator, distortion: Distortion
) -> tuple[Tensor, Tensor, Tensor]:
    """A section with everything done to it.

    `section` (H + 2m, W + 2m) float32 in [0, 1], m = `reach_px`. Returns the image (H, W) in
    [0, 1], ternary labels (H, W) uint8, and the displacement (2, H, W) px: the image at p is the
    section at m + p + displacement. Inside a defect the displacement says nothing.
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
    """Gain about the mean and brightness of a section (H, W) in [0, 1]; zeros stay zeros."""
    gain = 1 + rng.uniform(-1, 1) * distortion.contrast
    shift = rng.uniform(-1, 1) * distortion.contrast / 10
    seen = image > 0
    mean = image[seen].mean() if bool(seen.any()) else image.new_zeros(())
    return torch.where(seen, (mean + (image - mean) * gain + shift).clamp(1 / 255, 1), image)


def distort_sections(
    sections: np.ndarray, seed: int, distortion: Distortion, name: str = "phantom"
) -> Stack:
    """Sections (S, H + 2m, W + 2m) uint8, m = `reach_px`, each distorted for itself: (S, H, W).

    A section's distortion depends on the seed and its number alone.
    """
    margin = 2 * distortion.reach_px
    if min(sections.shape[1:]) <= margin:
        raise ConfigError(
            f"sections of {list(sections.shape[1:])} px leave nothing of a distortion that reaches "
            f"{distortion.reach_px} px; make them larger or `jitter_px` and `warp_px` smaller"
        )
    done = [
        distort(
            torch.from_numpy(section.astype(np.float32) / 255),
            np.random.default_rng((seed, number)),
            distortion,
        )
        for number, section in enumerate(sections)
    ]
    images, labels, fields = (torch.stack(parts) for parts in zip(*done, strict=True))
    return Stack(name, images, labels, fields)


def phantom_stack(
    shape: Sequence[int],
    seed: int,
    distortion: Distortion | None = None,
    voxel_size_nm: Sequence[int] = (40, 8, 8),
) -> Stack:
    """Neurites of retrace.phantom, (S, H, W) of them, each section distorted for itself.

    ConfigError where fewer than two sections are asked for.
    """
    distortion = distortion or Distortion()
    sections, height, width = shape
    if sections < 2:
        raise ConfigError(f"a phantom of {sections} section has no pair; ask for 2 or more")
    margin = 2 * distortion.reach_px
    raw, _ = generate((sections, height + margin, width + margin), voxel_size_nm, seed)
    return distort_sections(raw, seed, distortion, f"phantom_{seed}")
