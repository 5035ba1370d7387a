"""How a training stops: SIGTERM of a cluster, SIGINT of a user."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Handler = TypeVar("Handler", bound=Callable[[int, FrameType | None], None])


class StopSignal:
    """Records SIGTERM and SIGINT, so that the current iteration is finished and saved first."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signal = number


@contextmanager
def handling_stop_signals(handler: Handler) -> Iterator[Handler]:
    """Inside this block SIGTERM and SIGINT only call `handler`."""
    kinds = (signal.SIGTERM, signal.SIGINT)
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield handler
    finally:
        for kind, earlier in before.items():
            signal.signal(kind, earlier)
