"""All voxel sizes and positions that a file states: of an array, its image and its groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from retrace.errors import DataError
from retrace.formats.attributes import FACTORS, downsampling, statements, times
from retrace.formats.contract import Convention, Description, Group, Statement
from retrace.geometry import whole_voxels

Statements = tuple[Statement, ...]
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
    sizes, positions = statements(file.attributes, axes)
    sizes, positions = (*sizes, *file.voxel_sizes), (*positions, *file.positions)
    for group in file.groups:
        of_group, places = _of_group(group, file, axes, is_needed=not sizes)
        if not (_level(file) and _multiples(sizes, of_group)):
            sizes = (*sizes, *of_group)
        positions = (*positions, *places)
    return sizes, positions


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
        raise DataError(f"the group {group.name}: {error}") from error
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
