"""What zarr's metadata say about an array: its own attributes and those of the groups above it.

Both readers of zarr use it: planning, which reads the JSON files, and zarr's library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from retrace.errors import DataError
from retrace.formats import ome_zarr
from retrace.formats.attributes import transform_of
from retrace.formats.contract import ByteOrder, Description, Group, ImageLevel
from retrace.formats.stated_axes import (
    AxesStatement,
    agreed_axes,
    axes_in_attributes,
    axis_letters,
    named_axes,
)

GroupAttributes = Callable[[str], Mapping[str, Any]]
"""Function (path of a group below the store) -> its attributes, empty where there is no group."""
MOST_NAMED = 8
"""Arrays that a message lists."""


@dataclass(frozen=True)
class ZarrArray:
    """The metadata of one array."""

    shape: tuple[int, ...]
    dtype: str
    byte_order: ByteOrder
    attributes: Mapping[str, Any]
    dimension_names: Sequence[Any] | None = None
    """Of format 3."""


def level_path(
    name: str, path: str, attributes: Mapping[str, Any], mip: int, arrays: Iterable[str]
) -> str:
    """The path below the store of level `mip` of the image at `path`.

    `arrays`: the names of the store's arrays, for messages; none where they cannot be listed.
    DataError for a group that is no image, or that has several.
    """
    label = f"{name}/{path}" if path else name
    images = ome_zarr.images(attributes)
    paths = {tuple(str(entry["path"]) for entry in ome_zarr.levels(image)) for image in images}
    if len(paths) != 1:  # one image may be described twice, for two versions of the format
        inside = [array for array in arrays if not path or array.startswith(f"{path}/")]
        raise DataError(f"{label} {_no_image(attributes, len(images), inside)}")
    level = ome_zarr.level_name(ome_zarr.level(label, images[0], mip))
    return f"{path}/{level}" if path else level


def _no_image(attributes: Mapping[str, Any], count: int, arrays: Sequence[str]) -> str:
    """Why a group cannot be opened, as the end of a message."""
    what = "is a group, but neither an array nor an OME-Zarr image"
    if count:
        what = f"has {count} OME-Zarr images"
    ome = attributes.get("ome")
    if "bioformats2raw.layout" in (*attributes, *(ome if isinstance(ome, Mapping) else ())):
        what = "is a collection of images (bioformats2raw), which are the groups 0, 1 .."
    names = ", ".join(islice(arrays, MOST_NAMED))
    more = " .." if len(arrays) > MOST_NAMED else ""
    return f"{what}; set `array` to " + (f"one of: {names}{more}" if names else "the one you mean")


def describe(name: str, path: str, array: ZarrArray, groups: GroupAttributes) -> Description:
    """The description of the array at `path` below its store; `name`: for messages.

    DataError for attributes that make no sense, or axes that contradict each other.
    """
    try:
        return _described(name, path, array, groups)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _described(name: str, path: str, array: ZarrArray, groups: GroupAttributes) -> Description:
    above = groups_above(path, groups)
    images = list(images_of(path, above))
    level = path.rpartition("/")[2]
    return description(array, _axes(array, images), images, above, level)


def description(
    array: ZarrArray,
    named: tuple[str | None, str],
    images: Sequence[ImageLevel],
    above: Sequence[Group],
    level: str,
) -> Description:
    """What an array, its images and the groups `above` state; lists are in the order of its axes.

    `named`: its axes and how they are named, as from `agreed_axes`.
    """
    axes, written = named
    return Description(
        array.shape,
        array.dtype,
        array.byte_order,
        axes,
        written,
        array.attributes,
        images=tuple(images),
        completeness="every chunk is listed",
        groups=tuple(above),
        level=level,
    )


def groups_above(path: str, groups: GroupAttributes) -> list[Group]:
    """The groups that contain the array at `path`, the nearest first; '' is the store itself."""
    parts = path.split("/") if path else []
    paths = ["/".join(parts[:cut]) for cut in range(len(parts) - 1, -1, -1)]
    return [Group(path or "at the top", groups(path)) for path in paths]


def images_of(path: str, above: Sequence[Group]) -> Iterator[ImageLevel]:
    """The images that have the array at `path` as a level, and the number of the level."""
    parts = path.split("/")
    for depth, group in enumerate(above, start=1):
        inner = "/".join(parts[-depth:])
        for image in ome_zarr.images(group.attributes):
            for number, entry in enumerate(ome_zarr.levels(image)):
                if ome_zarr.level_name(entry) == inner:
                    yield ImageLevel(image, number)


def _axes(array: ZarrArray, images: Sequence[ImageLevel]) -> tuple[str | None, str]:
    """The stored axes and how they are named; DataError if two sources name them differently."""
    found = list(_axes_of_images(images, len(array.shape)))
    found += axes_in_attributes(array.attributes)
    found += named_axes("`dimension_names`", array.dimension_names)
    found += named_axes("`transform.axes`", transform_of(array.attributes).get("axes"))
    return agreed_axes(array.shape, found)


def _axes_of_images(images: Sequence[ImageLevel], dimensions: int) -> Iterator[AxesStatement]:
    """The axes that the images name; also by names that are not read."""
    for image, number, _ in images:
        names = ome_zarr.axes_of(image, dimensions)
        yield AxesStatement(axis_letters(names), f"OME-Zarr axes {names}")
        own = transform_of(ome_zarr.levels(image)[number]).get("axes")
        of_level = named_axes("`transform.axes` of its level", own)
        yield from (statement for statement in of_level if statement.letters is None)
