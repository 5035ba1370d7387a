"""Which samples each process of a training learns from. No torch: the workflow asks while planning.

A batch of B samples is one iteration. Sample `number` (from 0, over all iterations) belongs to
iteration `number` // B; who learns from it does not change what it holds.
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
        """The one that writes and prints."""
        return self.number == 0

    def samples(self, first: int, last: int, batch_size: int) -> Iterator[int]:
        """Its samples of the iterations `first`, `first` + 1 ... `last` - 1, in order."""
        each = batch_size // self.count
        for iteration in range(first, last):
            begin = iteration * batch_size + self.number * each
            yield from range(begin, begin + each)


ALONE = Rank()
"""A training in one process."""
