"""ELEKTRONN's pictures of a running training: learning curves, and a batch to check."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from retrace.files import atomic_write
from retrace.networks.elektronn import ElektronnNetwork

COLUMNS = (
    "iteration",
    "seconds",
    "loss_ema",
    "loss",
    "train_loss",
    "validation_loss",
    "loss_change",
    "lr",
    "momentum",
    "warp",
    "train_error",
    "validation_error",
)
"""Columns of history.csv; errors are fractions."""
SMOOTHED_OVER = 8
"""Measurements that a smoothed curve averages, as in ELEKTRONN."""
SHOWN = 64
"""Most examples of a batch in its picture."""

Rows = Sequence[Mapping[str, Any]]


def history_csv(rows: Rows) -> str:
    """The rows as CSV; empty cells where a training has no such value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows([dict(row) for row in rows])
    return text.getvalue()


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    atomic_write(path, content.getvalue())


def _figure(panels: int, width: float = 9.0) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.2 * panels), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _column(rows: Rows, name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in rows], dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average of values (n,)."""
    weights = np.ones(min(SMOOTHED_OVER, len(values)))
    return np.convolve(values, weights, "same") / np.convolve(np.ones(len(values)), weights, "same")


def _panel(axis: Any, rows: Rows, columns: Mapping[str, str], label: str, scale: float) -> None:
    at = _column(rows, "iteration")
    for name, text in columns.items():
        values = scale * _column(rows, name)
        if np.isfinite(values).any():
            (line,) = axis.plot(at, values, alpha=0.4, linewidth=0.8)
            axis.plot(at, _smooth(values), label=text, color=line.get_color())
    axis.set_xlabel("iteration")
    axis.set_ylabel(label)
    if axis.lines:
        axis.legend(fontsize=8)


def curve_pictures(rows: Rows, folder: Path) -> list[Path]:
    """Writes timeline.png, history.png, errors.png and history.csv of the rows so far."""
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "history.csv", history_csv(rows))
    both = {"train_loss": "training", "validation_loss": "validation"}
    errors = {"train_error": "training", "validation_error": "validation"}
    pictures: dict[str, list[tuple[dict[str, str], str, float]]] = {
        "timeline": [
            ({"loss": "batch", "loss_ema": "smoothed"}, "loss", 1),
            ({"lr": "learning rate"}, "learning rate", 1),
        ],
        "history": [(both, "loss", 1), ({"loss_change": "by one step"}, "loss change", 1)],
        "errors": [(errors, "error, %", 100)],
    }
    return [_draw(rows, folder / f"{name}.png", panels) for name, panels in pictures.items()]


def _draw(rows: Rows, path: Path, panels: Sequence[tuple[dict[str, str], str, float]]) -> Path:
    figure = _figure(len(panels))
    for place, (columns, label, scale) in enumerate(panels, start=1):
        _panel(figure.add_subplot(len(panels), 1, place), rows, columns, label, scale)
    if rows:
        figure.suptitle(f"{rows[-1]['iteration']} iterations, {rows[-1]['seconds'] / 60:.1f} min")
    _save(figure, path)
    return path


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


def batch_picture(batch: Mapping[str, Tensor], module: ElektronnNetwork, path: Path) -> Path:
    """Draws a batch, to check that the labels belong to their images.

    Volumes: input, labels at the network's output voxels, and both. Images, and vectors of a square
    length: tiles, with their classes in the order of the tiles.
    """
    values = batch["input"].detach().cpu().float().numpy()
    target = batch["target"].detach().cpu().numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    if values.ndim == 5:
        return _volume_picture(values[0, 0], target[0], module, path)
    images = values[:SHOWN, 0] if values.ndim == 4 else _squares(values[:SHOWN])
    figure = _figure(2, 7.0)
    axis = figure.add_subplot(1, 1, 1)
    axis.imshow(tiled(images, 8), cmap="gray", interpolation="none")
    axis.set_axis_off()
    if target.ndim == 1:
        rows = [" ".join(map(str, target[i : i + 8])) for i in range(0, len(images), 8)]
        axis.set_title("classes, row by row: " + " | ".join(rows), fontsize=6)
    _save(figure, path)
    return path


def _squares(values: np.ndarray) -> np.ndarray:
    """Vectors (N, n) as square images, or as lines (N, 1, n) if n is no square."""
    side = round(values.shape[1] ** 0.5)
    if side * side == values.shape[1]:
        return values.reshape(-1, side, side)
    return values[:, None, :]


def placed(target: np.ndarray, shape: Sequence[int], module: ElektronnNetwork) -> np.ndarray:
    """Labels of the outputs (z, y, x) at their voxels of the input (Z, Y, X); -1 elsewhere."""
    whole = np.full(tuple(shape), -1, dtype=target.dtype)
    inside = [n - lost for n, lost in zip(shape, module.context, strict=True)]
    steps = [-(-n // out) for n, out in zip(inside, target.shape, strict=True)]
    slices = tuple(
        slice(lost // 2, lost // 2 + step * (out - 1) + 1, step)
        for lost, step, out in zip(module.context, steps, target.shape, strict=True)
    )
    whole[slices] = target
    return whole


def _volume_picture(
    image: np.ndarray, target: np.ndarray, module: ElektronnNetwork, path: Path
) -> Path:
    """Draws the middle section: data, labels, and their overlay."""
    labels = placed(target, image.shape, module)
    section = image.shape[0] // 2
    if (labels[section] < 0).all():
        section = int(np.flatnonzero((labels >= 0).any(axis=(1, 2)))[0])
    figure = _figure(1, 12.0)
    shown = np.ma.masked_less(labels[section], 0)
    for place, title in enumerate(("data", "labels", "both"), start=1):
        axis = figure.add_subplot(1, 3, place)
        if title != "labels":
            axis.imshow(image[section], cmap="gray", interpolation="none")
        if title != "data":
            axis.imshow(shown, cmap="viridis", alpha=0.6, interpolation="none")
        axis.set_title(title)
        axis.set_axis_off()
    _save(figure, path)
    return path


def prediction_picture(image: np.ndarray, probabilities: np.ndarray, path: Path) -> Path:
    """Draws a section (Y, X) next to the probabilities (K, Y, X) of its classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure = _figure(1, 3.2 * (1 + len(probabilities)))
    panels = [("data", image), *((f"class {k}", p) for k, p in enumerate(probabilities))]
    for place, (title, section) in enumerate(panels, start=1):
        axis = figure.add_subplot(1, len(panels), place)
        highest = None if title == "data" else 1
        axis.imshow(section, cmap="gray", interpolation="none", vmin=0, vmax=highest)
        axis.set_title(title)
        axis.set_axis_off()
    _save(figure, path)
    return path


def reconstruction_picture(data: np.ndarray, decoded: np.ndarray, path: Path) -> Path:
    """Draws data next to its reconstruction, both (N, Y, X), as in ELEKTRONN's DAE.png."""
    figure = _figure(2, 14.0)
    parts = {"Data": data, "Reconstruction": decoded.clip(data.min(), data.max())}
    for place, (title, images) in enumerate(parts.items(), start=1):
        axis = figure.add_subplot(1, 2, place)
        axis.imshow(tiled(images, 18), cmap="gray", interpolation="none")
        axis.set_title(title)
        axis.set_axis_off()
    _save(figure, path)
    return path
