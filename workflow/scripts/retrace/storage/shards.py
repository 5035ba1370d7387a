"""Shares of a volume's blocks: one share a job, any number of jobs, the same blocks in all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from retrace.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Share `index` (from 1) of `count` shares."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def indices(self, total: int) -> range:
        """Which of `total` blocks are this share's: a run of neighbours, as even as can be.

        All shares together give every block once; a share is empty where there are fewer blocks
        than shares.
        """
        return range(
            (self.index - 1) * total // self.count,
            self.index * total // self.count,
        )

    def of(self, items: Sequence[Item]) -> list[Item]:
        """This share of `items`."""
        return [items[index] for index in self.indices(len(items))]


WHOLE = Shard(1, 1)
"""Everything in one job."""


def parse_shard(text: str) -> Shard:
    """`3-of-8` as a Shard; ConfigError for anything else."""
    found = re.fullmatch(r"(\d+)-of-(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(f"shard {text!r}: give INDEX-of-COUNT, for example 1-of-8 ... 8-of-8")
    return Shard(int(found[1]), int(found[2]))


def shard_names(count: int) -> list[str]:
    """`1-of-N` ... `N-of-N`."""
    return [str(Shard(index, count)) for index in range(1, count + 1)]
