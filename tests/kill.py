"""Killing a script at a chosen time, for tests of resuming."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import warm_python

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"
PATIENCE_S = 600.0
"""Nothing is measured by it: it only ends what hangs, also on a machine many times slower."""


ATTEMPTS = 5


def start(
    script: str,
    arguments: Sequence[str],
    stderr: int | None = None,
    stdin: int | None = None,
    python: str = sys.executable,
) -> subprocess.Popen[bytes]:
    """`python SCRIPT ARGUMENTS` with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [python, str(SCRIPTS / script), *arguments]
    return subprocess.Popen(
        command, env=environment, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr
    )


def kill_when(script: str, arguments: Sequence[str], is_due: Callable[[], bool]) -> bool:
    """Starts the script and sends SIGKILL once `is_due()` is true; False if it ended before.

    The script runs in a fork of warm_python, which has ended too when this returns.
    """
    held, ours = os.pipe()
    process = start(script, arguments, stdin=held, python=warm_python.program())
    os.close(held)
    try:
        due = wait_until(is_due, process)
        process.kill()
        process.wait()
        watch = select.poll()
        watch.register(ours, select.POLLERR)  # nobody has the other end as its input
        assert watch.poll(PATIENCE_S * 1000)
    finally:
        os.close(ours)
    return due


def wait_until(is_due: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Whether `is_due()` was true before the process ended; TimeoutError if neither comes."""
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None:
        if is_due():
            return True
        if time.monotonic() > end:
            process.kill()
            raise TimeoutError("the process neither ended nor came to the moment to kill it")
        time.sleep(0.002)
    return False


def interrupt(
    script: str, arguments: Sequence[str], is_due: Callable[[], bool], undo: Callable[[], None]
) -> None:
    """Kills the script once `is_due()` is true.

    A busy machine may notice that only after the script has ended: then `undo` removes what it
    wrote, and it runs again.
    """
    for _ in range(ATTEMPTS):
        if kill_when(script, arguments, is_due):
            return
        undo()
    raise AssertionError(f"{script} always ended before it was killed")


def read_until(process: subprocess.Popen[str], text: str) -> None:
    """Reads what a process prints, up to a line with this beginning; AssertionError without one."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(text):
            return
    raise AssertionError(f"no line {text!r} in {lines}")


def finish(script: str, arguments: Sequence[str]) -> None:
    """Runs the script to its end, in a fork of warm_python; AssertionError if it fails."""
    assert start(script, arguments, python=warm_python.program()).wait(PATIENCE_S) == 0
