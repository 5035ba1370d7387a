"""Images in rows and columns, as one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

GAP_PX = 4
"""White pixels between two images."""


def in_row(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (H, W) or (H, W, 3) uint8 of one height, from left to right."""
    return _joined(images, 1)


def in_column(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (H, W) or (H, W, 3) uint8 of one width, from top to bottom."""
    return _joined(images, 0)


def _joined(images: Sequence[np.ndarray], axis: int) -> np.ndarray:
    shape = list(images[0].shape)
    shape[axis] = GAP_PX
    gap = np.full(shape, 255, np.uint8)
    return np.concatenate([one for image in images for one in (image, gap)][:-1], axis)
