"""What computes the forward passes of a prediction: torch, or on a CPU OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from retrace.inference.memory import input_channels
from retrace.inference.tiles import TileNetwork
from retrace.networks.cpu_engine import CpuEngine, EngineError, engine_version, obstacle
from retrace.setting_types import CpuLibrary


@dataclass(frozen=True)
class Forward:
    """`run` computes {head: (1, C, Z', Y', X')} of an input (1, C, Z, Y, X) on the device."""

    run: Callable[[Tensor], Mapping[str, Tensor]]
    library: str
    """Name and version of what computes, for the manifest."""


def choose_forward(
    module: nn.Module,
    device: torch.device,
    *,
    bf16: bool = False,
    compiled: bool = False,
    cpu_library: CpuLibrary = "auto",
) -> Forward:
    """The fastest forward pass of `module` that this machine has.

    On a CPU that is OpenVINO, unless `cpu_library` is torch, `compiled` asks for torch.compile, or
    OpenVINO lacks something; a line then says what.
    """
    if device.type != "cpu" or compiled or cpu_library == "torch":
        return torch_forward(module, device, bf16=bf16, compiled=compiled)
    reason = obstacle(module, bf16=bf16)
    if reason is None:
        try:
            return _openvino_forward(module, bf16=bf16)
        except EngineError as error:
            reason = str(error)
    print(f"[predict] torch computes, which is slower on a CPU: {reason}", flush=True)
    return torch_forward(module, device, bf16=bf16, compiled=False)


def _openvino_forward(module: nn.Module, *, bf16: bool) -> Forward:
    smallest = cast(TileNetwork, module).valid_shape((1, 1, 1))
    engine = CpuEngine(module, [(1, input_channels(module), *smallest)], bf16=bf16)
    return Forward(cast(Callable[[Tensor], Mapping[str, Tensor]], engine), engine_version())


def torch_forward(
    module: nn.Module, device: torch.device, *, bf16: bool = False, compiled: bool = False
) -> Forward:
    """Forward passes by torch, with channels last: faster in it on CPUs and GPUs."""
    module = module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    torch.backends.cudnn.benchmark = device.type == "cuda"
    call = torch.compile(module) if compiled else module

    def run(x: Tensor) -> Mapping[str, Tensor]:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return cast(Mapping[str, Tensor], call(x))

    return Forward(run, f"torch {torch.__version__}")
