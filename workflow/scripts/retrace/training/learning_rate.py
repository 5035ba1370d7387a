"""The factor of a learning rate that rises first and then falls."""

from __future__ import annotations

import math
from collections.abc import Callable

FALLS: dict[str, Callable[[float], float]] = {
    "constant": lambda fraction: 1.0,
    "cosine": lambda fraction: 0.5 * (1 + math.cos(math.pi * fraction)),
    "linear": lambda fraction: 1 - fraction,
}
"""By name the curve that falls from 1 to 0 while its argument, the fraction of the way, goes from
0 to 1."""


def rate_factor(
    done: int, warmup: int, last: int, fall: str = "cosine", final: float = 0.0
) -> float:
    """The factor of the iteration that follows `done` ones.

    It rises linearly to 1 over `warmup` iterations, then falls along a curve of `FALLS`. It is
    `final` after `last` iterations, and stays so.
    """
    if done < warmup:
        return (done + 1) / warmup
    fraction = min(1.0, (done - warmup) / max(last - warmup, 1))
    return final + (1 - final) * FALLS[fall](fraction)
