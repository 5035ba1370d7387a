"""Central sections drawn with matplotlib, for machines without a browser."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from retrace.files import atomic_write
from retrace.geometry import NmBox
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
        _show(axis, layer, box)
        axis.set_title(layer.name, fontsize=9)
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


def label_colours(labels: np.ndarray) -> np.ndarray:
    """Colours (Y, X, 4) of ids (Y, X): an id has the same colour in every picture, 0 is clear."""
    # A multiplicative hash spreads neighbouring ids over the hues.
    mixed = labels.astype(np.uint64) * np.uint64(11400714819323198485)
    hue = (mixed >> np.uint64(40)).astype(np.float64) / 2**24
    value = 0.65 + 0.35 * ((mixed >> np.uint64(20)) & np.uint64(1023)).astype(np.float64) / 1023
    turns = (hue[..., None] * 6 + np.array([5.0, 3.0, 1.0])) % 6
    rgb = value[..., None] * (1 - np.clip(np.minimum(turns, 4 - turns), 0, 1))
    return np.concatenate([rgb, np.where(labels == 0, 0.0, 0.45)[..., None]], axis=-1)


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


def _show(axis: object, layer: ViewLayer, box: NmBox) -> None:
    colours, extent = coloured_section(layer, box)
    axis.imshow(colours, extent=extent, interpolation="nearest", aspect="equal")  # type: ignore[attr-defined]
