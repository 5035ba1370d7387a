"""Progress: a bar in a terminal also for jobs with a log, and few lines in that log."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from retrace import progress as module
from retrace.progress import progress, time_words

LIBRARY = str(Path(module.__file__).parent.parent)
PROGRAM = """
import time
from retrace.progress import progress
for _ in progress(range(3), 3, "train", "iterations", lambda: "loss 0.5"):
    time.sleep(0.15)
"""


class Clock:
    """A clock that moves by a second for each item."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_log_gets_lines_at_doubling_intervals_and_one_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.delenv("RETRACE_TERMINAL", raising=False)
    for _ in progress(range(1000), 1000, "train", "iterations", lambda: "loss 1"):
        clock.now += 1
    lines = capsys.readouterr().out.splitlines()
    shown = [int(re.findall(r"\d+", line)[0]) for line in lines]
    assert shown == [10, 20, 40, 80, 160, 320, 640, 1000]
    assert lines[0] == "[train] 10/1000 iterations 1 %, 16:30 min left, loss 1"
    assert lines[-1] == "[train] 1000/1000 iterations in 16:40 min, 1.00 iterations/s, loss 1"


def test_times_are_written_in_the_unit_that_fits() -> None:
    shown = [time_words(seconds) for seconds in (0.1234, 45, 200, 3900, 4 * 86400)]
    assert shown == ["0.123 s", "45 s", "3:20 min", "1:05:00 h", "96:00:00 h"]


def in_a_terminal(command: str, environment: dict[str, str]) -> str:
    """What a shell command shows in its controlling terminal, of 100 columns."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (30, 100))  # a new terminal has no width
    process = subprocess.Popen(
        ["sh", "-c", command],
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    process.wait(timeout=60)
    os.write(terminal, b"END")
    shown = b""
    while not shown.endswith(b"END"):
        shown += os.read(screen, 4096)
    os.close(screen)
    os.close(terminal)
    return shown.decode()


@pytest.mark.parametrize(("variable", "has_bar"), [("1", True), ("0", False)])
def test_a_job_with_a_log_shows_its_bar_in_the_terminal(
    tmp_path: Path, variable: str, has_bar: bool
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    log = tmp_path / "log"
    command = f"{sys.executable} {tmp_path}/program.py 2>&1 | cat > {log}"
    shown = in_a_terminal(command, {"RETRACE_TERMINAL": variable, "PYTHONPATH": LIBRARY})
    assert ("train" in shown and "loss 0.5" in shown) is has_bar
    (line,) = log.read_text().splitlines()
    assert line.startswith("[train] 3/3 iterations in 0.")
