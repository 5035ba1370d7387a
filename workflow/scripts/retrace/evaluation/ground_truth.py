"""Ground truth of a region: its labels, and which of their voxels count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrace.formats.label_ids import background_values, is_known
from retrace.geometry import NmBox, VoxelBox
from retrace.storage.label_volumes import read_mask
from retrace.storage.volumes import Volume


@dataclass(frozen=True)
class GroundTruth:
    """Labels (Z, Y, X) of one region, and which of their voxels count.

    Voxels do not count if they are outside `roi_nm`, have a label of 0, below 0 or in `ignored_ids`
    (background), or are 0 in `mask` or outside it.
    """

    labels: Volume
    mask: Volume | None = None
    roi_nm: NmBox | None = None
    ignored_ids: tuple[int, ...] = ()

    @property
    def box(self) -> VoxelBox:
        """The region, in voxels of the labels."""
        if self.roi_nm is None:
            return self.labels.box
        return self.labels.box.intersect(self.roi_nm.to_voxels(self.labels.voxel_size_nm))

    @property
    def box_nm(self) -> NmBox:
        """The region in world coordinates, nm."""
        return self.box.to_nm(self.labels.voxel_size_nm)

    def read(self, box: VoxelBox) -> tuple[np.ndarray, np.ndarray]:
        """Labels of `box`, and which of its voxels count (bool), both (Z, Y, X)."""
        labels = self.labels.read(box)
        background = background_values(self.ignored_ids, labels.dtype)
        keep = is_known(labels, background) & (labels != 0)
        if self.mask is not None:
            keep &= read_mask(self.mask, box)
        return labels, keep
