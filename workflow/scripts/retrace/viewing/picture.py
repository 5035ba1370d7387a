"""Central sections drawn with matplotlib, for machines without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from retrace.files import atomic_write
from retrace.geometry import NmBox, VoxelBox
from retrace.viewing.captions import caption, scale_bar_nm
from retrace.viewing.colours import label_colours
from retrace.viewing.layers import SEGMENTATIONS, ViewLayer, central_section, focus

LIMIT = 1024
"""Greatest extent of a section along y and x, voxels."""


def draw_sections(layers: Sequence[ViewLayer], path: Path, size: tuple[int, int]) -> None:
    """Writes a PNG of about `size` pixels (w, h): a panel per layer, segmentations over raw."""
    box = focus(layers)
    raw = next((layer for layer in layers if layer.kind == "raw"), None)
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, layout="constrained")
    columns = min(4, len(layers))
    axes = figure.subplots(-(-len(layers) // columns), columns, squeeze=False).ravel()
    for axis, layer in zip(axes, layers, strict=False):
        if raw is not None and layer.kind in (*SEGMENTATIONS, "mask"):
            _show(axis, raw, box)
        section = _show(axis, layer, box)
        title = caption(layer.name, section.offset[0], layer.volume.voxel_size_nm[0])
        axis.set_title(title, fontsize=9)
        draw_scale_bar(axis)
    for axis in axes:
        axis.axis("off")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": ""})
    atomic_write(path, picture.getvalue())


def coloured_section(
    layer: ViewLayer, box: NmBox
) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Colours (Y, X, 4) in [0, 1] of the layer's central section of `box`, and its extent in nm.

    The extent is matplotlib's (left, right, bottom, top), with y downwards.
    """
    section = central_section(layer.volume, box, LIMIT)
    data = layer.volume.read(section, fill=0)[..., 0, :, :]
    box_nm = section.to_nm(layer.volume.voxel_size_nm)
    (_, top, left), (_, bottom, right) = box_nm.offset, box_nm.end
    return _colours(layer, data), (left, right, bottom, top)


def _colours(layer: ViewLayer, data: np.ndarray) -> np.ndarray:
    """Colours (Y, X, 4) in [0, 1] of one section, (Y, X) or (C, Y, X)."""
    if layer.kind in SEGMENTATIONS:
        return label_colours(data)
    if layer.kind == "mask":
        return np.where(data[..., None] == 0, [1.0, 0, 0, 0.5], [0.0, 0, 0, 0])
    values = data / 255.0 if data.dtype == np.uint8 else data.astype(np.float64)
    shown = next(iter(layer.images.values()))
    if len(shown) == 1:
        return _jet(values[shown[0]])
    planes = values[list(shown)] if shown else np.repeat(values[None], 3, axis=0)
    opaque = np.ones((1, *planes.shape[1:]))
    return np.moveaxis(np.concatenate([planes, opaque]).clip(0, 1), 0, -1)


def _jet(values: np.ndarray) -> np.ndarray:
    """Colours (Y, X, 4) of one channel (Y, X) in [0, 1], as neuroglancer's shader; 0 is clear."""
    colours = colormaps["jet"](values.clip(0, 1))
    colours[..., 3] = values != 0
    return np.asarray(colours)


def draw_scale_bar(axis: Any) -> None:
    """Draws a bar of a round length into the lower left corner of a picture in nm."""
    left, right = axis.get_xlim()
    bottom, top = axis.get_ylim()
    length, text = scale_bar_nm(right - left)
    x, y = left + 0.04 * (right - left), bottom + 0.05 * (top - bottom)
    for colour, width in (("black", 5), ("white", 3)):
        axis.plot([x, x + length], [y, y], color=colour, lw=width, solid_capstyle="butt")
    outline = [withStroke(linewidth=2, foreground="black")]
    axis.annotate(
        text, (x, y), (0, 4), textcoords="offset points", color="white", fontsize=8
    ).set_path_effects(outline)


def _show(axis: Any, layer: ViewLayer, box: NmBox) -> VoxelBox:
    """Draws the central section of a layer, and returns where it is."""
    colours, extent = coloured_section(layer, box)
    axis.imshow(colours, extent=extent, interpolation="nearest", aspect="equal")
    return central_section(layer.volume, box, LIMIT)
