"""Grows a segmentation into its unassigned voxels."""

from __future__ import annotations

from scipy import ndimage

from retrace.errors import DataError
from retrace.storage.volumes import Volume


def fill_unassigned(segmentation: Volume) -> Volume:
    """The segmentation (Z, Y, X) with each voxel of 0 or below given the nearest label above 0.

    Distances are in nm. The whole volume is read into memory. Raises DataError if no label is above
    0.
    """
    data = segmentation.read(segmentation.box)
    if not (data > 0).any():
        raise DataError(f"{segmentation.name} has no id above 0; there is nothing to grow")
    nearest = ndimage.distance_transform_edt(
        data <= 0,
        sampling=segmentation.voxel_size_nm,
        return_distances=False,
        return_indices=True,
    )
    filled = data[tuple(nearest)]
    return Volume(filled, segmentation.voxel_size_nm, segmentation.offset_nm, segmentation.name)
