"""What a classifier of edges sees of the image itself: grey values and how they change."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from retrace.geometry import VoxelBox
from retrace.segmentation.fragments import highest_value
from retrace.storage.volumes import Volume

IMAGE_CHANNELS = ("raw", "smoothed", "gradient")
"""Grey values in [0, 1], the same smoothed, and the magnitude of the gradient of the smoothed."""
SIGMA = 1.0
"""Standard deviation of the smoothing, voxels."""
TRUNCATE = 4.0
"""The smoothing ends after so many standard deviations."""
REACH = int(SIGMA * TRUNCATE) + 1
"""Voxels around a voxel that decide its values: those of the smoothing and of a difference."""


def image_channels(raw: Volume, box: VoxelBox, *, in_xy: bool) -> np.ndarray:
    """The IMAGE_CHANNELS of `box`, (3, Z, Y, X) float32; the same for a voxel in whatever box.

    Beyond the border of `raw` (Z, Y, X), uint8 or float in [0, 1], its last voxels continue.
    `in_xy`: each section on its own.
    """
    window = box.grow((REACH, REACH, REACH)).intersect(raw.box)
    values = raw.read(window)
    values = values.astype(np.float32) / np.float32(highest_value(values))
    sigmas = (0.0 if in_xy else SIGMA, SIGMA, SIGMA)
    smoothed = gaussian_filter(values, sigmas, mode="nearest", truncate=TRUNCATE)
    squares = np.zeros_like(smoothed)
    for axis in range(int(in_xy), 3):
        if smoothed.shape[axis] > 1:
            squares += np.gradient(smoothed, axis=axis) ** 2
    part = box.slices(window.offset)
    return np.stack([values[part], smoothed[part], np.sqrt(squares[part])])


def face_values(channel: np.ndarray) -> np.ndarray:
    """The mean of `channel` (Z, Y, X) on both sides of each face, (3, Z, Y, X) float32.

    In the order of affinities: of a voxel and the previous one along z, y and x. Without a previous
    one, its own value.
    """
    faces = np.stack([channel] * 3).astype(np.float32)
    faces[0, 1:] = (channel[1:] + channel[:-1]) / 2
    faces[1, :, 1:] = (channel[:, 1:] + channel[:, :-1]) / 2
    faces[2, :, :, 1:] = (channel[:, :, 1:] + channel[:, :, :-1]) / 2
    return faces
