"""What was made from what, at which cost: read from the manifests beside the results."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from retrace.files import read_json

PACKAGES = ("torch", "numpy", "zarr", "waterz", "scikit-image", "scipy", "safetensors")


@dataclass(frozen=True)
class Made:
    """One store: what kind it is, what it was made from, and what that took."""

    store: str
    inputs: tuple[str, ...]
    seconds: float
    peak_memory_mb: float
    gpu: str | None
    image: str | None
    code_version: str

    @property
    def kind(self) -> str:
        """The step that made it, by the name of the store."""
        return kind_of(self.store)


def kind_of(path: str) -> str:
    """`prediction` of results/D/N/V/prediction.zarr, `fetched` and `mask` of volumes."""
    parts = Path(path).parts
    if parts[:1] == ("data",):
        return "fetched"
    if "masks" in parts:
        return "mask"
    if "shards" in parts:
        return Path(path).stem.rsplit("_", 1)[0] + " (shares)"
    return Path(path).stem if parts[:1] == ("results",) else "source"


def read_made(folders: Iterable[Path]) -> list[Made]:
    """Every manifest below the folders, as paths from the working directory."""
    # os.walk, since jobs that run at the same time take folders away, which rglob does not bear.
    walked = (step for folder in folders for step in os.walk(folder))
    found = {Path(place, name) for place, _, names in walked for name in names}
    manifests = sorted(path for path in found if path.name.endswith(".manifest.json"))
    return [_made(path, read_json(path)) for path in manifests]


def _made(path: Path, content: Mapping[str, Any]) -> Made:
    image = content.get("image")
    return Made(
        store=str(path.with_name(content.get("store", path.name))),
        inputs=tuple(content.get("inputs", {})),
        seconds=float(content.get("seconds") or 0),
        peak_memory_mb=float(content.get("peak_memory_mb") or 0),
        gpu=content.get("gpu"),
        image=Path(image).name if image else None,
        code_version=str(content.get("code_version", "")),
    )


def costs(made: Iterable[Made], histories: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each step: jobs, seconds, GPU seconds, peak memory, most seconds first."""
    rows: dict[str, dict[str, Any]] = {}
    for one in made:
        _add(rows, one.kind, one.seconds, one.peak_memory_mb, one.gpu)
    for history in histories.values():
        _add(
            rows,
            "train",
            history["seconds"],
            history.get("peak_memory_mb") or 0,
            history.get("gpu"),
        )
    return sorted(rows.values(), key=lambda row: -row["seconds"])


def _add(
    rows: dict[str, dict[str, Any]], kind: str, seconds: float, memory: float, gpu: str | None
) -> None:
    empty = {"step": kind, "jobs": 0, "seconds": 0.0, "gpu_seconds": 0.0, "peak_memory_mb": 0.0}
    row = rows.setdefault(kind, empty)
    row["jobs"] += 1
    row["seconds"] += seconds
    row["gpu_seconds"] += seconds if gpu else 0.0
    row["peak_memory_mb"] = max(row["peak_memory_mb"], memory)


def edges(made: Sequence[Made]) -> list[tuple[str, str]]:
    """Which step read what which step made, each pair once.

    Models have no manifest: a training reads what the masks were made from, and the masks.
    """
    pairs = {(kind_of(path), one.kind) for one in made for path in one.inputs}
    pairs |= {(kind, "model") for one in made if one.kind == "mask" for kind in _read_by(one)}
    return sorted((a, b) for a, b in pairs if a != b)


def _read_by(mask: Made) -> list[str]:
    return ["mask", *(kind_of(path) for path in mask.inputs)]


def machine() -> dict[str, str]:
    """What the page was made on, and with what."""
    found = {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "GPU and driver": _gpu(),
        "system": platform.platform(),
        "Python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


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
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return "; ".join(done.stdout.splitlines()) if done.returncode == 0 else "none"
