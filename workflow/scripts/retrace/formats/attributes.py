"""Voxel sizes and positions in the attributes of an array: one function for each convention.

Attributes are those of zarr, n5 and h5. Lists of numbers have one entry for each axis in the stored
order, or one for each of its spatial axes; a single number counts for every spatial axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from retrace.errors import DataError
from retrace.formats.contract import Statement

Attributes = Mapping[str, Any]
Quantity = Literal["voxel size", "position"]
Found = Iterator[tuple[Quantity, Statement]]

NM_PER_UNIT: Mapping[str, Fraction] = {
    name: nm
    for names, nm in (
        ("pm picometer picometre picometers picometres", Fraction(1, 1000)),
        ("å angstrom angstroms ångström", Fraction(1, 10)),
        ("nm nanometer nanometre nanometers nanometres", Fraction(1)),
        ("um µm μm micron microns micrometer micrometre micrometers micrometres", Fraction(1000)),
        ("mm millimeter millimetre millimeters millimetres", Fraction(10**6)),
        ("cm centimeter centimetre centimeters centimetres", Fraction(10**7)),
        ("m meter metre meters metres", Fraction(10**9)),
    )
    for name in names.split()
}
"""Length of each unit in nm."""
NO_UNITS = (
    "",
    "pixel",
    "pixels",
    "px",
    "voxel",
    "voxels",
    "none",
    "null",
    "unknown",
    "dimensionless",
)
"""Units that say nothing about a length."""


@dataclass(frozen=True)
class Convention:
    """One way to write voxel size and position into attributes."""

    name: str
    keys: tuple[str, ...]
    about: str
    """How the values are read, for the documentation."""
    read: Callable[[Attributes, str], Found]
    """Function (attributes, stored axes) -> what they state; DataError for values of no sense."""


def unit_in_nm(unit: Any) -> Fraction | None:
    """The length of a unit in nm, None for one that is absent or says nothing about a length.

    DataError for other units, such as parsec.
    """
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    if unit is None or (isinstance(unit, str) and unit.strip().lower() in NO_UNITS):
        return None
    if not isinstance(unit, str) or unit.strip().lower() not in NM_PER_UNIT:
        raise DataError(f"{unit!r} is no unit that is read; allowed: {', '.join(NM_PER_UNIT)}")
    return NM_PER_UNIT[unit.strip().lower()]


def exact(value: Any, unit: Fraction = Fraction(1)) -> float:
    """A decimal number of a file times a unit, without the errors of binary fractions."""
    number = Fraction(repr(value) if isinstance(value, float) else value) * unit
    return int(number) if number.denominator == 1 else float(number)


def spatial(key: str, value: Any, axes: str) -> tuple[Any, Any, Any]:
    """The entries for z, y, x of an attribute; DataError if they are not finite numbers."""
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    letters = axes if len(values) == len(axes) else "".join(a for a in axes if a in "zyx")
    if len(values) != len(letters):
        raise DataError(
            f"`{key}` is {value!r}; it must be a number, or one for each of the axes {letters}"
        )
    z, y, x = (_finite(key, values[letters.index(letter)]) for letter in "zyx")
    return z, y, x


def _finite(key: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value != value or abs(value) == float("inf"):
        raise DataError(f"`{key}` contains {value!r}, which is no finite number")
    return float(value) if isinstance(value, float) else int(value)


def _stated(
    quantity: Quantity, key: str, value: Any, axes: str, units: Sequence[Any] | None
) -> Iterator[tuple[Quantity, Statement]]:
    """One attribute as a statement; `units`: in nm for z, y, x, None for the unit nm."""
    numbers = spatial(key, value, axes)
    if quantity == "voxel size" and min(numbers) <= 0:
        raise DataError(f"`{key}` is {value!r}; voxel sizes must be above 0")
    lengths = [Fraction(1)] * 3 if units is None else units
    has_unit = all(length is not None for length in lengths)
    values = tuple(
        exact(number, length if has_unit else Fraction(1))
        for number, length in zip(numbers, lengths, strict=True)
    )
    written = f"`{key}` {list(values)}" + (" nm" if has_unit else "")
    yield quantity, Statement(values, written, has_unit)


def _units(value: Any, axes: str) -> list[Fraction | None] | None:
    """The units of z, y, x in nm; None where the attribute is absent, which stands for nm."""
    if value is None:
        return None
    units = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    letters = axes if len(units) == len(axes) else "".join(a for a in axes if a in "zyx")
    if len(units) != len(letters):
        raise DataError(f"`units` is {value!r}; it must have one entry for each of {letters}")
    return [unit_in_nm(units[letters.index(letter)]) for letter in "zyx"]


# ---------------------------------------------------------------- conventions


def _funlib(attrs: Attributes, axes: str) -> Found:
    units = _units(attrs.get("units"), axes)
    for key, quantity in FUNLIB_KEYS.items():
        if attrs.get(key) is not None:
            yield from _stated(quantity, key, attrs[key], axes, units)


FUNLIB_KEYS: Mapping[str, Quantity] = {
    "resolution": "voxel size",
    "voxel_size": "voxel size",
    "offset": "position",
}


def _transform(attrs: Attributes, axes: str) -> Found:
    content = attrs.get("transform")
    if not isinstance(content, Mapping):
        return
    names = content.get("axes")
    own_axes = "".join(names) if isinstance(names, list) else axes
    units = _units(content.get("units"), own_axes) or [None] * 3
    for key, quantity in (("scale", "voxel size"), ("translate", "position")):
        if content.get(key) is not None:
            yield from _stated(quantity, f"transform.{key}", content[key], own_axes, units)  # type: ignore[arg-type]


def _pixel_resolution(attrs: Attributes, axes: str) -> Found:
    content = attrs.get("pixelResolution")
    if content is None:
        return
    is_group = isinstance(content, Mapping)
    unit = unit_in_nm(content.get("unit")) if is_group else None
    value = content.get("dimensions") if is_group else content
    yield from _stated("voxel size", "pixelResolution", value, axes, [unit] * 3)


def _element_size(attrs: Attributes, axes: str) -> Found:
    if (value := attrs.get("element_size_um")) is not None:
        yield from _stated("voxel size", "element_size_um", value, axes, [Fraction(1000)] * 3)


CONVENTIONS = (
    Convention(
        "funlib, gunpowder, CREMI",
        ("resolution", "voxel_size", "offset", "units", "axis_names"),
        "`resolution` or `voxel_size`, and the position of the first voxel's corner, in `units`, "
        "or nm without them.",
        _funlib,
    ),
    Convention(
        "CellMap, COSEM",
        ("transform",),
        "`scale` and `translate` in `units`, for the axes in `axes`. Without `units` there is no "
        "unit.",
        _transform,
    ),
    Convention(
        "n5-viewer, BigDataViewer",
        ("pixelResolution",),
        "`dimensions` in `unit`; a list alone has no unit.",
        _pixel_resolution,
    ),
    Convention(
        "ilastik, PlantSeg",
        ("element_size_um",),
        "The voxel size in micrometres.",
        _element_size,
    ),
)
"""All conventions that are read. Two of them in one file must agree."""


def stated_axes(attrs: Attributes) -> tuple[str, str] | None:
    """The letters of the stored axes that attributes name, and how; None if they name none."""
    for key in ("axis_names", "axes", "_ARRAY_DIMENSIONS"):
        names = list(attrs[key]) if isinstance(attrs.get(key), str) else attrs.get(key)
        if isinstance(names, list) and (letters := axis_letters(names)):
            return letters, f"`{key}` {names}"
    return None


def axis_letters(names: Sequence[Any]) -> str | None:
    """A letter for each axis (t, c, z, y, x); None for names that are not axes of an image."""
    short = [LETTERS.get(str(name).rstrip("^").lower(), "") for name in names]
    is_known = "" not in short and len(set(short)) == len(short)
    return "".join(short) if is_known and set("zyx") <= set(short) else None


LETTERS = {letter: letter for letter in "tczyx"} | {
    "channel": "c",
    "channels": "c",
    "channel_dim": "c",
    "time": "t",
}


def statements(attrs: Attributes, axes: str) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """All voxel sizes and positions that attributes state; `axes`: letters in stored order."""
    found = [pair for convention in CONVENTIONS for pair in convention.read(attrs, axes)]
    sizes = tuple(statement for quantity, statement in found if quantity == "voxel size")
    return sizes, tuple(statement for quantity, statement in found if quantity == "position")
