"""Ternary masks of the defects of whole sections, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from retrace.alignment.stack_sampling import AtLeast
from retrace.formats.source import DefectMaskSource
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume, mask_on_grid, open_source
from retrace.targets.ternary import ternary


@dataclass(frozen=True)
class SectionMasks:
    """Masks of `sections` (Z, Y, X): defects are where one of the volumes `bad` is not 0.

    Their voxels may be larger. `near_px`: radius of the label 1 around a defect.
    """

    sections: Volume
    bad: tuple[Volume, ...]
    near_px: int

    def read(self, z: int, window: Sequence[slice]) -> Tensor:
        """Labels 0, 1 and 2 in a window (y, x) of section `z`, (1, 1, h, w) uint8.

        `z`, y and x count from the first voxel of the sections; 0 outside.
        """
        far, (y, x) = self.near_px, window
        origin = self.sections.box.offset
        box = VoxelBox(
            (origin[0] + z, origin[1] + y.start - far, origin[2] + x.start - far),
            (1, y.stop - y.start + 2 * far, x.stop - x.start + 2 * far),
        )
        size = self.sections.voxel_size_nm
        bad = np.logical_or.reduce([mask_on_grid(volume, box, size) for volume in self.bad])
        labels = ternary(torch.from_numpy(bad), far)[None]
        height, width = labels.shape[2:]
        return labels[..., far : height - far, far : width - far]


def open_marked(source: DefectMaskSource) -> Volume:
    """A layer of defects as a volume that is 1 where it marks one, else 0."""
    volume = open_source(source)
    return replace(volume, array=AtLeast(volume.array, source.defect_from))
