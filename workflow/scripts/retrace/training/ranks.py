"""Which samples each process of a training learns from. Torch-free, for use in planning.

A batch of B samples is one iteration. Sample `number` (from 0, over all iterations) belongs to
iteration `number` // B. Samples do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """One of the `count` processes of a training, `number` from 0."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.number == 0

    def samples(self, first: int, last: int, batch_size: int) -> Iterator[int]:
        """Numbers of its samples in the iterations `first` to `last` - 1, in order."""
        each = batch_size // self.count
        for iteration in range(first, last):
            begin = iteration * batch_size + self.number * each
            yield from range(begin, begin + each)


SINGLE_PROCESS = Rank()
"""The rank of a training in one process."""
