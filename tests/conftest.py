"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def required(marker: str) -> bool:
    """True where the environment says that tests with `marker` must run (RETRACE_REQUIRE)."""
    return marker in os.environ.get("RETRACE_REQUIRE", "").split()


def skip_or_fail(marker: str, reason: str) -> None:
    """Skips a test whose needs are absent, unless the environment requires them."""
    if required(marker):
        pytest.fail(f"{reason}, but RETRACE_REQUIRE names {marker!r}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real data and oracles beside the project."""
    folder = REPOSITORY.parent / "shared"
    if not (folder / "data" / "MANIFEST.md").is_file():
        skip_or_fail("realdata", "no ../shared/data beside the project")
    return folder


@pytest.fixture
def tiny_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread for torch and BLAS, so that small tests do not fight over cores."""
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
