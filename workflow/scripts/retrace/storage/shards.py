"""Shards: disjoint parts of a volume's blocks, one job each; any number gives the same result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from retrace.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`, counted from 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}-of-{self.count}"

    def indices(self, total: int) -> range:
        """The indices of this shard's blocks among `total` blocks.

        They are consecutive, and shards differ by at most one block. With fewer blocks than shards,
        some shards are empty.
        """
        return range(
            (self.index - 1) * total // self.count,
            self.index * total // self.count,
        )

    def of(self, items: Sequence[Item]) -> list[Item]:
        """The items of this shard."""
        return [items[index] for index in self.indices(len(items))]


SINGLE_SHARD = Shard(1, 1)
"""All blocks in one job."""


def parse_shard(text: str) -> Shard:
    """`3-of-8` as a Shard; ConfigError for anything else."""
    match = re.fullmatch(r"(\d+)-of-(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"shard {text!r} is not INDEX-of-COUNT, such as 1-of-8 ... 8-of-8")
    return Shard(int(match[1]), int(match[2]))


def shard_names(count: int) -> list[str]:
    """`1-of-N` ... `N-of-N`."""
    return [str(Shard(index, count)) for index in range(1, count + 1)]


def shard_of(execution: Mapping[str, str]) -> Shard:
    """The shard that a job computes; SINGLE_SHARD if it names none."""
    return parse_shard(execution["shard"]) if "shard" in execution else SINGLE_SHARD
