"""Which device computes, and in which precision."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from retrace.errors import ConfigError, DeviceError, nearest

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
CPU_INFO = Path("/proc/cpuinfo")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


def keep_freed_memory() -> None:
    """Has the C library keep freed memory, in huge pages, instead of returning it each time.

    Every iteration allocates the same large arrays; fresh pages from the system each time cost a
    CPU a third of its time (140,000 page faults per iteration of `mtlsd_small`). No effect
    where the C library has no mallopt.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read by torch at its first allocation
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def choose_device(name: str) -> torch.device:
    """`auto` takes a GPU where there is one. DeviceError where `cuda` is asked for and absent."""
    if name not in DEVICES:
        raise ConfigError(f"no device {name!r}; {nearest(name, DEVICES)}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError(
            "a GPU was asked for (device: cuda) and none is visible to torch "
            f"{torch.__version__}; set `device: auto` or `cpu`, or run where `nvidia-smi` shows one"
        )
    if available and name != "cpu":
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def choose_devices(name: str, most: int) -> list[torch.device]:
    """Up to `most` of the GPUs that this job sees (CUDA_VISIBLE_DEVICES), or the one device."""
    device = choose_device(name)
    if device.type != "cuda":
        return [device]
    return [torch.device("cuda", index) for index in range(min(most, torch.cuda.device_count()))]


def check_devices(name: str, count: int) -> str:
    """Whether training in `count` processes takes `cpu` or `cuda`, a GPU each.

    DeviceError where this job sees fewer GPUs (CUDA_VISIBLE_DEVICES); with `cpu` the processes
    share the cores.
    """
    if choose_device(name).type == "cpu" and name == "cpu":
        return name
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > there:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise DeviceError(
            f"`gpus`: training asks for {count} GPUs, and torch {torch.__version__} sees {there} "
            f"(CUDA_VISIBLE_DEVICES: {visible}); set `gpus` to {there or 1} or less, or run where "
            "`nvidia-smi` shows more"
        )
    return "cuda"


def choose_own_device(name: str, number: int, count: int) -> torch.device:
    """The device of process `number` of `count`: the one there is, or a GPU of its own."""
    device = choose_device(name)
    if count == 1 or device.type == "cpu":
        return device
    return torch.device("cuda", number)


def cpu_multiplies_bf16() -> bool:
    """Whether this processor has bfloat16 products in hardware; without them bf16 only costs."""
    try:
        flags = CPU_INFO.read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bfloat16: as told, or with `auto` where the device gains from it."""
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}; {nearest(precision, PRECISIONS)}")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_multiplies_bf16()


def uses_compile(choice: str | bool, device: torch.device) -> bool:
    """Whether to compile the network: as told, or with `auto` on a GPU."""
    if choice not in ("auto", True, False):
        raise ConfigError(f"compile: {choice!r} is none of auto, true, false")
    return device.type == "cuda" if choice == "auto" else bool(choice)
