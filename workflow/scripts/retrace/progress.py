"""Progress of long loops: a bar in a terminal, a few lines in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
FIRST_LINE_S = 10.0
"""When the first line is printed; the next ones follow as the time since the start doubles."""
AT_TERMINAL = "RETRACE_TERMINAL"
"""Variable of the environment: 1 in jobs of a Snakemake that runs in a terminal.

Their own output goes through `tee` into a log."""
TERMINAL = Path("/dev/tty")


def _nothing() -> str:
    return ""


def time_words(seconds: float) -> str:
    """A time such as 45 s, 3:20 min or 1:05:00 h."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


@dataclass
class _Lines:
    """Prints the first line after 10 s and others each time the time has doubled."""

    total: int
    name: str
    unit: str
    note: Callable[[], str]
    begin: float = field(default_factory=lambda: time.monotonic())
    wait_s: float = FIRST_LINE_S

    def show(self, done: int) -> None:
        """Prints a line."""
        passed = time.monotonic() - self.begin
        self.wait_s = max(2 * self.wait_s, passed + FIRST_LINE_S)
        left = (self.total - done) * passed / max(done, 1)
        percent = 100 * done // max(self.total, 1)
        text = f"{done}/{self.total} {self.unit} {percent} %, {time_words(left)} left"
        print(f"[{self.name}] {text}{self._note()}", flush=True)

    def is_due(self, done: int) -> bool:
        """Whether a line is due; the last item has the summary."""
        return time.monotonic() - self.begin >= self.wait_s and done < self.total

    def summarise(self, done: int) -> None:
        """Prints the one line of a finished loop."""
        passed = time.monotonic() - self.begin
        rate = f"{done / max(passed, 1e-9):.2f} {self.unit}/s"
        text = f"{done}/{self.total} {self.unit} in {time_words(passed)}, {rate}"
        print(f"[{self.name}] {text}{self._note()}", flush=True)

    def _note(self) -> str:
        return f", {note}" if (note := self.note()) else ""


def _terminal(stack: ExitStack) -> TextIO | None:
    """The terminal that a bar is drawn in; None where nobody looks."""
    if sys.stderr.isatty():
        return sys.stderr
    if os.environ.get(AT_TERMINAL) != "1":
        return None
    try:
        return stack.enter_context(TERMINAL.open("w"))
    except OSError:  # no terminal here, as on the node of a cluster
        return None


def progress(
    items: Iterable[Item], total: int, name: str, unit: str, note: Callable[[], str] = _nothing
) -> Iterator[Item]:
    """Yields `items` and shows how many of `total` are done; `name` and `unit` as labels.

    In a terminal a bar shows the time left, also for a job whose output goes into a log. The log
    gets lines at doubling intervals, and one line at the end. `note`: a few words about the state,
    such as the loss.
    """
    lines, done = _Lines(total, name, unit, note), 0
    with ExitStack() as stack:
        terminal = _terminal(stack)
        bar = stack.enter_context(_bar(terminal, total, name, unit))
        for done, item in enumerate(items, start=1):
            yield item
            if lines.is_due(done) and terminal is not sys.stderr:
                bar.clear()  # `tee` shows the line in the terminal too, where the bar is
                lines.show(done)
            if terminal is not None:
                bar.set_postfix_str(note(), refresh=False)
                bar.update()
    if done:
        lines.summarise(done)


def _bar(terminal: TextIO | None, total: int, name: str, unit: str) -> tqdm[NoReturn]:
    """A bar in the terminal, which disappears at the end; none without a terminal."""
    return tqdm(
        total=total,
        desc=name,
        unit=f" {unit}",
        file=terminal,
        disable=terminal is None,
        dynamic_ncols=True,
        leave=False,
    )
