"""Divides loops of compiled code among torch's threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def in_strips(rows: int, work: Callable[[int, int], None]) -> None:
    """Calls `work(first, stop)` for as many parts of `rows` as torch has threads, all at once."""
    strips = max(1, min(torch.get_num_threads(), rows))
    bounds = [rows * part // strips for part in range(strips + 1)]
    if strips == 1:
        work(0, rows)
        return
    with ThreadPoolExecutor(strips) as pool:
        list(pool.map(work, bounds, bounds[1:]))
