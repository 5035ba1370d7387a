"""The plain picture: central sections drawn by matplotlib where there is no browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from retrace.files import atomic_write
from retrace.geometry import NmBox
from retrace.viewing.layers import SEGMENTATIONS, Layer, central_section, focus

LIMIT = 1024
"""Sections are cut to this many voxels along y and x."""


def draw_sections(layers: Sequence[Layer], path: Path, size: tuple[int, int]) -> None:
    """Writes a PNG of about `size` pixels: one panel per layer, segmentations over raw."""
    box = focus(layers)
    raw = next((layer for layer in layers if layer.kind == "raw"), None)
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, layout="constrained")
    columns = min(4, len(layers))
    axes = figure.subplots(-(-len(layers) // columns), columns, squeeze=False).ravel()
    for axis, layer in zip(axes, layers, strict=False):
        if raw is not None and layer.kind in (*SEGMENTATIONS, "mask"):
            _show(axis, raw, box)
        _show(axis, layer, box)
        axis.set_title(layer.name, fontsize=9)
    for axis in axes:
        axis.axis("off")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": ""})
    atomic_write(path, picture.getvalue())


def section(layer: Layer, box: NmBox) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """A layer's colours (y, x, 4) in [0, 1] on the central section of `box`, and its nm extent.

    The extent is (left, right, bottom, top) as matplotlib wants it, y downwards.
    """
    where = central_section(layer.volume, box, LIMIT)
    data = layer.volume.read(where, fill=0)[..., 0, :, :]
    low, high = (
        where.to_nm(layer.volume.voxel_size_nm).offset,
        where.to_nm(layer.volume.voxel_size_nm).end,
    )
    return _colours(layer, data), (low[2], high[2], high[1], low[1])


def label_colours(labels: np.ndarray) -> np.ndarray:
    """One colour per id (y, x, 4), the same for an id in every picture; 0 is transparent."""
    # a multiplicative hash spreads neighbouring ids over the hues
    mixed = labels.astype(np.uint64) * np.uint64(11400714819323198485)
    hue = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
    value = 0.65 + 0.35 * ((mixed >> np.uint64(20)) & np.uint64(1023)).astype(np.float64) / 1023
    turns = (hue[..., None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    rgb = value[..., None] * (1 - np.clip(np.minimum(turns, 4 - turns), 0, 1))
    return np.concatenate([rgb, np.where(labels == 0, 0.0, 0.45)[..., None]], axis=-1)


def _colours(layer: Layer, data: np.ndarray) -> np.ndarray:
    if layer.kind in SEGMENTATIONS:
        return label_colours(data)
    if layer.kind == "mask":
        return np.where(data[..., None] == 0, [1.0, 0, 0, 0.5], [0.0, 0, 0, 0])
    values = data / 255.0 if data.dtype == np.uint8 else data.astype(np.float64)
    planes = values[:3] if values.ndim == 3 else values[None]
    if len(planes) < 3:
        planes = np.repeat(planes[:1], 3, axis=0)
    opaque = np.ones((1, *planes.shape[1:]))
    return np.moveaxis(np.concatenate([planes, opaque]).clip(0, 1), 0, -1)


def _show(axis: object, layer: Layer, box: NmBox) -> None:
    colours, extent = section(layer, box)
    axis.imshow(colours, extent=extent, interpolation="nearest", aspect="equal")  # type: ignore[attr-defined]
