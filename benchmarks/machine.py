"""The machine's peak rate, to compare programs with."""

from __future__ import annotations

import time

import torch

EDGE = 3000


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of products of EDGE x EDGE matrices, the best of five."""
    a = torch.rand(EDGE, EDGE, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        product = a @ a
        product[0, 0].item()  # waits for a GPU
        best = min(best, time.perf_counter() - begin)
    return 2 * EDGE**3 / best
