"""Voxel size and axes that WEBKNOSSOS writes into datasource-properties.json, above its arrays.

Converts the format's x, y, z to z, y, x. Format: docs.webknossos.org, "Dataset Metadata
Specification". Standard library only, because planning uses it too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from retrace.errors import DataError
from retrace.formats.attributes import above_0, exact, spatial, unit_in_nm
from retrace.formats.contract import Convention, Description, Statement
from retrace.formats.stated_axes import AxesStatement, agreed_axes, named_axes
from retrace.reading import existing_bytes, parse_json_object, reading_content

FILE = "datasource-properties.json"
MOST_FOLDERS = 3
"""Folders above an array that may have the file: layer, dataset, and one more."""
CONVENTION = Convention(
    "WEBKNOSSOS",
    (f"{FILE}: scale", "mags", "axisOrder"),
    "`unit` of `scale`; nm without it",
    "In a folder above the array, on this machine: `scale` times the array's `mag` is the voxel "
    "size, `axisOrder` names its axes. At an address it is not read: write `voxel_size_nm` and "
    "`axes`.",
)


def with_dataset_properties(
    name: str, folder: Path, file: Description, *, is_reversed: bool = False
) -> Description:
    """The description of the array in a folder, with what a dataset of WEBKNOSSOS around it says.

    `is_reversed`: whether the description has the file's axes in reverse order, as that of an n5.
    DataError if the two contradict each other.
    """
    for number, above in zip(range(MOST_FOLDERS), folder.absolute().parents, strict=False):
        content = existing_bytes(above / FILE)
        if content is not None:
            inner = folder.absolute().parts[-number - 1 :]
            properties = parse_json_object(content, above / FILE)
            with reading_content(above / FILE):
                return _described(name, "/".join(inner), file, properties, is_reversed)
    return file


def _described(
    name: str, path: str, file: Description, properties: Mapping[str, Any], is_reversed: bool
) -> Description:
    mag = next((m for layer, m in _mags(properties) if _is_at(path, layer, m)), None)
    if mag is None:
        return file
    try:
        found = [AxesStatement(file.axes, file.axes_written)] if file.axes else []
        letters, written = agreed_axes(file.shape, [*found, *_axes(mag, is_reversed)])
    except DataError as error:
        raise DataError(f"{name}: {error} ({FILE})") from error
    try:
        sizes = (*file.voxel_sizes, *_size(properties.get("scale"), mag))
    except DataError as error:
        raise DataError(f"{name}: {error} ({FILE}); correct it there") from error
    written = written or file.axes_written
    return replace(file, axes=letters, axes_written=written, voxel_sizes=sizes)


def _mags(properties: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The name of its layer and the entry of each array."""
    for layer in properties.get("dataLayers") or []:
        for mag in layer.get("mags") or []:
            yield str(layer.get("name")), mag


def _is_at(path: str, layer: str, mag: Mapping[str, Any]) -> bool:
    """Whether a mag is the array at `path`, which its entry states or its name says."""
    stated = str(mag.get("path") or "").removeprefix("./").rstrip("/")
    edges = _edges(mag)
    short = str(edges[0]) if len(set(edges)) == 1 else ""
    return path in (stated, f"{layer}/{short}", f"{layer}/{'-'.join(map(str, edges))}")


def _edges(mag: Mapping[str, Any]) -> Sequence[Any]:
    """The factors (x, y, z) by which an array is coarser than the finest."""
    edges = mag.get("mag", 1)
    return edges if isinstance(edges, list) else [edges] * 3


def _axes(mag: Mapping[str, Any], is_reversed: bool) -> Iterator[AxesStatement]:
    order = mag.get("axisOrder")
    if isinstance(order, Mapping):
        names = sorted(order, key=lambda name: int(order[name]), reverse=is_reversed)
        yield from named_axes("`axisOrder`", names)


def _size(scale: Any, mag: Mapping[str, Any]) -> Iterator[Statement]:
    if scale is None:
        return
    value, unit = scale, None
    if isinstance(scale, Mapping):
        value, unit = scale.get("factor"), scale.get("unit")
    length = Fraction(1) if unit is None else unit_in_nm(unit, "scale.unit")
    factors = spatial("mag", list(_edges(mag)), "xyz")
    sizes = spatial("scale", value, "xyz")
    above_0("`scale`", value, (*sizes, *factors))
    pairs = zip(sizes, factors, strict=True)
    values = [exact(size, (length or 1) * Fraction(repr(factor))) for size, factor in pairs]
    has_unit = length is not None
    written = f"`scale` times `mag` {values}{' nm' if has_unit else ''} in {FILE}"
    yield Statement(tuple(values), written, has_unit)
