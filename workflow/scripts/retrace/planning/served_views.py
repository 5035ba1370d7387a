"""Ctrl-C on a run of Snakemake that serves a view."""

from __future__ import annotations

import signal
from types import FrameType

from psutil import Process


def end_views_on_interrupt() -> None:
    """Makes Ctrl-C end the views that this process's jobs serve, so that these jobs succeed."""
    signal.signal(signal.SIGINT, _end_views)


def _end_views(number: int, frame: FrameType | None) -> None:
    """Sends Ctrl-C on to the views; without one, it interrupts the run as usual."""
    children = Process().children(recursive=True)
    views = [child for child in children if "--serve" in child.cmdline()]
    if not views:
        raise KeyboardInterrupt
    for view in views:
        view.send_signal(signal.SIGINT)
