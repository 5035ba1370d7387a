"""The picture of a validation patch: a section of raw, target and prediction next to each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from retrace.cropping import centre_crop
from retrace.training.task import Picture
from retrace.viewing.image_rows import in_column, in_row

SIDE_PX = 160
"""Sections are enlarged by a whole factor to at least this height, or half of it."""


def validation_image(pictures: Mapping[str, Picture]) -> np.ndarray | None:
    """Rows of raw, target and prediction (H, W, 3) uint8, one for each `gt_NAME`, `pred_NAME`.

    The middle section of the output; of several channels the first three are red, green and blue.
    None for pictures without a prediction.
    """
    heads = [name.removeprefix("pred_") for name in pictures if name.startswith("pred_")]
    if "raw" not in pictures or not heads:
        return None
    rows = [_row(pictures, head) for head in heads]
    width = max(row.shape[1] for row in rows)
    return in_column([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0))) for r in rows])


def _row(pictures: Mapping[str, Picture], head: str) -> np.ndarray:
    predicted = _section(pictures[f"pred_{head}"])
    raw = centre_crop(_section(pictures["raw"], stretched=True), predicted.shape)
    parts = [raw, predicted]
    if (truth := pictures.get(f"gt_{head}")) is not None:
        parts.insert(1, _section(truth, stretched=True))
    factor = max(1, SIDE_PX // max(1, predicted.shape[0]))
    return in_row([part.repeat(factor, 0).repeat(factor, 1) for part in parts])


def _section(picture: Picture, *, stretched: bool = False) -> np.ndarray:
    """The middle section (H, W, 3) uint8 of a picture; `stretched`: from its lowest to its highest
    value, as for class numbers."""
    data = picture.data.detach().float().cpu().numpy()
    data = data if data.ndim == 4 else data[None]
    section = data[:3, data.shape[1] // 2]
    if len(section) == 2:
        section = section[1:]  # of two classes the second says all
    if stretched:
        low, high = float(section.min()), float(section.max())
        section = (section - low) / max(high - low, 1e-6) * 255
    colours = np.broadcast_to(section, (3, *section.shape[1:])) if len(section) == 1 else section
    return np.ascontiguousarray(colours.transpose(1, 2, 0).clip(0, 255).astype(np.uint8))
