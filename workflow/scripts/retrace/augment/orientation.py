"""Flips and exchanges of axes, respecting anisotropy, as steps of the augmentation `simple`.

Source: ELEKTRONN, elektronn/training/trainutils.py (flip) and its documentation.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from retrace.augment.simple import Simple


def orientation_step(n_dim: int, *, anisotropic: bool, upright_x: bool = False) -> dict[str, Any]:
    """What is mirrored and exchanged of (z, y, x): 16 orientations of anisotropic volumes, 48 of
    isotropic ones, 8 of sections, 2 of sections whose x axis stays upright."""
    if n_dim == 2:
        if upright_x:
            return {"mirror": [1], "transpose": []}
        return {"mirror": [1, 2], "transpose": [1, 2]}
    return {"mirror": [0, 1, 2], "transpose": [1, 2] if anisotropic else [0, 1, 2]}


def turn(block: Tensor, drawn: Simple) -> Tensor:
    """`block` (..., Z, Y, X), of the drawn `shape`, flipped and transposed as drawn."""
    axes = [axis - 3 for axis in range(3) if drawn.mirrored[axis]]
    lead = list(range(block.ndim - 3))
    order = [drawn.order.index(axis) for axis in range(3)]
    return block.flip(axes).permute(*lead, *[len(lead) + axis for axis in order])
