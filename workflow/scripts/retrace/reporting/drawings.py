"""Pictures as text that an HTML page contains: data URLs, and the lineage as SVG."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from retrace.reporting.layered_layout import Layout, Spacing, layered

BOX = (150, 46)
"""Width and height of a step in the graph, pixels."""
GAP = (24, 44)
"""Distance of steps within a row, and of rows, pixels."""
EDGE_WIDTH, PORT = 8, 18
"""Width that an edge takes among the boxes of a row, and distance of edges at a box, pixels."""
JPEG_QUALITY = 82
ARROWHEAD = (
    '<defs><marker id="arrowhead" viewBox="0 0 10 10" refX="10" refY="5" markerWidth="9"'
    ' markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
    '<path class="arrowhead" d="M0 0L10 5L0 10z"/></marker></defs>'
)


def embedded(file: Path | io.BytesIO) -> str:
    """A PNG file as the data URL of a JPEG."""
    picture = io.BytesIO()
    with Image.open(file) as image:
        image.convert("RGB").save(picture, format="jpeg", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(picture.getvalue()).decode()


def graph(edges: Sequence[tuple[str, str]], notes: Mapping[str, Sequence[str]]) -> str:
    """An SVG of steps as boxes, each below the steps whose output it reads.

    `notes`: by step, the second line of its box, and after it the lines that appear under the
    mouse.
    """
    if not edges:
        return ""
    layout = layered(edges, Spacing(BOX[0], GAP[0], EDGE_WIDTH))
    boxes = [
        _box(name, notes.get(name, ()), (middle, _top(layout.row[name]) + BOX[1] / 2))
        for name, middle in layout.middle.items()
    ]
    lines = [_line(places) for places in _spread(layout)]
    width = max(place for places in layout.passes.values() for _, place in places) + BOX[0]
    height = _top(max(layout.row.values())) + BOX[1]
    size = f'width="{width:.0f}" height="{height + 4}" viewBox="-2 -2 {width:.0f} {height + 4}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="lineage">'
    return f"{head}{ARROWHEAD}{''.join(boxes + lines)}</svg>"


def _top(row: int) -> int:
    return row * (BOX[1] + GAP[1])


def _spread(layout: Layout) -> Iterator[list[tuple[int, float]]]:
    """The places of each edge; edges of one box begin and end next to each other, in order."""
    ends: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    edges = list(layout.passes)
    for index, (edge, places) in enumerate(layout.passes.items()):
        down = places[-1][0] > places[0][0]
        ends.setdefault((edge[0], down), []).append((places[1][1], index))
        ends.setdefault((edge[1], not down), []).append((places[-2][1], index))
    shifts: dict[tuple[int, str], float] = {}
    for (name, _), at_side in ends.items():
        step = min(PORT, (BOX[0] - 20) / len(at_side))
        for number, (_, index) in enumerate(sorted(at_side)):
            shifts[index, name] = (number - (len(at_side) - 1) / 2) * step
    for index, (begin, end) in enumerate(edges):
        (first, x), *between, (last, to_x) = layout.passes[begin, end]
        yield [(first, x + shifts[index, begin]), *between, (last, to_x + shifts[index, end])]


def _line(places: Sequence[tuple[int, float]]) -> str:
    """An edge: straight past the boxes of a row, and a curve from one row to the next."""
    down = places[-1][0] > places[0][0]
    sides = [
        (_top(row) + BOX[1], _top(row)) if down else (_top(row), _top(row) + BOX[1])
        for row, _ in places
    ]
    path = f"M{places[0][1]:.1f} {sides[0][0]}"
    for index, (_, x) in enumerate(places[1:], 1):
        before, y, to_y = places[index - 1][1], sides[index - 1][0], sides[index][1]
        half = (y + to_y) / 2
        path += f" C{before:.1f} {half} {x:.1f} {half} {x:.1f} {to_y}"
        if index < len(places) - 1:
            path += f" L{x:.1f} {sides[index][0]}"
    return f'<path class="edge" d="{path}" marker-end="url(#arrowhead)"/>'


def _box(name: str, lines: Sequence[str], middle: tuple[float, float]) -> str:
    x, y = middle
    corner = f'x="{x - BOX[0] / 2:.1f}" y="{y - BOX[1] / 2:.1f}"'
    second, *hidden = lines or [""]
    first_y, second_y = (y - 3, y + 14) if second else (y + 5, y)
    text = f'<text x="{x:.1f}" y="{first_y:.1f}" text-anchor="middle">{html.escape(name)}</text>'
    note = f'<text class="count" x="{x:.1f}" y="{second_y:.1f}" text-anchor="middle">'
    title = html.escape("\n".join([name, *hidden]))
    return (
        f'<g class="step"><title>{title}</title>'
        f'<rect class="box" {corner} width="{BOX[0]}" height="{BOX[1]}" rx="5"/>'
        f"{text}{note}{html.escape(second)}</text></g>"
    )
