"""How each convolution of a ZNN network is computed: directly, by FFT, or whichever is faster."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from retrace.files import atomic_write
from retrace.networks.convolution import MODES, convolve
from retrace.networks.znn import ZnnNetwork
from retrace.reading import json_if_intact

CACHE = Path("work/conv_modes.json")
"""Earlier measurements: the same layer on the same kind of machine is not measured again."""
TIMES = "conv_seconds.json"
"""Next to CACHE: how long each mode took, seconds."""
ROUNDS = 4
"""Runs of each mode, of which the fastest counts; the first one warms up."""
HINT_SECONDS = 0.1, 1.0
"""A hint must not take long: after these times no further run of a mode, and no further layer,
begins. The largest layers come first."""
HINT_MULTIPLICATIONS = 2e7
"""For a hint, layers with more multiplications are measured on a part of their input."""
HINT_FACTOR = 1.2
"""A mode is recommended that is this many times as fast; less could be chance."""


class Job(NamedTuple):
    """What decides which mode is faster, apart from the layer."""

    device: torch.device
    training: bool
    """Whether gradients are timed too."""

    @property
    def setting(self) -> str:
        """The parameter that chooses the mode."""
        return f"{'train' if self.training else 'forward'}_conv_mode"


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
    `forward_conv_mode`). With fft, a line says if direct convolution is faster here. As in ZNN,
    filters of one voxel are always direct. `training`: time the gradients too.
    """
    job = Job(device, training)
    layers = dict(large_layers(module, input_shape)) if mode != "direct" else {}
    times: dict[str, Any] = json_if_intact(cache.with_name(TIMES)) if layers else {}
    before = dict(times)
    if mode == "optimize":
        _choose(module, layers, job, times, cache)
    else:
        for layer in module.convolutions.values():
            layer.mode = mode
        if layers and device.index in (None, 0):
            _print_hint(list(layers.values()), job, times)
    if times != before:
        _write(cache.with_name(TIMES), times)


class Layer(NamedTuple):
    """A convolution and the shape (N, C, Z, Y, X) of its input."""

    weight: nn.Parameter
    shape: tuple[int, ...]

    def multiplications(self) -> float:
        """Multiplications of a direct pass."""
        filters = self.weight.shape
        voxels = (n - k + 1 for n, k in zip(self.shape[2:], filters[2:], strict=True))
        return float(math.prod(filters) * self.shape[0] * math.prod(voxels))

    def part(self) -> Layer:
        """The layer on a part of its input, with HINT_MULTIPLICATIONS if that is large enough.

        No axis gets shorter than four times the filter, and no batch smaller than four: the cost
        of both modes for a voxel then changes little.
        """
        layer = self
        while layer.multiplications() > HINT_MULTIPLICATIONS:
            shape, sizes = list(layer.shape), [1, 1, *self.weight.shape[2:]]
            free = [a for a in (0, 2, 3, 4) if shape[a] > (8 * sizes[a] if a else 8)]
            if not free:
                break
            axis = max(free, key=lambda a: shape[a])
            shape[axis] = -(-shape[axis] // 2)
            layer = layer._replace(shape=tuple(shape))
        return layer


def large_layers(module: ZnnNetwork, input_shape: Sequence[int]) -> Iterator[tuple[str, Layer]]:
    """The convolutions of more than one voxel, for a network input of `input_shape` (z, y, x)."""
    for name, shape in layer_inputs(module, input_shape).items():
        weight = module.convolutions[name].weight
        if math.prod(weight.shape[2:]) > 1:
            yield name, Layer(weight, shape)


def layer_inputs(module: ZnnNetwork, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Input shape (N, C, Z, Y, X) of each convolution, for a network input of `input_shape`.

    N are the phases of its dilation.
    """
    graph = module.graph
    sizes = graph.sizes(module.output_shape(input_shape))
    shapes: dict[str, tuple[int, ...]] = {}
    for name in module.convolutions:
        node = graph.nodes[graph.edges[name].input]
        steps = graph.dilations[node.name]
        edges = (-(-size // step) for size, step in zip(sizes[node.name], steps, strict=True))
        shapes[name] = (math.prod(steps), node.size, *edges)
    return shapes


def _choose(
    module: ZnnNetwork, layers: dict[str, Layer], job: Job, times: dict[str, Any], cache: Path
) -> None:
    """Gives each layer its faster mode, from `cache` or measured; `times` gets the seconds."""
    modes: dict[str, Any] = json_if_intact(cache)
    before = dict(modes)
    for name, layer in layers.items():
        key = _key(layer, job)
        if modes.get(key) not in MODES:
            seconds = _measured(layer, job, times)
            modes[key] = min(MODES, key=lambda mode: seconds[mode])
        module.convolutions[name].mode = modes[key]
    if modes != before:
        _write(cache, modes)
    chosen = ", ".join(f"{name} {layer.mode}" for name, layer in module.convolutions.items())
    print(f"[optimize] {chosen}", flush=True)


def _print_hint(layers: Sequence[Layer], job: Job, times: dict[str, Any]) -> None:
    """Prints one line if the network is faster with another mode than fft."""
    total = dict.fromkeys((*MODES, "optimize"), 0.0)
    begin = time.perf_counter()
    for layer in sorted(layers, key=lambda layer: -layer.multiplications()):
        if time.perf_counter() - begin > HINT_SECONDS[1]:
            break
        part = layer if _are_seconds(times.get(_key(layer, job))) else layer.part()
        seconds = _measured(part, job, times, HINT_SECONDS[0])
        scale = layer.multiplications() / part.multiplications()
        for mode in MODES:
            total[mode] += seconds[mode] * scale
        total["optimize"] += min(seconds[mode] for mode in MODES) * scale
    ratios = {mode: total["fft"] / total[mode] for mode in ("direct", "optimize")}
    if ratios["direct"] > HINT_FACTOR:
        advice = "direct, or to optimize, which chooses for each layer"
        print(_hint(job, ratios["direct"], "direct ones", advice), flush=True)
    elif ratios["optimize"] > HINT_FACTOR:
        advice = "optimize, which chooses for each layer"
        print(
            _hint(job, ratios["optimize"], "the faster of both for each layer", advice), flush=True
        )


def _hint(job: Job, ratio: float, than: str, advice: str) -> str:
    return (
        f"[{job.setting}] convolutions by fft take {ratio:.1f} times as long as {than} on this "
        f"machine; set `{job.setting}` to {advice}"
    )


def _write(path: Path, content: dict[str, Any]) -> None:
    atomic_write(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def _key(layer: Layer, job: Job) -> str:
    """Names everything that decides which mode is faster."""
    kind = job.device.type
    machine = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
    if kind == "cuda":
        machine = torch.cuda.get_device_name(job.device)
    verb = "train" if job.training else "forward"
    dtype = str(layer.weight.dtype).removeprefix("torch.")
    return f"{verb} {list(layer.shape)} {list(layer.weight.shape)} {dtype} {kind} {machine}"


def _measured(
    layer: Layer, job: Job, times: dict[str, Any], limit_s: float = math.inf
) -> dict[str, float]:
    """Seconds of each mode, from `times` or measured, and then added to it."""
    key = _key(layer, job)
    if not _are_seconds(times.get(key)):
        times[key] = {mode: _seconds(layer, job, mode, limit_s) for mode in MODES}
    seconds: dict[str, float] = times[key]
    return seconds


def _are_seconds(known: Any) -> bool:
    """Whether an entry of the file of times is one: it may have been edited."""
    return isinstance(known, dict) and all(
        isinstance(known.get(mode), float) and known[mode] > 0 for mode in MODES
    )


def _seconds(layer: Layer, job: Job, mode: str, limit_s: float) -> float:
    """Shortest time of a pass through the layer, in training with its gradients.

    After `limit_s` seconds no further pass begins.
    """
    weight = layer.weight.detach().to(job.device).requires_grad_(job.training)
    x = torch.rand(layer.shape, dtype=weight.dtype, device=job.device, requires_grad=job.training)
    first, best = time.perf_counter(), math.inf
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        if begin - first > limit_s:
            break
        with torch.set_grad_enabled(job.training):
            y = convolve(x, weight, None, mode)
            if job.training:
                torch.autograd.grad(y.sum(), (x, weight))
        if job.device.type == "cuda":
            torch.cuda.synchronize(job.device)
        best = min(best, time.perf_counter() - begin)
    return best
