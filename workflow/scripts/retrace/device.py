"""Choice of device, precision and compilation."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import torch

from retrace.errors import ConfigError, DeviceError, nearest

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
CPU_INFO = Path("/proc/cpuinfo")
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Parameters of mallopt(3)."""
RESERVE = 256 << 20
"""Bytes by which the heap grows at least; memory that is not used exists only by name."""
MADV_HUGEPAGE, HUGE_PAGE = 14, 2 << 20
"""Advice of madvise(2), and the size of a huge page, bytes."""
MEMORY_MAP = Path("/proc/self/maps")
"""The memory of this process, one range a line; see proc(5)."""


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory, in huge pages, instead of returning it to the system.

    Every iteration allocates the same large arrays. New pages from the system took a third of the
    CPU time (140,000 page faults per iteration of `mtlsd_small`). No effect if the C library has no
    mallopt.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_TOP_PAD, RESERVE)  # so that `use_huge_pages` covers what is allocated after it


def use_huge_pages() -> None:
    """Asks Linux to back all memory that this process reserved, but not yet used, by huge pages.

    For large buffers of a library: the first use of each 4 KiB otherwise takes a page fault. No
    effect elsewhere, or where huge pages are switched off.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None)
    if madvise is None or not MEMORY_MAP.exists():
        return
    for line in MEMORY_MAP.read_text().splitlines():
        place, access, _, _, inode, *_ = line.split()
        begin, end = (int(edge, 16) for edge in place.split("-"))
        if inode == "0" and access.startswith("rw-p") and end - begin >= HUGE_PAGE:
            madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_HUGEPAGE)


def choose_device(name: str) -> torch.device:
    """The device of `cpu`, `cuda` (DeviceError without GPU) or `auto`: a GPU if there is one."""
    if name not in DEVICES:
        raise ConfigError(f"no device {name!r}; {nearest(name, DEVICES)}")
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise DeviceError(
            f"`device: cuda` needs a GPU, and torch {torch.__version__} sees none; set `device` to "
            "`auto` or `cpu`, or run where `nvidia-smi` shows one"
        )
    if available and name != "cpu":
        _set_up_gpu()
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def _set_up_gpu() -> None:
    """Settings of torch that suit every job: exact float32, and the fastest convolutions.

    By default, convolutions of float32 round their factors to 11 bits (TF32) and are 1e-3 off;
    whoever wants speed takes bf16. Jobs repeat a few shapes, so trying cuDNN's algorithms pays.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True


def choose_devices(name: str, most: int) -> list[torch.device]:
    """Up to `most` of the visible GPUs (CUDA_VISIBLE_DEVICES), or the CPU; see choose_device."""
    device = choose_device(name)
    if device.type != "cuda":
        return [device]
    return [torch.device("cuda", index) for index in range(min(most, torch.cuda.device_count()))]


def check_devices(name: str, count: int) -> str:
    """The kind of device, `cpu` or `cuda`, for training in `count` processes with a GPU each.

    With `cpu`, the processes share the cores. DeviceError if fewer GPUs are visible
    (CUDA_VISIBLE_DEVICES), or where processes cannot end with their parent.
    """
    if sys.platform != "linux":
        raise DeviceError(
            "training in several processes works on Linux only, and this is "
            f"{sys.platform}; set `gpus` to 1"
        )
    if choose_device(name).type == "cpu" and name == "cpu":
        return name
    visible_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count > visible_gpus:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
        raise DeviceError(
            f"training on {count} GPUs: torch {torch.__version__} sees {visible_gpus} "
            f"(CUDA_VISIBLE_DEVICES: {visible}); set `gpus` to {visible_gpus or 1} or less, or run "
            "where `nvidia-smi` shows more"
        )
    return "cuda"


def choose_own_device(name: str, number: int, count: int) -> torch.device:
    """The device of process `number` of `count`: the CPU, or its own GPU."""
    device = choose_device(name)
    if count == 1 or device.type == "cpu":
        return device
    return torch.device("cuda", number)


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; otherwise bf16 only takes more time."""
    try:
        flags = CPU_INFO.read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bfloat16; `auto` does so if the device is faster with it."""
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}; {nearest(precision, PRECISIONS)}")
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_multiplies_bf16()


def uses_compile(choice: str | bool, device: torch.device) -> bool:
    """Whether to compile the network; `auto` does so on a GPU, where that is possible."""
    if choice not in ("auto", True, False):
        raise ConfigError(f"`compile` is {choice!r}; allowed: auto, true, false")
    if choice != "auto":
        return bool(choice)
    if device.type != "cuda":
        return False
    if missing := missing_for_compile():
        print(f"[compile] the network is not compiled: {missing} is missing here", flush=True)
    return missing is None


def missing_for_compile() -> str | None:
    """What torch.compile needs for a GPU and this machine lacks; containers often have none."""
    if find_spec("triton") is None:
        return "triton"
    if not (os.environ.get("CC") or any(map(shutil.which, ("cc", "gcc", "clang")))):
        return "a C compiler (gcc)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"{header} (python3-dev)"
