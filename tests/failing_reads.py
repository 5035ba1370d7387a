"""Programs whose system calls fail, as on a disk or network drive with a fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"
PATIENCE_S = 300.0


def compiler() -> str | None:
    """A C compiler, None on a machine without one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """The library that makes calls fail, compiled into `folder`."""
    library, command = folder / "failing_reads.so", compiler()
    assert command is not None
    options = ["-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run([command, *options], check=True)
    return library


def run_python(
    code: str,
    folder: Path,
    library: Path,
    path: str,
    number: int,
    *,
    call: str = "read",
    times: int | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in `folder`; calls fail with error `number` for files of this `path`.

    `call`: read, open, list or stat; `times`: how many fail, None for all.
    """
    faults = {"FAIL_PATH": path, "FAIL_ERRNO": str(number), "FAIL_CALL": call}
    if times is not None:
        faults["FAIL_TIMES"] = str(times)
    environment = {
        **os.environ,
        **faults,
        "LD_PRELOAD": str(library),
        "PYTHONPATH": str(SCRIPTS),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
