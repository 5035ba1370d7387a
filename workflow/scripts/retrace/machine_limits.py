"""The memory and the cores of this machine, container or job that a program may use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil

CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def _cgroup_free() -> int | None:
    """Bytes left below the memory limit of this container or job (cgroup); None without a limit."""
    for limit_file, used_file in CGROUP_FILES:
        try:
            limit, used = Path(limit_file).read_text(), Path(used_file).read_text()
        except OSError:
            continue
        if limit.strip().isdecimal():
            return max(0, int(limit) - int(used))
    return None


def free_memory() -> int:
    """Free main memory in bytes, at most what the container or job may still use."""
    free = int(psutil.virtual_memory().available)
    limited = _cgroup_free()
    return free if limited is None else min(free, limited)


def usable_cores() -> int:
    """Cores that this process may use; only Linux limits them."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
