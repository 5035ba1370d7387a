"""Which of ZNN's convolutions are done by Fourier transforms: as told, or as measured."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from retrace.files import atomic_write
from retrace.networks.convolution import MODES, convolve
from retrace.networks.znn import Convolution, ZnnNetwork

CACHE = Path("work/conv_modes.json")
"""What was measured before: the same layer on the same kind of machine is not measured again."""
ROUNDS = 3
"""Runs of each kind, of which the fastest counts; one more before them warms up."""


def set_modes(
    module: nn.Module,
    network: Mapping[str, Any],
    device: torch.device,
    *,
    training: bool,
    cache: Path = CACHE,
) -> None:
    """Sets how each convolution of a ZNN network is computed; other networks stay as they are.

    `train_conv_mode` or `forward_conv_mode` of the network: direct, fft, or optimize, which times
    both for every layer at its size in `input_shape` and keeps the faster. Results agree to
    rounding. As in ZNN, filters of one voxel are always direct.
    """
    if not isinstance(module, ZnnNetwork):
        return
    asked = network["train_conv_mode" if training else "forward_conv_mode"] or "direct"
    if asked != "optimize":
        for layer in module.convolutions.values():
            layer.mode = asked
        return
    shape = network["input_shape" if training else "inference_shape"]
    known: dict[str, str] = json.loads(cache.read_text()) if cache.is_file() else {}
    before = dict(known)
    for name, seen in layer_inputs(module, shape).items():
        layer = module.convolutions[name]
        if math.prod(layer.weight.shape[2:]) == 1:
            continue
        key = _key(layer, seen, device, training)
        if known.get(key) not in MODES:
            known[key] = _faster(layer, seen, device, training)
        layer.mode = known[key]
    if known != before:
        atomic_write(cache, json.dumps(known, indent=1, sort_keys=True) + "\n")
    modes = ", ".join(f"{name} {layer.mode}" for name, layer in module.convolutions.items())
    print(f"[optimize] {modes}", flush=True)


def layer_inputs(module: ZnnNetwork, input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shape (N, C, Z, Y, X) of what each convolution reads, for one input of `input_shape`."""
    found: dict[str, tuple[int, ...]] = {}
    names = {layer: name for name, layer in module.convolutions.items()}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, Convolution)
        found[names[layer]] = tuple(inputs[0].shape)

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
    return found


def _key(layer: Convolution, seen: tuple[int, ...], device: torch.device, training: bool) -> str:
    """Everything that decides which is faster."""
    kind = device.type
    machine = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if kind == "cuda":
        machine = torch.cuda.get_device_name(device)
    verb = "train" if training else "forward"
    dtype = str(layer.weight.dtype).removeprefix("torch.")
    return f"{verb} {list(seen)} {list(layer.weight.shape)} {dtype} {kind} {machine}"


def _faster(layer: Convolution, seen: tuple[int, ...], device: torch.device, training: bool) -> str:
    times = {mode: _seconds(layer, seen, device, training, mode) for mode in MODES}
    return min(times, key=lambda mode: times[mode])


def _seconds(
    layer: Convolution, seen: tuple[int, ...], device: torch.device, training: bool, mode: str
) -> float:
    """Least time of a pass through the layer, with its gradients where training."""
    weight = layer.weight.detach().to(device).requires_grad_(training)
    x = torch.rand(seen, dtype=weight.dtype, device=device, requires_grad=training)
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
