"""The machine and the software that wrote a page."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from retrace.planning.program_files import ROOT
from retrace.reporting.browser_libraries import library_versions

PACKAGES = ("torch", "numpy", "openvino", "numba", "zarr", "scikit-image", "scipy", "safetensors")


def machine_facts() -> dict[str, str]:
    """Processor, memory, GPU, system, and versions of Python and the packages that matter."""
    facts = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU and driver": _gpu(),
        "system": platform.platform(),
        "Python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts | library_versions()


def commit() -> str:
    """The commit of the workflow's code, and whether files differ from it, as far as git says."""
    found = _git("rev-parse", "HEAD") or _checked_out(ROOT / ".git")
    if found is None:
        return "unknown (no git repository)"
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return f"{found[:12]}, with changes that are not committed" if changes else found[:12]


def _git(*arguments: str) -> str | None:
    """What git prints about the workflow's folder; None without git or a repository."""
    if shutil.which("git") is None:
        return None
    command = ["git", "-C", str(ROOT), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _checked_out(folder: Path) -> str | None:
    """The commit in git's own files: images have no git."""
    try:
        head = (folder / "HEAD").read_text().strip().removeprefix("ref: ")
        if "/" not in head:
            return head
        if (folder / head).is_file():
            return (folder / head).read_text().strip()
        packed = (line.split() for line in (folder / "packed-refs").read_text().splitlines())
        return next((words[0] for words in packed if words[1:] == [head]), None)
    except OSError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "")


def _gpu() -> str:
    if shutil.which("nvidia-smi") is None:
        return "none"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True, check=False)
    return "; ".join(result.stdout.splitlines()) if result.returncode == 0 else "none"
