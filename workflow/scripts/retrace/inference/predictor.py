"""One network on one device: raw in, stored values out; tiles too large for memory are halved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from retrace.errors import DataError, DeviceError
from retrace.geometry import VoxelBox, triple
from retrace.inference.forward import Forward
from retrace.inference.memory import bytes_per_voxel, tile_budget
from retrace.inference.tiles import Tile, TileNetwork, tile_for


def to_stored(values: Tensor, dtype: str) -> Tensor:
    """Predictions as they are stored: uint8, 255 x truncated (0.999 -> 254), or float32.

    In new memory, channel by channel (C, ...), so that little more is needed. Before conversion to
    uint8 they are clipped to [0, 1], which linear outputs of ZNN may exceed.
    """
    if dtype != "uint8":
        return values.to(torch.float32, copy=True)
    stored = torch.empty(values.shape, dtype=torch.uint8, device=values.device)
    for target, channel in zip(stored, values, strict=True):
        target.copy_(channel.float().clamp(0, 1).mul_(255))
    return stored


def check_finite(outputs: Mapping[str, Tensor], tile: Tile) -> None:
    """DataError if an output (C, Z, Y, X) of a tile is not finite; uint8 would hide that."""
    # A sum has one NaN or infinity if a value has, and takes a tenth of the time of `isfinite`.
    if bool(torch.stack([values.sum() for values in outputs.values()]).isfinite().all()):
        return
    names = [name for name, values in outputs.items() if not torch.isfinite(values).all()]
    if not names:  # only the sum is too large
        return
    raise DataError(
        f"the network predicts NaN or infinity ({', '.join(names)}) in the tile at "
        f"{list(tile.core.offset)}+{list(tile.core.shape)} (z, y, x, voxels): its training "
        "diverged, or its weights are damaged. Train it again with a lower `optimizer.lr`, or set "
        "`precision: fp32` if it was predicted in bf16"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that the device or the machine has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class Predictor:
    """Predicts single tiles with `network` on `device`."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        *,
        heads: tuple[str, ...],
        forward: Forward | None = None,
        bf16: bool = False,
        dtype: str = "uint8",
        raw_channels: int = 1,
    ) -> None:
        """`heads`: the outputs to store; `dtype`: "uint8" or "float32", as they are stored.

        `forward`: what computes the forward passes, in bfloat16 with `bf16`; None: torch.
        `raw_channels`: how many of the first input channels are raw, which networks read in
        [-1, 1]; descriptors are read in [0, 1].
        """
        module = network.to(device).eval()
        self.network = cast(TileNetwork, module)
        self.forward = forward or Forward(module, device, bf16=bf16)
        self._device, self._heads = device, heads
        self._bf16, self._dtype = bf16, dtype
        self._raw_channels = raw_channels
        self._float = next((p.dtype for p in module.parameters()), torch.float32)
        self._too_large: int | None = None

    def __call__(self, tile: Tile, window: Tensor) -> dict[str, Tensor]:
        """The stored values of the tile's core, (C, Z, Y, X) for each head, in main memory.

        `window`: the input of the tile, (C, Z, Y, X), uint8 or float in [0, 1]; see `staged`.
        """
        with torch.inference_mode():
            outputs = self._tile(tile, self._normalised(window))
            return {name: self._fetched(values) for name, values in outputs.items()}

    def staged(self, window: np.ndarray) -> Tensor:
        """`window` as a tensor, where a GPU fetches it at full speed (pinned memory).

        For the thread that reads: copying there costs the GPU no time.
        """
        values = torch.from_numpy(np.ascontiguousarray(window))
        return values.pin_memory() if self._device.type == "cuda" else values

    def _fetched(self, values: Tensor) -> Tensor:
        """`values` in main memory, without waiting for work that the GPU begins later."""
        if self._device.type != "cuda":
            return values
        return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)

    def largest_window(self) -> float:
        """How many voxels of input fit into the memory that is free now."""
        is_bf16 = self._bf16 and self._float == torch.float32  # autocast leaves float64 as it is
        itemsize = 2 if is_bf16 else self._float.itemsize
        window = triple(self.network.valid_shape((64, 64, 64)))
        per_voxel = bytes_per_voxel(self.network, window, itemsize)
        return tile_budget(self._device, itemsize) / per_voxel

    def _normalised(self, window: Tensor) -> Tensor:
        """The network's input, (1, C, Z, Y, X): raw in [-1, 1], descriptors in [0, 1].

        As gunpowder's Normalize, followed by IntensityScaleShift(2, -1) for raw.
        """
        scale = 255.0 if window.dtype == torch.uint8 else 1.0
        values = window.to(self._device, non_blocking=True).to(self._float, copy=True).div_(scale)
        values[: self._raw_channels].mul_(2).sub_(1)
        return values[None]

    def _tile(self, tile: Tile, x: Tensor) -> dict[str, Tensor]:
        """Predicts a tile, in halves if a tile of this size did not fit into memory before."""
        if self._too_large is None or tile.window.size < self._too_large:
            try:
                return self._forward(tile, x)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._too_large = tile.window.size
            # Outside the handler, whose traceback keeps the failed activations in memory.
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        halves = self._halves(tile)
        axis = next(a for a in range(3) if halves[0].core.shape[a] != tile.core.shape[a])
        parts = [self._tile(h, x[(..., *h.window.slices(tile.window.offset))]) for h in halves]
        return {name: torch.cat([part[name] for part in parts], dim=axis + 1) for name in parts[0]}

    def _halves(self, tile: Tile) -> list[Tile]:
        """The two halves of a tile, cut across its longest axis at a multiple of the stride."""
        stride = self.network.stride
        steps = [-(-size // step) for size, step in zip(tile.core.shape, stride, strict=True)]
        if max(steps) < 2:
            raise DeviceError(
                f"out of memory on {self._device} even for one stride {list(stride)} of this "
                "network; free memory, or use a network with fewer `fmaps`"
            )
        _, axis = max((size, a) for a, size in enumerate(tile.core.shape) if steps[a] > 1)
        return split(self.network, tile, axis, stride[axis] * (steps[axis] // 2))

    def _forward(self, tile: Tile, x: Tensor) -> dict[str, Tensor]:
        outputs = self.forward(x)
        depth, height, width = tile.core.shape
        kept = {n: outputs[n][0, :, :depth, :height, :width] for n in self._heads}
        check_finite(kept, tile)
        return {name: to_stored(values, self._dtype) for name, values in kept.items()}


def split(network: TileNetwork, tile: Tile, axis: int, at: int) -> list[Tile]:
    """Two tiles: the first `at` voxels of the core of `tile` along `axis`, and the rest."""
    cut = [0, 0, 0]
    cut[axis] = at
    second = VoxelBox(tile.core.offset, tile.core.shape).shift(cut).intersect(tile.core)
    first_shape = [at if a == axis else size for a, size in enumerate(tile.core.shape)]
    first = VoxelBox(tile.core.offset, triple(first_shape))
    return [tile_for(network, first), tile_for(network, second)]
