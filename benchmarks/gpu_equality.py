"""Whether a device computes what a CPU computes, for `gpu.py`.

Each check compares a difference with what it may be. Those of tensors are norms: |a - b| as a
fraction of how much b varies. In bf16 factors have 8 bits and in TF32 11, in some twenty layers one
after another; float32 without TF32 differs by the order of sums alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu_case import Case, other_network
from gpu_speed import predicted

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.geometry import VoxelBox, triple
from retrace.inference.tiles import Tile, TileNetwork, tile_for
from retrace.networks import UNet, ZnnNetwork  # noqa: E402
from retrace.networks.builders import field_options_of
from retrace.planning.train_settings import read_train_settings
from retrace.storage.volumes import open_volume
from retrace.training.build import build_trainer
from retrace.training.loop import Trainer  # noqa: E402
from retrace.training.task import WeightFiles

CPU = torch.device("cpu")
SINGLE, TF32, BF16 = 1e-4, 1e-2, 1e-1
"""Differences of outputs from float32 on a CPU."""
GRADIENT = {SINGLE: 1e-3, TF32: 3e-2, BF16: 2e-1}
"""The same of the gradients of all parameters together."""
LEVELS = {"fp32": 0.05, "bf16": 2.0}
"""Levels (of 255) that stored predictions may differ by on average."""


@dataclass(frozen=True)
class Check:
    """One comparison, which has passed if the difference is at most what is allowed."""

    name: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        """NaN has not passed."""
        return self.difference <= self.allowed


# ---------------------------------------------------------------- outputs and gradients


@dataclass(frozen=True)
class Way:
    """How a network is computed."""

    name: str
    allowed: float
    bf16: bool = False
    tf32: bool = False
    last: bool = True
    compiled: bool = False


def ways(device: torch.device, *, compiled: bool) -> list[Way]:
    """All ways that a device computes a network in; TF32 on GPUs, compiled where asked for."""
    found = [
        Way("fp32, channels first", SINGLE, last=False),
        Way("fp32, channels last", SINGLE),
        Way("bf16, channels first", BF16, bf16=True, last=False),
        Way("bf16, channels last", BF16, bf16=True),
    ]
    if device.type == "cuda":
        found.append(Way("TF32, channels last", TF32, tf32=True))
    if compiled:
        found.append(Way("fp32, compiled", SINGLE, compiled=True))
        found.append(Way("bf16, compiled", BF16, bf16=True, compiled=True))
    return found


@contextmanager
def tf32_allowed(allowed: bool) -> Iterator[None]:
    """Whether convolutions of float32 may round their factors."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def computed(
    module: UNet, x: Tensor, device: torch.device, way: Way, *, gradients: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Outputs by head, and gradients by parameter of their mean square, on the CPU."""
    layout = torch.channels_last_3d if way.last else torch.contiguous_format
    moved: nn.Module = module.to(device, memory_format=layout)  # type: ignore[call-overload]
    moved.zero_grad(set_to_none=True)
    run: Callable[[Tensor], dict[str, Tensor]] = (
        torch.compile(moved, dynamic=False) if way.compiled else moved
    )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=way.bf16)
    with tf32_allowed(way.tf32), torch.set_grad_enabled(gradients):
        with autocast:
            outputs = run(x.to(device))
        if gradients:
            sum(y.float().square().mean() for y in outputs.values()).backward()  # type: ignore[union-attr]
    found = {n: p.grad.cpu().clone() for n, p in moved.named_parameters() if p.grad is not None}
    if way.compiled:
        torch.compiler.reset()
    return {head: y.detach().float().cpu() for head, y in outputs.items()}, found


def difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Norm of the difference of tensors of the same names, as a fraction of how `first` varies.

    Of the tensor that differs most; NaN if one is NaN.
    """
    found = []
    for name, expected in first.items():
        found.append((expected - second[name]).norm() / (expected - expected.mean()).norm())
    return float(torch.stack(found).max())


def _joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"all": torch.cat([tensors[name].flatten() for name in sorted(tensors)])}


def network_checks(case: Case, name: str, every_way: bool, compiled: bool) -> list[Check]:
    """A full network on the device and on the CPU; `every_way`: also its gradients, in all ways."""
    module = case.module(name)
    shape = module.valid_shape((1, 1, 1))
    x = torch.rand(1, case.network(name).input_channels, *shape, generator=_generator()) * 2 - 1
    plain = Way("", SINGLE, last=False)
    reference = computed(module, x, CPU, plain, gradients=every_way)
    checks = []
    for way in ways(case.device, compiled=compiled) if every_way else [Way("fp32", SINGLE)]:
        found = computed(module, x, case.device, way, gradients=every_way)
        outputs = difference(reference[0], found[0])
        checks.append(Check(f"{name}, outputs, {way.name}", outputs, way.allowed))
        if every_way:
            gradients = difference(_joined(reference[1]), _joined(found[1]))
            allowed = GRADIENT[way.allowed]
            checks.append(Check(f"{name}, gradients, {way.name}", gradients, allowed))
    return checks


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# ---------------------------------------------------------------- training


def training_checks(case: Case, name: str, iterations: int = 3) -> list[Check]:
    """Batches, losses and weights of a training from one seed, in float32, on device and CPU."""
    here, there = (_trained(case, name, device, iterations) for device in (CPU, case.device))
    checks = []
    for array in ("raw", "lsds", "affs"):
        if array in here[2]:
            mean = float((here[2][array].float() - there[2][array].float()).abs().mean())
            checks.append(Check(f"{name}, batch, mean of {array}", mean, 1e-3))
    differ = float((here[2]["labels"] != there[2]["labels"]).float().mean())
    checks.append(Check(f"{name}, batch, labels that differ", differ, 1e-3))
    losses = float(((here[0] - there[0]).abs() / here[0].abs()).nan_to_num().max())
    checks.append(Check(f"{name}, losses of {iterations} iterations", losses, 1e-2))
    weights = max(float((here[1][key] - there[1][key]).abs().max()) for key in here[1])
    lr = case.network(name).optimizer.lr
    checks.append(Check(f"{name}, weights after them", weights, 2 * lr * iterations))
    return checks


def _trained(
    case: Case, name: str, device: torch.device, iterations: int
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Losses, weights, and the first batch of a training, on the CPU."""
    changes = {"device": device.type, "precision": "fp32", "compile": False}
    settings = case.training_settings(name, **changes) | {"iterations": iterations}
    below = case.context(name)
    weights = WeightFiles(context=case.model(below.name) if below else None)
    folder = case.folder / f"trained_{device.type}"
    trainer: Trainer = build_trainer(read_train_settings(settings), {}, folder, weights)
    batch = {key: value.cpu() for key, value in trainer.task.batch(0).items()}
    outcome = trainer.run()
    for state in folder.glob("state_*.pt"):
        state.unlink()
    trained = {key: value.cpu() for key, value in trainer.module.state_dict().items()}
    return outcome.losses, trained, batch


# ---------------------------------------------------------------- prediction


def prediction_checks(case: Case, name: str, raw_shape: tuple[int, int, int]) -> list[Check]:
    """Stored predictions of the device and the CPU, and of small and large tiles."""
    raw = case.raw(raw_shape)

    def stored(kind: str, **changes: Any) -> dict[str, np.ndarray]:
        store = case.folder / f"equality_{kind}.zarr"
        settings = case.prediction_settings(name, raw, None, **changes)
        predicted(case, name, settings, store)
        heads = [head.name for head in case.network(name).heads]
        return {head: np.asarray(open_volume(store, head).array[...]) for head in heads}

    reference = stored("cpu", device="cpu", precision="fp32")
    checks = []
    for precision, levels in LEVELS.items():
        found = stored(precision, precision=precision)
        checks.append(
            Check(f"{name}, stored in {precision}, levels", _levels(reference, found), levels)
        )
    box, stride = next(iter(found.values())).shape[1:], case.module(name).stride
    tile = [max(step, size // 2 // step * step) for size, step in zip(box, stride, strict=True)]
    in_tiles = _levels(found, stored("tiles", precision="bf16", tile=tile))
    checks.append(Check(f"{name}, in tiles of {tile}, levels", in_tiles, LEVELS["bf16"]))
    return checks


def large_tile_checks(case: Case, name: str) -> list[Check]:
    """The largest tile that is planned, and its last corner alone: indices beyond 2^31 go wrong.

    Both in bf16 on the device; the corner is a window of the smallest size.
    """
    settings = case.prediction_settings(name, case.raw(), None, precision="bf16")
    prediction, _ = predicted(case, name, settings, case.folder / "equality_large.zarr")
    predictor, tile = prediction.predictors[0], prediction.grid[-1]
    large = predictor(tile, predictor.staged(prediction.inputs.read(tile.window)))
    corner = _corner(prediction.predictors[0].network, tile)
    small = predictor(corner, predictor.staged(prediction.inputs.read(corner.window)))
    inside = corner.core.slices(tile.core.offset)
    cut = {head: values[(slice(None), *inside)].numpy() for head, values in large.items()}
    levels = _levels(cut, {head: values.numpy() for head, values in small.items()})
    where = f"{name}, corner of a window of {list(tile.window.shape)}, levels"
    return [Check(where, levels, LEVELS["bf16"])]


def _corner(network: TileNetwork, tile: Tile) -> Tile:
    """The last voxels of a tile, from a multiple of the stride."""
    steps = zip(tile.core.shape, network.stride, strict=True)
    begin = triple([(size - 1) // step * step for size, step in steps])
    shape = triple([size - first for size, first in zip(tile.core.shape, begin, strict=True)])
    return tile_for(network, VoxelBox(begin, shape).shift(tile.core.offset))


def _levels(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> float:
    """Mean difference of uint8 arrays of the same names, of the pair that differs most."""
    return max(float(np.abs(first[n].astype(int) - second[n].astype(int)).mean()) for n in first)


# ---------------------------------------------------------------- other families


def other_checks(name: str, output: tuple[int, int, int], device: torch.device) -> list[Check]:
    """A network of ZNN or ELEKTRONN, float32, each way of convolution."""
    module, _ = other_network(name)
    module = module.eval()
    x = torch.rand(1, module.input_channels, *module.valid_shape(output))
    with torch.inference_mode():
        reference = {head: y.clone() for head, y in module.to(CPU)(x).items()}
        checks = []
        for mode in ("direct", "fft") if isinstance(module, ZnnNetwork) else ("as built",):
            for layer in getattr(module, "convolutions", {}).values():
                layer.mode = mode
            found = {head: y.cpu() for head, y in module.to(device)(x.to(device)).items()}
            checks.append(Check(f"{name}, outputs {mode}", difference(reference, found), SINGLE))
    return checks


def section_checks(name: str, side: int, device: torch.device) -> list[Check]:
    """SEAMLeSS's field between two sections."""
    module, settings = other_network(name)
    pair = torch.rand(2, 1, side, side, generator=_generator())

    def field(place: torch.device) -> dict[str, Tensor]:
        moved, both = module.to(place).eval(), pair.to(place)
        with torch.inference_mode():
            found = moved.field(both[:1], both[1:], field_options_of(settings.align))
        return {"field": found.cpu()}

    return [Check(f"{name}, field", difference(field(CPU), field(device)), 1e-2)]
