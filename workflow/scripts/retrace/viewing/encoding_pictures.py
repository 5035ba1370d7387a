"""Pictures of a pyramid's encodings: what each level's encoder makes of one section."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from retrace.viewing.displacement_pictures import png_bytes

PANEL = 1.6
"""Width and height of one map in a figure, inches."""
LOW, HIGH = 1, 99
"""Percentiles of a map that become black and white."""


def strongest(maps: Tensor, count: int) -> list[int]:
    """The maps (C, H, W) that vary most over a section, by number, in order of the numbers."""
    spread = maps.flatten(1).std(1)
    chosen = torch.argsort(spread, descending=True, stable=True)[:count]
    return sorted(chosen.tolist())


def encodings_figure(section: Tensor, levels: Sequence[Tensor], count: int) -> bytes:
    """A PNG of the encodings of a section (H, W): a row for each level (C, H / 2^l, W / 2^l).

    The section as the network sees it comes first, then the `count` maps that vary most (all, if a
    level has fewer), each with its number, its range, and how many maps of the level are constant:
    those carry nothing.
    """
    rows, columns = len(levels), min(count, max(map(len, levels))) + 1
    figure = Figure((PANEL * columns, (PANEL + 0.25) * rows), dpi=90, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for level, (row, maps) in enumerate(zip(axes, levels, strict=True)):
        shown = (
            section if level == 0 else torch.nn.functional.avg_pool2d(section[None], 2**level)[0]
        )
        constant = int((maps.flatten(1).std(1) < 1e-6).sum())
        title = f"level {level}: {len(maps)} maps\n{maps.shape[1]} x {maps.shape[2]} px"
        title += f", {constant} constant" if constant else ""
        _panel(row[0], shown, title)
        for axis, number in zip(row[1:], strongest(maps, count), strict=False):
            low, high = float(maps[number].min()), float(maps[number].max())
            _panel(axis, maps[number], f"map {number}\n{low:.2g} to {high:.2g}")
    return png_bytes(figure)


def _panel(axis: object, image: Tensor, title: str) -> None:
    values = image.numpy()
    low, high = np.percentile(values, (LOW, HIGH))
    axis.imshow(values, cmap="gray", vmin=low, vmax=max(high, low + 1e-6))  # type: ignore[attr-defined]
    axis.set_title(title, fontsize=7)  # type: ignore[attr-defined]
