"""Layers of a view: volumes with a kind that decides how they are drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrace.config.view_model import LayerKind, ViewLayerSource
from retrace.errors import DataError
from retrace.formats.source import Source
from retrace.geometry import ON_GRID, NmBox, VoxelBox, triple, voxels_to_cover
from retrace.remote.addresses import is_address
from retrace.storage.images import open_image
from retrace.storage.value_checks import check_sample
from retrace.storage.volumes import Volume, open_source
from retrace.viewing.exported_meshes import ExportedMeshes

SEGMENTATIONS = ("labels", "fragments", "segments")
"""Kinds whose values are ids."""
FOCUS = ("segments", "affinities", "lsds", "boundary", "labels", "raw", "fragments", "mask")
"""The view is centred on the first of these kinds that has a layer."""


LSD_PARTS = {"offset": (0, 1, 2), "covariance": (3, 4, 5), "pearson": (6, 7, 8), "size": (9,)}
"""Channels of the ten LSDs that form one image (tutorial of Sheridan et al. 2023)."""


@dataclass(frozen=True)
class ViewLayer:
    """One volume in a view."""

    name: str
    kind: LayerKind
    volume: Volume
    lsd_channels: tuple[int, ...] | None = None
    """Channels of descriptors to show, one or three; None: all, as in `LSD_PARTS`."""
    meshes: ExportedMeshes | None = None
    """Meshes of the segments; None: they are computed while they are looked at."""

    @property
    def box_nm(self) -> NmBox:
        """The volume's box in nm."""
        return self.volume.box.to_nm(self.volume.voxel_size_nm)

    @property
    def images(self) -> dict[str, tuple[int, ...]]:
        """Names of the images that it becomes, and the channels of each; descriptors several."""
        channels = self.volume.channels
        if self.kind == "lsds" and channels >= 10:
            chosen = self.lsd_channels
            parts = LSD_PARTS if chosen is None else {",".join(map(str, chosen)): chosen}
            return {f"{self.name} {part}": shown for part, shown in parts.items()}
        return {self.name: (0, 1, 2) if channels >= 3 else (0,) * min(channels, 1)}


def open_layers(
    sources: Iterable[ViewLayerSource], lsd_channels: tuple[int, ...] | None = None
) -> tuple[list[ViewLayer], list[str]]:
    """Opens the layers that exist; also returns names and paths of those that do not exist yet.

    DataError if no layer exists.
    """
    layers, absent = [], []
    for source in sources:
        name = source.name or source.kind
        if is_address(source.path) or Path(source.path).exists():
            opened = _open_grey(source) if source.kind == "raw" else open_source(source)
            layers.append(ViewLayer(name, source.kind, opened, lsd_channels))
        else:
            absent.append(f"{name} ({source.path})")
    if not layers:
        raise DataError(
            f"nothing to show: none of {', '.join(absent) or 'no layers'} exists; fetch the data, "
            "or run the steps that make them"
        )
    return layers, absent


def _open_grey(source: Source) -> Volume:
    """Raw with its grey values; DataError if some blocks show that it needs `normalize`."""
    volume = open_image(source)
    check_sample(volume, volume.box)
    return volume


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
    middle = [o + s / 2 for o, s in zip(box.offset, box.shape, strict=True)]
    extent = (1, *(min(limit, n) for n in voxels_to_cover(box.shape, size)[1:]))
    sides = zip(middle, size, extent, strict=True)
    begin = [math.floor(m / v + ON_GRID) - e // 2 for m, v, e in sides]
    return VoxelBox(triple(begin), triple(extent))
