"""Voxel sizes and positions that a tif states: ImageJ, OME-XML and the resolution tags."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import tifffile

from retrace.errors import DataError
from retrace.formats.attributes import PRINT_NM, exact, is_print_density, unit_in_nm
from retrace.formats.contract import Statement
from retrace.limits import PLANES

Triple = tuple[Fraction | None, Fraction | None, Fraction | None]
"""Numbers along z, y, x."""

UNIT_NM = {2: 25_400_000, 3: 10_000_000, 4: 1_000_000, 5: 1_000}
"""Length of the values of ResolutionUnit, nm: inch, cm, and mm and µm of tifffile."""
ROUNDED_FROM = 1000
"""Denominators from here on that are powers of ten come from rounding a decimal number."""
SAME_STEP = 0.01
"""Relative difference of the distance of planes and their voxel size, if both are the same."""


@dataclass(frozen=True)
class Stated:
    """Voxel sizes and positions of a file, nm (z, y, x)."""

    voxel_sizes: tuple[Statement, ...] = ()
    positions: tuple[Statement, ...] = ()


def stated(tif: tifffile.TiffFile) -> Stated:
    """What a file states; the first that applies of OME-XML, ImageJ and the resolution tags."""
    page = tif.pages.first
    by_ome = _of_ome(ome_pixels(tif)) if tif.is_ome else None
    by_imagej = _of_imagej(page, tif.imagej_metadata or {}) if tif.is_imagej else None
    return by_ome or by_imagej or _of_tags(page)


# ---------------------------------------------------------------- resolution tags


def _of_tags(page: tifffile.TiffPage) -> Stated:
    """The pixel size in inches or centimetres; none for densities that print programs write."""
    unit = UNIT_NM.get(int(_tag(page, "ResolutionUnit") or 2))
    if unit is None:
        return Stated()
    y, x = (_pixel(page, axis, Fraction(unit)) for axis in "YX")
    if y is None or x is None or max(y.size, x.size) >= PRINT_NM:
        return Stated()
    return Stated((_size("XResolution and YResolution", (None, y.size, x.size), (y, x)),))


def _tag(page: tifffile.TiffPage, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


@dataclass(frozen=True)
class _Pixel:
    """An edge of a pixel in nm, and the relative error of the fraction that states it."""

    size: Fraction
    error: Fraction


def _pixel(page: tifffile.TiffPage, axis: str, unit: Fraction | None) -> _Pixel | None:
    """The pixel's edge along Y or X; None for one pixel per unit, which programs write by default.

    `unit`: length in nm of the unit that holds so many pixels; None where it is no length.
    """
    value = _tag(page, f"{axis}Resolution")
    pixels, units = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
    if unit is None or not pixels or not units or pixels == units or min(pixels, units) < 0:
        return None
    density = Fraction(pixels) / Fraction(units)
    is_rounded = units >= ROUNDED_FROM and str(units).strip("0") == "1"
    error = max(Fraction(1, 2 * int(pixels)) if is_rounded else Fraction(0), Fraction(1, 10**7))
    return _Pixel(shortest_decimal(unit / density, error), error)


def shortest_decimal(number: Fraction, error: Fraction) -> Fraction:
    """The number of fewest decimals that differs by no more than the relative error.

    4.6 for 1000000 / 217391: the file rounds 1000000 / 4.6 to a whole number.
    """
    tolerance = number * error
    digits = -math.floor(math.log10(number))
    while True:
        scale = Fraction(10) ** digits
        rounded = Fraction(round(number * scale)) / scale
        if rounded and abs(rounded - number) <= tolerance:
            return rounded
        digits += 1


def _size(written: str, values: Triple, pixels: Sequence[_Pixel | None]) -> Statement:
    """The statement of a voxel size in nm."""
    sizes = _plain(values)
    error = max((float(pixel.error) for pixel in pixels if pixel is not None), default=0.0)
    listed = ", ".join("unknown" if size is None else str(size) for size in sizes)
    return Statement(sizes, f"{written} [{listed}] nm", rounding=error)


def _plain(values: Triple) -> tuple[float | None, ...]:
    return tuple(None if value is None else exact(value) for value in values)


def _unit_nm(where: str, key: str, unit: Any) -> Fraction | None:
    """The length of a unit in nm, as `unit_in_nm`; its DataError says what to do."""
    try:
        return unit_in_nm(unit, key)
    except DataError as error:
        raise DataError(
            f"{where} {error}; correct it in the file, for example with Image > Properties of "
            "Fiji. A unit `pixel` states nothing: `voxel_size_nm` of the dataset's config is used"
        ) from error


# ---------------------------------------------------------------- ImageJ


def _of_imagej(page: tifffile.TiffPage, meta: Mapping[str, Any]) -> Stated | None:
    """The size in the unit of ImageJ's description; None without a unit of length.

    ImageJ leaves out a spacing of 1, and programs leave it out because they do not know it, so its
    absence states nothing. In inches or centimetres a size may be a density for printing.
    """
    z = _number(meta.get("spacing"))
    if not (z is not None and z > 0) and not any(_pixel(page, a, Fraction(1)) for a in "YX"):
        return None  # whatever the unit is
    z_unit, y_unit, x_unit = _imagej_units(meta)
    y, x = _pixel(page, "Y", y_unit), _pixel(page, "X", x_unit)
    sizes: Triple = (
        z * z_unit if z is not None and z_unit is not None and z > 0 else None,
        None if y is None else y.size,
        None if x is None else x.size,
    )
    if not any(sizes) or is_print_density(x_unit, *_plain(sizes)[1:]):
        return None
    return Stated((_size("ImageJ's pixel size", sizes, (y, x)),), _origin(meta, sizes))


def _imagej_units(meta: Mapping[str, Any]) -> Triple:
    """The units along z, y, x in nm, None for those of no length.

    Without a unit of their own, z and y have that of x.
    """
    keys = [key if meta.get(key) is not None else "unit" for key in ("zunit", "yunit", "unit")]
    z, y, x = (_unit_nm("ImageJ's", key, _unescaped(meta.get(key))) for key in keys)
    return z, y, x


def _unescaped(unit: Any) -> Any:
    r"""A unit whose letters ImageJ writes as \u00B5."""
    if not isinstance(unit, str):
        return unit
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), unit)


def _number(value: Any) -> Fraction | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return Fraction(repr(value)) if is_number and math.isfinite(value) else None


def _origin(meta: Mapping[str, Any], sizes: Triple) -> tuple[Statement, ...]:
    """The position of the first voxel: ImageJ states the pixel that is at 0."""
    pixels = [_number(meta.get(f"{axis}origin")) for axis in "zyx"]
    is_known = all(size is not None for pixel, size in zip(pixels, sizes, strict=True) if pixel)
    if not any(pixels) or not is_known:
        return ()
    lengths = [-(pixel or 0) * (size or 0) for pixel, size in zip(pixels, sizes, strict=True)]
    position = tuple(exact(length) for length in lengths)
    return (Statement(position, f"ImageJ's origin {list(position)} nm"),)


# ---------------------------------------------------------------- OME-XML


def ome_pixels(tif: tifffile.TiffFile) -> ElementTree.Element | None:
    """The element Pixels of the first image; None where there is none."""
    return next((e for e in _ome_elements(tif) if _name(e) == "Pixels"), None)


def check_ome_sizes(tif: tifffile.TiffFile) -> None:
    """DataError for more planes than any image has: tifffile makes room for all that are stated."""
    for element in _ome_elements(tif):
        sizes = {key: _count(element.get(key)) for key in OME_COUNTS}
        planes = math.prod(sizes[f"Size{axis}"] for axis in "TCZ")
        if max(planes, *sizes.values()) > PLANES:
            raise DataError(f"its OME-XML states more than {PLANES} planes in {_name(element)}")


OME_COUNTS = (
    *("SizeT", "SizeC", "SizeZ", "FirstT", "FirstC", "FirstZ"),
    *("IFD", "PlaneCount", "NumPlanes"),
)
"""Attributes of OME-XML with a number of planes, or the number of one."""


def _count(text: str | None) -> int:
    """A whole number from 1 on; 1 for other text, which tifffile refuses or ignores."""
    return max(1, int(text)) if text is not None and text.strip().isdecimal() else 1


def ome_files(tif: tifffile.TiffFile) -> list[str]:
    """The names of all files with planes of the image, where the OME-XML lists them."""
    names = (e.get("FileName") for e in _ome_elements(tif) if _name(e) == "UUID")
    return sorted({name for name in names if name})


def ome_root(tif: tifffile.TiffFile) -> str:
    """The name of the file with the OME-XML, where it is another one."""
    names = (e.get("MetadataFile") for e in _ome_elements(tif) if _name(e) == "BinaryOnly")
    return next((name for name in names if name), "another file")


def _ome_elements(tif: tifffile.TiffFile) -> Iterator[ElementTree.Element]:
    xml = tif.ome_metadata if tif.is_ome else None
    return ElementTree.fromstring(xml).iter() if xml else iter(())


def _name(element: ElementTree.Element) -> str:
    """Its name without the namespace."""
    return element.tag.rpartition("}")[2]


def _of_ome(pixels: ElementTree.Element | None) -> Stated | None:
    """PhysicalSize of Pixels and the position of the planes; None without a size.

    1, 1, 1 without units is a placeholder.
    """
    if pixels is None:
        return None
    keys = [f"PhysicalSize{axis}" for axis in "ZYX"]
    values = [_decimal(pixels.get(key)) for key in keys]
    has_unit = any(pixels.get(f"{key}Unit") for key in keys)
    if not has_unit and all(value is None or value == 1 for value in values):
        return None
    z, y, x = (_length(pixels, key, "µm") for key in keys)
    is_for_print = x is not None and is_print_density(
        _unit_of(pixels, "PhysicalSizeX"), *_plain((z, y, x))[1:]
    )
    if not any((z, y, x)) or is_for_print:
        return None
    size = _size("OME-XML's PhysicalSize", (z, y, x), ())
    return Stated((size,), _plane_position(pixels, z))


def _decimal(text: str | None) -> Fraction | None:
    """A number of OME-XML; None where there is none, as for NaN."""
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _unit_of(element: ElementTree.Element, key: str, default: str | None = None) -> Fraction | None:
    """The unit of an attribute in nm; `default`: the unit where none is stated."""
    return _unit_nm("OME-XML's", f"{key}Unit", element.get(f"{key}Unit", default))


def _length(element: ElementTree.Element, key: str, default: str | None = None) -> Fraction | None:
    """A size in nm, as `_distance`; None where it is not above 0."""
    number = _distance(element, key, default)
    return number if number is not None and number > 0 else None


def _distance(
    element: ElementTree.Element, key: str, default: str | None = None
) -> Fraction | None:
    """An attribute in nm; None where it is absent, or in no unit of length, such as pixel.

    `default`: the unit where none is stated.
    """
    value = _decimal(element.get(key))
    unit = None if value is None else _unit_of(element, key, default)
    return None if value is None or unit is None else value * unit


def _plane_position(pixels: ElementTree.Element, step: Fraction | None) -> tuple[Statement, ...]:
    """The position of the first plane, if all planes of the first channel state where they are.

    Positions that do not rise by the voxel size along z, or that change along y or x, are those of
    the microscope's stage and state nothing. DataError if they fall by the voxel size.
    """
    planes = [e for e in pixels if _name(e) == "Plane" and e.get("TheC") == e.get("TheT") == "0"]
    places = [_place(e) for e in sorted(planes, key=lambda e: int(e.get("TheZ") or 0))]
    known = [place for place in places if place is not None]
    if not known or len(known) != len(places) or len(known) != int(pixels.get("SizeZ") or 0):
        return ()
    steps = [b[0] - a[0] for a, b in pairwise(known)]
    if steps and step and all(_is_close(distance, -step) for distance in steps):
        raise DataError(
            "PositionZ of its OME-XML falls from plane to plane, so the last plane is the first "
            "section; write the planes in rising order"
        )
    has_steps = all(step is not None and _is_close(distance, step) for distance in steps)
    if not has_steps or len({place[1:] for place in known}) > 1:
        return ()
    position = tuple(exact(value) for value in known[0])
    return (Statement(position, f"OME-XML's position of the first plane {list(position)} nm"),)


def _place(plane: ElementTree.Element) -> tuple[Fraction, Fraction, Fraction] | None:
    """The position (z, y, x) of a plane in nm, None unless all of it is a length."""
    z, y, x = (_distance(plane, f"Position{axis}") for axis in "ZYX")
    return None if z is None or y is None or x is None else (z, y, x)


def _is_close(distance: Fraction, step: Fraction) -> bool:
    return abs(distance - step) <= abs(step) * Fraction(SAME_STEP)
