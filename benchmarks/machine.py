"""What the benchmarks share: the machine, its peak rate, timings side by side, rows of tables."""

from __future__ import annotations

import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")
INSTRUCTIONS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 with bf16", "avx512f": "AVX-512"}
"""Instruction sets by their flag in /proc/cpuinfo; the first that a processor has is named."""
EDGE = {"cpu": 3000, "cuda": 8192}
"""Size of the matrices: products of smaller ones take a GPU less time than starting them."""
PRODUCTS = {"cpu": 1, "cuda": 10}
"""Products that are timed together."""


# ---------------------------------------------------------------- the machine


def describe_machine(device: torch.device | None = None) -> str:
    """One line for a table's heading: GPU if one is used, processor, memory, torch, load."""
    info = CPU_INFO.read_text() if CPU_INFO.exists() else ""
    name = re.search(r"^model name\s*:\s*(.*)$", info, re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{os.cpu_count()} cores of {name[1] if name else platform.machine()}",
        _instructions(info),
        f"{memory:.0f} GiB",
        f"torch {torch.__version__}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    if device is not None and device.type == "cuda":
        whole = torch.cuda.get_device_properties(device).total_memory / 2**30
        parts.insert(0, f"{torch.cuda.get_device_name(device)} ({whole:.0f} GiB)")
    return ", ".join(parts)


def _instructions(cpu_info: str) -> str:
    flags = re.search(r"^flags\s*:\s*(.*)$", cpu_info, re.MULTILINE)
    known = flags[1].split() if flags else []
    best = next((name for flag, name in INSTRUCTIONS.items() if flag in known), "AVX2")
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    if limit:
        return f"limited to {limit} by ONEDNN_MAX_CPU_ISA"
    return f"with {best}" if known else "other instructions"


def synchronize(device: torch.device | None) -> None:
    """Waits until a GPU has finished its work."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(
    device: torch.device,
    dtype: torch.dtype,
    *,
    tf32: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """FLOP/s of products of square matrices, the best of five; `tf32`: of float32 on a GPU."""
    edge, count = EDGE[device.type], PRODUCTS[device.type]
    a = torch.rand(edge, edge, device=device, dtype=dtype)
    product = torch.empty_like(a)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    best = float("inf")
    for _ in range(6):  # the first warms up
        synchronize(device)
        begin = clock()
        for _ in range(count):
            torch.mm(a, a, out=product)
        synchronize(device)
        best = min(best, (clock() - begin) / count)
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * edge**3 / best


def peak_memory_mb() -> float:
    """The most memory (MiB) that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_gpu_mb(device: torch.device) -> float:
    """The most memory (MiB) of a GPU that tensors of this process have held; 0 for a CPU."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0


# ---------------------------------------------------------------- timings side by side


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated figures; `format(spread, ".2f")` is `2.31 (2.20 to 2.41)`."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def __format__(self, form: str) -> str:
        low, high = min(self.values), max(self.values)
        return f"{self.median:{form}} ({low:{form}} to {high:{form}})"


@dataclass(frozen=True)
class Timings:
    """Seconds of each work in each round; round i of all works ran one after another."""

    seconds: Mapping[str, Sequence[float]]

    def took(self, name: str) -> Spread:
        """Seconds of a work."""
        return Spread(tuple(self.seconds[name]))

    def rate(self, name: str, amount: float) -> Spread:
        """`amount` (voxels, iterations, FLOP) a second."""
        return Spread(tuple(amount / s for s in self.seconds[name]))

    def times_as_fast(self, fast: str, slow: str) -> Spread:
        """How many times as fast `fast` is as `slow`: a ratio for each round."""
        pairs = zip(self.seconds[slow], self.seconds[fast], strict=True)
        return Spread(tuple(a / b for a, b in pairs))


def alternating(
    works: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    *,
    warm_up: int = 1,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Times each work in turn, `rounds` times, after `warm_up` rounds that are not counted.

    Each round begins with another work, so that what a work leaves behind (caches, load of the
    machine) meets all of them. With `clock=time.process_time`, other programs disturb less.
    """
    names = list(works)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            synchronize(device)
            begin = clock()
            works[name]()
            synchronize(device)
            if number >= 0:
                seconds[name].append(clock() - begin)
    return Timings(seconds)


# ---------------------------------------------------------------- rows of docs/performance.md


def row(*cells: object) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    return "\n".join([row(*heading), "|" + "---|" * len(heading), *(row(*cells) for cells in rows)])


def shown(values: Iterable[float | None], form: str = ".3f") -> str:
    """Mean ± standard deviation over seeds; a dash where a seed has no value."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):{form}}"
    return f"{mean} ± {statistics.stdev(known):{form}}" if len(known) > 1 else mean
