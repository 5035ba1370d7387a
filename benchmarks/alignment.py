"""Learned alignment of sections compared with classical methods, on known displacements.

    python benchmarks/alignment.py --data vnc --iterations 800
    python benchmarks/alignment.py --data phantom --iterations 800

Data: generated neurites, or the sections of ../shared/data/vnc_nc averaged over 4 x 4 px (18.4 nm),
each section moved and warped separately. Trained on some sections, scored on others: sections 6-9
of vnc_nc, phantoms of other seeds. For each method, over all held-out pairs: mean endpoint error
and its fraction of the zero field's, px; folded pixels; roughness; chunked correlation (12 x 12);
CPU seconds of one thread per pair, and for the network also those of its training.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from skimage.registration import optical_flow_ilk, optical_flow_tvl1, phase_cross_correlation
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.losses import Lambdas
from retrace.alignment.metrics import chunked_correlation, endpoint_errors, field_facts
from retrace.alignment.pairs import PairPlan, StackReader
from retrace.alignment.prepare import prepare_sections, valid_mask  # noqa: E402
from retrace.alignment.schedule import PhaseSchedule
from retrace.alignment.stack_files import Stack
from retrace.alignment.task import SeamlessTask
from retrace.alignment.training import SeamlessTrainer
from retrace.config.network_settings import DatasetTraits
from retrace.config.networks import network_content, resolved
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.config.yaml_files import merge
from retrace.displacement import identity, smooth, upsample, warp
from retrace.networks import build_network  # noqa: E402
from retrace.networks.seamless import Seamless  # noqa: E402
from retrace.synthetic.distorted_sections import Distortion, distort_sections, phantom_stack
from retrace.training.loop import TrainingPlan  # noqa: E402

VNC = Path("../shared/data/vnc_nc/stack1_z00-09.h5")
POOL = 4
TRAINED, HELD_OUT = slice(0, 6), slice(6, 10)
MARGIN = 16
"""Pixels at the border in which errors are not counted."""
LEVELS = 4
"""Of the direct optimisation."""
Field = Callable[[Tensor, Tensor], Tensor]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["vnc", "phantom"], default="vnc")
    parser.add_argument("--network", default="seamless_small")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the network")
    parser.add_argument("--iterations", type=int, default=800)
    parser.add_argument("--jitter", type=int, default=2, help="px")
    parser.add_argument("--warp", type=float, default=2.0, help="px")
    parser.add_argument("--versions", type=int, default=8, help="distortions of the trained ones")
    parser.add_argument("--tests", type=int, default=3, help="distortions of the held-out ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--no-classical", action="store_true")
    parser.add_argument("--every", type=int, default=0, help="score the network every so often")
    parser.add_argument("--output", type=Path, help="JSON")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- data


def vnc_sections() -> np.ndarray:
    """The real sections (10, 256, 256) uint8, 18.4 nm."""
    with h5py.File(VNC) as file:
        raw = file["raw"][()].astype(np.float32)
    depth, height, width = raw.shape
    parts = raw.reshape(depth, height // POOL, POOL, width // POOL, POOL)
    return np.asarray(parts.mean((2, 4)).round().astype(np.uint8))


def make_stacks(args: argparse.Namespace) -> tuple[list[Stack], list[Stack]]:
    """Distorted stacks to train on and to score."""
    distortion = Distortion(args.jitter, args.warp, 64, contrast=0.2)
    if args.data == "phantom":
        shape = (6, args.side, args.side)
        train = [phantom_stack(shape, seed, distortion) for seed in range(args.versions)]
        return train, [phantom_stack(shape, 100 + seed, distortion) for seed in range(args.tests)]
    raw = vnc_sections()
    train = [
        distort_sections(raw[TRAINED], seed, distortion, f"train_{seed}")
        for seed in range(args.versions)
    ]
    tests = [
        distort_sections(raw[HELD_OUT], 100 + seed, distortion, f"test_{seed}")
        for seed in range(args.tests)
    ]
    return train, tests


@dataclass(frozen=True)
class Pair:
    """Two held-out sections (1, 1, H, W) and their displacements (1, 2, H, W) px."""

    source: Tensor
    target: Tensor
    source_field: Tensor
    target_field: Tensor


def cut(stack: Stack, unit: int) -> Stack:
    """A stack whose sides are multiples of `unit`."""
    height, width = (n - n % unit for n in stack.images.shape[1:])
    assert stack.fields is not None
    return Stack(
        stack.name,
        stack.images[:, :height, :width],
        stack.masks[:, :height, :width],
        stack.fields[..., :height, :width],
    )


def pairs_of(stacks: Sequence[Stack]) -> list[Pair]:
    """All neighbours."""
    pairs = []
    for stack in stacks:
        assert stack.fields is not None
        images, fields = stack.images[:, None, None], stack.fields[:, None]
        pairs += [
            Pair(images[z + 1], images[z], fields[z + 1], fields[z])
            for z in range(len(stack.images) - 1)
        ]
    return pairs


# ---------------------------------------------------------------- methods


def shifted(shape: Sequence[int], shift: Sequence[float]) -> Tensor:
    """The field (1, 2, H, W) that reads at r - shift."""
    field = identity(shape)
    field[0, 0], field[0, 1] = -float(shift[0]), -float(shift[1])
    return field


def phase_correlation(source: Tensor, target: Tensor) -> Tensor:
    """One translation of all pixels, the peak of the phase correlation: (1, 2, H, W)."""
    images = target[0, 0].numpy(), source[0, 0].numpy()
    shift = phase_cross_correlation(*images, upsample_factor=10, normalization="phase")[0]
    return shifted(source.shape[-2:], shift)


def best_shift(source: Tensor, target: Tensor) -> Tensor:
    """The best of three translations: none, and the peaks of phase and of cross-correlation.

    Neighbouring sections differ so much that the phase correlation's peak is often a wrong one.
    """
    images = [windowed(image) for image in (target, source)]
    peak = phase_cross_correlation(*images, upsample_factor=10, normalization=None)[0]
    candidates = [
        identity(source.shape[-2:]),
        phase_correlation(source, target),
        shifted(source.shape[-2:], peak),
    ]
    crop = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    errors = [float((warp(source, field) - target)[crop].square().mean()) for field in candidates]
    return candidates[int(np.argmin(errors))]


def windowed(image: Tensor) -> np.ndarray:
    """(H, W) without its mean, smoothed and faded out to the border."""
    fine = smooth(image, 2.0)[0, 0].numpy()
    fade = np.outer(*(np.hanning(side) for side in fine.shape))
    return np.asarray((fine - fine.mean()) * fade)


def flow(method: Callable[..., Any], begin: Field, **options: Any) -> Field:
    """A shift, then scikit-image's optical flow for the rest."""

    def found(source: Tensor, target: Tensor) -> Tensor:
        start = begin(source, target)
        moved = warp(source, start, "border")
        field = method(target[0, 0].numpy(), moved[0, 0].numpy(), **options)
        return start + torch.from_numpy(np.asarray(field, np.float32))[None]

    return found


def still(source: Tensor, target: Tensor) -> Tensor:
    """The field of zero."""
    return identity(source.shape[-2:])


def optimise(source: Tensor, target: Tensor, weight: float = 0.8) -> Tensor:
    """Adam on the field itself, coarse to fine: squared error and |grad|^2, 60 steps a level.

    As the reference of ../shared/specs/seamless.md 9.3.
    """
    factor = 2 ** (LEVELS - 1)
    field = identity([n // factor for n in source.shape[-2:]])
    for level in range(LEVELS - 1, -1, -1):
        a, b = (functional.avg_pool2d(image, 2**level) for image in (source, target))
        field = field.detach().requires_grad_()
        optimizer = torch.optim.Adam([field], lr=0.1)
        for _ in range(60):
            optimizer.zero_grad()
            change = sum(
                (field.narrow(d, 1, n - 1) - field.narrow(d, 0, n - 1)).square().sum(1).mean()
                for d, n in ((2, field.shape[2]), (3, field.shape[3]))
            )
            loss = (warp(a, field, "border") - b).square().mean() + weight * change
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
        field = field.detach()
        if level:
            field = upsample(field)
    return field


def classical() -> dict[str, Field]:
    """The classical methods."""
    return {
        "phase correlation": phase_correlation,
        "best shift": best_shift,
        "ILK": flow(optical_flow_ilk, still, radius=15),
        "TV-L1": flow(optical_flow_tvl1, still),
        "best shift + ILK": flow(optical_flow_ilk, best_shift, radius=15),
        "best shift + TV-L1": flow(optical_flow_tvl1, best_shift),
        "direct optimisation": optimise,
        "direct optimisation, smoother": partial(optimise, weight=4.0),
    }


def prepared(image: Tensor, network: SeamlessNetworkSettings) -> Tensor:
    """The section that all methods receive, with the network's contrast."""
    valid, radius_px = valid_mask(image[0]), network.contrast.equalised_radius_px
    return prepare_sections(image[0], valid, radius_px=radius_px, fill=network.input.mean)[1][None]


# ---------------------------------------------------------------- scores


def score(
    field_of: Field, pairs: Sequence[Pair], network: SeamlessNetworkSettings
) -> dict[str, float]:
    """The means over all pairs, and CPU seconds a pair."""
    rows, seconds = [], 0.0
    for pair in pairs:
        source, target = prepared(pair.source, network), prepared(pair.target, network)
        begin = time.process_time()
        with torch.enable_grad():
            field = field_of(source, target).detach()
        seconds += time.process_time() - begin
        inner = torch.zeros(1, 1, *field.shape[-2:])
        inner[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = 1
        errors = endpoint_errors(field, pair.source_field, pair.target_field, inner)
        facts = field_facts(field)
        crop = slice(MARGIN, -MARGIN)
        moved = warp(pair.source, field)[0, 0, crop, crop].numpy()
        known = chunked_correlation(moved, pair.target[0, 0, crop, crop].numpy())
        rows.append((errors.mean(), facts.folded, facts.roughness, np.nanmean(known)))
    mean = np.array(rows, np.float64).mean(0)
    names = ("error_px", "folded", "roughness", "correlation")
    return {
        **dict(zip(names, map(float, mean), strict=True)),
        "seconds_per_pair": seconds / len(pairs),
    }


# ---------------------------------------------------------------- the network


def network_settings(args: argparse.Namespace) -> Any:
    """The network's settings with those of --set."""
    content = network_content(args.network)
    for text in args.set:
        key, _, word = text.partition("=")
        value = yaml.safe_load(word)
        for part in reversed(key.split(".")):
            value = {part: value}
        content = merge(content, value)
    return resolved(content, DatasetTraits(), args.network)


def trainer_of(
    network: SeamlessNetworkSettings,
    stacks: Sequence[Stack],
    iterations: int,
    work: Path,
    module: Seamless,
    seed: int,
) -> SeamlessTrainer:
    """The workflow's own training on stacks in memory."""
    steps = {"visits_per_stack": network.visits_per_stack, "pairs_per_step": network.pairs_per_step}
    plan = PairPlan(len(stacks), len(stacks[0].images) - 1, seed, **steps)
    device = torch.device("cpu")
    reader = StackReader(stacks, network.contrast.equalised_radius_px)
    task = SeamlessTask(
        network,
        reader,
        plan,
        PhaseSchedule(network),
        seed,
        device,
        (50, 18, 18),
        Lambdas.of(network),
    )
    optimizer = torch.optim.Adam(module.parameters(), lr=network.lr)
    training_plan = TrainingPlan(iterations, 10**9, 1e9, 10**9, 0, False, False, work)
    return SeamlessTrainer(task, module, optimizer, training_plan, device)


def learned(network: SeamlessNetworkSettings, module: Seamless, flip: bool = True) -> Field:
    def found(source: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            return module.field(source, target, flip_average=flip)

    return found


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """All methods on the same pairs."""
    network = network_settings(args)
    unit = 2 ** (max(network.height, LEVELS) - 1)
    train, tests = ([cut(s, unit) for s in part] for part in make_stacks(args))
    pairs = pairs_of(tests)
    module = build_network(network, seed=args.seed)
    results: dict[str, Any] = {}

    def add_scores(name: str, field_of: Field) -> None:
        results[name] = scores = score(field_of, pairs, network)
        share = scores["error_px"] / results["zero field"]["error_px"]
        print(
            f"{name:30} error {scores['error_px']:.3f} px ({share:.2f})  folded "
            f"{100 * scores['folded']:.3f} %  roughness {scores['roughness']:.4f}  correlation "
            f"{scores['correlation']:.3f}  {scores['seconds_per_pair']:.2f} s/pair",
            flush=True,
        )

    add_scores("zero field", still)
    if not args.no_classical:
        for name, method in classical().items():
            add_scores(name, method)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        step = args.every or args.iterations
        for done in range(step, args.iterations + 1, step):
            trainer = trainer_of(network, train, done, Path(folder), module, args.seed)
            outcome = trainer.run()
            spent = time.process_time() - begin
            last = outcome.losses[-50:].mean(0).tolist()
            values = "  ".join(f"{k} {v:.4f}" for k, v in zip(outcome.terms, last, strict=True))
            print(f"-- {done} iterations, {spent:.0f} s: {values}", flush=True)
            add_scores(f"network, {done} iterations", learned(network, module))
    results["training_seconds"] = spent
    return results


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    results = compare(args)
    if args.output:
        args.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
