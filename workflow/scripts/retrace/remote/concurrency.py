"""Threads for many small downloads: few for a nearby server, many for a distant one."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

FIRST_THREADS = 2
NEAR_S = 0.008
"""A server that takes less than this many seconds per object gets no further threads."""
RECENT = 4
"""Number of results that decide whether the server is distant."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadedWork(Generic[Item, Result]):
    """Applies a function to items in threads.

    Threads take their next item from a shared iterator, because a future per object would cost as
    much CPU time as its download. Two threads start. The others follow only if an item takes longer
    than NEAR_S: then threads mostly wait for a distant server. With a nearby server more threads
    would compete for the interpreter lock.
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
        self.count, self.limit = len(items), min(threads, len(items))
        self._remaining, self._lock = iter(items), threading.Lock()
        self._done: queue.SimpleQueue[tuple[Result | BaseException, float]] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []

    def results(self) -> Iterator[Result]:
        """Yields results in the order of completion; the first error stops all threads."""
        recent_s: deque[float] = deque(maxlen=RECENT)
        try:
            for _ in range(min(FIRST_THREADS, self.limit)):
                self._start_worker()
            for _ in range(self.count):
                result, seconds = self._done.get()
                if isinstance(result, BaseException):
                    raise result
                recent_s.append(seconds)
                is_distant = len(recent_s) == RECENT and min(recent_s) > NEAR_S
                while is_distant and len(self._workers) < self.limit:
                    self._start_worker()
                yield result
        except BaseException:
            self.stop.set()
            raise
        finally:
            for worker in self._workers:
                worker.join()

    def _start_worker(self) -> None:
        worker = threading.Thread(target=self._keep_working)
        self._workers.append(worker)
        worker.start()

    def _keep_working(self) -> None:
        """Works on items until none is left, one fails, or `stop` is set."""
        while not self.stop.is_set():
            with self._lock:
                item = next(self._remaining, None)
            if item is None:
                return
            begin = time.perf_counter()
            try:
                self._done.put((self.work(item), time.perf_counter() - begin))
            except BaseException as error:
                self._done.put((error, 0.0))
                return
