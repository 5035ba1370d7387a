"""Time of local equalisation of one section, compared with scikit-image's rank filter.

python benchmarks/contrast.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from skimage.filters import rank
from skimage.morphology import disk

from retrace.alignment.contrast import equalise, radius_at
from retrace.synthetic.neurites import generate_neurites

SIDE, REPEATS = 1024, 5
MIPS = (2, 5)


def best(function: Callable[[], Any]) -> float:
    """Seconds of the fastest of REPEATS runs."""
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def main() -> None:
    torch.set_num_threads(1)
    tile, _ = generate_neurites((1, SIDE // 4, SIDE // 4), (40, 16, 16), 1)
    image = np.tile(tile[0], (4, 4))
    section = torch.from_numpy(image).float() / 255
    print(f"{SIDE} x {SIDE} px, one thread, the best of {REPEATS}")
    print("| radius, px | retrace, s | rank filter, s | mean difference, of 255 |")
    print("|---|---|---|---|")
    for mip in MIPS:
        radius = radius_at(mip)
        own = best(lambda r=radius: equalise(section, r))  # type: ignore[misc]
        filtered = rank.equalize(image, disk(radius), mask=image > 0)
        other = best(lambda r=radius: rank.equalize(image, disk(r), mask=image > 0))  # type: ignore[misc]
        apart = np.abs(equalise(section, radius).numpy() * 255 - filtered)[image > 0].mean()
        print(f"| {radius} | {own:.2f} | {other:.2f} | {apart:.1f} |")


if __name__ == "__main__":
    main()
