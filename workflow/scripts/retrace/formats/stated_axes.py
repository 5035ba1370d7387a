"""The axes that files name: every statement is read, and two that contradict are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from retrace.errors import DataError
from retrace.formats.contract import Convention

AXIS_KEYS = ("axis_names", "axes", "_ARRAY_DIMENSIONS", "DIMENSION_LABELS")
"""Attributes with a name for each stored axis: funlib, n5 and z5, xarray, HDF5."""
AXISTAGS = "axistags"
"""ilastik's attribute: JSON with a `key` for each axis."""
AXES_CONVENTIONS = (
    Convention(
        "funlib, n5, xarray, HDF5", AXIS_KEYS, "", "A name for each stored axis; c^ is a channel."
    ),
    Convention("ilastik", (AXISTAGS,), "", "JSON with a `key` for each stored axis."),
    Convention(
        "zarr 3", ("dimension_names",), "", "A name for each stored axis, next to the attributes."
    ),
    Convention("CellMap in zarr", ("transform.axes",), "", "A name for each stored axis."),
)
SPACE = ("z", "y", "x", "depth", "height", "width", "plane", "slice", "row", "col", "column")
"""Names of an axis of space; names other than z, y and x are shown, and not taken for them."""
LETTERS = {letter: letter for letter in "tczyx"} | {
    "channel": "c",
    "channels": "c",
    "channel_dim": "c",
    "time": "t",
}


class AxesStatement(NamedTuple):
    """The axes that a file names; `letters` is None if some names are no axes that are read."""

    letters: str | None
    written: str


def usual_axes(dimensions: int) -> str:
    """The axes of an array where nothing names them: z, y, x, after c if there are four."""
    return "czyx"[-dimensions:]


def axis_letters(names: Sequence[Any]) -> str | None:
    """A letter for each axis (t, c, z, y, x); None for names that are not axes of an image.

    A name that ends in ^ is a channel, as funlib writes it.
    """
    short = [
        "c" if str(name).endswith("^") else LETTERS.get(str(name).lower(), "") for name in names
    ]
    is_known = "" not in short and len(set(short)) == len(short)
    return "".join(short) if is_known and set("zyx") <= set(short) else None


def axes_in_attributes(attrs: Mapping[str, Any]) -> Iterator[AxesStatement]:
    """All statements of axes in the attributes of an array."""
    for key in AXIS_KEYS:
        names = list(attrs[key]) if isinstance(attrs.get(key), str) else attrs.get(key)
        if isinstance(names, (list, tuple)):
            yield from named_axes(f"`{key}`", names)
    if (tags := _axistags(attrs.get(AXISTAGS))) is not None:
        yield from named_axes(f"`{AXISTAGS}`", tags)


def named_axes(where: str, names: Sequence[Any]) -> Iterator[AxesStatement]:
    """A list of names as a statement; nothing for names such as dim_0, which say nothing."""
    letters = axis_letters(names)
    is_about_space = sum(str(name).lower() in SPACE for name in names) > 1
    if letters is not None or is_about_space:
        yield AxesStatement(letters, f"{where} {[str(name) for name in names]}")


def _axistags(value: Any) -> list[str] | None:
    """The keys of vigra's axis tags, which are JSON; None for anything else."""
    try:
        content = json.loads(value) if isinstance(value, str) else value
        return [str(axis["key"]) for axis in content["axes"]]
    except (ValueError, TypeError, KeyError):
        return None


def agreed_axes(
    shape: Sequence[int], statements: Sequence[AxesStatement]
) -> tuple[str | None, str]:
    """The stored axes and how the file names them; (None, "") if it names none.

    DataError if two statements differ, or do not name each axis of `shape` once.
    """
    for statement in statements:
        letters = statement.letters
        if letters != statements[0].letters or (letters and len(letters) != len(shape)):
            named = " and ".join(dict.fromkeys((statements[0].written, statement.written)))
            raise DataError(
                f"its shape is {tuple(shape)}, and its axes are stated as {named}; correct the file"
            )
    return statements[0] if statements else (None, "")
