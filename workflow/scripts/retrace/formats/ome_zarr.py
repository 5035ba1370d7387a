"""OME-Zarr images: which array is a level of them, and where it lies.

Metadata: ngff.openmicroscopy.org, 0.4 (`multiscales`) and 0.5 (`ome: multiscales`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrace.errors import DataError

NM = {"angstrom": 0.1, "nanometer": 1.0, "micrometer": 1e3, "millimeter": 1e6}
"""Nanometres of a unit; without a known one, the file says no voxel size."""


def multiscale(attrs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The image that a group's attributes describe, None where they describe none."""
    images = attrs.get("multiscales") or (attrs.get("ome") or {}).get("multiscales")
    found: Mapping[str, Any] | None = images[0] if images else None
    return found


def level(name: str, image: Mapping[str, Any], mip: int) -> Mapping[str, Any]:
    """A level of an image, 0 the finest; DataError lists those that it has."""
    levels: Sequence[Mapping[str, Any]] = image["datasets"]
    if not 0 <= mip < len(levels):
        known = ", ".join(f"{i}: {entry['path']}" for i, entry in enumerate(levels))
        raise DataError(f"{name} has no level {mip}; it has {known}. Correct `mip` of the dataset")
    return levels[mip]


def leading_axes(name: str, image: Mapping[str, Any], shape: Sequence[int]) -> int:
    """How many axes stand before z, y, x without meaning, being of size 1 (time, channel).

    DataError where the axes are others than z, y, x behind t, c, both or none.
    """
    axes = [axis["name"] for axis in image.get("axes", [])] or list("tczyx")[-len(shape) :]
    if axes[-3:] != list("zyx") or len(axes) != len(shape):
        raise DataError(f"{name} has the axes {axes}; [t, c,] z, y, x are read")
    return next((i for i, size in enumerate(shape[:-3]) if size > 1), len(shape) - 3)


def place(image: Mapping[str, Any], mip: int) -> dict[str, list[float]]:
    """`resolution` and `offset` of a level, nm (z, y, x); empty where the units are not known.

    A translation is that of the first voxel's centre, as the format says, where it is half a voxel
    more than that of level 0; that of its corner otherwise, which most programs write.
    """
    units = [NM.get(axis.get("unit", ""), math.nan) for axis in image.get("axes", [])[-3:]]
    if len(units) < 3 or any(math.isnan(unit) for unit in units):
        return {}
    finest, own = (_transform(image, image["datasets"][index]) for index in (0, mip))
    offset = []
    for scale, start, fine, fine_start in zip(*own, *finest, strict=True):
        centred = mip > 0 and math.isclose(start - fine_start, (scale - fine) / 2)
        offset.append(fine_start if centred else start)
    whole = {"resolution": own[0], "offset": offset}
    return {k: [round(v * u, 6) for v, u in zip(vs, units, strict=True)] for k, vs in whole.items()}


def _transform(image: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[list[float], ...]:
    """Scale and translation (z, y, x) of a level in the image's units."""
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
