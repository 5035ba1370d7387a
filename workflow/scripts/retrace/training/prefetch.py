"""Batches made ahead of time, always handed over in their order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import torch

from retrace.training.task import Batch, Task

AHEAD_PER_WORKER = 2


class Prefetcher:
    """Iterates over the batches of these `numbers`.

    `workers` threads make batches ahead, on CUDA each in a stream of its own; with 0 the batch is
    made when asked for. Every batch depends on its number only, so the number of workers changes
    when it is made and nothing else. `waited_s` sums the time the training waited for data.
    """

    def __init__(
        self, task: Task, numbers: Iterable[int], workers: int, device: torch.device
    ) -> None:
        self.task, self.numbers = task, numbers
        self.workers, self.device = workers, device
        self.waited_s = 0.0
        self._streams = local()

    def __iter__(self) -> Generator[Batch, None, None]:
        if not self.workers:
            for number in self.numbers:
                begin = time.perf_counter()
                batch = self.task.batch(number)
                self.waited_s += time.perf_counter() - begin
                yield batch
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="batch")
        try:
            yield from self._ahead(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(self, pool: ThreadPoolExecutor) -> Generator[Batch, None, None]:
        coming: deque[Future[tuple[Batch, torch.cuda.Event | None]]] = deque()
        numbers = iter(self.numbers)
        for number in numbers:
            coming.append(pool.submit(self._make, number))
            if len(coming) == AHEAD_PER_WORKER * self.workers:
                break
        while coming:
            begin = time.perf_counter()
            batch, ready = coming.popleft().result()
            self.waited_s += time.perf_counter() - begin
            for number in numbers:
                coming.append(pool.submit(self._make, number))
                break
            if ready is not None:
                _take_over(batch, ready)
            yield batch

    def _make(self, number: int) -> tuple[Batch, torch.cuda.Event | None]:
        if self.device.type != "cuda":
            return self.task.batch(number), None
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._streams.own):
            batch = self.task.batch(number)
            ready = torch.cuda.Event()
            ready.record()
        return batch, ready


def _take_over(batch: Batch, ready: torch.cuda.Event) -> None:
    """Makes the training stream wait for a batch made in another, and keeps its memory for it."""
    current = torch.cuda.current_stream()
    current.wait_event(ready)
    for tensor in batch.values():
        tensor.record_stream(current)
