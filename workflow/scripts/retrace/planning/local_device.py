"""Refuses a GPU that this machine does not have, where jobs run on this machine; without torch."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from retrace.errors import DeviceError


def check_device(device: str, *, runs_here: bool) -> None:
    """DeviceError for `device: cuda` without a GPU; jobs on other machines check their own."""
    if device == "cuda" and runs_here and not has_gpu():
        raise DeviceError(
            "`device: cuda` needs a GPU, and this machine has none that CUDA sees; set `device` to "
            "`auto` or `cpu`, or run where `nvidia-smi` shows one"
        )


def names_executor(words: Sequence[str]) -> bool:
    """Whether a command line, or the environment, may choose where jobs run; of a dry run.

    `none` is no profile, and `local` is here.
    """
    here = {"-e": "local", "--executor": "local", "--profile": "none", "--workflow-profile": "none"}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option in here and (value or following) != here[option]:
            return True
    return "SNAKEMAKE_PROFILE" in os.environ


@cache
def has_gpu() -> bool:
    """Whether CUDA's driver sees a GPU (CUDA_VISIBLE_DEVICES); a ROCm device counts as well."""
    if Path("/dev/kfd").exists():
        return True
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/nvidiactl").exists()  # a driver that only containers see
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 < count.value
