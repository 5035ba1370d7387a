"""Sections that show the same moved blobs, and their alignment by an untrained network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_seamless as tiny
from built_networks import built
from retrace.alignment.aligned_stack import AlignedStack
from retrace.alignment.aligner import Aligner, AlignmentPlan
from retrace.alignment.section_masks import SectionMasks
from retrace.displacement import smooth
from retrace.storage.volumes import Volume

VOXEL_NM = (40, 8, 8)
SHIFTS = [(0, 0), (2, -1), (-1, 2), (1, 1), (-2, 0), (2, 2), (0, -2)]


def volume(images: np.ndarray) -> Volume:
    return Volume(images, VOXEL_NM, (0, 0, 0), "sections")


def moved_blobs(shifts: Sequence[Sequence[int]] | np.ndarray, side: int = 96) -> np.ndarray:
    """The same blobs (n, side, side) uint8, moved by `shifts` (y, x) of less than 16 px."""
    random = torch.Generator().manual_seed(3)
    blobs = smooth(torch.rand(1, 1, side + 32, side + 32, generator=random), 2.0)[0, 0]
    blobs = 0.5 + 0.12 * (blobs - blobs.mean()) / blobs.std()
    parts = [blobs[16 + y : 16 + y + side, 16 + x : 16 + x + side] for y, x in shifts]
    return torch.stack(parts).clamp(0.01, 1).mul(255).round().to(torch.uint8).numpy()


def chained(
    folder: Path, sections: Volume, masks: SectionMasks | None = None, **changes: Any
) -> AlignedStack:
    """The sections aligned one after the other by the correlation of their maps, untrained."""
    network = tiny.typed(tiny.network())
    plan = replace(AlignmentPlan.of(network.align), tile=256, **changes)
    stack = AlignedStack(folder / "chained.zarr", folder / "chained", sections, None, masks=masks)
    radius_px, fill = network.contrast.equalised_radius_px, network.input.mean
    module, device = built(network, seed=0).eval(), torch.device("cpu")
    Aligner(module, plan, device, radius_px=radius_px, fill=fill).run(stack)
    return stack
