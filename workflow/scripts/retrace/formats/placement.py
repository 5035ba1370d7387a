"""Where an array is: its axes, voxel size and offset, and labels in the middle of an image.

Triples are in the order z, y, x. Standard library only, because planning uses it too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from retrace.errors import DataError
from retrace.formats.contract import Configured, Description, Placement, StatedBy, Statement
from retrace.formats.stated_places import stated_places
from retrace.geometry import (
    NmTriple,
    VoxelBox,
    checked_voxel_size,
    nm_triple,
    triple,
    whole_voxels,
)

EVEN = "even"
"""The `auto_crop` for labels whose surplus to their image must be even."""

SAME_SIZE = 1e-6
"""Relative difference of two voxel sizes that are the same: files round to 32 bits."""
SAME_POSITION_NM = 1e-2
"""Difference of two positions that are the same, nm."""


def as_option(error: UnknownSizeError) -> DataError:
    """The error for programs with an option that states the size."""
    return DataError(
        f"{error.args[0].partition(' has no voxel')[0]} states no voxel size with a unit; "
        "state it: --voxel-size-nm Z,Y,X (nm)"
    )


class UnknownSizeError(DataError):
    """Nothing states the voxel size, or that of one axis, or its unit."""


def placed(name: str, file: Description, axes: str, config: Configured) -> Placement:
    """Where an array is; DataError if statements contradict each other or no size is stated.

    `axes`: letters of the stored axes. Sizes and positions without a unit count as nm if the
    configuration states the same size.
    """
    try:
        all_sizes, all_positions = stated_places(file, axes)
    except DataError as error:
        raise DataError(f"{name}: {error}; correct the attribute in the file") from error
    size = None if config.voxel_size_nm is None else checked_voxel_size(config.voxel_size_nm)
    sizes = _with_unit(name, all_sizes, size)
    positions = _with_known_unit(name, all_positions, sizes)
    stated_size = _agreed(name, "voxel size", sizes, size, "voxel_size_nm")
    stated_offset = _agreed(name, "position", positions, config.offset_nm, "offset_nm")
    if stated_size is None:
        raise UnknownSizeError(
            f"{name} has no voxel size: the file states none, and the dataset's config has no "
            "`voxel_size_nm`; add it (nm, z y x)"
        )
    default = config.offset_nm if config.offset_nm is not None else config.default_offset_nm
    offset = default if stated_offset is None else stated_offset
    try:
        checked = checked_voxel_size(stated_size)
        corner = nm_triple(offset if offset is not None else (0, 0, 0))
    except DataError as error:
        raise DataError(f"{name}: {error}; correct its metadata, or the config") from error
    offset_by: StatedBy = "file" if positions else "unknown" if offset is None else "config"
    return Placement(checked, corner, "file" if sizes else "config", offset_by)


def _with_unit(
    name: str, statements: Sequence[Statement], size: NmTriple | None
) -> list[Statement]:
    """The statements whose unit is known, because it is stated or gives the configured size.

    DataError for a size without a unit that is not the configured one.
    """
    kept = []
    for statement in statements:
        if statement.has_unit or (size is not None and _same_size(statement, _configured(size))):
            kept.append(statement)
            continue
        configured = "states none" if size is None else f"says {list(size)} nm"
        kind = UnknownSizeError if size is None else DataError
        raise kind(
            f"{name} states {statement.written} without a unit, and the config {configured}; "
            "write the voxel size in nm as `voxel_size_nm`, and correct the file if it is not in nm"
        )
    return kept


def _with_known_unit(
    name: str, positions: Sequence[Statement], sizes: Sequence[Statement]
) -> Sequence[Statement]:
    """The positions; DataError for one without a unit where no size tells what its unit is."""
    for position in positions:
        if not position.has_unit and any(position.values) and not sizes:
            raise DataError(
                f"{name} states {position.written} without a unit; write the position in nm as "
                "`offset_nm`, and remove it from the file"
            )
    return positions


def _agreed(
    name: str,
    what: str,
    statements: Sequence[Statement],
    configured: Sequence[float] | None,
    key: str,
) -> Sequence[float] | None:
    """The value of all statements; None without any. DataError if two of them contradict."""
    if not statements:
        return configured if what == "voxel size" else None
    all_of_them = list(statements)
    if configured is not None:
        all_of_them.append(_configured(configured, key))
    same = _same_size if what == "voxel size" else _same_position
    for one, other in combinations(all_of_them, 2):
        if not same(one, other):
            is_configured = configured is not None and other is all_of_them[-1]
            remedy = _remedy(what, key) if is_configured else "correct the file"
            raise DataError(
                f"{name}: two statements of its {what} contradict each other: {one.written}, and "
                f"{other.written} (z, y, x); {remedy}"
            )
    return _along_each_axis(name, what, all_of_them, key)


def _configured(values: Sequence[float], key: str = "") -> Statement:
    return Statement(tuple(values), f"`{key}` {list(values)} nm in the config")


def _along_each_axis(
    name: str, what: str, statements: Sequence[Statement], key: str
) -> Sequence[float]:
    """The last value that is stated along each of z, y, x; DataError for an axis without one."""
    values: list[float] = []
    for axis, column in zip("zyx", zip(*(s.values for s in statements), strict=True), strict=True):
        stated = [value for value in column if value is not None]
        if not stated:
            kind = UnknownSizeError if what == "voxel size" else DataError
            raise kind(
                f"{name} states {statements[0].written} (z, y, x), and no {what} along {axis}; add "
                f"`{key}` to the dataset's config (nm, z y x)"
            )
        values.append(stated[-1])
    return values


def _remedy(what: str, key: str) -> str:
    if what == "voxel size":
        return f"correct `{key}` in the dataset's config, or the file"
    return f"leave out `{key}`, which is only for files that state no position, or correct the file"


def _same_size(one: Statement, other: Statement) -> bool:
    """Whether two voxel sizes are equal up to the rounding of files, where both are stated."""
    rounding = max(SAME_SIZE, one.rounding, other.rounding)
    return all(math.isclose(a, b, rel_tol=rounding) for a, b in _stated_by_both(one, other))


def _same_position(one: Statement, other: Statement) -> bool:
    return all(abs(a - b) <= SAME_POSITION_NM for a, b in _stated_by_both(one, other))


def _stated_by_both(one: Statement, other: Statement) -> list[tuple[float, float]]:
    pairs = zip(one.values, other.values, strict=True)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


@dataclass(frozen=True)
class Extent:
    """Where an array is: shape (z, y, x), offset in nm, and whether anything states it."""

    name: str
    shape: Sequence[int]
    offset_nm: NmTriple
    is_placed: bool


def check_place_in_image(part: Extent, image: Extent, *, same_voxels: bool = True) -> None:
    """DataError for labels or a mask whose place in their image nothing states.

    Without a statement both are at 0, which is right only if they have the same shape.
    `same_voxels`: whether their voxels have the same size.
    """
    if part.is_placed:
        return
    if any(image.offset_nm):
        raise DataError(
            f"{part.name} states no position, and {image.name} begins at {list(image.offset_nm)} "
            "nm (z, y, x); add `offset_nm` to the source, or `auto_crop: true` to the volume if it "
            "is in the middle of the image"
        )
    if same_voxels and list(part.shape) != list(image.shape):
        raise DataError(
            f"{part.name} has {list(part.shape)} voxels, {image.name} {list(image.shape)}, and "
            "nothing states where the smaller one is in the other; add `offset_nm` to the source "
            "(nm, z y x; [0, 0, 0] for the first corner), or `auto_crop: true` to the volume for "
            "its middle"
        )


def box_on_grid(
    name: str, shape: Sequence[int], offset_nm: Sequence[float], voxel_size_nm: Sequence[float]
) -> VoxelBox:
    """The box of an array, voxels from the world's origin; DataError if off the voxel grid."""
    offset = whole_voxels(offset_nm, voxel_size_nm)
    if offset is None:
        raise DataError(
            f"{name}: offset {list(offset_nm)} nm is no multiple of the voxel size "
            f"{list(voxel_size_nm)} nm; correct `offset_nm` in the dataset's config, or the file"
        )
    return VoxelBox(offset, triple(shape[-3:]))


def lead_in_image(
    labels: str,
    inner: Sequence[int],
    image: str,
    outer: Sequence[int],
    crop: bool | Literal["even"],
) -> list[int]:
    """Voxels of the image before the first voxel of labels that are in its middle.

    `inner`, `outer`: shapes of labels and image. The central voxels coincide; of an even size, the
    lower of the two is taken. DataError if the labels do not fit.
    """
    if list(inner) != list(outer) and not crop:
        raise DataError(
            f"{labels} has {list(inner)} voxels, {image} {list(outer)}; use labels as "
            "large as the image, or set `auto_crop: true` (is_auto_crop = yes in a .spec) to put "
            "them in its middle"
        )
    if any(small > large for small, large in zip(inner, outer, strict=True)):
        raise DataError(f"{labels} {list(inner)} is larger than {image} {list(outer)}")
    surplus = [large - small for small, large in zip(inner, outer, strict=True)]
    if crop == EVEN and any(n % 2 for n in surplus):
        raise DataError(
            f"{image} is {surplus} voxels (z, y, x) larger than {labels}; labels are in "
            "the middle of their image, so each surplus must be even. Cut one section or row off "
            "the image"
        )
    return [(large - 1) // 2 - (small - 1) // 2 for small, large in zip(inner, outer, strict=True)]
