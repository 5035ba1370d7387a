"""Reads, computes and writes at the same time, with a bounded number of items in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event
from typing import TypeVar, cast

Item = TypeVar("Item")
Input = TypeVar("Input")
Output = TypeVar("Output")

DEPTH = 2
"""Items read ahead, and items waiting to be written; more would only take memory."""


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
    """Reads, computes and writes every item; yields each item, in order, after it is written.

    One thread reads, the calling thread computes, one thread writes. The first error of any of
    them is raised here, and nothing more is written.
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


def side_by_side(lanes: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """The items of all lanes in the order in which they finish; each lane has its own thread.

    The first error of any lane is raised here; the other lanes finish their current item.
    """
    results: SimpleQueue[tuple[bool, Item | BaseException | None]] = SimpleQueue()
    stop = Event()

    def pull(lane: Iterator[Item]) -> None:
        error: BaseException | None = None
        try:
            for item in lane:
                results.put((True, item))
                if stop.is_set():
                    break
        except BaseException as raised:
            error = raised
        results.put((False, error))

    with ThreadPoolExecutor(max(1, len(lanes))) as pool:
        for lane in lanes:
            pool.submit(pull, lane)
        try:
            yield from _received(results, len(lanes))
        finally:
            stop.set()


def _received(
    results: SimpleQueue[tuple[bool, Item | BaseException | None]], lanes: int
) -> Iterator[Item]:
    while lanes:
        is_item, value = results.get()
        if is_item:
            yield cast(Item, value)
            continue
        lanes -= 1
        if isinstance(value, BaseException):
            raise value
