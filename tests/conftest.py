"""Fixtures for all tests."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from retrace.planning.container_images import image_path
from retrace.viewing.browser import BrowserError, find_browser

REPOSITORY = Path(__file__).resolve().parent.parent

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be every program that
# the tests start and then interrupt. What is handled here is at its default there.
signal.signal(signal.SIGINT, signal.default_int_handler)

MOST_WORKERS = 8
# Tests run side by side (pytest-xdist): together they are to use the cores once, not each of them.
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // WORKERS)))


def keep_compiled_code() -> None:
    """Lets all that tests start share machine code: copies of the workflow, bundles, containers."""
    folder = Path(tempfile.gettempdir()) / f"retrace-compiled-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid == os.getuid():  # code is loaded from there
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder))


keep_compiled_code()

# On a busy machine the time of an example, or of generating one, is no failure.
settings.register_profile("retrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("retrace")


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, for tests often wait: for a process, a lock or a server."""
    return min((os.cpu_count() or 1) + 1, MOST_WORKERS)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Seeds all generators, so that a test does not depend on the tests before it."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def required(marker: str) -> bool:
    """True where the environment says that tests with `marker` must run (RETRACE_REQUIRE)."""
    return marker in os.environ.get("RETRACE_REQUIRE", "").split()


def skip_or_fail(marker: str, reason: str) -> NoReturn:
    """Skips a test whose needs are absent, unless the environment requires them."""
    if required(marker):
        pytest.fail(f"{reason}, but RETRACE_REQUIRE names {marker!r}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@dataclass(frozen=True)
class Apptainer:
    """The program that Snakemake would call, and the images that it runs."""

    program: str

    def image(self, name: str) -> Path:
        """An image, built by its rule unless the file of that digest exists."""
        images = REPOSITORY / "containers" / "images"
        images.mkdir(exist_ok=True)
        with (images / ".tests.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # parallel tests may need the same image
            run_snakemake(REPOSITORY, f"image_{name}", "--cores", "all", "--nolock")
        return image_path(REPOSITORY, images, name)


@pytest.fixture(scope="session")
def apptainer() -> Apptainer:
    """Apptainer, or a skip where there is none."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        skip_or_fail("container", "neither apptainer nor singularity is on the PATH")
    return Apptainer(program)


PLANNING_APPTAINER = """\
#!/bin/sh
[ "$*" = --version ] && exec echo "apptainer version 1.3.0"
echo "the apptainer of planning tests runs nothing: apptainer $*" >&2
exit 1
"""


@pytest.fixture
def planning_apptainer(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts a stand-in `apptainer` first on the PATH: Snakemake plans with it and runs nothing.

    With `--use-singularity`, a dry run only asks the program for its version.
    """
    folder = tmp_path_factory.mktemp("planning_apptainer")
    program = folder / "apptainer"
    program.write_text(PLANNING_APPTAINER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(scope="session")
def browser() -> str:
    """The program of a browser with its driver, or a skip where there is none."""
    try:
        return find_browser()
    except BrowserError as error:
        skip_or_fail("browser", str(error))


def run_snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Snakemake in `folder`; its output is shown where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path},
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and oracles next to the project."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data" / "MANIFEST.md").is_file():
        skip_or_fail("realdata", "no ../shared/data next to the project")
    return folder


@pytest.fixture
def tiny_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread for torch and BLAS, so that small tests do not fight over cores."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
