"""Where an array is: its voxel size, its offset, and how labels are placed in a larger image.

Triples are in the order z, y, x. Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from retrace.errors import DataError
from retrace.geometry import Triple, VoxelBox, triple

EVEN = "even"
"""The `auto_crop` for labels whose surplus to their image must be even."""


@dataclass(frozen=True)
class Header:
    """An array as its file describes it: (z, y, x) or (c, z, y, x); sizes and offsets in nm."""

    shape: tuple[int, ...]
    dtype: str
    resolution: Sequence[float] | None = None
    offset: Sequence[float] | None = None


def as_list(values: Any) -> list[float] | None:
    """The numbers of a file's attribute, None if it has no such attribute."""
    if values is None:
        return None
    return [int(value) if int(value) == value else float(value) for value in values]


def agreed_voxel_size(
    name: str, stored: Sequence[float] | None, configured: Sequence[int] | None
) -> Triple:
    """The voxel size in whole nm; DataError if it is missing or file and config contradict.

    A file may say 4.6 nm if the config says 5 nm, its rounded value.
    """
    if stored is None and configured is None:
        raise DataError(
            f"{name} has no voxel size: neither a `resolution` attribute (nm, z y x) nor "
            "`voxel_size_nm` in the dataset's config; add the latter"
        )
    if stored is not None and configured is None and any(int(v) != v for v in stored):
        raise DataError(
            f"{name} says its voxel size is {list(stored)} nm; sizes here are whole nm. Add "
            f"`voxel_size_nm: {[round(v) for v in stored]}` to the dataset's config"
        )
    rounded = None if stored is None else triple([round(value) for value in stored])
    if rounded is not None and configured is not None and rounded != triple(configured):
        raise DataError(
            f"{name} says its voxel size is {stored} nm, the config says {list(configured)} nm; "
            "correct `voxel_size_nm` in the dataset's config"
        )
    if rounded is not None:
        return rounded
    assert configured is not None
    return triple(configured)


def box_on_grid(
    name: str, shape: Sequence[int], offset_nm: Sequence[int], voxel_size_nm: Sequence[int]
) -> VoxelBox:
    """The box of an array, voxels from the world's origin; DataError if off the voxel grid."""
    if any(o % v for o, v in zip(offset_nm, voxel_size_nm, strict=True)):
        raise DataError(
            f"{name}: offset {list(offset_nm)} nm is no multiple of the voxel size "
            f"{list(voxel_size_nm)} nm; correct `offset_nm` in the dataset's config"
        )
    offset = [o // v for o, v in zip(offset_nm, voxel_size_nm, strict=True)]
    return VoxelBox(triple(offset), triple(shape[-3:]))


def lead_in_image(
    labels: str,
    inner: Sequence[int],
    image: str,
    outer: Sequence[int],
    crop: bool | Literal["even"],
) -> list[int]:
    """Voxels of the image before the first voxel of labels that are in its middle.

    `inner`, `outer`: shapes of labels and image. The central voxels coincide; of an even size, the
    lower of the two is taken. DataError if the labels do not fit.
    """
    if list(inner) != list(outer) and not crop:
        raise DataError(
            f"{labels} has {list(inner)} voxels, {image} {list(outer)}; use labels as "
            "large as the image, or set `auto_crop: true` (is_auto_crop = yes in a .spec) to put "
            "them in its middle"
        )
    if any(small > large for small, large in zip(inner, outer, strict=True)):
        raise DataError(f"{labels} {list(inner)} is larger than {image} {list(outer)}")
    surplus = [large - small for small, large in zip(inner, outer, strict=True)]
    if crop == EVEN and any(n % 2 for n in surplus):
        raise DataError(
            f"{image} is {surplus} voxels (z, y, x) larger than {labels}; labels are in "
            "the middle of their image, so each surplus must be even. Cut one section or row off "
            "the image"
        )
    return [(large - 1) // 2 - (small - 1) // 2 for small, large in zip(inner, outer, strict=True)]
