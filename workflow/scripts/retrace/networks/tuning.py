"""How each convolution of a ZNN network is computed: directly, by FFT, or whichever is faster."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrace.files import atomic_write
from retrace.networks.convolution import MODES, convolve
from retrace.networks.znn import ZnnConvolution, ZnnNetwork
from retrace.reading import json_if_intact

CACHE = Path("work/conv_modes.json")
"""Earlier measurements: the same layer on the same kind of machine is not measured again."""
ROUNDS = 3
"""Timed runs of each mode, of which the fastest counts; one more run before them warms up."""


def set_convolution_modes(
    module: ZnnNetwork,
    mode: str,
    input_shape: Sequence[int],
    device: torch.device,
    *,
    training: bool,
    cache: Path = CACHE,
) -> None:
    """Sets how each convolution of `module` is computed; results agree to rounding.

    `mode`: direct, fft, or optimize, which times both for every layer at its size for an input of
    `input_shape` (z, y, x) voxels and keeps the faster (ZNN, `train_conv_mode` and
    `forward_conv_mode`). As in ZNN, filters of one voxel are always direct. `training`: time the
    gradients too.
    """
    if mode != "optimize":
        for layer in module.convolutions.values():
            layer.mode = mode
        return
    measured: dict[str, Any] = json_if_intact(cache)
    before = dict(measured)
    for name, shape in layer_inputs(module, input_shape).items():
        layer = module.convolutions[name]
        if math.prod(layer.weight.shape[2:]) == 1:
            continue
        key = _key(layer, shape, device, training)
        if measured.get(key) not in MODES:
            measured[key] = _faster(layer, shape, device, training)
        layer.mode = measured[key]
    if measured != before:
        atomic_write(cache, json.dumps(measured, indent=1, sort_keys=True) + "\n")
    modes = ", ".join(f"{name} {layer.mode}" for name, layer in module.convolutions.items())
    print(f"[optimize] {modes}", flush=True)


def layer_inputs(module: ZnnNetwork, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Input shape (N, C, Z, Y, X) of each convolution, for a network input of `input_shape`."""
    shapes: dict[str, tuple[int, ...]] = {}
    names = {layer: name for name, layer in module.convolutions.items()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, ZnnConvolution)
        shapes[names[layer]] = tuple(inputs[0].shape)

    hooks = [layer.register_forward_hook(note) for layer in names]
    weights = {name: p.to("meta") for name, p in module.state_dict().items()}
    try:
        with torch.no_grad():
            x = torch.empty((1, module.input_channels, *input_shape), device="meta")
            x = x.to(next(iter(weights.values())).dtype)
            torch.func.functional_call(module, weights, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _key(
    layer: ZnnConvolution, shape: tuple[int, ...], device: torch.device, training: bool
) -> str:
    """Names everything that decides which mode is faster."""
    kind = device.type
    machine = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if kind == "cuda":
        machine = torch.cuda.get_device_name(device)
    verb = "train" if training else "forward"
    dtype = str(layer.weight.dtype).removeprefix("torch.")
    return f"{verb} {list(shape)} {list(layer.weight.shape)} {dtype} {kind} {machine}"


def _faster(
    layer: ZnnConvolution, shape: tuple[int, ...], device: torch.device, training: bool
) -> str:
    times = {mode: _seconds(layer, shape, device, training, mode) for mode in MODES}
    return min(times, key=lambda mode: times[mode])


def _seconds(
    layer: ZnnConvolution, shape: tuple[int, ...], device: torch.device, training: bool, mode: str
) -> float:
    """Shortest time of a pass through the layer, in training with its gradients."""
    weight = layer.weight.detach().to(device).requires_grad_(training)
    x = torch.rand(shape, dtype=weight.dtype, device=device, requires_grad=training)
    best = math.inf
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        with torch.set_grad_enabled(training):
            y = convolve(x, weight, None, mode)
            if training:
                torch.autograd.grad(y.sum(), (x, weight))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begin)
    return best
