"""Which device computes, and in which precision."""

from __future__ import annotations

from pathlib import Path

import torch

from retrace.errors import ConfigError, DeviceError, nearest

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "fp32", "bf16")
CPU_INFO = Path("/proc/cpuinfo")


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
    return torch.device("cuda" if available and name != "cpu" else "cpu")


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
