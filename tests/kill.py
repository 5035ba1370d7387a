"""Killing a script at a chosen time, for tests of resuming."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "workflow" / "scripts"
PATIENCE_S = 600.0
"""Nothing is measured by it: it only ends what hangs, also on a machine many times slower."""


def start(
    script: str, arguments: Sequence[str], stderr: int | None = None
) -> subprocess.Popen[bytes]:
    """`python SCRIPT ARGUMENTS` with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)


def kill_when(script: str, arguments: Sequence[str], is_due: Callable[[], bool]) -> bool:
    """Starts the script and sends SIGKILL once `is_due()` is true; False if it ended before."""
    process = start(script, arguments)
    end = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < end:
        if is_due():
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    if process.poll() is None:
        process.kill()
        process.wait()
        raise TimeoutError(f"{script} neither ended nor came to the is_due")
    return False


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
    """Runs the script to its end; AssertionError if it fails."""
    assert start(script, arguments).wait(PATIENCE_S) == 0
