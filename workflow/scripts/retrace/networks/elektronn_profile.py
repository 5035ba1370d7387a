"""How fast a network of the family elektronn predicts inputs of many sizes: elektronn-profile.

Source: ELEKTRONN, scripts/elektronn-profile. Unlike there each size is run once unmeasured first,
and a GPU is waited for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from retrace.elektronn.calculator import Axis
from retrace.geometry import Triple
from retrace.networks.elektronn import ElektronnNetwork

COLUMNS = ("z-shape", "xy-shape", "pixel", "Speed [MPix/s]")
"""As in ELEKTRONN's Speed_NAME.csv."""
LATERAL = slice(4, 50)
"""Which of the valid sizes y and x take, from 0."""
FLATTER = 8.5
"""By how much z is smaller, before it is varied by `AROUND`."""
AROUND = range(-16, 25, 4)


@dataclass(frozen=True)
class Speed:
    """A timed pass: size of the input (z, y, x), voxels of the dense output, seconds."""

    size: Triple
    voxels: int
    seconds: float

    @property
    def row(self) -> str:
        """The values of `COLUMNS`, parted by tabs."""
        rate = self.voxels / self.seconds / 1e6
        return f"{self.size[0]}\t{self.size[2]}\t{self.voxels}\t{rate:.4f}"


def profile_sizes(axes: tuple[Axis, ...], largest: int) -> Iterator[Triple]:
    """Inputs (z, y, x) that ELEKTRONN tries, y and x at most `largest`."""
    depth, lateral = axes[0].valid, axes[-1].valid[LATERAL]
    for side in (size for size in lateral if size <= largest):
        middle = next(size for size in depth if size >= side / FLATTER)
        for size in (middle + change for change in AROUND):
            if size in depth:
                yield (size, side, side)


@torch.no_grad()
def timed_pass(module: ElektronnNetwork, size: Triple, device: torch.device) -> Speed:
    """A dense pass over zeros, the second of two."""
    x = torch.zeros(1, module.input_channels, *size, device=device)
    for _ in range(2):
        begin = time.perf_counter()
        module.dense(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return Speed(size, math.prod(module.output_shape(size)), time.perf_counter() - begin)
