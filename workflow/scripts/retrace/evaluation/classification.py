"""Scores of classified or reconstructed single examples, and a picture of the errors."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from retrace.evaluation.class_tally import EPS
from retrace.files import atomic_write

MOST_TICKS = 20
"""Up to this number of classes, each has its number at the axes of the confusion."""
WRONG_SHOWN = 60
"""Number of misclassified images in the picture."""

CLASSES_CONVENTION = {
    "error": "share of the examples whose most likely class is not theirs",
    "nll": "mean of -log(p + 1e-6) of the true class, natural logarithm",
}
RECONSTRUCTION_CONVENTION = {
    "mse": "mean squared difference of all values, inputs less the mean of the training inputs",
    "rmse": "its root",
}
"""The exact meaning of the numbers, which each evaluation contains."""


def classification_scores(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Error, NLL and confusion of probabilities (N, K) and labels (N,).

    Rows of the confusion are true classes, columns the most probable ones.
    """
    chosen = probabilities.argmax(axis=1)
    classes = probabilities.shape[1]
    confusion = np.zeros((classes, classes), dtype=int)
    np.add.at(confusion, (labels, chosen), 1)
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    count = confusion.sum(axis=1)
    wrong = count - confusion.diagonal()
    return {
        "examples": len(labels),
        "wrong": int(wrong.sum()),
        "error": float(wrong.sum() / len(labels)),
        "nll": float(-np.log(own + EPS).mean()),
        "error_per_class": [float(w / n) if n else None for w, n in zip(wrong, count, strict=True)],
        "confusion": confusion.tolist(),
        "convention": CLASSES_CONVENTION,
    }


def reconstruction_scores(reconstructions: np.ndarray, data: np.ndarray) -> dict[str, Any]:
    """Mean squared error of reconstructions (N, features), and its root."""
    mse = float(((reconstructions.astype(np.float64) - data) ** 2).mean())
    return {
        "examples": len(data),
        "mse": mse,
        "rmse": mse**0.5,
        "convention": RECONSTRUCTION_CONVENTION,
    }


def classification_picture(
    probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray | None, path: Path
) -> None:
    """Draws the confusion without its diagonal, and misclassified images with both classes.

    `probabilities` (N, K), `labels` (N,), `images` (N, Y, X) if the examples are images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    chosen = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(chosen != labels)[:WRONG_SHOWN]
    shows = images is not None and len(wrong) > 0
    figure = Figure(figsize=(12 if shows else 6, 6), layout="constrained")
    FigureCanvasAgg(figure)
    left, *right = figure.subfigures(1, 2 if shows else 1, squeeze=False)[0]
    confusion = np.array(classification_scores(probabilities, labels)["confusion"])
    np.fill_diagonal(confusion, 0)
    axis = left.add_subplot()
    drawn = axis.imshow(confusion, cmap="Reds")
    axis.set(xlabel="most likely class", ylabel="true class")
    axis.set_title(f"{(chosen != labels).sum()} of {len(labels)} wrong")
    if len(confusion) <= MOST_TICKS:
        axis.set(xticks=range(len(confusion)), yticks=range(len(confusion)))
    left.colorbar(drawn, ax=axis, shrink=0.7, label="examples", ticks=MaxNLocator(integer=True))
    if shows and images is not None:
        columns = int(np.ceil(np.sqrt(len(wrong))))
        axes = right[0].subplots(-(-len(wrong) // columns), columns, squeeze=False).ravel()
        for place in axes:
            place.set_axis_off()
        for place, index in zip(axes, wrong, strict=False):
            place.imshow(images[index], cmap="gray")
            place.set_title(f"{labels[index]} as {chosen[index]}", fontsize=7)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    atomic_write(path, content.getvalue())
