"""Pictures of alignment: displacement fields as colours and arrows, sections before and after.

A field's colours: the hue is the direction, the saturation the length. A wheel in the corner is the
legend. Sections have shape (1, 1, H, W) and values in [0, 1]; fields (1, 2, H, W) are in pixels, y
and x.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from retrace.cropping import middle
from retrace.displacement import length, warp
from retrace.files import atomic_write
from retrace.viewing.image_rows import in_row

CHECKER_PX = 16
"""Side of a square of the checker grid."""
ARROWS = 24
"""Arrows along the longer side of a quiver."""
FRAME_MS = 400
"""Duration of each section in an animation."""
PAIR_PX = (256, 256)
"""Largest height and width of a section in the image of a pair."""


def field_colours(field: Tensor, largest: float | None = None) -> np.ndarray:
    """Colours (H, W, 3) in [0, 1] of a field (1, 2, H, W).

    Full saturation at a length of `largest` px, by default the field's longest vector.
    """
    y, x = field[0].cpu().numpy()
    distance = np.hypot(y, x)
    top = largest or max(float(distance.max()), 1e-6)
    hue = (np.arctan2(-y, x) / (2 * np.pi)) % 1  # counter-clockwise from the right, y upwards
    return np.asarray(
        hsv_to_rgb(np.stack([hue, np.clip(distance / top, 0, 1), np.ones_like(hue)], -1))
    )


def colour_wheel(side: int = 64) -> np.ndarray:
    """Legend of `field_colours` (side, side, 3), white outside the circle.

    Each pixel has the colour of the vector that points to it from the middle.
    """
    steps = torch.linspace(-1, 1, side)
    wheel = torch.stack(torch.meshgrid(steps, steps, indexing="ij"))[None]
    colours = field_colours(wheel, 1.0)
    colours[length(wheel)[0].numpy() > 1] = 1
    return colours


def checker(shape: Sequence[int], side: int = CHECKER_PX) -> Tensor:
    """A checker grid (1, 1, H, W) of 0 and 1 for `shape` (H, W)."""
    rows, columns = (torch.arange(n) // side % 2 for n in shape)
    return (rows[:, None] ^ columns[None]).float()[None, None]


def png_bytes(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG; equal figures give equal bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": ""})
    return content.getvalue()


def field_figure(source: Tensor, target: Tensor, field: Tensor) -> bytes:
    """A PNG of one pair, sections (1, 1, H, W) and field (1, 2, H, W), in five panels.

    Both sections as red and green before and after alignment; the field as colours; a checker grid
    warped by it; the field as arrows.
    """
    source, target, field = source.cpu(), target.cpu(), field.cpu()
    figure = Figure(figsize=(15, 3.4), dpi=80, layout="constrained")
    axes = figure.subplots(1, 5)
    aligned = warp(source, field)
    panels = (
        ("before (red) and target (green)", overlay(source, target)),
        ("after (red) and target (green)", overlay(aligned, target)),
        (f"field, up to {float(length(field).max()):.1f} px", _with_wheel(field)),
        ("checker grid", warp(checker(field.shape[-2:]), field)[0, 0].numpy()),
        ("arrows", aligned[0, 0].numpy()),
    )
    for axis, (title, picture) in zip(axes, panels, strict=True):
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    _arrows(axes[-1], field)
    return png_bytes(figure)


def _with_wheel(field: Tensor) -> np.ndarray:
    """The field's colours (H, W, 3), with the legend in the corner where there is room."""
    colours = field_colours(field)
    side = min(colours.shape[:2]) // 4
    if side > 4:
        colours[:side, :side] = colour_wheel(side)
    return colours


def _arrows(axis: object, field: Tensor) -> None:
    """Draws about `ARROWS` arrows along the longer side."""
    step = max(1, max(field.shape[-2:]) // ARROWS)
    y, x = field[0, :, ::step, ::step].numpy()
    rows, columns = (np.arange(0, n, step) for n in field.shape[-2:])
    axis.quiver(  # type: ignore[attr-defined]
        columns, rows, x, y, color="red", angles="xy", scale_units="xy", scale=1, width=0.004
    )


def overlay(first: Tensor, second: Tensor) -> np.ndarray:
    """Two sections (1, 1, H, W) in [0, 1] as red and green, (H, W, 3)."""
    red, green = (side[0, 0].cpu().numpy().clip(0, 1) for side in (first, second))
    return np.stack([red, green, (red + green) / 2], -1)


def pair_image(source: Tensor, target: Tensor, field: Tensor) -> np.ndarray:
    """A pair before and after its alignment as an image (H, W, 3) uint8, without a caption.

    Target, source and warped source, then the differences of both from the target: source minus
    target is grey where they agree. Of sections larger than PAIR_PX the middle is shown.
    """
    parts = [target, source, warp(source, field)]
    parts += [(part - target + 1) / 2 for part in parts[1:]]
    images = [middle(part[0, 0], PAIR_PX).cpu().double().numpy().clip(0, 1) for part in parts]
    row = in_row([(image * 255).astype(np.uint8) for image in images])
    return np.repeat(row[..., None], 3, axis=-1)


def animation(sections: list[Tensor]) -> bytes:
    """An endless GIF of sections (1, 1, H, W) in [0, 1]."""
    frames = [
        Image.fromarray((s[0, 0].cpu().numpy().clip(0, 1) * 255).astype(np.uint8)) for s in sections
    ]
    content = io.BytesIO()
    frames[0].save(
        content, "GIF", save_all=True, append_images=frames[1:], duration=FRAME_MS, loop=0
    )
    return content.getvalue()


def save_pair(folder: Path, name: str, source: Tensor, target: Tensor, field: Tensor) -> None:
    """Writes NAME_field.png and NAME_stack.gif (target, aligned, source) of a pair to `folder`."""
    atomic_write(folder / f"{name}_field.png", field_figure(source, target, field))
    frames = [target, warp(source, field), source]
    atomic_write(folder / f"{name}_stack.gif", animation(frames))
