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
from retrace.formats.contract import Convention, Statement
from retrace.formats.stated_axes import axis_letters

Attributes = Mapping[str, Any]
Quantity = Literal["voxel size", "position"]
Found = Iterator[tuple[Quantity, Statement]]

LARGEST = 1e300
"""Largest number of attributes, which a float of 64 bits holds."""
IN_ATTRIBUTES = "In [attributes](#attributes-of-zarr-n5-and-h5) of the array or the groups above."
"""For the documentation."""
NM_PER_UNIT: Mapping[str, Fraction] = {
    name: nm
    for names, nm in (
        ("pm picometer picometre picometers picometres", Fraction(1, 1000)),
        ("å angstrom angstroms ångström", Fraction(1, 10)),
        ("nm nanometer nanometre nanometers nanometres", Fraction(1)),
        ("um µm μm micron microns micrometer micrometre micrometers micrometres", Fraction(1000)),
        ("mm millimeter millimetre millimeters millimetres", Fraction(10**6)),
        ("cm centimeter centimetre centimeters centimetres", Fraction(10**7)),
        ("in inch inches", Fraction(25_400_000)),
        ("m meter metre meters metres", Fraction(10**9)),
    )
    for name in names.split()
}
"""Length of each unit in nm."""
SYMBOLS = [name for name in NM_PER_UNIT if len(name) < 3 and name.isascii() or name == "å"]
"""One short name of each unit, for messages."""
PRINT_UNITS = (NM_PER_UNIT["inch"], NM_PER_UNIT["cm"])
"""The units of densities for printing."""
PRINT_NM = 1000
"""Pixels of this size and more, in inches or centimetres, are densities for printing."""
NO_UNITS = frozenset(
    name
    for names in (
        "",
        "pixel, pixels, px, voxel, voxels, slice, slices, frame, frames, index, reference frame",
        "none, null, nan, n/a, unknown, undefined, dimensionless, unitless, 1, %, percent",
        "gray value, gray values, grey value, grey values, gray, grey, intensity, count, counts",
        "dn, digital number, adu, a.u., au, arb. unit, arb. units, arbitrary unit, arbitrary units",
        "electron, electrons, label, labels, id, ids, hu, v, ev, kev, hz, deg, degree, degrees",
        "s, sec, secs, second, seconds, min, minute, minutes, h, hour, hours, day, days",
        "ms, msec, millisecond, milliseconds, us, µs, μs, microsecond, microseconds",
    )
    for name in names.split(", ")
)
"""Units that say nothing about a length: voxels, grey values, times and others."""


@dataclass(frozen=True)
class AttributeConvention(Convention):
    """One way to write voxel size and position into attributes."""

    read: Callable[[Attributes, str], Found]
    """Function (attributes, stored axes) -> what they state; DataError for values of no sense."""


def unit_in_nm(unit: Any, key: str = "unit") -> Fraction | None:
    """The length of a unit in nm, None for one that is absent or says nothing about a length.

    DataError for other units, such as parsec: they may be lengths. `key`: for the message.
    """
    if isinstance(unit, bytes):
        unit = unit.decode("utf-8", "replace")
    name = "" if unit is None else str(unit).strip().lower()
    if name in NO_UNITS:
        return None
    if name not in NM_PER_UNIT:
        raise DataError(
            f"`{key}`: {unit!r} is no unit of length that is read; allowed: {', '.join(SYMBOLS)}, "
            "and their names, such as nanometer"
        )
    return NM_PER_UNIT[name]


def is_print_density(unit: Fraction | None, y: float | None, x: float | None) -> bool:
    """Whether pixels (nm) come from a density for printing, which is no size of the object.

    `unit`: that in which they are stated, in nm.
    """
    return unit in PRINT_UNITS and max(y or 0, x or 0) >= PRINT_NM


def exact(value: Any, unit: Fraction = Fraction(1)) -> float:
    """A decimal number of a file times a unit, without the errors of binary fractions.

    DataError for a number that is larger than any length.
    """
    number = Fraction(repr(value) if isinstance(value, float) else value) * unit
    if abs(number) > LARGEST:
        raise DataError(f"a number of more than {LARGEST:g} is no length; restore the attributes")
    return int(number) if number.denominator == 1 and abs(number) < 2**53 else float(number)


def spatial(key: str, value: Any, axes: str) -> tuple[Any, Any, Any]:
    """The entries for z, y, x of an attribute; DataError if they are not finite numbers."""
    entries = _along_zyx(key, value, axes, "be a number, or one for each of the axes")
    z, y, x = (_finite(key, entry) for entry in entries)
    return z, y, x


def _along_zyx(key: str, value: Any, axes: str, needed: str) -> list[Any]:
    """The entries for z, y, x of an attribute; DataError if its length fits neither kind of list.

    `needed`: what it must be, for the message.
    """
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 3
    letters = axes if len(values) == len(axes) else "".join(a for a in axes if a in "zyx")
    if len(values) != len(letters):
        raise DataError(f"`{key}` is {value!r}; it must {needed} {letters}")
    return [values[letters.index(letter)] for letter in "zyx"]


def _finite(key: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or value != value or abs(value) == float("inf"):
        raise DataError(f"`{key}` contains {value!r}, which is no finite number")
    return float(value) if isinstance(value, float) else int(value)


def above_0(key: str, value: Any, numbers: Sequence[float]) -> None:
    """DataError for a voxel size that is 0 or negative."""
    if min(numbers) <= 0:
        raise DataError(f"{key} is {value!r}; voxel sizes must be above 0")


def _stated(
    quantity: Quantity, key: str, value: Any, axes: str, units: Sequence[Any] | None
) -> Iterator[tuple[Quantity, Statement]]:
    """One attribute as a statement; `units`: in nm for z, y, x, None for the unit nm."""
    numbers = spatial(key, value, axes)
    if quantity == "voxel size":
        above_0(f"`{key}`", value, numbers)
    lengths = [Fraction(1)] * 3 if units is None else units
    has_unit = all(length is not None for length in lengths)
    values = tuple(
        exact(number, length if has_unit else Fraction(1))
        for number, length in zip(numbers, lengths, strict=True)
    )
    written = f"`{key}` {list(values)}" + (" nm" if has_unit else "")
    yield quantity, Statement(values, written, has_unit)


def units_in_nm(value: Any, axes: str, key: str = "units") -> list[Fraction | None] | None:
    """The units of z, y, x in nm; None where the attribute is absent, which stands for nm."""
    if value is None:
        return None
    units = _along_zyx(key, value, axes, "have one entry for each of")
    return [unit_in_nm(unit, key) for unit in units]


# ---------------------------------------------------------------- conventions


def _funlib(attrs: Attributes, axes: str) -> Found:
    keys = _stated_keys(FUNLIB_KEYS, attrs)
    # Without them `units` is that of the values, as in files of xarray.
    units = units_in_nm(attrs.get("units"), axes) if keys else None
    for key, quantity in keys.items():
        if quantity == "voxel size" and (factors := downsampling(attrs, axes)) != (1, 1, 1):
            raise DataError(
                f"`{key}` {attrs[key]} is next to `{FACTORS}` {list(factors)} (z, y, x); write the "
                f"size of this level as `{key}` and remove `{FACTORS}`"
            )
        yield from _stated(quantity, key, attrs[key], axes, units)


def _stated_keys(keys: Mapping[str, Quantity], attrs: Attributes) -> Mapping[str, Quantity]:
    return {key: quantity for key, quantity in keys.items() if attrs.get(key) is not None}


FUNLIB_KEYS: Mapping[str, Quantity] = {
    "resolution": "voxel size",
    "voxel_size": "voxel size",
    "offset": "position",
}


def transform_of(attrs: Attributes) -> Attributes:
    """The content of `transform`, empty where there is none."""
    content = attrs.get("transform")
    return content if isinstance(content, Mapping) else {}


def transform_axes(content: Attributes, axes: str) -> str:
    """The axes that a `transform` names, in the order of its values; else `axes`."""
    names = content.get("axes")
    if not isinstance(names, (list, tuple)):
        return axes
    letters = axis_letters(names)
    if letters is None:
        raise DataError(f"`transform.axes` is {names}; z, y and x are needed, and perhaps t and c")
    return letters


def _transform(attrs: Attributes, axes: str) -> Found:
    content = transform_of(attrs)
    keys = _stated_keys(TRANSFORM_KEYS, content)
    if not keys:
        return
    own_axes = transform_axes(content, axes)
    units = units_in_nm(content.get("units"), own_axes, "transform.units") or [None] * 3
    for key, quantity in keys.items():
        yield from _stated(quantity, f"transform.{key}", content[key], own_axes, units)


TRANSFORM_KEYS: Mapping[str, Quantity] = {"scale": "voxel size", "translate": "position"}


FACTORS = "downsamplingFactors"


def downsampling(attrs: Attributes, axes: str) -> tuple[Any, Any, Any]:
    """How many voxels of the finest level a voxel spans along z, y, x; 1 where it is not stated."""
    if attrs.get(FACTORS) is None:
        return 1, 1, 1
    numbers = spatial(FACTORS, attrs[FACTORS], axes)
    above_0(f"`{FACTORS}`", attrs[FACTORS], numbers)
    return numbers


def _pixel_resolution(attrs: Attributes, axes: str) -> Found:
    content = attrs.get("pixelResolution")
    if content is None:
        return
    is_group = isinstance(content, Mapping)
    unit = unit_in_nm(content.get("unit"), "pixelResolution.unit") if is_group else None
    value = content.get("dimensions") if is_group else content
    for quantity, statement in _stated("voxel size", "pixelResolution", value, axes, [unit] * 3):
        if not is_print_density(unit, *statement.values[1:]):
            yield quantity, times(statement, downsampling(attrs, axes))


def times(statement: Statement, factors: Sequence[float]) -> Statement:
    """The size of a level, from that of level 0."""
    if tuple(factors) == (1, 1, 1):
        return statement
    values = [
        exact(value, Fraction(repr(n))) for value, n in zip(statement.values, factors, strict=True)
    ]
    written = f"{statement.written} times `{FACTORS}` {list(factors)}"
    return Statement(tuple(values), written, statement.has_unit)


def _element_size(attrs: Attributes, axes: str) -> Found:
    if (value := attrs.get("element_size_um")) is not None:
        yield from _stated("voxel size", "element_size_um", value, axes, [Fraction(1000)] * 3)


CONVENTIONS = (
    AttributeConvention(
        "funlib, gunpowder, CREMI, paintera",
        ("resolution", "voxel_size", "offset", "units"),
        "`units`, one for each spatial axis or one for all; nm without them",
        "`resolution` or `voxel_size` is the voxel size, `offset` the position of the first "
        "voxel's corner. Next to `downsamplingFactors` they are refused, because it is open whether"
        " they are those of the level.",
        _funlib,
    ),
    AttributeConvention(
        "CellMap, COSEM, fibsem-tools",
        ("transform",),
        "its `units`; none without them",
        "`scale` is the voxel size, `translate` the position, for the axes in its `axes`.",
        _transform,
    ),
    AttributeConvention(
        "n5-viewer, BigDataViewer",
        ("pixelResolution", FACTORS),
        "its `unit`; none for a list alone",
        "`dimensions`, or a list, is the voxel size of the finest level. `downsamplingFactors` of a"
        " level multiply it.",
        _pixel_resolution,
    ),
    AttributeConvention(
        "ilastik, PlantSeg, Fiji's HDF5 plugin",
        ("element_size_um",),
        "micrometres",
        "The voxel size.",
        _element_size,
    ),
)
"""All conventions that are read. Two of them in one file must agree."""


def statements(attrs: Attributes, axes: str) -> tuple[tuple[Statement, ...], tuple[Statement, ...]]:
    """All voxel sizes and positions that attributes state; `axes`: letters in stored order."""
    found = [pair for convention in CONVENTIONS for pair in convention.read(attrs, axes)]
    sizes = tuple(statement for quantity, statement in found if quantity == "voxel size")
    return sizes, tuple(statement for quantity, statement in found if quantity == "position")
