"""Threads for many small downloads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

LOOK_S = 0.05
"""How often results are collected: waking up for each would cost as much as its download."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadedWork(Generic[Item, Result]):
    """Applies a function to items in threads.

    Threads take their next item from a shared iterator and leave results in a shared list, because
    a future per object, or a queue that wakes its reader, costs as much as a download.
    """

    def __init__(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        threads: int,
        stop: threading.Event,
    ) -> None:
        """`threads`: the largest number of threads; `stop` ends the threads after their item."""
        self.work, self.stop = work, stop
        self.count, self.threads = len(items), min(threads, len(items))
        self._remaining, self._lock = iter(items), threading.Lock()
        self._done: deque[Result] = deque()
        self._errors: deque[BaseException] = deque()
        self._working = self.threads
        self._over = threading.Event()
        """Set when no thread works any more, or one has failed."""

    def results(self) -> Iterator[Result]:
        """Yields results in the order of completion; the first error stops all threads."""
        workers = [threading.Thread(target=self._keep_working) for _ in range(self.threads)]
        try:
            for worker in workers:
                worker.start()
            is_over = not workers
            while not is_over:
                is_over = self._over.wait(LOOK_S)
                while self._done:
                    yield self._done.popleft()
                if self._errors:
                    raise self._errors[0]
        except BaseException:
            self.stop.set()
            raise
        finally:
            for worker in workers:
                if worker.ident is not None:
                    worker.join()

    def _keep_working(self) -> None:
        """Works on items until none is left, one fails, or `stop` is set."""
        try:
            while not self.stop.is_set():
                with self._lock:
                    item = next(self._remaining, None)
                if item is None:
                    break
                self._done.append(self.work(item))
        except BaseException as error:
            self._errors.append(error)
            self._over.set()
        with self._lock:
            self._working -= 1
            if not self._working:
                self._over.set()
