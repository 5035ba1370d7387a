"""Fixtures of unit tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_znn


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a test, with a tiny stack of sections."""
    tiny_znn.write_stack(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
