"""Reading, computing and writing at the same time, with a bounded number of items in flight."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Input = TypeVar("Input")
Output = TypeVar("Output")

DEPTH = 2
"""Items read ahead, and items waiting to be written: more only takes memory."""


def _read_ahead(
    items: Iterable[Item], read: Callable[[Item], Input], pool: ThreadPoolExecutor
) -> Iterator[tuple[Item, Input]]:
    waiting: deque[tuple[Item, Future[Input]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(read, item)))
        if len(waiting) > DEPTH:
            first, future = waiting.popleft()
            yield first, future.result()
    while waiting:
        first, future = waiting.popleft()
        yield first, future.result()


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Input],
    compute: Callable[[Item, Input], Output],
    write: Callable[[Item, Output], None],
) -> Iterator[Item]:
    """Passes every item through read -> compute -> write; yields it once it is written, in order.

    One thread reads, the caller's computes, one writes. The first error of any of them is raised
    here, after which nothing more is written.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        unwritten: deque[tuple[Item, Future[None]]] = deque()
        try:
            for item, data in _read_ahead(items, read, reader):
                unwritten.append((item, writer.submit(write, item, compute(item, data))))
                del data
                if len(unwritten) > DEPTH:
                    first, future = unwritten.popleft()
                    future.result()
                    yield first
            while unwritten:
                first, future = unwritten.popleft()
                future.result()
                yield first
        finally:
            reader.shutdown(wait=False, cancel_futures=True)
            writer.shutdown(wait=False, cancel_futures=True)
