"""Learned alignment of sections compared with classical methods, on known displacements.

    python benchmarks/alignment.py --data vnc                # about half an hour on one core
    python benchmarks/alignment.py --data phantom --seeds 0 --iterations 384 768

Data: see alignment_stacks.py. Trained on some sections, scored on others: sections 6-9 of vnc_nc,
phantoms of other seeds; those of FIB-25 are scored only, so they need `--mixed`. With each seed,
initial weights and the distortions of trained and held-out sections differ; so do the phantoms. For
each method: mean endpoint error over all held-out pairs, px, and its fraction of the zero field's;
folded pixels; roughness; chunked correlation (12 x 12); CPU seconds of one thread per pair. Then
the held-out stacks are aligned section by section: greatest drift and error, with and without the
correction of drift.

Tables give the mean over seeds and the standard deviation (n - 1), also of the difference between
a method and the network on the same data: positive where the network is better. What has been
scored is kept in FOLDER and not done again. `--choose` scores other distortions of the training
side (sections 3-5 of vnc_nc, trained on 0-3), to choose settings without the held-out sections.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.alignment.losses import Lambdas
from retrace.alignment.metrics import chunked_correlation, endpoint_errors, field_facts
from retrace.alignment.pairs import PairPlan, StackReader
from retrace.alignment.prepare import prepare_sections, valid_mask  # noqa: E402
from retrace.alignment.schedule import PhaseSchedule
from retrace.alignment.stack_files import Stack
from retrace.alignment.task import SeamlessTask
from retrace.alignment.training import SeamlessTrainer
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.config.seamless_network import SeamlessNetworkSettings
from retrace.displacement import warp
from retrace.networks import build_network  # noqa: E402
from retrace.networks.builders import field_options_of
from retrace.networks.seamless import Seamless  # noqa: E402
from retrace.training.loop import TrainingPlan  # noqa: E402

from alignment_chain import KnownStack, PairMethod, changed, score_chain  # isort: skip
from alignment_stacks import DATA, TRAINABLE, VOXEL_NM, Pair, cut, make_stacks, pairs_of  # isort: skip
from classical_fields import LEVELS, MARGIN, Field, classical, still  # isort: skip
from machine import describe_machine, shown, table  # isort: skip

CHAINED = (
    *("ILK", "ILK, radius 30", "ILK, smoothed", "best shift + ILK"),
    *("direct optimisation", "direct optimisation, weight 1.6", "direct optimisation, smoothed"),
)
"""Classical methods that also align the stacks section by section."""
ZERO, NETWORK = "zero field", "network"
COLUMNS = {
    "error_px": ("error, px", ".3f"),
    "ratio": ("error / zero field", ".2f"),
}
MEANS = {
    "folded_percent": ("folded, %", ".3f"),
    "roughness": ("roughness", ".4f"),
    "correlation": ("correlation", ".3f"),
    "seconds_per_pair": ("CPU s a pair", ".2f"),
    "training_seconds": ("CPU s of training", ".0f"),
}
"""Columns without the deviation over seeds."""
CHAIN_COLUMNS = {
    "drift_before": "drift before, px",
    "drift": "drift chained",
    "drift_corrected": "drift corrected",
    "error": "error chained, px",
    "error_corrected": "error corrected",
}
Row = dict[str, Any]


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=DATA, default="vnc")
    parser.add_argument("--network", default="seamless_small")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="of the network")
    parser.add_argument("--iterations", type=int, nargs="+", default=[768])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jitter", type=int, default=2, help="px")
    parser.add_argument("--warp", type=float, default=2.0, help="px")
    parser.add_argument("--versions", type=int, default=8, help="distortions of the trained ones")
    parser.add_argument("--tests", type=int, default=3, help="distortions of the held-out ones")
    parser.add_argument("--side", type=int, default=256, help="of phantoms, px")
    parser.add_argument("--mixed", action="store_true", help="train on both kinds of data")
    parser.add_argument("--choose", action="store_true", help="score the training side")
    parser.add_argument("--no-classical", action="store_true")
    parser.add_argument("--no-chain", action="store_true", help="pairs alone, no drift")
    parser.add_argument("--folder", type=Path, default=Path("alignment"), help="all files")
    args = parser.parse_args(argv)
    if args.data not in TRAINABLE and (args.choose or not args.mixed):
        parser.error(f"--data {args.data} is scored only: give --mixed, and no --choose")
    return args


# ---------------------------------------------------------------- scores


def prepared(image: Tensor, network: SeamlessNetworkSettings) -> Tensor:
    """The section that all methods receive, with the network's contrast."""
    valid, radius_px = valid_mask(image[0]), network.contrast.equalised_radius_px
    return prepare_sections(image[0], valid, radius_px=radius_px, fill=network.input.mean)[1][None]


def score(field_of: Field, pairs: Sequence[Pair], network: SeamlessNetworkSettings) -> Row:
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
        rows.append((errors.mean(), 100 * facts.folded, facts.roughness, np.nanmean(known)))
    mean = np.array(rows, np.float64).mean(0)
    names = ("error_px", "folded_percent", "roughness", "correlation")
    return {
        **dict(zip(names, map(float, mean), strict=True)),
        "seconds_per_pair": seconds / len(pairs),
    }


def chain_scores(
    module: Seamless | PairMethod,
    network: SeamlessNetworkSettings,
    stacks: Sequence[Stack],
    voxel_nm: tuple[int, int, int],
) -> dict[str, float]:
    """The means over stacks of `ChainScores`."""
    rows = [asdict(score_chain(module, network, KnownStack.of(s, voxel_nm))) for s in stacks]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


# ---------------------------------------------------------------- the network


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


def learned(module: Seamless, network: SeamlessNetworkSettings) -> Field:
    """The field of a network, computed as its settings `align` say."""
    options = field_options_of(network.align)

    def found(source: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            return module.field(source, target, options)

    return found


# ---------------------------------------------------------------- runs


class Run:
    """One seed: its data, and the scores of all methods on them."""

    def __init__(self, args: argparse.Namespace, seed: int) -> None:
        self.args, self.seed = args, seed
        self.network = changed(args.network, args.set)
        unit = 2 ** (max(self.network.height, LEVELS) - 1)
        parts = make_stacks(args, seed)
        self.train, self.tests = ([cut(s, unit) for s in part] for part in parts)
        self.pairs = pairs_of(self.tests)

    def methods(self) -> dict[str, Field]:
        """The zero field and the classical methods."""
        return {ZERO: still} | ({} if self.args.no_classical else classical())

    def scored(self, done: Mapping[str, Row]) -> Iterator[Row]:
        """Scores of what is not in `done`, rows by method."""
        for name, field_of in self.methods().items():
            if name not in done:
                chained = PairMethod(field_of) if name in CHAINED else None
                yield self._row(name, field_of, chained)
        for name, module, spent in self.networks(done):
            row = self._row(name, learned(module, self.network), module)
            yield row | {"training_seconds": spent}

    def networks(self, done: Mapping[str, Row]) -> Iterator[tuple[str, Seamless, float]]:
        """The network after each number of iterations that is not in `done`, and CPU seconds."""
        module, spent = build_network(self.network, seed=self.seed), 0.0
        for iterations in sorted(self.args.iterations):
            name = f"{NETWORK}, {iterations} iterations"
            if name in done:
                spent = done[name]["training_seconds"]
            else:
                spent = self._train(module, iterations, spent)
                yield name, module, spent

    def _row(self, name: str, field_of: Field, chained: Seamless | PairMethod | None) -> Row:
        row = {"seed": self.seed, "method": name, **score(field_of, self.pairs, self.network)}
        if chained is not None and not self.args.no_chain:
            voxel_nm = VOXEL_NM[self.args.data]
            row["chain"] = chain_scores(chained, self.network, self.tests, voxel_nm)
        return row

    def _train(self, module: Seamless, iterations: int, before: float) -> float:
        """Trains up to `iterations` and saves the weights; CPU seconds, with those `before`.

        Weights that a run with other data to score has saved are loaded.
        """
        name = f"{'mixed' if self.args.mixed else self.args.data}_{self.seed}"
        file = self.args.folder / f"{name}_{iterations}.safetensors"
        if file.exists():
            return float(load_model(file, module, self.network)["training_seconds"])
        begin, work = time.process_time(), self.args.folder / name
        trainer_of(self.network, self.train, iterations, work, module, self.seed).run()
        spent = before + time.process_time() - begin
        save_model(file, module, {"network": self.network.plain(), "training_seconds": spent})
        return spent


# ---------------------------------------------------------------- tables


def by_method(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each method, in the order of seeds."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["seed"]):
        found.setdefault(row["method"], []).append(row)
    networks = sorted((name for name in found if name.startswith(NETWORK)), key=_iterations)
    classic = [name for name in found if name not in networks]
    return {name: found[name] for name in (*classic, *networks)}


def _iterations(name: str) -> int:
    return int(name.split()[1])


def network_rows(methods: Mapping[str, list[Row]]) -> list[Row]:
    """The rows of the network after the most iterations; none if it has not been scored."""
    networks = [rows for name, rows in methods.items() if name.startswith(NETWORK)]
    return networks[-1] if networks else []


def differences(rows: Sequence[Row], network: Sequence[Row], name: str, form: str) -> str:
    """Method - network on the same data, mean ± standard deviation over seeds."""
    other = {row["seed"]: row[name] for row in network}
    return shown((row[name] - other[row["seed"]] for row in rows if row["seed"] in other), form)


def pairs_table(rows: Sequence[Row]) -> str:
    """One row for each method."""
    zero = {row["seed"]: row["error_px"] for row in rows if row["method"] == ZERO}
    methods = by_method([{**row, "ratio": row["error_px"] / zero[row["seed"]]} for row in rows])
    best = network_rows(methods)
    titles = [title for title, _ in (*COLUMNS.values(), *MEANS.values())]
    return table(
        ["method", *titles, "error - network's, px"],
        [
            [name]
            + [shown((r[key] for r in same), form) for key, (_, form) in COLUMNS.items()]
            + [mean(same, key, form) for key, (_, form) in MEANS.items()]
            + ["" if same is best else differences(same, best, "error_px", ".2f")]
            for name, same in methods.items()
        ],
    )


def mean(rows: Sequence[Row], name: str, form: str) -> str:
    """The mean over seeds; a dash where a method has no such value."""
    values = [row[name] for row in rows if name in row]
    return shown([statistics.mean(values)] if values else [], form)


def chain_table(rows: Sequence[Row]) -> str:
    """One row for each method that aligned the stacks section by section."""
    chains = [
        {**row["chain"], "seed": row["seed"], "method": row["method"]}
        for row in rows
        if "chain" in row
    ]
    methods = by_method(chains)
    best = network_rows(methods)
    compared = {
        key: f"{title.removesuffix(', px')} - network's" for key, title in CHAIN_COLUMNS.items()
    }
    del compared["drift_before"]
    return table(
        ["method", *CHAIN_COLUMNS.values(), *compared.values()],
        [
            [name, *(shown((r[key] for r in same), ".2f") for key in CHAIN_COLUMNS)]
            + ["" if same is best else differences(same, best, key, ".2f") for key in compared]
            for name, same in methods.items()
        ],
    )


def check_options(args: argparse.Namespace) -> None:
    """Makes FOLDER; exits if it holds weights or scores with other options that change them."""
    args.folder.mkdir(parents=True, exist_ok=True)
    left_out = {"data", "iterations", "seeds", "no_classical", "no_chain", "folder"}
    chosen = {key: value for key, value in vars(args).items() if key not in left_out}
    file = args.folder / "options.json"
    if not file.exists():
        file.write_text(json.dumps(chosen, indent=1) + "\n")
    elif (kept := json.loads(file.read_text())) != chosen:
        sys.exit(f"{args.folder} holds weights with other options, {kept}; choose a --folder")


def main(argv: Sequence[str] | None = None) -> None:
    """Scores what has not been scored yet, and prints the tables."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    print(describe_machine(), flush=True)
    check_options(args)
    file = args.folder / f"scored_{args.data}.json"
    rows: list[Row] = json.loads(file.read_text()) if file.exists() else []
    for seed in args.seeds:
        done = {row["method"]: row for row in rows if row["seed"] == seed}
        for row in Run(args, seed).scored(done):
            rows.append(row)
            file.write_text(json.dumps(rows, indent=1) + "\n")
            print(f"seed {seed}, {row['method']}: error {row['error_px']:.3f} px", flush=True)
    wanted = [row for row in rows if row["seed"] in args.seeds]
    print(f"\n{pairs_table(wanted)}")
    if any("chain" in row for row in wanted):
        print(f"\n{chain_table(wanted)}")


if __name__ == "__main__":
    main()
