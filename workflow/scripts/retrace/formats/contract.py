"""The reading contract: what a file says about its array, what the configuration adds, and both.

Each reader describes its array by a `Description`: shape, type, byte order, axes, and every voxel
size and position that the file states. `placement.placed` compares these with each other and with
the configuration; nothing is guessed. Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from retrace.geometry import NmTriple

if TYPE_CHECKING:
    import numpy as np

StatedBy = Literal["file", "config", "unknown"]
ByteOrder = Literal["little", "big", "none"]
Completeness = Literal["every chunk is listed", "each chunk that is read", "not known"]
"""What notices parts of an array that do not exist: nothing is read as 0 without a check."""


@dataclass(frozen=True)
class Convention:
    """One way to write sizes, positions or axes into a file, for the documentation."""

    name: str
    keys: tuple[str, ...]
    unit: str
    meaning: str


@dataclass(frozen=True)
class FormatPage:
    """What the documentation says about a format: docs/reference/formats.md."""

    title: str
    recognised_by: str
    axes: str
    voxel_size: str
    position: str
    byte_order: str
    channels: str
    codecs: str
    completeness: str
    """What notices parts that are missing or damaged."""
    refused: str
    conventions: tuple[Convention, ...] = ()
    """Of this format alone."""


def byte_order_of(dtype: np.dtype[Any]) -> ByteOrder:
    """The byte order of stored values."""
    if dtype.itemsize == 1:
        return "none"
    return "big" if dtype.byteorder == ">" else "little"


@dataclass(frozen=True)
class Statement:
    """A voxel size or a position that a file states, in the order z, y, x."""

    values: tuple[float | None, ...]
    """In nm; in an unknown unit without `has_unit`. None along an axis without a voxel size."""
    written: str
    """As the file states it, for messages: "`resolution` [8, 8, 8]"."""
    has_unit: bool = True
    rounding: float = 0.0
    """Relative error of the values, where the file rounds more than 32 bits do."""


class Group(NamedTuple):
    """A group above an array."""

    name: str
    """For messages."""
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Description:
    """What a file says about one array, (Z, Y, X), (C, Z, Y, X) or in the order of `axes`."""

    shape: tuple[int, ...]
    dtype: str
    """Its name without byte order, such as uint8."""
    byte_order: ByteOrder = "none"
    axes: str | None = None
    """A letter for each stored axis (t, c, z, y, x); None where the file names none."""
    axes_written: str = ""
    """How the file names its axes, for messages; also where its names are not t, c, z, y, x."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Attributes that may state sizes and positions in the order of the stored axes."""
    voxel_sizes: tuple[Statement, ...] = ()
    """Stated elsewhere than in the attributes, in the order z, y, x; so are the positions."""
    positions: tuple[Statement, ...] = ()
    completeness: Completeness = "not known"
    inverted: bool = False
    """Whether the file says that 0 is white, as MinIsWhite of a tif."""
    is_colour: bool = False
    """Whether the channels are red, green and blue of 8 bits, which are ids in labels."""
    drops_channel: bool = False
    """Whether a single channel is no axis of the result, as in an OME-Zarr image."""
    groups: tuple[Group, ...] = ()
    """The groups above the array, the nearest first; their attributes may state its size too."""
    level: str = ""
    """The array's own name, such as s1, where it may be a level of a group."""


@dataclass(frozen=True)
class Configured:
    """What the configuration says about the voxel size and position of an array, nm (z, y, x)."""

    voxel_size_nm: Sequence[float] | None = None
    offset_nm: Sequence[float] | None = None
    """Of this array; a different position in the file is refused."""
    default_offset_nm: Sequence[float] | None = None
    """Of its volume: where the file states no position."""


@dataclass(frozen=True)
class Placement:
    """Voxel size and position of the first voxel's corner, nm (z, y, x), and who states them."""

    voxel_size_nm: NmTriple
    offset_nm: NmTriple
    voxel_size_by: StatedBy
    offset_by: StatedBy
    """unknown: neither file nor configuration; the offset is 0 then."""
