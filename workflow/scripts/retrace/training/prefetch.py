"""Batches computed ahead of time and returned in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import local

import torch

from retrace.training.task import Batch, Task

AHEAD_PER_WORKER = 2
DEFAULT_WORKERS = {"cpu": 1, "cuda": 2}
"""Workers by type of the training's device, unless `workers` says how many."""


class Prefetcher:
    """Iterates over the batches with these `numbers`.

    `workers` threads compute batches ahead, each on one core, on CUDA each in its own stream; with
    0 workers a batch is computed when it is needed. A batch depends only on its number, so the
    number of workers does not change it. `waited_s`: seconds that the training has waited for data.
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
        # One core each: a worker's own team of threads would interrupt those of the training.
        pool = ThreadPoolExecutor(
            self.workers, "batch", initializer=torch.set_num_threads, initargs=(1,)
        )
        try:
            yield from self._ahead(pool)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(self, pool: ThreadPoolExecutor) -> Generator[Batch, None, None]:
        pending: deque[Future[tuple[Batch, torch.cuda.Event | None]]] = deque()
        numbers = iter(self.numbers)
        for number in numbers:
            pending.append(pool.submit(self._compute, number))
            if len(pending) == AHEAD_PER_WORKER * self.workers:
                break
        while pending:
            begin = time.perf_counter()
            batch, ready = pending.popleft().result()
            self.waited_s += time.perf_counter() - begin
            for number in numbers:
                pending.append(pool.submit(self._compute, number))
                break
            if ready is not None:
                _hand_to_current_stream(batch, ready)
            yield batch

    def _compute(self, number: int) -> tuple[Batch, torch.cuda.Event | None]:
        if self.device.type != "cuda":
            return self.task.batch(number), None
        if not hasattr(self._streams, "own"):
            self._streams.own = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._streams.own):
            batch = self.task.batch(number)
            ready = torch.cuda.Event()
            ready.record()
        return batch, ready


def _hand_to_current_stream(batch: Batch, ready: torch.cuda.Event) -> None:
    """Makes the training stream wait for a batch from another stream and own its memory."""
    current = torch.cuda.current_stream()
    current.wait_event(ready)
    for tensor in batch.values():
        if tensor.is_cuda:  # the number of a batch may be on the CPU
            tensor.record_stream(current)
