"""Pictures as text that an HTML page contains: data URLs and SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

BOX = (150, 34)
"""Width and height of a step in a graph, pixels."""
GAP = (60, 18)
"""Horizontal and vertical distance of steps, pixels."""
JPEG_QUALITY = 82


def embedded(path: Path) -> str:
    """A PNG file as the data URL of a JPEG."""
    picture = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(picture, format="jpeg", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(picture.getvalue()).decode()


def learning_curve(iterations: Sequence[int], losses: Sequence[float | None]) -> str:
    """An SVG of the loss at each iteration, on a log scale where all losses are positive.

    None where nothing was compared: a gap.
    """
    figure = Figure(figsize=(5.5, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot(iterations, np.array(losses, float))
    axes.set(xlabel="iteration", ylabel="loss")
    if losses and min((loss for loss in losses if loss is not None), default=0) > 0:
        axes.set_yscale("log")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def graph(edges: Sequence[tuple[str, str]]) -> str:
    """An SVG of steps as boxes, each to the right of the steps whose output it reads."""
    columns = _columns(edges)
    places = {
        name: (column * (BOX[0] + GAP[0]), row * (BOX[1] + GAP[1]))
        for column, names in enumerate(columns)
        for row, name in enumerate(names)
    }
    width = len(columns) * (BOX[0] + GAP[0])
    height = max(map(len, columns), default=0) * (BOX[1] + GAP[1])
    lines = [_line(places[a], places[b]) for a, b in edges]
    boxes = [_box(name, place) for name, place in places.items()]
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{"".join(lines + boxes)}</svg>'


def _columns(edges: Sequence[tuple[str, str]]) -> list[list[str]]:
    """Names by depth: the number of edges on the longest path that leads to each."""
    names = sorted({name for edge in edges for name in edge})
    depth = dict.fromkeys(names, 0)
    for _ in names:  # No path without a circle is longer.
        for before, after in edges:
            depth[after] = min(max(depth[after], depth[before] + 1), len(names))
    levels = sorted(set(depth.values()))
    return [[name for name in names if depth[name] == level] for level in levels]


def _line(begin: tuple[int, int], end: tuple[int, int]) -> str:
    x, y = begin[0] + BOX[0], begin[1] + BOX[1] // 2
    to_x, to_y = end[0], end[1] + BOX[1] // 2
    bend = (x + to_x) // 2
    return f'<path class="edge" d="M{x} {y} C{bend} {y} {bend} {to_y} {to_x} {to_y}"/>'


def _box(name: str, place: tuple[int, int]) -> str:
    x, y = place
    middle = f'x="{x + BOX[0] // 2}" y="{y + BOX[1] // 2 + 5}"'
    return (
        f'<rect class="box" x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
        f'<text {middle} text-anchor="middle">{html.escape(name)}</text>'
    )
