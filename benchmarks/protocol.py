"""Scores with their spread: several seeds and budgets, all choices from validation alone.

    python benchmarks/protocol.py --iterations 400 1174 3900        # about 2 h on 2 cores with AMX
    python benchmarks/protocol.py --methods hist_quant_75 multicut --iterations 3900
    python benchmarks/protocol.py --experiments vnc_nc/n4 --iterations 1000

For each seed a folder; in it, trainings go on from one number of iterations to the next. At each
number the experiment is predicted, segmented by each of the methods, and scored as
`snakemake evaluate_D_N` does: the threshold comes from the validation entries, the score from the
test entries. Printed are the mean over seeds and the standard deviation (n - 1) of the scores, the
budget in core-seconds with the rate of the machine's matrix products, the VOI on validation during
training, and what each rule that chooses a threshold (docs/reference/metrics.md) gives on the test
entries. What has been scored is kept in FOLDER/scored.json and not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiment import REPOSITORY, link_data, snakemake
from machine import describe_machine, matrix_rate, shown, table

METRICS = ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error")
HEADING = (
    *("experiment", "method", "iterations", "core-seconds", "VOI split", "VOI merge", "VOI"),
    *("adapted Rand error", "threshold", "best VOI of the curve", "fragments joined"),
    "VOI on validation, training",
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--experiments", nargs="+", default=["fib25_sample/mtlsd_small"], help="DATASET/NETWORK"
    )
    parser.add_argument("--iterations", type=int, nargs="+", default=[400])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["hist_quant_75"],
        help="segment.method: how fragments join",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--config", nargs="+", default=[], help="more settings")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared", help="data")
    parser.add_argument("--folder", type=Path, default=Path("protocol"), help="all files")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- runs


def run(
    args: argparse.Namespace, experiment: str, iterations: int, seed: int, method: str
) -> dict[str, Any]:
    """Trains, predicts, segments and scores; what the table needs of it."""
    folder = args.folder / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    dataset, network = experiment.split("/")
    config = [f"iterations={iterations}", f"seed={seed}", f"segment={{method: {method}}}"]
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    snakemake(folder, [f"evaluate_{dataset}_{network}"], [*config, *args.config], cores=args.cores)
    results = folder / "results" / dataset / network
    files = {name: read(results / f"{name}.json") for name in ("evaluation", "training")}
    chosen = read(results / "threshold.json")["threshold_by_rule"]
    volumes = list(files["evaluation"]["volumes"].values())
    curve = pooled([volume["curve"] for volume in volumes], volumes)
    (scored,) = pooled([[volume] for volume in volumes], volumes)
    return {
        **{"experiment": experiment, "iterations": iterations, "seed": seed, "method": method},
        **scored,
        "threshold": files["evaluation"]["threshold"],
        "best": min(row["voi_sum"] for row in curve),
        "fragments": pooled([[v["best_possible"]] for v in volumes], volumes)[0]["voi_sum"],
        "core_seconds": files["training"]["training_seconds"] * args.cores,
        "validation": last_validation(files["training"]),
        "gflops": rate / 1e9,
        "rules": {rule: at(curve, value)["voi_sum"] for rule, value in chosen.items()},
        "rule_thresholds": chosen,
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def pooled(
    curves: Sequence[Sequence[Mapping[str, float]]], volumes: Sequence[Mapping[str, float]]
) -> list[dict[str, float]]:
    """The curves of several volumes as one: means, weighted by their scored voxels."""
    voxels = [volume["scored_voxels"] for volume in volumes]
    rows = []
    for same in zip(*curves, strict=True):
        mean = {
            name: sum(row[name] * n for row, n in zip(same, voxels, strict=True)) / sum(voxels)
            for name in METRICS
        }
        rows.append({**mean, "threshold": same[0].get("threshold", -1)})
    return rows


def at(curve: Sequence[Mapping[str, float]], threshold: float) -> Mapping[str, float]:
    """The row of a threshold."""
    return min(curve, key=lambda row: abs(row["threshold"] - threshold))


def last_validation(training: Mapping[str, Any]) -> float | None:
    """VOI of the last measurement on validation patches, at its best threshold."""
    rows = (training["validation"] or {}).get("rows") or [{}]
    value = rows[-1].get("voi_sum")
    return None if value is None else float(value)


# ---------------------------------------------------------------- tables


Group = tuple[str, str, int]
"""Experiment, method, iterations."""


def groups(rows: Sequence[Mapping[str, Any]]) -> dict[Group, list[Mapping[str, Any]]]:
    """The rows of all seeds, by experiment, method and number of iterations."""
    found: dict[Group, list[Mapping[str, Any]]] = {}
    for one in sorted(rows, key=lambda row: (row["experiment"], row["iterations"], row["seed"])):
        found.setdefault((one["experiment"], one["method"], one["iterations"]), []).append(one)
    return found


def scores_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row for each experiment and budget."""
    columns = (*METRICS, "threshold", "best", "fragments", "validation")
    return table(
        HEADING,
        [
            [*group, shown((r["core_seconds"] for r in same), ".0f")]
            + [shown(r[name] for r in same) for name in columns]
            for group, same in groups(rows).items()
        ],
    )


def rules_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """VOI of the test entries at the threshold that each rule chooses on validation."""
    rules = list(dict.fromkeys(rule for row in rows for rule in row["rules"]))
    return table(
        ["experiment", "method", "iterations", *rules],
        [
            [*group, *(shown(r["rules"].get(rule) for r in same) for rule in rules)]
            for group, same in groups(rows).items()
        ],
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what has not been scored yet, and prints the tables."""
    args = parse_args(argv)
    print(describe_machine(), flush=True)
    link_data(args.folder, args.shared)
    file = args.folder / "scored.json"
    rows: list[dict[str, Any]] = read(file) if file.exists() else []
    for row in rows:
        row.setdefault("method", "hist_quant_75")  # older files compare no methods
    key = ("experiment", "iterations", "seed", "method")
    done = {tuple(row[name] for name in key) for row in rows}
    order = itertools.product(sorted(args.iterations), args.experiments, args.seeds, args.methods)
    for iterations, experiment, seed, method in order:
        if (experiment, iterations, seed, method) in done:
            continue
        rows.append(run(args, experiment, iterations, seed, method))
        file.write_text(json.dumps(rows, indent=1))
        voi = rows[-1]["voi_sum"]
        print(f"{experiment}, {method}, seed {seed}, {iterations}: VOI {voi:.3f}", flush=True)
    rates = [row["gflops"] for row in rows]
    print(f"\n{scores_table(rows)}\n\nVOI by rule of the threshold\n\n{rules_table(rows)}\n")
    rate = f"{min(rates):.0f} to {max(rates):.0f} GFLOP/s"
    print(f"matrix products in float32 {rate}; {args.cores} cores")


if __name__ == "__main__":
    main()
