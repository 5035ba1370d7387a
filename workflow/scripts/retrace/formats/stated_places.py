"""All voxel sizes and positions that a file states: of an array, its image and its groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from retrace.errors import DataError
from retrace.formats import ome_zarr
from retrace.formats.attributes import (
    FACTORS,
    Attributes,
    downsampling,
    in_configured_order,
    statements,
    times,
    transform_of,
)
from retrace.formats.contract import Convention, Description, Group, Statement
from retrace.geometry import whole_voxels

Statements = tuple[Statement, ...]
CORRECT = "correct the attribute in the file"
LEVEL = re.compile(r"s?(\d+)")
"""Names of arrays that are levels of their group, such as s1; s0 is the finest."""
PYRAMID_KEYS = (FACTORS, "scales")
"""Attributes of a group that may list the factors of all its levels."""

GROUP_CONVENTION = Convention(
    "paintera, n5-viewer, CloudVolume",
    ("resolution", "pixelResolution", "offset", *PYRAMID_KEYS),
    "as in the attributes of an array",
    "The size of the finest level, and the position of all levels. A level is coarser by its own "
    f"`{FACTORS}`, or those that the group lists; a level s1, s2 .. may state a multiple of the "
    "group's size instead.",
)


def stated_places(file: Description, axes: str) -> tuple[Statements, Statements]:
    """Voxel sizes and positions, those of the array itself first; `axes`: of the stored array.

    A group states the voxel size of its finest level. `downsamplingFactors` of the array, or those
    that the group lists, say how much coarser a level is; a level named s1, s2 .. may also state a
    multiple of that size. DataError for values that make no sense, and for a level of unknown size.
    """
    is_configured = file.axes is None and bool(file.axes_written)
    found = [ome_zarr.image_statements(i, axes, is_configured=is_configured) for i in file.images]
    sizes, positions = _own(file, axes, found, is_configured=is_configured)
    sizes = (*sizes, *file.voxel_sizes, *(size for each in found for size in each.sizes))
    positions = (*positions, *file.positions, *(p for each in found for p in each.positions))
    for group in file.groups:
        of_group, places = _of_group(group, file, axes, is_needed=not sizes)
        if not (_level(file) and _multiples(sizes, of_group)):
            sizes = (*sizes, *of_group)
        positions = (*positions, *places)
    return sizes, positions


def _own(
    file: Description,
    axes: str,
    of_images: Sequence[ome_zarr.LevelStatements],
    *,
    is_configured: bool,
) -> tuple[Statements, Statements]:
    """What the attributes of the array itself state.

    CellMap writes the position of a level into the array too. It is left out there, because only
    the image with all its levels shows whether it is that of a centre.
    """
    transform = transform_of(file.attributes)
    if is_configured:
        transform = in_configured_order(transform)
    attributes: Attributes = {**file.attributes, "transform": transform}
    try:
        stated = [position.values for position in statements({"transform": transform}, axes)[1]]
        if any(each.written_position in stated for each in of_images):
            kept = {key: value for key, value in transform.items() if key != "translate"}
            attributes = {**attributes, "transform": kept}
        return statements(attributes, axes)
    except DataError as error:
        raise DataError(f"{error}; {CORRECT}") from error


def _of_group(
    group: Group, file: Description, axes: str, *, is_needed: bool
) -> tuple[list[Statement], list[Statement]]:
    """What a group states about the array; `is_needed`: whether nothing else states its size."""
    own = {key: value for key, value in group.attributes.items() if key not in PYRAMID_KEYS}
    try:
        sizes, positions = statements(own, axes)
        factors = _factors(group, file, axes) if sizes else (1, 1, 1)
        if factors is None and is_needed:
            raise DataError(
                f"it states {sizes[0].written}, which is that of its finest level, and nothing "
                f"states how much coarser {file.level} is; add `{FACTORS}` to the array"
            )
    except DataError as error:
        raise DataError(f"the group {group.name}: {error}; {CORRECT}") from error
    sizes = tuple(times(size, factors or (1, 1, 1)) for size in sizes)
    return [_named(group, s) for s in sizes], [_named(group, s) for s in positions]


def _factors(group: Group, file: Description, axes: str) -> Sequence[float] | None:
    """How much coarser an array is than the finest level; None for a coarser level without."""
    if FACTORS in file.attributes:
        return downsampling(file.attributes, axes)
    level = _level(file)
    for key in PYRAMID_KEYS:
        listed = group.attributes.get(key)
        if isinstance(listed, list) and 0 <= level < len(listed) and LEVEL.fullmatch(file.level):
            if not isinstance(listed[level], list):
                raise DataError(
                    f"`{key}` is {listed}; it must be a list of the factors of each level, such as "
                    "[[1, 1, 1], [1, 2, 2]]"
                )
            return downsampling({FACTORS: listed[level]}, axes)
    return (1, 1, 1) if level == 0 else None


def _named(group: Group, statement: Statement) -> Statement:
    written = f"{statement.written} of the group {group.name}"
    return replace(statement, written=written)


def _level(file: Description) -> int:
    """The number in the array's name if it is a coarser level, such as 1 for s1, else 0."""
    match = LEVEL.fullmatch(file.level)
    return int(match[1]) if match else 0


def _multiples(own: Sequence[Statement], of_group: Sequence[Statement]) -> bool:
    """Whether the array states a size that is a multiple of that of its group."""
    return bool(own) and all(
        whole_voxels(_numbers(own[0]), _numbers(size)) is not None for size in of_group
    )


def _numbers(size: Statement) -> list[float]:
    """The values of a statement; attributes state one along each axis."""
    return [value for value in size.values if value is not None]
