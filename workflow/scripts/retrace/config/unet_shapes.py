"""Shapes of the U-Net of the family lsd, z, y, x: output, padding of the labels, context."""

from __future__ import annotations

import math
from collections.abc import Sequence

from retrace.errors import ConfigError

CONVS_PER_PASS, KERNEL = 2, 3
"""Valid convolutions of a level, and the side of their filters."""
PASS_LOSS = CONVS_PER_PASS * (KERNEL - 1)
"""Voxels that an axis loses in the convolutions of a level."""


def output_shape(
    input_shape: Sequence[int], downsample: Sequence[Sequence[int]]
) -> tuple[int, int, int]:
    """Output of the U-Net for an input, voxels (z, y, x), by the pooling factors of its levels.

    The U-Net has valid convolutions, two in each level, and transposed convolutions (the U-Net of
    "mala"). ConfigError if the pooling leaves a remainder.
    """
    z, y, x = (
        _axis_output(size, [factors[axis] for factors in downsample], "zyx"[axis])
        for axis, size in enumerate(input_shape)
    )
    return z, y, x


def _axis_output(input_size: int, factors: Sequence[int], axis: str) -> int:
    size = input_size - PASS_LOSS
    for factor in factors:
        if size % factor or size // factor <= PASS_LOSS:
            raise ConfigError(
                f"{input_size} voxels on axis {axis} do not fit the pooling by {list(factors)}; "
                f"{size} is not a multiple of {factor}, or too small"
            )
        size = size // factor - PASS_LOSS
    for factor in reversed(factors):
        size = size * factor - PASS_LOSS
    if size <= 0:
        raise ConfigError(f"{input_size} voxels on axis {axis} leave no output")
    return size


def smallest_input(downsample: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """The smallest input of the U-Net, voxels (z, y, x), by the pooling factors of its levels."""
    z, y, x = (_smallest([factors[axis] for factors in downsample]) for axis in range(3))
    return z, y, x


def _smallest(factors: Sequence[int]) -> int:
    """The smallest size of an axis that gives an output."""
    size = 1
    for factor in factors:  # from the output down to the coarsest level
        size = -(-(size + PASS_LOSS) // factor)
    size += PASS_LOSS
    for factor in reversed(factors):  # and up to the input
        size = size * factor + PASS_LOSS
    return size


def label_padding_nm(
    output: Sequence[int], context: Sequence[int], voxel_size_nm: Sequence[float]
) -> tuple[float, float, float]:
    """How far a batch may reach beyond the labels, nm (z, y, x).

    Half the output in z and half its diagonal in y and x, because batches are rotated, plus the
    context of the targets, voxels. This is the rule of the training scripts of Sheridan et al.
    2023; it gives the numbers they published.
    """
    half_diagonal = math.ceil(math.hypot(output[1], output[2]) / 2)
    half = (math.ceil(output[0] / 2), half_diagonal, half_diagonal)
    z, y, x = ((h + c) * v for h, c, v in zip(half, context, voxel_size_nm, strict=True))
    return z, y, x


def target_context(
    neighborhood: Sequence[Sequence[int]], sigma_nm: float | None, voxel_size_nm: Sequence[float]
) -> tuple[int, int, int]:
    """Voxels around a batch that its targets depend on (z, y, x).

    These are the longest offset of the affinities, or three standard deviations of the descriptors'
    window; `sigma_nm` is None without descriptors.
    """
    z, y, x = (max((abs(offset[a]) for offset in neighborhood), default=0) for a in range(3))
    if sigma_nm is None:
        return z, y, x
    window = [math.ceil(3 * sigma_nm / size) for size in voxel_size_nm]
    return max(z, window[0]), max(y, window[1]), max(x, window[2])
