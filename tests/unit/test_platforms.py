"""What our code calls of Python's library exists on macOS, too, or is only called on Linux."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROBE = """\
import os
import sys

os.sched_getaffinity(0)
if sys.platform == "linux":
    os.sched_getaffinity(0)
"""
ABSENT = "Module has no attribute"


def test_calls_that_only_linux_has_are_guarded(repository: Path, tmp_path: Path) -> None:
    """mypy knows what each system has, and `sys.platform == "linux"` as a guard.

    Without the types of other packages it reads a third; what it then says of types is left out.
    """
    probe = tmp_path / "probe.py"
    probe.write_text(PROBE)
    command = [sys.executable, "-m", "mypy", "--platform", "darwin", "--follow-imports", "skip"]
    command += ["--cache-dir", tmp_path / "cache", "workflow/scripts", "envs", probe]

    run = subprocess.run(command, cwd=repository, capture_output=True, text=True)

    lines = [line for line in run.stdout.splitlines() if ABSENT in line]
    assert lines == [f'{probe}:4: error: {ABSENT} "sched_getaffinity"  [attr-defined]'], run.stderr
