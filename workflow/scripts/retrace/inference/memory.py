"""How much memory a tile needs, and how much is free."""

from __future__ import annotations

import math

import torch

from retrace.geometry import Triple
from retrace.inference.tiles import TileNetwork
from retrace.machine_limits import free_memory

CPU_FRACTION = 0.5
"""Fraction of the free main memory that the activations of a tile may take."""
CPU_LIMIT_BYTES = 6 << 30
"""Larger tiles are no faster on a CPU: the halo is small. And an interruption loses more work."""
CUDA_FRACTION = 0.8
"""Fraction of the free GPU memory that the activations of a tile may take."""
CUDA_VALUES = 2**31 - 1
"""Most values of a layer's tensors on a GPU. cuDNN's convolutions number them in 32 bits; beyond,
torch takes others, which are slow and copy each value 27 times."""
LIVE_COPIES = 3
"""Copies of the largest layer that exist at once; see `bytes_per_voxel`."""


def free_bytes(device: torch.device) -> int:
    """Free memory of the device in bytes; on a CPU, at most what the container or job may use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return free_memory()


def tile_budget(device: torch.device, itemsize: int) -> int:
    """Bytes that the activations of one tile, values of `itemsize` bytes, may take on this device.

    Counted as by `bytes_per_voxel`.
    """
    free = free_bytes(device)
    if device.type == "cuda":
        return int(min(CUDA_FRACTION * free, LIVE_COPIES * itemsize * CUDA_VALUES))
    return int(min(CPU_FRACTION * free, CPU_LIMIT_BYTES))


def bytes_per_voxel(network: TileNetwork, window: Triple, itemsize: int) -> float:
    """Peak activation memory, bytes per voxel of an input `window` (z, y, x).

    Three times the input and output of the largest layer: at the top of a U-Net, both halves of a
    skip connection exist together with their concatenation, and convolutions keep a reordered copy.
    Whole predictions of a tile with `mtlsd_small` took 1.6 to 2.6 times by OpenVINO and 2.0 to 2.7
    times by torch, for windows of 0.6 to 9.4 Mvoxel.
    """
    return LIVE_COPIES * itemsize * network.layer_values(window) / math.prod(window)
