"""Work on each of many small files, in threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

SLICE = 32
"""Items that a thread takes at a time, at most: a future for each costs as much as a small file."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], threads: int) -> list[Result]:
    """What `work` returns for each item, in their order; its first error."""
    size = min(SLICE, max(1, len(items) // (4 * threads)))
    slices = [items[begin : begin + size] for begin in range(0, len(items), size)]
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda some: [work(item) for item in some], slices)
        return [result for results in done for result in results]
