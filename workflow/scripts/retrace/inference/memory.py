"""How much memory a tile takes and how much there is."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from retrace.geometry import Triple

CPU_SHARE = 0.5
"""Share of the free main memory that the activations of a tile may take."""
CPU_LIMIT_BYTES = 6 << 30
"""More brings no speed on a CPU: the halo is small by then, and a kill loses less work."""
CUDA_SHARE = 0.8
LIVE_COPIES = 3
CGROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def _cgroup_free() -> int | None:
    """Bytes left under the limit of this process's cgroup (container or job), if it has one."""
    for limit_file, used_file in CGROUP_FILES:
        try:
            limit, used = Path(limit_file).read_text(), Path(used_file).read_text()
        except OSError:
            continue
        if limit.strip().isdecimal():
            return max(0, int(limit) - int(used))
    return None


def free_bytes(device: torch.device) -> int:
    """Free memory of the device, bytes; on a CPU within the limits of the container or job."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    free = int(psutil.virtual_memory().available)
    limited = _cgroup_free()
    return free if limited is None else min(free, limited)


def tile_budget(device: torch.device) -> int:
    """Bytes that the activations of one tile may take."""
    free = free_bytes(device)
    if device.type == "cuda":
        return int(CUDA_SHARE * free)
    return int(min(CPU_SHARE * free, CPU_LIMIT_BYTES))


def _bytes(value: Any, itemsize: int) -> int:
    tensors = value if isinstance(value, (tuple, list)) else [value]
    return sum(t.numel() * itemsize for t in tensors if isinstance(t, Tensor))


def most_bytes_per_voxel(network: nn.Module, itemsize: int) -> float:
    """At least `bytes_per_voxel` of any window, from the weights' shapes alone.

    As if the layer of most channels read and wrote at the input's resolution, the finest there is.
    """
    channels = max(max(p.shape[:2]) for p in network.parameters() if p.dim() > 1)
    return float(LIVE_COPIES * 2 * channels * itemsize)


def bytes_per_voxel(network: nn.Module, window: Triple, itemsize: int) -> float:
    """Peak activation memory per voxel of an input `window` (z, y, x).

    Three times the input and output of the largest layer: at the top of a U-Net both halves of a
    skip connection live beside their concatenation, and convolutions keep a reordered copy. Found
    by passing shapes (meta tensors) through the network, so any family is covered.
    """
    largest = 0

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        largest = max(largest, _bytes(inputs, itemsize) + _bytes(output, itemsize))

    leaves = [m for m in network.modules() if not list(m.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    weights = {name: p.to("meta") for name, p in network.state_dict().items()}
    channels = getattr(network, "input_channels", None) or next(network.parameters()).shape[1]
    try:
        with torch.inference_mode():
            x = torch.empty((1, channels, *window), device="meta")
            torch.func.functional_call(network, weights, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return LIVE_COPIES * largest / math.prod(window)
