"""What computes the forward passes of a prediction: torch, or on a CPU OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn

from retrace.inference.tiles import TileNetwork
from retrace.networks.cpu_engine import CpuEngine, EngineError, engine_version, obstacle


class Forward:
    """Forward passes of a module by torch, in channels-last format: faster on CPUs and GPUs."""

    def __init__(
        self, module: nn.Module, device: torch.device, *, bf16: bool = False, compiled: bool = False
    ) -> None:
        """`bf16`: with autocast to bfloat16; `compiled`: by torch.compile."""
        self._module, self._compiled = module, compiled
        self._device, self._bf16 = device, bf16

    @property
    def library(self) -> str:
        """Name and version of what computes, for the manifest."""
        return f"torch {torch.__version__}"

    def __call__(self, x: Tensor) -> Mapping[str, Tensor]:
        """{head: (1, C, Z', Y', X')} of an input (1, C, Z, Y, X), on the device."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            return cast(Mapping[str, Tensor], self._call(x))

    @cached_property
    def _call(self) -> Callable[[Tensor], Any]:
        module = self._module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return torch.compile(module) if self._compiled else module


class OpenvinoForward(Forward):
    """Forward passes on a CPU by OpenVINO; where it fails, by torch from then on."""

    def __init__(self, module: nn.Module, *, bf16: bool = False) -> None:
        """EngineError if OpenVINO does not compute this network."""
        smallest = cast(TileNetwork, module).valid_shape((1, 1, 1))
        channels = input_channels(module)
        self._engine: CpuEngine | None = CpuEngine(module, [(1, channels, *smallest)], bf16=bf16)
        super().__init__(module, torch.device("cpu"), bf16=bf16)

    @property
    def library(self) -> str:
        """Name and version of what computes, for the manifest."""
        return engine_version() if self._engine else super().library

    def __call__(self, x: Tensor) -> Mapping[str, Tensor]:
        """{head: (1, C, Z', Y', X')} of an input (1, C, Z, Y, X), until the next pass."""
        if self._engine is not None:
            try:
                return cast(Mapping[str, Tensor], self._engine.in_place(x))
            except EngineError as error:
                self._engine = None
                _say_why_torch(str(error))
        return super().__call__(x)


def choose_forward(
    module: nn.Module,
    device: torch.device,
    *,
    bf16: bool = False,
    compiled: bool = False,
    cpu_library: str = "auto",
) -> Forward:
    """The fastest forward pass of `module` that this machine has.

    On a CPU that is OpenVINO, unless `cpu_library` is torch, `compiled` asks for torch.compile, or
    OpenVINO lacks something; a line then says what.
    """
    if device.type != "cpu" or compiled or cpu_library == "torch":
        return Forward(module, device, bf16=bf16, compiled=compiled)
    reason = obstacle(module, bf16=bf16)
    if reason is None:
        try:
            return OpenvinoForward(module, bf16=bf16)
        except EngineError as error:
            reason = str(error)
    _say_why_torch(reason)
    return Forward(module, device, bf16=bf16)


def input_channels(network: nn.Module) -> int:
    """Channels of the network's input: as it says, or those of its first weights."""
    channels = getattr(network, "input_channels", None) or next(network.parameters()).shape[1]
    return int(channels)


def _say_why_torch(reason: str) -> None:
    print(f"[predict] computed by torch, not OpenVINO: {reason}", flush=True)
