"""The page of the formats that are read: `python docs/_site/formats_page.py FILE` writes it.

Each format declares its part next to its reader, in workflow/scripts/retrace/formats.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from retrace.formats.attributes import CONVENTIONS, NM_PER_UNIT
from retrace.formats.contract import Convention, FormatPage
from retrace.formats.readers import PAGES
from retrace.formats.stated_axes import AXES_CONVENTIONS
from retrace.formats.stated_places import GROUP_CONVENTION

INTRODUCTION = """\
# Formats that are read

Generated from the readers; `make schemas` writes this page again.

Every reader reports shape, axes, type, byte order, voxel size, position, channels and what notices
missing parts. For axes, voxel size and position, it also reports who states them: the file, the
config, or nobody.

* Two statements that contradict each other are refused, and both are quoted: two in one file, or
  one in the file and one in the config (`voxel_size_nm`, `offset_nm` of the source, `axes`).
* A voxel size that nobody states is refused. A position that nobody states is 0, and labels or
  masks of another shape than their image are refused then.
* `offset_nm` of a volume is the position of those of its files that state none.
* Sizes and positions are exact, also fractions such as 4.6 nm. A size without a unit must equal
  `voxel_size_nm`.

`python workflow/scripts/describe.py PATH:ARRAY` shows what is read of a file and who states it;
`describe.py --dataset NAME` shows it for all files of a dataset.
"""
ATTRIBUTES = """\
## Attributes of zarr, n5 and h5

Lists have one entry for each stored axis, or one for each of z, y and x in the stored order; a
single number counts for all of these. Numbers as text, lists of another length, sizes of 0 and
below, and NaN are refused. Attributes of other conventions are ignored, and so is `units` alone,
which is the unit of grey values in files of xarray and NeXus.
"""
GROUPS = """\
Groups above an array, in zarr, n5 and h5, may state its size and position too:
"""
AXES = """\
Axes are named by these. Names other than t, c, z, y and x (also channel, time) need the setting
`axes` (depth, height, width), unless they are not about space (dim_0, dim_1 ..). Those of an
OME-Zarr image have to be renamed in the file.
"""
UNITS = """\
Units, also as symbols and in the plural: {units}. Pixel, voxel and empty units count as no unit,
and so do those of other quantities: grey values (counts, a.u., 1), times (s, ms), OME's
`reference frame`. Other names are refused if a size or position is in them, because they may be
lengths; without one they are not looked at. A size in inches or centimetres from 1 µm on, in a tif
or in `pixelResolution`, is a density for printing and states nothing.
"""
LABELS = {"recognised_by": "recognised by", "voxel_size": "voxel size", "byte_order": "byte order"}


def page() -> str:
    """The page in Markdown."""
    formats = "".join(_format(each) for each in PAGES)
    lengths = {length: name for name, length in NM_PER_UNIT.items() if not name.endswith("s")}
    units = UNITS.format(units=", ".join(lengths.values()))
    attributes = f"{ATTRIBUTES}\n{_table(CONVENTIONS)}\n{GROUPS}\n{_table([GROUP_CONVENTION])}"
    return f"{INTRODUCTION}\n{formats}{attributes}\n{AXES}\n{_table(AXES_CONVENTIONS)}\n{units}"


def _format(about: FormatPage) -> str:
    rows = "".join(f"| {label} | {text} |\n" for label, text in _properties(about))
    conventions = f"{_table(about.conventions)}\n" if about.conventions else ""
    return f"## {about.title}\n\n| | |\n|---|---|\n{rows}\n{conventions}"


def _properties(about: FormatPage) -> Iterator[tuple[str, str]]:
    for field in fields(about):
        if field.name not in ("title", "conventions"):
            yield LABELS.get(field.name, field.name), getattr(about, field.name)


def _table(conventions: Iterable[Convention]) -> str:
    rows = "".join(f"| {' | '.join(_cells(each))} |\n" for each in conventions)
    return f"| convention | keys | unit | meaning |\n|---|---|---|---|\n{rows}"


def _cells(convention: Convention) -> Sequence[str]:
    keys = ", ".join(f"`{key}`" for key in convention.keys)
    return convention.name, keys, convention.unit, convention.meaning


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
