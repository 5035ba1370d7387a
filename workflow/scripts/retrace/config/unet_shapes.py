"""Shapes of the LSD family's U-Net, z, y, x: outputs, padding, context."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retrace.errors import ConfigError

PASS_LOSS = 4
"""Voxels that the two valid 3x3x3 convolutions of one pass take off every axis."""


def output_shape(network: Mapping[str, Any], input_shape: Sequence[int]) -> list[int]:
    """Voxels the U-Net gives for an input (z, y, x); ConfigError where pooling leaves a remainder.

    Valid convolutions, two a pass, and transposed convolutions (mala unet).
    """
    return [
        _axis_output(network, size, [factors[axis] for factors in network["downsample"]], axis)
        for axis, size in enumerate(input_shape)
    ]


def _axis_output(network: Mapping[str, Any], size: int, factors: list[int], axis: int) -> int:
    now = size - PASS_LOSS
    for factor in factors:
        if now % factor or now // factor <= PASS_LOSS:
            raise ConfigError(
                f"network {network['name']!r}: {size} voxels on axis {'zyx'[axis]} do not fit the "
                f"pooling by {factors}; {now} is not a multiple of {factor}, or too small"
            )
        now = now // factor - PASS_LOSS
    for factor in reversed(factors):
        now = now * factor - PASS_LOSS
    if now <= 0:
        raise ConfigError(
            f"network {network['name']!r}: {size} voxels on axis {'zyx'[axis]} leave no output"
        )
    return now


def label_padding_nm(network: Mapping[str, Any], voxel_size_nm: Sequence[int]) -> list[int]:
    """How far a batch may reach beyond the labels, nm.

    Half the output in z, half its diagonal in y and x (it may be rotated), and the context of the
    targets: the farthest neighbour, or 3 sigma of the descriptors (Sheridan et al. 2023, training
    scripts; gives their published numbers).
    """
    z, y, x = output_shape(network, network["input_shape"])
    half_diagonal = math.ceil(math.hypot(y, x) / 2)
    reach = target_context(network, voxel_size_nm)
    half = (math.ceil(z / 2), half_diagonal, half_diagonal)
    return [(h + r) * v for h, r, v in zip(half, reach, voxel_size_nm, strict=True)]


def target_context(network: Mapping[str, Any], voxel_size_nm: Sequence[int]) -> list[int]:
    """Voxels around a batch that its targets look at."""
    far = [max((abs(o[a]) for o in network["neighborhood"]), default=0) for a in range(3)]
    if "lsd" not in network:
        return far
    three_sigma = [math.ceil(3 * network["lsd"]["sigma_nm"] / v) for v in voxel_size_nm]
    return [max(pair) for pair in zip(far, three_sigma, strict=True)]
