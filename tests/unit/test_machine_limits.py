"""Memory and cores of a machine, a container and a system that is not Linux."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from retrace import machine_limits
from retrace.machine_limits import free_memory, usable_cores

FREE = 1000


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the limit of a control group that has used 300 bytes; FREE are available."""
    used = tmp_path / "memory.current"
    used.write_text("300\n")
    files = ((str(tmp_path / "memory.max"), str(used)),)
    monkeypatch.setattr(machine_limits, "CGROUP_FILES", files)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=FREE))
    return tmp_path / "memory.max"


@pytest.mark.parametrize(
    ("text", "free"), [("500\n", 200), ("200\n", 0), ("9000\n", FREE), ("max\n", FREE)]
)
def test_free_memory_is_what_both_machine_and_container_have(
    limit: Path, text: str, free: int
) -> None:
    limit.write_text(text)
    assert free_memory() == free


def test_without_control_groups_the_machine_counts(limit: Path) -> None:
    assert free_memory() == FREE


def test_cores_are_those_of_this_process_or_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_cores() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores() == os.cpu_count()
