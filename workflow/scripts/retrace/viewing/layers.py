"""Layers of a view: volumes with a kind that decides how they are drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError, nearest
from retrace.geometry import NmBox, VoxelBox, triple
from retrace.remote.addresses import is_address
from retrace.storage.volumes import Volume, open_source

KINDS = (
    "raw",
    "labels",
    "mask",
    "affinities",
    "lsds",
    "boundary",
    "fragments",
    "segments",
)
"""Kinds of layers."""
SEGMENTATIONS = ("labels", "fragments", "segments")
"""Kinds whose values are ids."""
FOCUS = ("segments", "affinities", "lsds", "boundary", "labels", "raw", "fragments", "mask")
"""The view is centred on the first of these kinds that has a layer."""


@dataclass(frozen=True)
class ViewLayer:
    """One volume in a view; `kind` is one of `KINDS`."""

    name: str
    kind: str
    volume: Volume

    @property
    def box_nm(self) -> NmBox:
        """The volume's box in nm."""
        return self.volume.box.to_nm(self.volume.voxel_size_nm)


def open_layers(entries: Iterable[Mapping[str, Any]]) -> tuple[list[ViewLayer], list[str]]:
    """Opens the entries {kind, path, array, name?, voxel_size_nm?, offset_nm?} that exist.

    Returns the layers and the names of those whose files do not exist yet. ConfigError for an
    unknown kind, DataError where no layer exists.
    """
    layers, absent = [], []
    for entry in entries:
        kind = entry["kind"]
        if kind not in KINDS:
            raise ConfigError(f"no layers of kind {kind!r}; {nearest(kind, KINDS)}")
        name = entry.get("name") or kind
        if is_address(entry["path"]) or Path(entry["path"]).exists():
            layers.append(ViewLayer(name, kind, open_source(entry)))
        else:
            absent.append(f"{name} ({entry['path']})")
    if not layers:
        raise DataError(
            f"nothing to show: none of {', '.join(absent) or 'no layers'} exists; fetch the data, "
            "or run the steps that make them"
        )
    return layers, absent


def focus(layers: Sequence[ViewLayer]) -> NmBox:
    """The box of the most finished result, nm: what a view is centred on (`FOCUS`)."""
    for kind in FOCUS:
        for layer in layers:
            if layer.kind == kind:
                return layer.box_nm
    return layers[0].box_nm


def central_section(volume: Volume, box: NmBox, limit: int) -> VoxelBox:
    """The z section of `volume` through the middle of `box`, up to `limit` voxels in y and x."""
    size = volume.voxel_size_nm
    middle = [o + s // 2 for o, s in zip(box.offset, box.shape, strict=True)]
    extent = [min(limit, -(-s // v)) for s, v in zip(box.shape, size, strict=True)]
    extent[0] = 1
    begin = [m // v - e // 2 for m, v, e in zip(middle, size, extent, strict=True)]
    return VoxelBox(triple(begin), triple(extent))
