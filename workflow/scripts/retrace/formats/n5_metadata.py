"""What the attributes of an n5 dataset say. Converts the format's x, y, z to z, y, x.

Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from retrace.errors import DataError, nearest
from retrace.formats import ome_zarr
from retrace.formats.attributes import transform_of
from retrace.formats.contract import ByteOrder, Description, Group, ImageLevel
from retrace.formats.reader import refuse_array
from retrace.formats.stated_axes import (
    AXIS_KEYS,
    AxesStatement,
    agreed_axes,
    axes_in_attributes,
    axis_letters,
    axis_names,
)
from retrace.formats.zarr_folder import json_file
from retrace.formats.zarr_nodes import ZarrArray, description, groups_above, images_of

TYPES = (*(f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)),)
TYPES += ("float32", "float64")
MOST_GROUPS = 8
"""Folders above a dataset that may be groups of its container."""
MOST_NAMED = 100
"""Datasets that a message lists."""


def n5_attributes(folder: Path) -> dict[str, Any]:
    """The attributes of a folder, empty without any."""
    return json_file(folder / "attributes.json")


def is_n5_dataset(path: Path) -> bool:
    """Whether a folder is an n5 dataset, not only a container of datasets."""
    return "dimensions" in n5_attributes(path)


def n5_dataset(path: Path, array: str) -> Path:
    """The folder of a dataset; DataError, with the datasets that exist, if it is none."""
    folder = path / array
    if is_n5_dataset(folder):
        return folder
    if is_n5_dataset(path):
        refuse_array(str(path), array)
    names = list(islice(_dataset_names(path), MOST_NAMED))
    if not names:
        raise DataError(
            f"{path} is not an n5 dataset: attributes.json has no `dimensions`; nor has that of a "
            "folder below it. Correct `path`, or fetch or copy the volume again"
        )
    if not array:
        raise DataError(f"{path} contains n5 datasets; set `array` to one of: {', '.join(names)}")
    raise DataError(f"{path} has no array {array!r}; {nearest(array, names)}")


def _dataset_names(folder: Path, prefix: str = "") -> Iterator[str]:
    """The paths of datasets below a folder; folders of blocks, which are numbers, are not entered.

    Groups may lack attributes.json.
    """
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        if is_n5_dataset(child):
            yield prefix + child.name
        elif child.is_dir() and prefix.count("/") < MOST_GROUPS and _may_be_group(child):
            yield from _dataset_names(child, f"{prefix}{child.name}/")


def _may_be_group(folder: Path) -> bool:
    return not folder.name.isdecimal() or (folder / "attributes.json").is_file()


def describe_n5(folder: Path) -> Description:
    """The description of a dataset, with the file's x, y, z in the order z, y, x."""
    try:
        return _described(folder)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error


def _described(folder: Path) -> Description:
    attributes = n5_attributes(folder)
    _check_numbers(attributes)
    shape = tuple(reversed(attributes["dimensions"]))
    dtype = str(attributes["dataType"])
    order: ByteOrder = "none" if dtype in ("int8", "uint8") else "big"
    above, path = _groups(folder)
    stated = _in_zyx(attributes)
    images = [level._replace(is_reversed=True) for level in images_of(path, above)]
    _refuse_names([stated, *(ome_zarr.levels(i.image)[n] for i in images for n in {0, i.number})])
    found = list(axes_in_attributes(stated))
    found += _axes_of_images(images, [statement.letters for statement in found])
    array = ZarrArray(shape, dtype, order, stated)
    return description(array, agreed_axes(shape, found), images, above, folder.name)


def _refuse_names(owners: Sequence[Mapping[str, Any]]) -> None:
    """DataError for a `transform` with names of axes that are not read.

    Nothing says then whether its lists have the order of the file or the reverse.
    """
    for owner in owners:
        names = axis_names(transform_of(owner).get("axes"))
        if names and axis_letters(names) is None:
            raise DataError(_rename("`transform.axes`", names))


def _rename(where: str, names: Sequence[Any]) -> str:
    return (
        f"{where} are {names}; in an n5, allowed: z, y and x, and perhaps t and c, because these "
        "names alone say which value belongs to which axis. Rename them in attributes.json"
    )


def _axes_of_images(
    images: Sequence[ImageLevel], own: Sequence[str | None]
) -> Iterator[AxesStatement]:
    """The axes that images name, in the order of the array; `own`: as its attributes name them.

    Their lists have an order of their own. x, y, z is that of the file and z, y, x that of the
    array: x changes fastest in both.
    """
    for image, _, _ in images:
        if not (names := ome_zarr.own_axes(image)):
            continue
        if (letters := axis_letters(names)) is None:
            raise DataError(_rename("the axes of its `multiscales`", names))
        orders = [letters, letters[::-1]]
        is_of_array = [a for a in letters if a in "zyx"] == list("zyx")
        usual = orders[0 if is_of_array else 1]
        agreed = next((order for order in own if order in orders), usual)
        yield AxesStatement(agreed, f"`multiscales` axes {names}")


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


def _groups(folder: Path) -> tuple[list[Group], str]:
    """The groups above a dataset, the nearest first, and its path below the last of them."""
    top = folder.absolute()
    parts: list[str] = []
    while len(parts) < MOST_GROUPS and (top.parent / "attributes.json").is_file():
        parts.insert(0, top.name)
        top = top.parent
    path = "/".join(parts)
    return groups_above(path, lambda group: _in_zyx(n5_attributes(top / group))), path


def _in_zyx(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes with their lists in the order z, y, x, also those that are written as text."""
    names = {key: axis_names(attributes[key]) for key in AXIS_KEYS if key in attributes}
    lists = {**attributes, **{key: value for key, value in names.items() if value is not None}}
    return {key: _reversed(key, value) for key, value in lists.items()}


def _reversed(key: str, value: Any) -> Any:
    """A list, or each list in a list, in the order z, y, x.

    `transform` and `multiscales` name their own axes.
    """
    if key == "pixelResolution" and isinstance(value, dict):
        return {name: _reversed("", inner) for name, inner in value.items()}
    if not isinstance(value, list) or key in ("transform", "multiscales"):
        return value
    is_nested = bool(value) and all(isinstance(inner, list) for inner in value)
    return [inner[::-1] for inner in value] if is_nested else value[::-1]
