"""Prediction speed of an ELEKTRONN network for many input sizes, as in `elektronn-profile`.

Source: ELEKTRONN, scripts/elektronn-profile. Unlike the original, each size runs once as a warm-up,
and on a GPU the clock stops when the computation has finished.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from retrace.elektronn.calculator import SizedAxis
from retrace.geometry import Triple
from retrace.networks.elektronn import ElektronnNetwork

COLUMNS = ("z-shape", "xy-shape", "pixel", "Speed [MPix/s]")
"""Columns of ELEKTRONN's Speed_NAME.csv."""
LATERAL_SIZES = slice(4, 50)
"""Which of the valid sizes (from 0) y and x take."""
DEPTH_RATIO = 8.5
"""z is smaller than y and x by this factor, before `DEPTH_CHANGES` vary it."""
DEPTH_CHANGES = range(-16, 25, 4)
"""Voxels added to z."""


@dataclass(frozen=True)
class Speed:
    """One timed pass: input size (z, y, x) in voxels, voxels of the dense output, seconds."""

    size: Triple
    voxels: int
    seconds: float

    @property
    def row(self) -> str:
        """The values of `COLUMNS`, separated by tabs."""
        rate = self.voxels / self.seconds / 1e6
        return f"{self.size[0]}\t{self.size[2]}\t{self.voxels}\t{rate:.4f}"


def profile_sizes(axes: tuple[SizedAxis, ...], largest: int) -> Iterator[Triple]:
    """Input sizes (z, y, x) in voxels that ELEKTRONN tries, with y and x at most `largest`."""
    depth, lateral = axes[0].valid, axes[-1].valid[LATERAL_SIZES]
    for side in (size for size in lateral if size <= largest):
        middle = next(size for size in depth if size >= side / DEPTH_RATIO)
        for size in (middle + change for change in DEPTH_CHANGES):
            if size in depth:
                yield (size, side, side)


@torch.no_grad()
def timed_pass(module: ElektronnNetwork, size: Triple, device: torch.device) -> Speed:
    """Times a dense pass over zeros of `size` (z, y, x) voxels, after a warm-up pass."""
    x = torch.zeros(1, module.input_channels, *size, device=device)
    for _ in range(2):
        begin = time.perf_counter()
        module.dense(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return Speed(size, math.prod(module.output_shape(size)), time.perf_counter() - begin)
