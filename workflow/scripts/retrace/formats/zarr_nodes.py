"""What zarr's metadata say about an array: its own attributes and those of images around it.

Both readers of zarr use it: planning, which reads the JSON files, and zarr's library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrace.errors import DataError
from retrace.formats import ome_zarr
from retrace.formats.attributes import axis_letters, stated_axes
from retrace.formats.contract import ByteOrder, Description

GroupAttributes = Callable[[str], Mapping[str, Any]]
"""Function (path of a group below the store) -> its attributes, empty where there is no group."""


@dataclass(frozen=True)
class ZarrArray:
    """The metadata of one array."""

    shape: tuple[int, ...]
    dtype: str
    byte_order: ByteOrder
    attributes: Mapping[str, Any]
    dimension_names: Sequence[Any] | None = None
    """Of format 3."""


def level_path(name: str, path: str, attributes: Mapping[str, Any], mip: int) -> str | None:
    """The path below the store of level `mip` of the image at `path`; None if it is no image."""
    images = ome_zarr.images(attributes)
    if not images:
        return None
    label = f"{name}/{path}" if path else name
    level = str(ome_zarr.level(label, images[0], mip)["path"]).strip("/")
    return f"{path}/{level}" if path else level


def describe(name: str, path: str, array: ZarrArray, groups: GroupAttributes) -> Description:
    """The description of the array at `path` below its store; `name`: for messages.

    DataError for attributes that make no sense, or axes that contradict each other.
    """
    try:
        return _described(name, path, array, groups)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _described(name: str, path: str, array: ZarrArray, groups: GroupAttributes) -> Description:
    images = list(_images(path, groups))
    axes, written = _axes(name, array, images)
    stated = [ome_zarr.image_statements(image, level, str(axes)) for image, level in images]
    return Description(
        array.shape,
        array.dtype,
        array.byte_order,
        axes,
        written,
        array.attributes,
        tuple(size for sizes, _ in stated for size in sizes),
        tuple(position for _, positions in stated for position in positions),
        "every chunk is listed",
    )


def _images(path: str, groups: GroupAttributes) -> Iterator[tuple[Mapping[str, Any], int]]:
    """The OME-Zarr images that have this array as a level, and the number of the level."""
    parts = path.split("/") if path else []
    for cut in range(len(parts) - 1, -1, -1):
        inner = "/".join(parts[cut:])
        for image in ome_zarr.images(groups("/".join(parts[:cut]))):
            for number, entry in enumerate(image.get("datasets") or []):
                if isinstance(entry, Mapping) and str(entry.get("path")).strip("/") == inner:
                    yield image, number


def _axes(
    name: str, array: ZarrArray, images: Sequence[tuple[Mapping[str, Any], int]]
) -> tuple[str | None, str]:
    """The stored axes and how they are named; DataError if two sources name them differently."""
    dimensions = len(array.shape)
    found: list[tuple[str, str]] = []
    for image, _ in images:
        letters = ome_zarr.stated_letters(name, image, dimensions)
        found.append((letters, f"OME-Zarr axes {ome_zarr.axes_of(image, dimensions)}"))
    if (own := stated_axes(array.attributes)) is not None:
        found.append(own)
    if array.dimension_names and (letters := axis_letters(array.dimension_names) or ""):
        found.append((letters, f"`dimension_names` {list(array.dimension_names)}"))
    for letters, written in found:
        if letters != found[0][0] or len(letters) != dimensions:
            raise DataError(
                f"its shape is {array.shape}, and its axes are stated as {found[0][1]} and "
                f"{written}; correct the file"
            )
    return found[0] if found else (None, "")
