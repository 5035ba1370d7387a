"""What is shown: volumes with the way they are drawn, opened where they exist."""

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
"""What a layer may be."""
SEGMENTATIONS = ("labels", "fragments", "segments")
FOCUS = ("segments", "affinities", "lsds", "boundary", "labels", "raw", "fragments", "mask")
"""The first of these that is there is what the view is centred on."""


@dataclass(frozen=True)
class Layer:
    """One volume in a view."""

    name: str
    kind: str
    volume: Volume

    @property
    def box_nm(self) -> NmBox:
        """Where it lies, nm."""
        return self.volume.box.to_nm(self.volume.voxel_size_nm)


def open_layers(entries: Iterable[Mapping[str, Any]]) -> tuple[list[Layer], list[str]]:
    """Opens the entries {kind, path, array, name?, voxel_size_nm?, offset_nm?} that exist.

    Returns the layers and the names of those left out because their files are not there (yet).
    Raises ConfigError for an unknown kind, DataError if nothing is left to show.
    """
    layers, absent = [], []
    for entry in entries:
        kind = entry["kind"]
        if kind not in KINDS:
            raise ConfigError(f"unknown kind of layer {kind!r}; {nearest(kind, KINDS)}")
        name = entry.get("name") or kind
        if is_address(entry["path"]) or Path(entry["path"]).exists():
            layers.append(Layer(name, kind, open_source(entry)))
        else:
            absent.append(f"{name} ({entry['path']})")
    if not layers:
        raise DataError(
            f"nothing to show: none of {', '.join(absent) or 'no layers'} exists; fetch first"
        )
    return layers, absent


def focus(layers: Sequence[Layer]) -> NmBox:
    """The region worth looking at, nm: that of the most finished result."""
    for kind in FOCUS:
        for layer in layers:
            if layer.kind == kind:
                return layer.box_nm
    return layers[0].box_nm


def central_section(volume: Volume, box: NmBox, limit: int) -> VoxelBox:
    """The section of `volume` through the middle of `box`, at most `limit` voxels wide and high."""
    size = volume.voxel_size_nm
    middle = [o + s // 2 for o, s in zip(box.offset, box.shape, strict=True)]
    extent = [min(limit, -(-s // v)) for s, v in zip(box.shape, size, strict=True)]
    extent[0] = 1
    begin = [m // v - e // 2 for m, v, e in zip(middle, size, extent, strict=True)]
    return VoxelBox(triple(begin), triple(extent))
