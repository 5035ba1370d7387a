"""What the attributes of an n5 dataset say. Converts the format's x, y, z to z, y, x.

Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from retrace.errors import DataError, first_names, nearest
from retrace.formats.contract import ByteOrder, Description, Group
from retrace.formats.reader import refuse_array
from retrace.formats.stated_axes import AXIS_KEYS, agreed_axes, axes_in_attributes
from retrace.formats.zarr_nodes import (
    MOST_NAMED,
    ZarrArray,
    description,
    groups_above,
    images_of,
)

TYPES = (*(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),)
TYPES += ("float32", "float64")
MOST_GROUPS = 8
"""Folders above a dataset that may be groups of its container."""
ReadAttributes = Callable[[Path], Mapping[str, Any]]
"""Function (folder) -> the content of its attributes.json, empty where there is none."""


def check_dataset(container: Path, array: str, read: ReadAttributes) -> None:
    """DataError, with the datasets to choose from, if `array` of a container is none."""
    if "dimensions" in read(container / array):
        return
    if "dimensions" in read(container):
        refuse_array(str(container), array)
    if not container.is_dir():
        raise DataError(f"{container} does not exist; correct `path`")
    names = list(_dataset_names(container, read))
    if not names:
        raise DataError(
            f"{container} is not an n5 dataset: attributes.json has no `dimensions`; nor has that "
            "of a folder below it. Correct `path`"
        )
    if not array:
        some = first_names(names, MOST_NAMED)
        raise DataError(f"{container} contains n5 datasets; set `array` to one of: {some}")
    raise DataError(f"{container} has no array {array!r}; {nearest(array, names)}")


def _dataset_names(folder: Path, read: ReadAttributes, prefix: str = "") -> Iterator[str]:
    """Names of the datasets below a folder; folders of blocks, which are numbers, are left out."""
    if prefix.count("/") > MOST_GROUPS:
        return
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if "dimensions" in read(child):
            yield prefix + child.name
        elif not child.name.isdecimal():
            yield from _dataset_names(child, read, f"{prefix}{child.name}/")


def describe_n5(folder: Path, read: ReadAttributes) -> Description:
    """The description of a dataset, with the file's x, y, z in the order z, y, x."""
    try:
        return _described(folder, read)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _described(folder: Path, read: ReadAttributes) -> Description:
    attributes = read(folder)
    _check_numbers(attributes)
    shape = tuple(reversed(attributes["dimensions"]))
    dtype = str(attributes["dataType"])
    order: ByteOrder = "none" if dtype in ("int8", "uint8") else "big"
    above, path = _groups(folder, read)
    stated = _in_zyx(attributes)
    named = agreed_axes(shape, list(axes_in_attributes(stated)))
    array = ZarrArray(shape, dtype, order, stated)
    return description(array, named, list(images_of(path, above)), above, folder.name)


def _check_numbers(attributes: Mapping[str, Any]) -> None:
    """DataError for sizes and types that no dataset has."""
    sizes = [attributes.get(key, attributes["dimensions"]) for key in ("dimensions", "blockSize")]
    for key, size in zip(("dimensions", "blockSize"), sizes, strict=True):
        if not isinstance(size, list) or not all(type(n) is int and n > 0 for n in size):
            raise DataError(f"`{key}` is {size}; it must be a list of whole numbers above 0")
    if len({len(size or ()) for size in sizes}) > 1:
        raise DataError(f"`dimensions` is {sizes[0]} and `blockSize` {sizes[1]}: axes are missing")
    if attributes.get("dataType") not in TYPES:
        raise DataError(
            f"`dataType` is {attributes.get('dataType')!r}; allowed: {', '.join(TYPES)}"
        )


def _groups(folder: Path, read: ReadAttributes) -> tuple[list[Group], str]:
    """The groups above a dataset, the nearest first, and its path below the last of them.

    Below a folder .n5, groups need no attributes.json.
    """
    place = folder.absolute()
    parents = list(place.parents)[:MOST_GROUPS]
    has_attributes = [(parent / "attributes.json").is_file() for parent in parents]
    count = next((i for i, parent in enumerate(parents, 1) if parent.suffix == ".n5"), None)
    if count is None or place.suffix == ".n5":
        count = next((i for i, known in enumerate(has_attributes) if not known), len(parents))
    top = parents[count - 1] if count else place
    path = place.relative_to(top).as_posix() if count else ""
    return groups_above(path, lambda group: _in_zyx(read(top / group))), path


def _in_zyx(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes with their lists in the order z, y, x."""
    return {key: _reversed(key, value) for key, value in attributes.items()}


def _reversed(key: str, value: Any) -> Any:
    """A list, or each list in a list, in the order z, y, x; so are letters of axes.

    `transform` and `multiscales` name their own axes.
    """
    if key in AXIS_KEYS and isinstance(value, str):
        return value[::-1]
    if key == "pixelResolution" and isinstance(value, dict):
        return {name: _reversed("", inner) for name, inner in value.items()}
    if not isinstance(value, list) or key in ("transform", "multiscales"):
        return value
    is_nested = bool(value) and all(isinstance(inner, list) for inner in value)
    return [inner[::-1] for inner in value] if is_nested else value[::-1]
