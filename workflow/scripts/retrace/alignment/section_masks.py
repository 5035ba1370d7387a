"""Ternary masks of the defects of whole sections, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from retrace.alignment.stack_sampling import AtLeast
from retrace.formats.source import DefectMaskSource
from retrace.geometry import VoxelBox
from retrace.storage.volumes import Volume, mask_on_grid, open_source
from retrace.targets.ternary import ternary


@dataclass(frozen=True)
class SectionMasks:
    """Masks of `sections` (Z, Y, X) from a layer `bad`, whose voxels may be larger.

    `near_px`: radius of the label 1 around a defect.
    """

    sections: Volume
    bad: Volume
    near_px: int

    @classmethod
    def open(cls, source: DefectMaskSource, sections: Volume, near_px: int) -> SectionMasks:
        """The masks of a layer that marks defects."""
        volume = open_source(source)
        marked = AtLeast(volume.array, source.defect_from)
        return cls(sections, replace(volume, array=marked), near_px)

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
        bad = mask_on_grid(self.bad, box, self.sections.voxel_size_nm)
        labels = ternary(torch.from_numpy(bad), far)[None]
        height, width = labels.shape[2:]
        return labels[..., far : height - far, far : width - far]
