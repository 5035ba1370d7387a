"""Pictures of the page, as text that stands inside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

BOX = (150, 34)
GAP = (60, 18)
JPEG_QUALITY = 82


def embedded(path: Path) -> str:
    """A PNG as the address of a JPEG that is the picture itself."""
    picture = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(picture, format="jpeg", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(picture.getvalue()).decode()


def learning_curve(history: Mapping[str, Any]) -> str:
    """An SVG of the loss against the iteration."""
    rows = history["history"]
    figure = Figure(figsize=(5.5, 2.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([row["iteration"] for row in rows], [row["loss"] for row in rows])
    axes.set(xlabel="iteration", ylabel="loss")
    if rows and min(row["loss"] for row in rows) > 0:
        axes.set_yscale("log")
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]


def graph(edges: Sequence[tuple[str, str]]) -> str:
    """An SVG: steps as boxes, left of each what it reads."""
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
    names = sorted({name for edge in edges for name in edge})
    depth = dict.fromkeys(names, 0)
    for _ in names:  # as often as the longest way can be
        for before, after in edges:
            depth[after] = min(max(depth[after], depth[before] + 1), len(names))
    found = sorted(set(depth.values()))
    return [[name for name in names if depth[name] == level] for level in found]


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
