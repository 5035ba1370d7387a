"""What is known about a source, and who states it: the file, the config, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from retrace.errors import DataError
from retrace.formats.arrangement import arrange
from retrace.formats.contract import Configured, Description, Placement, StatedBy, Statement
from retrace.formats.normalize import as_setting
from retrace.formats.placement import UnknownSizeError, placed
from retrace.formats.source import Source
from retrace.formats.stated_places import stated_places
from retrace.storage.store_check import FILL_MISSING
from retrace.storage.volumes import open_stored


@dataclass(frozen=True)
class Property:
    """One property of an array."""

    name: str
    value: str
    stated_by: StatedBy
    statement: str = ""
    """How the file or the config states it, or why nobody does."""
    is_refused: bool = False
    """Whether the volume cannot be read because of it; `statement` is the error then."""


def properties(source: Source) -> Iterator[Property]:
    """The properties of a source; DataError if it cannot be opened."""
    file = open_stored(source.model_copy(update={"missing_chunks": FILL_MISSING})).description
    name = f"{source.path}/{source.array}" if source.array else source.path
    yield Property("shape", str(list(file.shape)), "file")
    yield Property("type", file.dtype, "file")
    order = "none, one byte" if file.byte_order == "none" else f"{file.byte_order}-endian"
    yield Property("byte order", order, "file")
    yield from _grey_values(file, source)
    yield from _axes_and_place(name, file, source)
    yield _completeness(file, source)


def _grey_values(file: Description, source: Source) -> Iterator[Property]:
    """What is white, and how values become grey values, where file or config say so."""
    settings = source.normalize
    if file.inverted and (settings is None or settings.invert is None):
        yield Property("grey values", "0 is white", "file", "MinIsWhite")
    if settings is not None:
        alone = "inverted" if settings.invert else "as stored"
        used = "read as uint8" if settings.scales else alone
        line = as_setting(settings.range, settings.invert, settings.percentiles)
        yield Property("grey values", used, "config", line)


def _axes_and_place(name: str, file: Description, source: Source) -> Iterator[Property]:
    try:
        how = arrange(name, file, source.axes, source.channel, drops_channel=True)
    except DataError as error:
        yield Property("axes", "refused", "unknown", str(error), is_refused=True)
        return
    used = how.axes if how.is_as_stored else f"{how.axes}, read as {how.kept}"
    yield Property("axes", used, *_axes_stated(file, source))
    count = dict(zip(how.axes, file.shape, strict=True)).get("c")
    one = "" if source.channel is None else f", of which {source.channel} is read"
    by: StatedBy = "file" if file.axes else "config" if source.axes else "unknown"
    yield Property("channels", "none" if count is None else f"{count}{one}", by)
    yield from _place(name, file, how.axes, source)


def _axes_stated(file: Description, source: Source) -> tuple[StatedBy, str]:
    if file.axes is not None:
        return "file", file.axes_written
    if source.axes is not None:
        return "config", f"`axes: {source.axes}`"
    return "unknown", "neither file nor config name the axes; the usual order is taken"


def _place(name: str, file: Description, axes: str, source: Source) -> Iterator[Property]:
    config = Configured(source.voxel_size_nm, source.offset_nm, source.default_offset_nm)
    try:
        place = placed(name, file, axes, config)
        sizes, positions = stated_places(file, axes)
    except UnknownSizeError as error:
        yield from _without_size(name, file, axes, source, str(error))
        return
    except DataError as error:
        yield Property("place", "refused", "unknown", str(error), is_refused=True)
        return
    size = f"{list(place.voxel_size_nm)} nm (z, y, x)"
    yield Property("voxel size", size, place.voxel_size_by, _size_stated(sizes, place))
    offset = f"{list(place.offset_nm)} nm (z, y, x)"
    yield Property("position", offset, place.offset_by, _position_stated(positions, place, source))


def _without_size(
    name: str, file: Description, axes: str, source: Source, error: str
) -> Iterator[Property]:
    """An unknown voxel size, which is no fault of a file, and the position if it has a unit."""
    sizes, positions = stated_places(file, axes)
    nobody = "neither file nor config state it; add `voxel_size_nm`"
    yield Property("voxel size", "unknown", "unknown", error if sizes else nobody)
    if all(statement.has_unit for statement in (*sizes, *positions)):
        size = [next((s.values[a] for s in sizes if s.values[a] is not None), 1) for a in range(3)]
        any_size = source.model_copy(update={"voxel_size_nm": size})
        yield from list(_place(name, file, axes, any_size))[-1:]
    else:
        yield Property("position", "unknown", "unknown", "its unit is that of the voxel size")


def _size_stated(sizes: tuple[Statement, ...], place: Placement) -> str:
    return "`voxel_size_nm`" if place.voxel_size_by == "config" else _quoted(sizes)


def _position_stated(positions: tuple[Statement, ...], place: Placement, source: Source) -> str:
    if place.offset_by == "file":
        return _quoted(positions)
    if place.offset_by == "config":
        return "`offset_nm`" if source.offset_nm is not None else "`offset_nm` of the volume"
    return "neither file nor config state it; 0 is taken"


def _quoted(statements: tuple[Statement, ...]) -> str:
    return "; ".join(statement.written for statement in statements)


def _completeness(file: Description, source: Source) -> Property:
    """Whether chunks are missing, as far as this can be known without reading all data."""
    name = "completeness"
    if source.missing_chunks == FILL_MISSING:
        return Property(name, "missing chunks are empty", "config", "`missing_chunks: fill`")
    if file.completeness != "every chunk is listed":
        return Property(name, "checked while reading", "unknown", file.completeness)
    try:
        open_stored(source)
    except DataError as error:
        return Property(name, "refused", "file", str(error), is_refused=True)
    return Property(name, "every chunk exists", "file")
