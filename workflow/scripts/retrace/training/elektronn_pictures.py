"""ELEKTRONN's pictures of a running training: a batch to check, and previews of predictions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from retrace.files import atomic_write

SHOWN, COLUMNS = 64, 8
"""Most examples of a batch in its picture, and tiles of a row."""
OTHERS = "no label"
CLASS_COLOURS = ("#3b528b", "#fde725", "#e8590c", "#2b8a3e", "#c2255c", "#22b8cf", "#868e96")
"""Colours of classes 0, 1, ...; further classes begin again with the first."""


def save_figure(figure: Any, path: Path) -> Path:
    """Writes a figure as PNG."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content.getvalue())
    return path


def new_figure(width: float, height: float) -> Any:
    """An empty figure, inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tiled(images: np.ndarray, columns: int, border: int = 1) -> np.ndarray:
    """Images (N, Y, X) as tiles, separated by borders of the smallest value."""
    count, height, width = images.shape
    rows = -(-count // columns)
    step_y, step_x = height + border, width + border
    whole = np.full((rows * step_y + border, columns * step_x + border), images.min())
    for place, image in enumerate(images):
        y, x = divmod(place, columns)
        top, left = border + y * step_y, border + x * step_x
        whole[top : top + height, left : left + width] = image
    return whole


def examples_picture(batch: Mapping[str, Tensor], path: Path) -> Path:
    """Draws the images of a batch, or vectors of a square length as images, with their classes."""
    values = batch["input"].detach().cpu().float().numpy()
    target = batch["target"].detach().cpu().numpy()
    images = values[:SHOWN, 0] if values.ndim == 4 else _squares(values[:SHOWN])
    tiles = tiled(images, COLUMNS)
    figure = new_figure(7.0, 7.0 * tiles.shape[0] / tiles.shape[1] + 0.4)
    axis = figure.add_subplot(1, 1, 1)
    axis.imshow(tiles, cmap="gray", interpolation="none")
    axis.set_axis_off()
    classes = target[: len(images)] if target.ndim == 1 else ()
    for place, label in enumerate(classes):
        row, column = divmod(place, COLUMNS)
        at = (column * (images.shape[2] + 1) + 2, row * (images.shape[1] + 1) + 2)
        axis.text(*at, str(label), color="yellow", fontsize=9, ha="left", va="top")
    title = f"the first {len(images)} of {len(values)} examples of a batch"
    axis.set_title(title + (", each with its class" if len(classes) else ""))
    return save_figure(figure, path)


def _squares(values: np.ndarray) -> np.ndarray:
    """Vectors (N, n) as square images, or as lines (N, 1, n) if n is no square."""
    side = round(values.shape[1] ** 0.5)
    if side * side == values.shape[1]:
        return values.reshape(-1, side, side)
    return values[:, None, :]


def registration_picture(image: np.ndarray, labels: np.ndarray, path: Path) -> Path:
    """Draws a section: data, labels, and their overlay, to check that they belong together.

    `image` (Z, Y, X); `labels` (Z, Y, X) at the same voxels, below 0 where the network has no
    output or no class is known.
    """
    section = image.shape[0] // 2
    if (labels[section] < 0).all() and (labels >= 0).any():
        section = int(np.flatnonzero((labels >= 0).any(axis=(1, 2)))[0])
    figure = new_figure(12.0, 4.6)
    classes = sorted(int(k) for k in np.unique(labels[section]) if k >= 0)
    for place, title in enumerate(("data", "labels", "both"), start=1):
        axis = figure.add_subplot(1, 3, place)
        if title != "labels":
            axis.imshow(image[section], cmap="gray", interpolation="none")
        if title != "data":
            alpha = 0.4 if title == "both" else 1.0
            axis.imshow(_coloured(labels[section], alpha), interpolation="none")
        axis.set_title(title)
        axis.set_xlabel("x, voxels")
        axis.set_ylabel("y, voxels")
    figure.legend(handles=_legend(classes), loc="outside lower center", ncols=8, fontsize=8)
    figure.suptitle(f"section {section + 1} of the {len(image)} of a training patch")
    return save_figure(figure, path)


def _coloured(labels: np.ndarray, alpha: float) -> np.ndarray:
    """Labels (Y, X) as colours (Y, X, 4); transparent where there is none."""
    from matplotlib.colors import to_rgba

    table = np.array([to_rgba(colour, alpha) for colour in CLASS_COLOURS])
    coloured = table[labels % len(CLASS_COLOURS)]
    coloured[labels < 0] = 0
    return coloured


def _legend(classes: Sequence[int]) -> list[Any]:
    from matplotlib.patches import Patch

    known = [
        Patch(color=CLASS_COLOURS[k % len(CLASS_COLOURS)], label=f"class {k}") for k in classes
    ]
    return [*known, Patch(facecolor="white", edgecolor="grey", label=OTHERS)]


def prediction_picture(
    image: np.ndarray, probabilities: np.ndarray, title: str, path: Path
) -> Path:
    """Draws a section (Y, X) next to the probabilities (K, Y, X) of its classes.

    Of two classes only the second is drawn, as in ELEKTRONN (`export_class=1`).
    """
    first = 1 if len(probabilities) == 2 else 0
    panels = [(f"probability of class {k}", p) for k, p in enumerate(probabilities)][first:]
    figure = new_figure(4.4 * (1 + len(panels)), 4.6)
    axes = figure.subplots(1, 1 + len(panels), sharex=True, sharey=True)
    axes[0].imshow(image, cmap="gray", interpolation="none")
    axes[0].set_title("data")
    axes[0].set_ylabel("y, voxels")
    for axis, (text, section) in zip(axes[1:], panels, strict=True):
        drawn = axis.imshow(section, cmap="gray", interpolation="none", vmin=0, vmax=1)
        axis.set_title(text)
    figure.colorbar(drawn, ax=axes, shrink=0.8)
    for axis in axes:
        axis.set_xlabel("x, voxels")
    figure.suptitle(title)
    return save_figure(figure, path)


def reconstruction_picture(data: np.ndarray, decoded: np.ndarray, path: Path) -> Path:
    """Draws data next to its reconstruction, both (N, Y, X), as in ELEKTRONN's DAE.png."""
    parts = {"Data": data, "Reconstruction": decoded.clip(data.min(), data.max())}
    height, width = tiled(data, 18).shape
    figure = new_figure(14.0, 7.0 * height / width + 0.4)
    for place, (title, images) in enumerate(parts.items(), start=1):
        axis = figure.add_subplot(1, 2, place)
        axis.imshow(tiled(images, 18), cmap="gray", interpolation="none")
        axis.set_title(title)
        axis.set_axis_off()
    return save_figure(figure, path)
