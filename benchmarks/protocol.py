"""Scores with their spread: several seeds and budgets, all choices from validation alone.

    python benchmarks/protocol.py --iterations 400 1174 3900        # about 2 h on 2 cores with AMX
    python benchmarks/protocol.py --methods hist_quant_75 multicut --iterations 3900
    python benchmarks/protocol.py --experiments vnc_nc/n4 --iterations 1000
    python benchmarks/protocol.py --experiments mnist_sample/cnn_modern --iterations 30000

For each seed a folder; in it, trainings go on from one number of iterations to the next. At each
number the experiment is predicted, segmented by each of the methods, and scored as
`snakemake evaluate_D_N` does: thresholds come from the validation entries, scores from the test
entries. Boundary maps and classes of single examples are scored as they are. Printed are the mean
over seeds and the standard deviation (n - 1) of the scores, the budget in core-seconds with the
rate of the machine's matrix products, the VOI on validation during training, and what each rule
that chooses a threshold (docs/reference/metrics.md) gives on the test entries.
What has been scored is kept in FOLDER/scored.json and not done again.
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

from experiment import REPOSITORY, Row, link_data, scored, snakemake
from machine import describe_machine, matrix_rate, shown, table

SEGMENTS = ("voi_split", "voi_merge", "voi_sum", "adapted_rand_error")
KINDS = {
    "segments": {
        **{"voi_split": "VOI split", "voi_merge": "VOI merge", "voi_sum": "VOI"},
        **{"adapted_rand_error": "adapted Rand error"},
        **{"threshold": "threshold", "best": "best VOI of the curve"},
        **{"fragments": "fragments joined", "validation": "VOI on validation, training"},
    },
    "boundaries": {"pixel_error": "pixel error", "v_rand": "V_Rand", "v_info": "V_Info"},
    "examples": {"error_percent": "error, %", "wrong": "wrong", "nll": "NLL"},
}
"""Columns of the table by what an experiment predicts: name of the score, heading."""


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


def run(args: argparse.Namespace, wanted: Row) -> Row:
    """Trains, predicts, segments and scores; what the table needs of it."""
    experiment, iterations, seed, method = (
        wanted[name] for name in ("experiment", "iterations", "seed", "method")
    )
    folder = args.folder / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    dataset, network = experiment.split("/")
    config = [f"iterations={iterations}", f"seed={seed}", f"segment={{method: {method}}}"]
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    snakemake(folder, [f"evaluate_{dataset}_{network}"], [*config, *args.config], cores=args.cores)
    results = folder / "results" / dataset / network
    training = read(results / "training.json")
    row = {
        **wanted,
        **scores(results),
        "core_seconds": training["training_seconds"] * args.cores,
        "validation": last_validation(training),
        "gflops": rate / 1e9,
    }
    print(f"{wanted}: { {name: row[name] for name in KINDS[row['kind']]} }", flush=True)
    return row


def scores(results: Path) -> dict[str, Any]:
    """The scores of an experiment, with the key of KINDS that says which they are."""
    evaluation = read(results / "evaluation.json")
    if "wrong" in evaluation:
        error_percent = 100 * evaluation["error"]
        known = {name: evaluation[name] for name in ("wrong", "nll")}
        return {"kind": "examples", "error_percent": error_percent, **known}
    volumes = list(evaluation["volumes"].values())
    if "pixel_error" in volumes[0]:
        return {"kind": "boundaries", **pooled(volumes, volumes, list(KINDS["boundaries"]))}
    return {"kind": "segments", **segment_scores(results, evaluation, volumes)}


def segment_scores(
    results: Path, evaluation: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """At the chosen threshold, the best of the curve, and at the thresholds of all rules."""
    chosen = read(results / "threshold.json")["threshold_by_rule"]
    curve = [
        {**pooled(rows, volumes), "threshold": rows[0]["threshold"]}
        for rows in zip(*(volume["curve"] for volume in volumes), strict=True)
    ]
    return {
        **pooled(volumes, volumes),
        "threshold": evaluation["threshold"],
        "best": min(row["voi_sum"] for row in curve),
        "fragments": pooled([v["best_possible"] for v in volumes], volumes)["voi_sum"],
        "rules": {rule: at(curve, value)["voi_sum"] for rule, value in chosen.items()},
        "rule_thresholds": chosen,
    }


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def pooled(
    rows: Sequence[Mapping[str, float]],
    volumes: Sequence[Mapping[str, float]],
    names: Sequence[str] = SEGMENTS,
) -> dict[str, float]:
    """The scores of several volumes as one: means, weighted by their scored voxels."""
    voxels = [volume["scored_voxels"] for volume in volumes]
    return {
        name: sum(row[name] * n for row, n in zip(rows, voxels, strict=True)) / sum(voxels)
        for name in names
    }


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


def scores_table(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """One row for each experiment, method and budget."""
    columns = KINDS[kind]
    return table(
        ["experiment", "method", "iterations", "core-seconds", *columns.values()],
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
    order = itertools.product(sorted(args.iterations), args.experiments, args.seeds, args.methods)
    wanted = [
        {"experiment": experiment, "iterations": iterations, "seed": seed, "method": method}
        for iterations, experiment, seed, method in order
    ]
    rows = scored(args.folder / "scored.json", wanted, lambda one: run(args, one))
    for kind in KINDS:
        same = [row for row in rows if row["kind"] == kind]
        if same:
            print(f"\n{scores_table(same, kind)}")
        if same and kind == "segments":
            print(f"\nVOI by rule of the threshold\n\n{rules_table(same)}")
    rates = [row["gflops"] for row in rows]
    rate = f"{min(rates):.0f} to {max(rates):.0f} GFLOP/s"
    print(f"\nmatrix products in float32 {rate}; {args.cores} cores")


if __name__ == "__main__":
    main()
