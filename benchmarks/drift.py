"""Drift of phantoms with known displacements, aligned with and without correction of drift.

Kinds of phantoms: `plain` (each section moved and warped), `defects` (also cracks, folds and
missing areas, as in the dataset phantom_sections), and `damaged` (`plain`, one section is noise).
Drift is what evaluation.json reports: the length of a section's mean displacement from the first
one; here the greatest of a stack. All methods align the same stacks in the same process, chained
and with the settings as shipped. With several models of a network (trainings with other seeds),
each phantom counts with the mean over them, and the table also has the spread over trainings. It
gives means and standard deviations over phantoms, also of the difference between a method and the
network on the same phantom: positive where the network drifts less.

python benchmarks/drift.py --models results/phantom_sections/seamless_small/model.safetensors
python benchmarks/drift.py --models a.safetensors b.safetensors --methods network ILK --kinds plain
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.stack_files import Stack
from retrace.checkpoints.safetensors import load_model
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.networks import build_network  # noqa: E402
from retrace.networks.seamless import Seamless  # noqa: E402
from retrace.synthetic.distorted_sections import Distortion, phantom_stack  # noqa: E402

from alignment_chain import KnownStack, PairMethod, changed, score_chain  # isort: skip
from classical_fields import classical  # isort: skip
from machine import describe_machine, shown, table  # isort: skip

VOXEL_NM = (40, 8, 8)
PLAIN = Distortion(jitter_px=3, warp_px=2.5, spacing_px=48, near_px=12)
KINDS = {
    "plain": PLAIN,
    "defects": replace(PLAIN, crack=0.15, fold=0.15, missing=0.15),
    "damaged": PLAIN,
}
NETWORK = "network"
Row = dict[str, Any]
"""Kind, phantom's seed, method, number of the model, and the fields of ChainScores."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="seamless_small")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the network")
    parser.add_argument(
        "--models", type=Path, nargs="+", default=[], help="its weights; without, it is untrained"
    )
    parser.add_argument(
        "--methods", nargs="+", default=[NETWORK], choices=[NETWORK, *classical()], metavar="METHOD"
    )
    parser.add_argument("--sections", type=int, default=24)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--seeds", type=int, nargs="+", default=[301, 302, 303, 304, 305])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    return parser.parse_args(argv)


def damaged(stack: Stack, seed: int) -> Stack:
    """The stack with noise, of the same mean and deviation, instead of its middle section."""
    images, masks = stack.images.clone(), stack.masks.clone()
    z = len(images) // 2
    random = torch.Generator().manual_seed(seed)
    noise = torch.rand(1, 1, *images.shape[1:], generator=random)
    noise = torch.nn.functional.avg_pool2d(noise, 5, 1, 2)[0, 0]
    noise = (noise - noise.mean()) / noise.std() * images[z].std() + images[z].mean()
    images[z], masks[z] = noise.clamp(1 / 255, 1), 2
    return replace(stack, images=images, masks=masks)


def phantom(kind: str, sections: int, side: int, seed: int) -> KnownStack:
    """A phantom of a kind."""
    stack = phantom_stack((sections, side, side), seed, KINDS[kind], VOXEL_NM)
    if kind == "damaged":
        stack = damaged(stack, seed)
    return KnownStack.of(stack, VOXEL_NM)


def trained(network: SeamlessNetworkSettings, model: Path | None) -> Seamless:
    """The network with its weights."""
    module: Seamless = build_network(network)
    if model is not None:
        load_model(model, module, network)
    return module.eval()


def modules(
    args: argparse.Namespace, network: SeamlessNetworkSettings
) -> dict[str, list[Seamless | PairMethod]]:
    """What aligns, by method: a network has one for each of its models."""
    classics = classical()
    return {
        name: [trained(network, model) for model in args.models or [None]]
        if name == NETWORK
        else [PairMethod(classics[name])]
        for name in args.methods
    }


def scored(args: argparse.Namespace, kind: str) -> Iterator[Row]:
    """The scores of all methods on all phantoms of a kind."""
    network = changed(args.network, args.set)
    methods = modules(args, network)
    for seed in args.seeds:
        example = phantom(kind, args.sections, args.side, seed)
        for name, alike in methods.items():
            for model, module in enumerate(alike):
                place = {"kind": kind, "seed": seed, "method": name, "model": model}
                yield place | asdict(score_chain(module, network, example))


# ---------------------------------------------------------------- tables


def means_by(key: str, rows: Sequence[Row], method: str, name: str) -> list[float]:
    """A score of a method for each "seed" of a phantom or each "model": means over the others."""
    values: dict[int, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            values.setdefault(row[key], []).append(row[name])
    return [statistics.mean(same) for same in values.values()]


def method_row(rows: Sequence[Row], method: str) -> list[str]:
    """Mean ± standard deviation over phantoms, and over trainings."""
    before, chained, corrected, seconds, more = (
        means_by("seed", rows, method, name)
        for name in ("drift_before", "drift", "drift_corrected", "seconds", "seconds_corrected")
    )
    cells = [shown(before, ".1f")]
    for name, drifts in (("drift", chained), ("drift_corrected", corrected)):
        ratios = [drift / most for drift, most in zip(drifts, before, strict=True)]
        cells += [shown(drifts, ".1f"), shown(ratios, ".2f")]
        cells.append(
            shown(means_by("model", rows, method, name), ".1f") if method == NETWORK else ""
        )
        network = means_by("seed", rows, NETWORK, name)
        differs = method != NETWORK and bool(network)
        pairs = zip(drifts, network, strict=True) if differs else ()
        cells.append(shown((one - other for one, other in pairs), ".2f"))
    errors = (means_by("seed", rows, method, name) for name in ("error", "error_corrected"))
    cells += [shown(values, ".2f") for values in errors]
    return [*cells, shown(seconds, ".2f"), shown(more, ".2f")]


HEADING = (
    *("phantom", "method", "drift before, px"),
    *("chained", "ratio", "over trainings", "chained - network's"),
    *("corrected", "ratio", "over trainings", "corrected - network's"),
    *("error chained, px", "error corrected", "CPU s per section, chained", "corrected"),
)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(1)
    print(describe_machine(), flush=True)
    rows: list[Row] = []
    for kind in args.kinds:
        for row in scored(args, kind):
            rows.append(row)
            print(
                f"{kind} {row['seed']}, {row['method']} {row['model']}: drift "
                f"{row['drift_before']:.2f} px before, {row['drift']:.2f} chained, "
                f"{row['drift_corrected']:.2f} corrected",
                flush=True,
            )
    lines = [
        [kind, method, *method_row([row for row in rows if row["kind"] == kind], method)]
        for kind in args.kinds
        for method in args.methods
    ]
    print(f"\n{table(HEADING, lines)}")


if __name__ == "__main__":
    main()
