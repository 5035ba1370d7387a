"""Progress of long loops: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOG_INTERVAL_S = 10.0


def _lines(items: Iterable[Item], total: int, name: str, unit: str) -> Iterator[Item]:
    begin = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if done == total or now - last >= LOG_INTERVAL_S:
            last = now
            rate = done / max(now - begin, 1e-9)
            percent = 100 * done // max(total, 1)
            print(f"[{name}] {done}/{total} {unit} {percent} % {rate:.2f} {unit}/s", flush=True)


def progress(items: Iterable[Item], total: int, name: str, unit: str) -> Iterator[Item]:
    """Yields `items` and shows how many of `total` are done; `name` and `unit` as labels."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=name, unit=f" {unit}")
    else:
        yield from _lines(items, total, name, unit)
