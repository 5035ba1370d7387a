"""Metadata of images with several levels: which array is which level, its size and position.

Format: ngff.openmicroscopy.org, 0.1 to 0.6 (`multiscales`, since 0.5 inside `ome`), and the
`multiscales` of CellMap's n5 and zarr groups, whose levels have a `transform`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from operator import add, mul
from typing import Any

from retrace.errors import DataError
from retrace.formats.attributes import (
    above_0,
    exact,
    spatial,
    transform_axes,
    transform_of,
    unit_in_nm,
    units_in_nm,
)
from retrace.formats.contract import Convention, FormatPage, Statement
from retrace.formats.stated_axes import axis_letters

READ_STEPS = ("scale", "translation", "identity", "sequence", "affine")
"""Types of transformations that are read; affine only without rotation and shear."""
Attributes = Mapping[str, Any]
PAGE = FormatPage(
    title="OME-Zarr (OME-NGFF 0.1 to 0.6)",
    recognised_by="`multiscales` in the attributes of a zarr group, since 0.5 inside `ome`. `array`"
    " names the group, empty for the top; `mip` is the level. An array of it is read with the same "
    "metadata.",
    axes="Stated by `axes`, in any order; since 0.6 by those of the coordinate system that the "
    "levels lead to. In 0.1 and 0.2: t, c, z, y, x.",
    voxel_size="The scale of the level times that of the image, in the units of the axes. Without a"
    " unit it must equal the config's. A scale of 1, 1, 1 without a unit states nothing.",
    position="The translation of the level, read as the position of the first voxel's corner. If it"
    " differs from that of level 0 by half the difference of the voxel sizes, it is that of the "
    "centre.",
    byte_order="As for zarr.",
    channels="The axis of type channel, or named c; a single channel is no axis of the volume.",
    codecs="As for zarr.",
    completeness="As for zarr.",
    refused="Groups with several images, collections of images (bioformats2raw) and plates, with "
    "the arrays to choose from. More than one time point. Transformations other than "
    f"{', '.join(READ_STEPS)}; affine ones that rotate or shear; values at a path; and, since 0.6, "
    "an image that leads to further coordinate systems.",
    conventions=(
        Convention(
            "OME-NGFF",
            ("axes", "coordinateTransformations", "coordinateSystems"),
            "`unit` of each axis",
            "`scale` is the voxel size, `translation` the position of a level.",
        ),
        Convention(
            "CellMap",
            ("multiscales.datasets.transform",),
            "its `units`",
            "As OME-Zarr; also in groups of n5.",
        ),
    ),
)


def images(attrs: Attributes) -> Sequence[Attributes]:
    """The images in a group's attributes, those of each version of the format."""
    ome = attrs.get("ome")
    both = [attrs.get("multiscales"), ome.get("multiscales") if isinstance(ome, Mapping) else ()]
    entries = [image for found in both if isinstance(found, (list, tuple)) for image in found]
    return [image for image in entries if isinstance(image, Mapping)]


def levels(image: Attributes) -> Sequence[Attributes]:
    """The entries of an image's levels, the finest first."""
    entries = image.get("datasets")
    found = entries if isinstance(entries, (list, tuple)) else ()
    return [entry for entry in found if isinstance(entry, Mapping) and "path" in entry]


def level(name: str, image: Attributes, mip: int) -> Attributes:
    """The metadata of level `mip` (0 is the finest); DataError lists the existing levels."""
    entries = levels(image)
    if not 0 <= mip < len(entries):
        existing = ", ".join(f"{i}: {entry['path']}" for i, entry in enumerate(entries))
        raise DataError(
            f"{name} has no level {mip}; it has {existing or 'none'}. Correct `mip` of the dataset"
        )
    return entries[mip]


def level_name(entry: Attributes) -> str:
    """The path of a level's array below its group."""
    return str(entry["path"]).removeprefix("./").strip("/")


# ---------------------------------------------------------------- axes


def _axes(image: Attributes) -> Sequence[Any]:
    """The entries of the axes; since version 0.6 those of the system that the levels are in."""
    systems = image.get("coordinateSystems")
    if not isinstance(systems, (list, tuple)):
        return image.get("axes") or ()
    used = {_output(entry) for entry in levels(image)} - {None}
    named = [s for s in systems if isinstance(s, Mapping) and (not used or s.get("name") in used)]
    if len(named) != 1:
        raise DataError(
            f"its OME-Zarr levels are in the coordinate systems {sorted(map(str, used))} of "
            f"{[s.get('name') for s in systems if isinstance(s, Mapping)]}; one is needed"
        )
    return named[0].get("axes") or ()


def _output(entry: Attributes) -> str | None:
    """The name of the coordinate system that a level's transformation leads to."""
    steps = entry.get("coordinateTransformations")
    last = steps[-1] if isinstance(steps, (list, tuple)) and steps else None
    target = last.get("output") if isinstance(last, Mapping) else None
    target = target.get("name") if isinstance(target, Mapping) else target
    return target if isinstance(target, str) else None


def axes_of(image: Attributes, dimensions: int) -> list[str]:
    """The names of the stored axes; versions 0.1 and 0.2 have none and are t, c, z, y, x."""
    without = list("tczyx")[-dimensions:]
    own = [transform_of(entry).get("axes") for entry in levels(image)[:1]]
    axes = _axes(image) or next(filter(None, own), without)
    return [_axis_name(axis) for axis in axes]


def _axis_name(axis: Any) -> str:
    if not isinstance(axis, Mapping):
        return str(axis)
    return {"channel": "c", "time": "t"}.get(str(axis.get("type")), str(axis.get("name")))


def own_letters(image: Attributes) -> str | None:
    """A letter for each axis that the image names; None if it names none, or others."""
    return axis_letters([_axis_name(axis) for axis in _axes(image)])


def stated_letters(image: Attributes, dimensions: int) -> str:
    """A letter for each stored axis; DataError for axes that are not t, c, z, y and x."""
    names = axes_of(image, dimensions)
    letters = axis_letters(names)
    if letters is None or len(letters) != dimensions:
        raise DataError(
            f"its OME-Zarr axes are {names}, and it has {dimensions} dimensions; z, y and x are "
            "needed, and perhaps t and c. Rename them in the `multiscales` of the group"
        )
    return letters


def _units(image: Attributes, letters: str) -> list[Fraction | None]:
    """The units of z, y, x in nm; None for each axis without a unit of length."""
    axes = list(_axes(image))
    if len(axes) != len(letters):
        return [None] * 3
    of_space = [axes[letters.index(letter)] for letter in "zyx"]
    return [unit_in_nm(a.get("unit")) if isinstance(a, Mapping) else None for a in of_space]


# ---------------------------------------------------------------- size and position


@dataclass(frozen=True)
class LevelStatements:
    """What an image says about one of its levels, in the order z, y, x."""

    sizes: tuple[Statement, ...] = ()
    positions: tuple[Statement, ...] = ()
    written_position: tuple[float, ...] | None = None
    """The position as it is written, before it is read as a centre or a corner; nm."""


def image_statements(image: Attributes, mip: int, letters: str) -> LevelStatements:
    """Voxel size and position of a level.

    By the specification, a translation is the position of the first voxel's centre; most programs
    write that of its corner. It is taken as the centre only if it differs from the translation of
    level 0 by half the difference of the voxel sizes. A scale of 1, 1, 1 without a unit and without
    a translation is a placeholder and states nothing.
    """
    finest, own = (_transform(image, levels(image)[i], letters) for i in (0, mip))
    units = own.units or _units(image, letters)
    has_unit = None not in units
    is_placeholder = finest.scale == (1, 1, 1) and not any(finest.translation or ())
    if is_placeholder and not has_unit:
        return LevelStatements()
    lengths = [unit if has_unit and unit else Fraction(1) for unit in units]
    what = "CellMap" if own.units else "OME-Zarr"
    sizes: tuple[Statement, ...] = ()
    if own.scale is not None:
        sizes = (_statement(f"{what} scale", own.scale, lengths, has_unit),)
    if own.translation is None:
        return LevelStatements(sizes)
    corner = _corner(finest, own, mip)
    position = _statement(f"{what} translation", corner, lengths, has_unit)
    written = tuple(exact(v, u) for v, u in zip(own.translation, lengths, strict=True))
    return LevelStatements(sizes, (position,), written)


def _statement(
    what: str, values: Sequence[float], units: Sequence[Fraction], has_unit: bool
) -> Statement:
    in_nm = [exact(value, unit) for value, unit in zip(values, units, strict=True)]
    return Statement(tuple(in_nm), f"{what} {in_nm}{' nm' if has_unit else ''}", has_unit)


@dataclass(frozen=True)
class _Transform:
    """Scale and translation (z, y, x), in the image's units; None where there is none."""

    scale: tuple[float, float, float] | None
    translation: tuple[float, float, float] | None
    units: Sequence[Fraction | None] | None = None
    """The transformation's own units in nm; None for those of the image's axes."""


def _corner(finest: _Transform, own: _Transform, mip: int) -> list[float]:
    """The position (z, y, x) of the first voxel's corner."""
    assert own.translation is not None
    if own.scale is None:
        return list(own.translation)
    fine, fine_start = finest.scale or (1, 1, 1), finest.translation or (0, 0, 0)
    corner = []
    for scale, start, size, begin in zip(own.scale, own.translation, fine, fine_start, strict=True):
        is_centre = mip > 0 and math.isclose(start - begin, (scale - size) / 2)
        corner.append(begin if is_centre else start)
    return corner


def _transform(image: Attributes, entry: Attributes, letters: str) -> _Transform:
    """The transformations of a level, and then those of the whole image."""
    if transform_of(entry) and "coordinateTransformations" not in entry:
        return _of_cellmap(transform_of(entry), letters)
    of_level = _combined(entry, letters)
    of_image = _combined(image, letters)
    if of_image != (None, None) and image.get("coordinateSystems") is not None:
        raise DataError(
            "its OME-Zarr image leads to further coordinate systems by `coordinateTransformations`;"
            " which one is meant is not stated, so write the image with one coordinate system"
        )
    if of_level[0] is None and of_image[0] is not None and entry is not levels(image)[0]:
        raise DataError(
            f"level {entry['path']} of its OME-Zarr image states no scale, and the image states "
            "one, which is that of level 0; write the scale of each level"
        )
    (scale, start), (image_scale, image_start) = of_level, of_image
    if image_scale is not None:
        scale = image_scale if scale is None else _each(mul, scale, image_scale)
        start = None if start is None else _each(mul, start, image_scale)
    if image_start is not None:
        start = image_start if start is None else _each(add, start, image_start)
    return _Transform(_floats(scale), _floats(start))


def _of_cellmap(content: Attributes, letters: str) -> _Transform:
    axes = transform_axes(content, letters)
    found = (
        content.get(key) and spatial(f"transform.{key}", content[key], axes)
        for key in ("scale", "translate")
    )
    scale, translation = found
    if scale:
        above_0("transform.scale", content["scale"], scale)
    units = units_in_nm(content.get("units"), axes) or [None] * 3
    return _Transform(scale or None, translation or None, units)


Fractions = list[Fraction]


def _combined(source: Attributes, letters: str) -> tuple[Fractions | None, Fractions | None]:
    """Scale and translation of one list of transformations, applied in its order."""
    scale: Fractions | None = None
    start: Fractions | None = None
    for kind, written in _steps(source.get("coordinateTransformations") or []):
        numbers = spatial(f"OME-Zarr {kind}", written, letters)
        if kind == "scale":
            above_0("OME-Zarr scale", written, numbers)
        values = [Fraction(repr(number)) for number in numbers]
        if kind == "scale":
            scale = values if scale is None else _each(mul, scale, values)
            start = None if start is None else _each(mul, start, values)
        else:
            start = values if start is None else _each(add, start, values)
    return scale, start


def _steps(transformations: Any) -> Iterator[tuple[str, Any]]:
    """Scales and translations in their order; DataError for other transformations, by name."""
    for step in transformations if isinstance(transformations, (list, tuple)) else [None]:
        step = step if isinstance(step, Mapping) else {}
        kind = step.get("type")
        if kind == "sequence":
            yield from _steps(step.get("transformations"))
        elif kind == "affine":
            yield from _affine(step.get("affine"))
        elif kind in ("scale", "translation") and kind in step:
            yield kind, step[kind]
        elif kind != "identity":
            written = f"{kind!r} with its values at a path" if kind in READ_STEPS else repr(kind)
            raise DataError(
                f"its OME-Zarr metadata have a transformation of type {written}; read are "
                f"{', '.join(READ_STEPS)}, with their values. Resample the image, or write its "
                "scale and translation"
            )


def _affine(rows: Any) -> Iterator[tuple[str, Any]]:
    """An affine matrix (N, N + 1) that only scales and moves; DataError for any other."""
    try:
        size = len(rows)
        linear = [list(row[:size]) for row in rows]
        move = [row[size] for row in rows]
        others = [v for i, row in enumerate(linear) for j, v in enumerate(row) if i != j]
    except (TypeError, IndexError):
        others, linear, move = [1], [], []
    if any(others):
        raise DataError(
            "its OME-Zarr metadata have an affine transformation that rotates, shears or is stored "
            "at a path; resample the image onto its axes"
        )
    yield "scale", [linear[i][i] for i in range(len(linear))]
    yield "translation", move


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
