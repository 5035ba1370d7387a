"""Metadata of OME-Zarr images: which array is which level, its voxel size and position.

Format: ngff.openmicroscopy.org, 0.4 (`multiscales`) and 0.5 (`ome: multiscales`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrace.errors import DataError

NM_PER_UNIT = {"angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}
"""Without one of these units, a file has no voxel size."""


def multiscale(attrs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The multiscale metadata in a group's attributes, None if there is none."""
    images = attrs.get("multiscales") or (attrs.get("ome") or {}).get("multiscales")
    image: Mapping[str, Any] | None = images[0] if images else None
    return image


def level(name: str, image: Mapping[str, Any], mip: int) -> Mapping[str, Any]:
    """The metadata of level `mip` (0 is the finest); DataError lists the existing levels."""
    levels: Sequence[Mapping[str, Any]] = image["datasets"]
    if not 0 <= mip < len(levels):
        existing = ", ".join(f"{i}: {entry['path']}" for i, entry in enumerate(levels))
        raise DataError(
            f"{name} has no level {mip}; it has {existing}. Correct `mip` of the dataset"
        )
    return levels[mip]


def leading_axes(name: str, image: Mapping[str, Any], shape: Sequence[int]) -> int:
    """Number of leading axes of size 1 (time, channel), which are left out when reading.

    DataError if the axes are not z, y, x, after t, c, both or neither.
    """
    axes = [axis["name"] for axis in image.get("axes", [])] or list("tczyx")[-len(shape) :]
    if axes[-3:] != list("zyx") or len(axes) != len(shape):
        raise DataError(f"{name} has the axes {axes}; [t, c,] z, y, x are supported")
    return next((i for i, size in enumerate(shape[:-3]) if size > 1), len(shape) - 3)


def resolution_and_offset(image: Mapping[str, Any], mip: int) -> dict[str, list[float]]:
    """`resolution` and `offset` of a level, nm (z, y, x); empty if a unit is unknown.

    By the specification, a translation is the position of the first voxel's centre; most programs
    write that of its corner. It is taken as the centre only if it differs from the translation of
    level 0 by half the difference of the voxel sizes.
    """
    units = [NM_PER_UNIT.get(axis.get("unit", ""), math.nan) for axis in image.get("axes", [])[-3:]]
    if len(units) < 3 or any(math.isnan(unit) for unit in units):
        return {}
    finest, own = (_transform(image, image["datasets"][index]) for index in (0, mip))
    offset = []
    for scale, start, fine, fine_start in zip(*own, *finest, strict=True):
        centred = mip > 0 and math.isclose(start - fine_start, (scale - fine) / 2)
        offset.append(fine_start if centred else start)
    attrs = {"resolution": own[0], "offset": offset}
    return {k: [round(v * u, 6) for v, u in zip(vs, units, strict=True)] for k, vs in attrs.items()}


def _transform(image: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[list[float], ...]:
    """Scale and translation (z, y, x) of a level, in the image's units."""
    scale, start = [1.0] * 3, [0.0] * 3
    for source in (entry, image):
        for step in source.get("coordinateTransformations", []):
            values = step.get(step["type"], [0.0] * 3)[-3:]
            if step["type"] == "scale":
                scale = [s * v for s, v in zip(scale, values, strict=True)]
                start = [s * v for s, v in zip(start, values, strict=True)]
            elif step["type"] == "translation":
                start = [s + v for s, v in zip(start, values, strict=True)]
    return scale, start
