"""Metadata of OME-Zarr images: which array is which level, its voxel size and position.

Format: ngff.openmicroscopy.org, 0.4 (`multiscales`) and 0.5 (`ome: multiscales`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul
from typing import Any

from retrace.errors import DataError
from retrace.formats.attributes import axis_letters, exact, spatial, unit_in_nm
from retrace.formats.contract import Statement


def images(attrs: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The images in a group's attributes."""
    ome = attrs.get("ome")
    found = attrs.get("multiscales") or (ome.get("multiscales") if isinstance(ome, Mapping) else ())
    return [image for image in found or () if isinstance(image, Mapping)]


def level(name: str, image: Mapping[str, Any], mip: int) -> Mapping[str, Any]:
    """The metadata of level `mip` (0 is the finest); DataError lists the existing levels."""
    levels: Sequence[Mapping[str, Any]] = image["datasets"]
    if not 0 <= mip < len(levels):
        existing = ", ".join(f"{i}: {entry['path']}" for i, entry in enumerate(levels))
        raise DataError(
            f"{name} has no level {mip}; it has {existing}. Correct `mip` of the dataset"
        )
    return levels[mip]


def axes_of(image: Mapping[str, Any], dimensions: int) -> list[str]:
    """The names of the stored axes; versions 0.1 and 0.2 have none and are t, c, z, y, x."""
    axes = image.get("axes") or list("tczyx")[-dimensions:]
    return [axis["name"] if isinstance(axis, Mapping) else str(axis) for axis in axes]


def stated_letters(name: str, image: Mapping[str, Any], dimensions: int) -> str:
    """A letter for each stored axis; DataError for axes that are not t, c, z, y and x."""
    names = axes_of(image, dimensions)
    letters = axis_letters(names)
    if letters is None or len(letters) != dimensions:
        raise DataError(
            f"{name} has the axes {names} and {dimensions} dimensions; z, y and x are needed, and "
            "perhaps t and c"
        )
    return letters


def image_statements(
    image: Mapping[str, Any], mip: int, letters: str
) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """Voxel size and position of a level, in the order z, y, x.

    By the specification, a translation is the position of the first voxel's centre; most programs
    write that of its corner. It is taken as the centre only if it differs from the translation of
    level 0 by half the difference of the voxel sizes. A scale of 1, 1, 1 without a unit and without
    a translation is a placeholder and states nothing.
    """
    finest, own = (_transform(image, image["datasets"][i], letters) for i in (0, mip))
    if own.scale is None:
        return (), ()
    units = _units(image, letters)
    has_unit = None not in units
    if not has_unit and finest.scale == (1, 1, 1) and not any(finest.translation or ()):
        return (), ()
    lengths = [unit if has_unit and unit else Fraction(1) for unit in units]
    suffix = " nm" if has_unit else ""
    size = tuple(exact(v, u) for v, u in zip(own.scale, lengths, strict=True))
    sizes = (Statement(size, f"OME-Zarr scale {list(size)}{suffix}", has_unit),)
    if own.translation is None:
        return sizes, ()
    corner = _corner(finest, own, mip)
    start = tuple(exact(v, u) for v, u in zip(corner, lengths, strict=True))
    return sizes, (Statement(start, f"OME-Zarr translation {list(start)}{suffix}", has_unit),)


@dataclass(frozen=True)
class _Transform:
    """Scale and translation (z, y, x), in the image's units; None where there is none."""

    scale: tuple[float, float, float] | None
    translation: tuple[float, float, float] | None


def _corner(finest: _Transform, own: _Transform, mip: int) -> list[float]:
    """The position (z, y, x) of the first voxel's corner."""
    assert own.scale is not None and own.translation is not None
    fine, fine_start = finest.scale or (1, 1, 1), finest.translation or (0, 0, 0)
    corner = []
    for scale, start, size, begin in zip(own.scale, own.translation, fine, fine_start, strict=True):
        is_centre = mip > 0 and math.isclose(start - begin, (scale - size) / 2)
        corner.append(begin if is_centre else start)
    return corner


def _units(image: Mapping[str, Any], letters: str) -> list[Fraction | None]:
    """The units of z, y, x in nm; None for each axis without a unit of length."""
    axes = image.get("axes") or []
    units = [unit_in_nm(axis.get("unit")) if isinstance(axis, Mapping) else None for axis in axes]
    if len(units) != len(letters):
        return [None] * 3
    return [units[letters.index(letter)] for letter in "zyx"]


def _transform(image: Mapping[str, Any], entry: Mapping[str, Any], letters: str) -> _Transform:
    """The transformations of a level, and then those of the whole image."""
    scale: list[Fraction] | None = None
    start: list[Fraction] | None = None
    for source in (entry, image):
        for step in source.get("coordinateTransformations") or []:
            if step["type"] not in ("scale", "translation"):
                continue
            values = [Fraction(repr(v)) for v in spatial(step["type"], step[step["type"]], letters)]
            if step["type"] == "scale":
                scale = values if scale is None else _each(mul, scale, values)
                start = None if start is None else _each(mul, start, values)
            else:
                start = values if start is None else _each(add, start, values)
    return _Transform(_floats(scale), _floats(start))


def _each(
    combine: Callable[[Fraction, Fraction], Fraction],
    one: Sequence[Fraction],
    other: Sequence[Fraction],
) -> list[Fraction]:
    return [combine(a, b) for a, b in zip(one, other, strict=True)]


def _floats(values: Sequence[Fraction] | None) -> tuple[float, float, float] | None:
    if values is None:
        return None
    z, y, x = (exact(float(value)) for value in values)
    return z, y, x
