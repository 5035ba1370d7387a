"""What zarr's metadata say about an array: its own attributes and those of the groups above it.

Both readers of zarr use it: planning, which reads the JSON files, and zarr's library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from retrace.errors import DataError, first_names
from retrace.formats import ome_zarr
from retrace.formats.attributes import statements, transform_of
from retrace.formats.contract import ByteOrder, Description, Group, Statement
from retrace.formats.stated_axes import (
    AxesStatement,
    agreed_axes,
    axes_in_attributes,
    named_axes,
    usual_axes,
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
    names = first_names(arrays, MOST_NAMED)
    return f"{what}; set `array` to " + (f"one of: {names}" if names else "the one you mean")


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
    images: Sequence[LevelOfImage],
    above: Sequence[Group],
    level: str,
) -> Description:
    """What an array, its images and the groups `above` state; lists are in the order of its axes.

    `named`: its axes and how they are named, as from `agreed_axes`.
    """
    axes, written = named
    found = of_images(images, axes or usual_axes(len(array.shape)), array.attributes)
    return Description(
        array.shape,
        array.dtype,
        array.byte_order,
        axes,
        written,
        found.attributes,
        found.sizes,
        found.positions,
        "every chunk is listed",
        groups=tuple(above),
        level=level,
    )


def groups_above(path: str, groups: GroupAttributes) -> list[Group]:
    """The groups that contain the array at `path`, the nearest first; '' is the store itself."""
    parts = path.split("/") if path else []
    paths = ["/".join(parts[:cut]) for cut in range(len(parts) - 1, -1, -1)]
    return [Group(path or "at the top", groups(path)) for path in paths]


LevelOfImage = tuple[Mapping[str, Any], int]
"""The metadata of an image, and the number of one of its levels."""


def images_of(path: str, above: Sequence[Group]) -> Iterator[LevelOfImage]:
    """The images that have the array at `path` as a level, and the number of the level."""
    parts = path.split("/")
    for depth, group in enumerate(above, start=1):
        inner = "/".join(parts[-depth:])
        for image in ome_zarr.images(group.attributes):
            for number, entry in enumerate(ome_zarr.levels(image)):
                if ome_zarr.level_name(entry) == inner:
                    yield image, number


class ImageStatements(NamedTuple):
    """What the images of an array state, and its attributes without what they repeat."""

    sizes: tuple[Statement, ...]
    positions: tuple[Statement, ...]
    attributes: Mapping[str, Any]


def of_images(
    images: Iterable[LevelOfImage], axes: str, attributes: Mapping[str, Any]
) -> ImageStatements:
    """The statements of images about an array with these attributes.

    Values of an image are in the order of its own axes, which in n5 need not be that of the array.
    CellMap writes the position of a level into the array too. It is left out there, because only
    the image with all its levels shows whether it is that of a centre.
    """
    found = [
        ome_zarr.image_statements(image, level, ome_zarr.own_letters(image) or axes)
        for image, level in images
    ]
    own = transform_of(attributes)
    written = [s.written_position for s in found if s.written_position is not None]
    stated = [position.values for position in statements({"transform": own}, axes)[1]]
    if any(position in stated for position in written):
        own = {key: value for key, value in own.items() if key != "translate"}
        attributes = {**attributes, "transform": own}
    sizes = tuple(size for each in found for size in each.sizes)
    return ImageStatements(sizes, tuple(p for each in found for p in each.positions), attributes)


def _axes(array: ZarrArray, images: Sequence[LevelOfImage]) -> tuple[str | None, str]:
    """The stored axes and how they are named; DataError if two sources name them differently."""
    dimensions = len(array.shape)
    found = []
    for image, _ in images:
        letters = ome_zarr.stated_letters(image, dimensions)
        found.append(AxesStatement(letters, f"OME-Zarr axes {ome_zarr.axes_of(image, dimensions)}"))
    found += axes_in_attributes(array.attributes)
    found += named_axes("`dimension_names`", array.dimension_names or ())
    if names := transform_of(array.attributes).get("axes"):
        found += named_axes("`transform.axes`", names)
    return agreed_axes(array.shape, found)
