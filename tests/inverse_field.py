"""The inverse of a displacement field."""

from __future__ import annotations

import torch

from retrace.displacement import warp


def inverse(field: torch.Tensor, iterations: int = 20) -> torch.Tensor:
    """The field g with compose(field, g) = 0, by fixed-point iteration g = -field(r + g).

    Converges if the field changes by less than one pixel between neighbouring pixels (Chen et al.
    2008, Med. Phys. 35:81).
    """
    inverse_field = -field
    for _ in range(iterations):
        inverse_field = -warp(field, inverse_field, "border")
    return inverse_field
