"""Pictures of single errors: raw around the place, with the outlines of segments and objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from retrace.geometry import ON_GRID, VoxelBox, triple
from retrace.storage.volumes import Volume
from retrace.viewing.captions import caption
from retrace.viewing.displacement_pictures import png_bytes
from retrace.viewing.error_layer import describe_error
from retrace.viewing.picture import draw_scale_bar

WIDTH_VOXELS = 160
"""Width and height of a picture, in the finest voxel edge of the plane."""
SEGMENT_COLOURS = ("#ffb000", "#00e5ff")
"""Outlines of the error's own segment, and of the other one."""
OBJECT_COLOURS = ("#ff40ff", "#60ff60")
"""Outlines of the error's own object, and of the other one; dashed."""


Extent = tuple[float, float, float, float]
"""Left, right, bottom and top of a picture, nm."""


@dataclass(frozen=True)
class ErrorPicture:
    """A picture of an error as the bytes of a PNG, and what it shows."""

    row: Mapping[str, Any]
    """The error as errors.json lists it."""
    title: str
    png: bytes


@dataclass(frozen=True)
class PictureVolumes:
    """The volumes that an error is drawn from; raw and labels where there are any."""

    segments: Volume
    raw: Volume | None = None
    labels: Volume | None = None


def error_pictures(
    errors: Mapping[str, Any], volumes: PictureVolumes, count: int = 10
) -> list[ErrorPicture]:
    """Pictures of the `count` largest errors of a list: `volumes.ENTRY.lists.KEY` of errors.json.

    Each shows the section of the error's place. Solid: the segments; dashed: the objects; the cross
    is the place. Only the voxels that are shown are read.
    """
    pictures = []
    for row in errors["errors"][:count]:
        title = describe_error(row, errors["counted"])
        pictures.append(ErrorPicture(row, title, png_bytes(_figure(row, volumes))))
    return pictures


def _figure(row: Mapping[str, Any], volumes: PictureVolumes) -> Figure:
    """One picture of 3.2 inches; its axes are in nm, y downwards."""
    figure = Figure(figsize=(3.2, 3.5), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.set_facecolor("black")
    point = row["point_nm"]
    if volumes.raw is not None:
        grey, extent = _section(volumes.raw, point)
        axis.imshow(grey, cmap="gray", extent=extent, interpolation="nearest")
    ids, extent = _section(volumes.segments, point)
    _outline(axis, ids, extent, row["segments"], SEGMENT_COLOURS, "solid")
    if volumes.labels is not None:
        objects, of_labels = _section(volumes.labels, point)
        _outline(axis, objects, of_labels, row["ground_truth"], OBJECT_COLOURS, "dashed")
    axis.plot(point[2], point[1], "+", color="white", ms=12, mew=1.5)
    axis.set(xlim=extent[:2], ylim=extent[2:], aspect="equal", xticks=[], yticks=[])
    draw_scale_bar(axis)
    z = _crop(volumes.segments, point).offset[0]
    place = caption(f"{row['rank']}. {row['kind']}", z, volumes.segments.voxel_size_nm[0])
    axis.set_title(f"{place}\n{100 * row['voi_fraction']:.2g} % of the VOI", fontsize=9)
    return figure


def _crop(volume: Volume, point_nm: Sequence[float]) -> VoxelBox:
    """The part of a section around a point, inside the volume."""
    size, box = volume.voxel_size_nm, volume.box
    centre = [math.floor(p / v + ON_GRID) for p, v in zip(point_nm, size, strict=True)]
    half = [math.ceil(WIDTH_VOXELS / 2 * min(size[1:]) / v) for v in size[1:]]
    # A point on the last face of the volume is shown in its last section.
    z = min(max(centre[0], box.offset[0]), box.end[0] - 1)
    begin = (z, centre[1] - half[0], centre[2] - half[1])
    return VoxelBox(triple(begin), triple((1, 2 * half[0], 2 * half[1]))).intersect(box)


def _section(volume: Volume, point_nm: Sequence[float]) -> tuple[np.ndarray, Extent]:
    """The values (Y, X) around a point, and their extent (left, right, bottom, top), nm."""
    box = _crop(volume, point_nm)
    box_nm = box.to_nm(volume.voxel_size_nm)
    (_, top, left), (_, bottom, right) = box_nm.offset, box_nm.end
    return volume.read(box)[..., 0, :, :], (left, right, bottom, top)


def _outline(
    axis: Any,
    ids: np.ndarray,
    extent: Extent,
    chosen: Sequence[int],
    colours: Sequence[str],
    style: str,
) -> None:
    """Draws the outlines of chosen ids (uint64) in a section (Y, X) along the edges of voxels."""
    left, right, bottom, top = extent
    rows, columns = ids.shape
    for id_, colour in zip(chosen, colours, strict=False):
        inside = np.kron(ids.astype(np.uint64) == np.uint64(id_), np.ones((4, 4)))
        x = left + (np.arange(columns * 4) + 0.5) * (right - left) / (columns * 4)
        y = top + (np.arange(rows * 4) + 0.5) * (bottom - top) / (rows * 4)
        if 0 < inside.mean() < 1:
            axis.contour(x, y, inside, [0.5], colors=colour, linewidths=1.3, linestyles=style)
