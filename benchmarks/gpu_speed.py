"""Speed of training and prediction on one device, for `gpu.py`: whole, and the network alone."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpu_case import Case, other_network
from machine import alternating, matrix_rate, peak_gpu_mb, peak_memory_mb, synchronize

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.device import uses_bf16  # noqa: E402
from retrace.inference.build import build_prediction, input_files
from retrace.inference.volume import Prediction
from retrace.networks import UNet, build_network  # noqa: E402
from retrace.networks.builders import field_options_of
from retrace.planning.predict_settings import read_prediction_settings
from retrace.planning.train_settings import read_train_settings
from retrace.training.adam import make_optimizer  # noqa: E402
from retrace.training.build import build_trainer
from retrace.training.task import Batch, Task, WeightFiles, on_device

ADAM = {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8}
ROUNDS = 3


@dataclass(frozen=True)
class Rates:
    """FLOP/s of matrix products on the device."""

    fp32: float
    tf32: float
    bf16: float

    def of(self, bf16: bool) -> float:
        """The limit of a computation in bf16 or float32 without TF32."""
        return self.bf16 if bf16 else self.fp32


def matrix_rates(device: torch.device) -> Rates:
    """Rates of all three number formats; a CPU has no TF32 and is given its rate of float32."""
    single = matrix_rate(device, torch.float32)
    tf32 = matrix_rate(device, torch.float32, tf32=True) if device.type == "cuda" else single
    return Rates(single, tf32, matrix_rate(device, torch.bfloat16))


# ---------------------------------------------------------------- training


@dataclass(frozen=True)
class TrainingSpeed:
    """Whole iterations, and the same iterations without making batches."""

    iterations_per_s: float
    alone_per_s: float
    """Iterations of the network alone: the same batch again and again."""
    flop_per_s: float
    bf16: bool
    compiled: bool
    workers: int
    first_s: float
    """Seconds until the first iteration was done, compilation included."""
    peak_gb: float

    @property
    def waiting(self) -> float:
        """The fraction of the time that whole iterations take longer than the network alone."""
        return max(0.0, 1 - self.iterations_per_s / self.alone_per_s)


class ClockedTask:
    """A task whose batches from number `fresh` on are all the same; notes when iterations end.

    The device has finished an iteration that is in `read_at` when its time is noted.
    """

    def __init__(
        self, task: Task, fresh: int, read_at: Sequence[int], device: torch.device
    ) -> None:
        self._task, self._fresh, self._read_at = task, fresh, frozenset(read_at)
        self._device = device
        self._last: Batch = {}
        self.times: dict[int, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def batch(self, number: int) -> Batch:
        """Batch `number` of the task, or the last fresh one."""
        if number < self._fresh or not self._last:
            self._last = self._task.batch(number)
        return self._last

    def after_step(self, module: nn.Module, iteration: int, losses: Tensor, work: Path) -> None:
        """Notes the time."""
        if iteration in self._read_at:
            synchronize(self._device)
            self.times[iteration] = time.perf_counter()
        self._task.after_step(module, iteration, losses, work)


def training_speed(
    case: Case, name: str, iterations: int, changes: Mapping[str, Any]
) -> TrainingSpeed:
    """Trains on fresh batches, then on one batch again and again, `iterations` each.

    `changes`: settings of train.py, such as `compile`. The saved state is not timed.
    """
    warm_up = 1 + iterations // 2
    ahead = 2 * max(4, warm_up)  # batches that the workers have made before the last fresh one
    marks = [1, warm_up, warm_up + iterations]
    marks += [marks[-1] + ahead, marks[-1] + ahead + iterations]
    settings = case.training_settings(name, **changes) | {"iterations": marks[-1]}
    below = case.context(name)
    weights = WeightFiles(context=case.model(below.name) if below else None)
    trainer = build_trainer(read_train_settings(settings), {}, case.folder / "work", weights)
    clocked = ClockedTask(trainer.task, marks[2], marks, case.device)
    trainer.task = cast(Task, clocked)
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    with redirect_stdout(StringIO()):  # the progress line
        trainer.run()
    for state in (case.folder / "work").glob("state_*.pt"):
        state.unlink()
    whole, alone = (clocked.times[b] - clocked.times[a] for a, b in (marks[1:3], marks[3:5]))
    return TrainingSpeed(
        iterations_per_s=iterations / whole,
        alone_per_s=iterations / alone,
        flop_per_s=case.flop_of_step(name) * iterations / whole,
        bf16=trainer.plan.bf16,
        compiled=trainer.plan.compile,
        workers=trainer.plan.workers,
        first_s=clocked.times[1] - begin,
        peak_gb=_peak_gb(case.device),
    )


def _peak_gb(device: torch.device) -> float:
    """Peak memory of the device in GB (10^9 bytes): of this process on a CPU."""
    megabytes = peak_gpu_mb(device) if device.type == "cuda" else peak_memory_mb()
    return megabytes * 2**20 / 1e9


# ---------------------------------------------------------------- prediction


@dataclass(frozen=True)
class PredictionSpeed:
    """A whole prediction, disk to store, and its tiles without reading and writing."""

    voxels: int
    seconds: float
    alone_s: float
    flop: float
    tiles: int
    tile: tuple[int, ...]
    bf16: bool
    peak_gb: float
    store: Path

    @property
    def waiting(self) -> float:
        """The fraction of the time that a whole prediction takes longer than its tiles alone."""
        return max(0.0, 1 - self.alone_s / self.seconds)


def prediction_speed(case: Case, name: str, descriptors: Path | None) -> PredictionSpeed:
    """Predicts `case.raw()` twice, of which the faster counts; then one tile alone."""
    settings = case.prediction_settings(name, case.raw(), descriptors)
    if case.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    store = case.folder / f"{name}_prediction.zarr"
    runs = [predicted(case, name, settings, store) for _ in range(2)]
    prediction, seconds = min(runs, key=lambda run: run[1])
    predictor, tile = prediction.predictors[0], prediction.grid[0]
    window = predictor.staged(prediction.inputs.read(tile.window))
    alone = alternating({"": lambda: predictor(tile, window)}, ROUNDS, device=case.device)
    module, tiles = build_network(case.network(name), device="meta"), prediction.grid
    flop = [float(module.flop(each.window.shape)) for each in tiles]
    return PredictionSpeed(
        voxels=sum(each.core.size for each in tiles),
        seconds=seconds,
        alone_s=alone.took("").median * sum(flop) / flop[0],
        flop=sum(flop),
        tiles=len(tiles),
        tile=prediction.partial.tile_shape,
        bf16=uses_bf16("auto", case.device),
        peak_gb=_peak_gb(case.device),
        store=store,
    )


def predicted(
    case: Case, name: str, settings: Mapping[str, Any], store: Path
) -> tuple[Prediction, float]:
    """A finished prediction in `store`, and its seconds: what predict.py does, in this process."""
    begin = time.perf_counter()
    checked = read_prediction_settings(settings)
    model = case.model(name)
    with redirect_stdout(StringIO()):
        prediction = build_prediction(checked, model, case.folder / "work", store)
        prediction.run()
        prediction.publish(store, input_files(checked, model), checked, 0.0)
    return prediction, time.perf_counter() - begin


# ---------------------------------------------------------------- variants of one step


@dataclass(frozen=True)
class StepSpeed:
    """Forward pass alone, and a step: forward, backward, Adam."""

    forward_s: float
    step_s: float
    flop: float
    """Of the forward pass."""


def step_variants(case: Case, name: str, rounds: int, compiled: bool) -> dict[str, StepSpeed]:
    """A step in bf16 in variants, each with a random batch.

    Memory layout, algorithms tried by cuDNN or not, compiled or not, and 16 features instead of 12,
    which would fill the units of matrix products better.
    """
    network, device = case.network(name), case.device
    wide = network.with_(fmaps=-(-network.fmaps // 16) * 16)
    variants: dict[str, tuple[Any, bool, bool, bool]] = {
        "channels last": (network, True, True, False),
        "channels first": (network, False, True, False),
        "channels last, cuDNN's first choice": (network, True, False, False),
        f"channels last, {wide.fmaps} features": (wide, True, True, False),
    }
    if compiled:
        variants["channels last, compiled"] = (network, True, True, True)
    return {key: _timed_step(*variant, device, rounds) for key, variant in variants.items()}


def _timed_step(
    network: Any, last: bool, tried: bool, compiled: bool, device: torch.device, rounds: int
) -> StepSpeed:
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tried
    layout = torch.channels_last_3d if last else torch.contiguous_format
    module: UNet = build_network(network).to(device, memory_format=layout)
    run: Callable[[Tensor], dict[str, Tensor]] = torch.compile(module) if compiled else module
    x = torch.rand(1, network.input_channels, *network.input_shape, device=device)
    optimizer = make_optimizer(module, **ADAM)  # type: ignore[arg-type]

    def forward() -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            return run(x)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(output.square().mean() for output in forward().values()).backward()  # type: ignore[union-attr]
        optimizer.step()

    def inferred() -> None:
        with torch.inference_mode():
            forward()

    timings = alternating({"forward": inferred, "step": step}, rounds, warm_up=2, device=device)
    torch.backends.cudnn.benchmark = before
    if compiled:
        torch.compiler.reset()
    forward_s, step_s = timings.took("forward").median, timings.took("step").median
    return StepSpeed(forward_s, step_s, float(module.flop(network.input_shape)))


# ---------------------------------------------------------------- other families


@dataclass(frozen=True)
class OtherSpeed:
    """Forward pass and training step of a network of another family, float32."""

    forward_s: float
    step_s: float
    voxels: int
    flop: float


def other_speed(name: str, output: Sequence[int], device: torch.device) -> OtherSpeed:
    """Times ZNN's or ELEKTRONN's network for at least `output` voxels (z, y, x)."""
    module, _ = other_network(name)
    module = on_device(module, device)
    shape = module.valid_shape(output)
    x = torch.rand(1, module.input_channels, *shape, device=device)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        sum(y.square().mean() for y in module(x).values()).backward()
        optimizer.step()

    def forward() -> None:
        with torch.inference_mode():
            module(x)

    timings = alternating({"forward": forward, "step": step}, ROUNDS, device=device)
    voxels = torch.Size(module.output_shape(shape)).numel()
    took = timings.took("forward").median, timings.took("step").median
    return OtherSpeed(*took, voxels, float(module.flop(shape)))


def section_speed(name: str, side: int, device: torch.device) -> float:
    """Seconds of SEAMLeSS's field between two sections of side x side px."""
    module, settings = other_network(name)
    module = module.to(device).eval()
    pair = torch.rand(2, 1, side, side, device=device)

    def field() -> None:
        with torch.inference_mode():
            module.field(pair[:1], pair[1:], field_options_of(settings.align))

    timings = alternating({"": field}, ROUNDS, device=device)
    return timings.took("").median
