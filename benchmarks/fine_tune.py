"""Few labels of gala: a network trained from scratch, and from weights of the FIB-25 sample.

    python benchmarks/fine_tune.py             # the weights take an hour of a core for each seed
    python benchmarks/fine_tune.py --sections 5 --iterations 100 --pretraining 400 --seeds 0
    python benchmarks/fine_tune.py --weights {0,1,2}.safetensors     # of FIB-25, one for each seed

The weights are those of `train_fib25_sample_mtlsd_small`, one training for each seed. Then N
sections around z 15 of the volume `gala` (../shared/data) are labelled, the threshold is chosen on
z 30-36, and z 37-49 are scored. From scratch and from the weights, trainings have the same number
of iterations on gala. The row of 0 sections is the network as trained on FIB-25. Both tissues are
of flies; the voxel size of gala is not stated and taken as 10 nm. What has been scored is kept in
FOLDER/scored.json and not done again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from experiment import REPOSITORY, Row, link_data, scored, snakemake
from machine import describe_machine, shown, table

VOXEL_NM = 10
SHAPE = (50, 100, 200)
MIDDLE = 15
"""Section in the middle of those that may be labelled."""
VALIDATION, TEST = (30, 37), (37, 50)
"""Sections that choose the threshold, and those that are scored; they are not trained on."""
SOURCE = "fib25_sample/mtlsd_small"
SCRATCH, TUNED, UNCHANGED = "few", "few_tuned", "few_unchanged"
FEW = {
    "extends": "mtlsd_small",
    # Few labelled sections fill a small part of a block; blocks are smaller, to be faster.
    "min_masked": 0.02,
    "recipes": {"isotropic": {"input_shape": [60, 60, 60]}},
    # The average of the weights must forget the first iterations of a short training.
    "optimizer": {"average": 0.98},
}
NETWORKS: dict[str, dict[str, Any]] = {
    SCRATCH: FEW,
    TUNED: {"extends": SCRATCH},
    # One iteration at a rate that changes no bit of float32 weights above 1e-5.
    UNCHANGED: {"extends": SCRATCH, "optimizer": {"lr": 1e-13}},
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", type=int, nargs="+", default=[1, 3, 10, 30])
    parser.add_argument("--iterations", type=int, nargs="+", default=[150], help="on gala")
    parser.add_argument("--pretraining", type=int, default=3900, help="iterations on FIB-25")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=Path, nargs="+", help="trained on FIB-25, for each seed")
    parser.add_argument("--shared", type=Path, default=REPOSITORY.parent / "shared", help="data")
    parser.add_argument("--folder", type=Path, default=Path("fine_tune"), help="all files")
    args = parser.parse_args(argv)
    if args.weights and len(args.weights) != len(args.seeds):
        parser.error(f"{len(args.weights)} --weights for {len(args.seeds)} --seeds")
    return args


# ---------------------------------------------------------------- files


def write(folder: Path, kind: str, name: str, content: dict[str, Any]) -> None:
    """Writes config/KIND/NAME.yaml."""
    path = folder / "config" / kind / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": name, **content}))


def box(first: int, last: int) -> dict[str, list[int]]:
    """Whole sections as a region in nm."""
    shape = [(last - first) * VOXEL_NM, SHAPE[1] * VOXEL_NM, SHAPE[2] * VOXEL_NM]
    return {"offset": [first * VOXEL_NM, 0, 0], "shape": shape}


def write_sections(folder: Path, volume: Path, count: int) -> None:
    """A dataset with labels on `count` sections around the middle, and on those that are scored."""
    folder.mkdir(exist_ok=True)
    first = MIDDLE - count // 2
    file = folder / f"labelled_{count}.h5"
    is_labelled = np.zeros(SHAPE, np.uint8)
    is_labelled[first : first + count] = is_labelled[VALIDATION[0] :] = 1
    with h5py.File(file, "w") as target:
        target["mask"] = is_labelled
    parts = {
        "raw": {"path": str(volume), "array": "raw"},
        "labels": {"path": str(volume), "array": "labels_gt"},
        "labels_mask": {"path": file.name, "array": "mask"},
    }
    content = {
        "voxel_size_nm": [VOXEL_NM] * 3,
        "lsd_sigma_nm": 80,
        "volumes": {"gala": parts},
        "train": ["gala"],  # without the boxes of the other two
        "validation": [{"volume": "gala", "roi_nm": box(*VALIDATION)}],
        "test": [{"volume": "gala", "roi_nm": box(*TEST)}],
    }
    write(folder, "datasets", f"sections_{count}", content)


# ---------------------------------------------------------------- runs


def weights(folder: Path, args: argparse.Namespace, seed: int) -> str:
    """The weights of FIB-25 in the folder of a seed; trains them unless they are given."""
    if args.weights:
        trained = args.weights[args.seeds.index(seed)]
    else:
        target = f"train_{SOURCE.replace('/', '_')}"
        snakemake(folder, [target], [f"iterations={args.pretraining}", f"seed={seed}"])
        trained = folder / "results" / SOURCE / "model.safetensors"
    file = folder / "fib25.safetensors"
    if not file.exists() or file.read_bytes() != trained.read_bytes():
        shutil.copy2(trained, file)
    return file.name


def run(args: argparse.Namespace, training: Row) -> Row:
    """Trains, segments and scores: the training with the VOI of the test sections."""
    seed, count, network = (training[name] for name in ("seed", "sections", "network"))
    folder = args.folder / f"seed_{seed}"
    write_sections(folder, args.shared.resolve() / "data" / "gala" / "train.h5", count)
    for name, content in NETWORKS.items():
        write(folder, "networks", name, content)
    config = [f"iterations={training['iterations']}", f"seed={seed}"]
    if network != SCRATCH:
        config.append(f"init={{{network}: {weights(folder, args, seed)}}}")
    snakemake(folder, [f"evaluate_sections_{count}_{network}"], config)
    file = folder / "results" / f"sections_{count}" / network / "evaluation.json"
    (volume,) = json.loads(file.read_text())["volumes"].values()
    best = min(row["voi_sum"] for row in volume["curve"])
    print(f"{training}: VOI {volume['voi_sum']:.3f}, best of the curve {best:.3f}", flush=True)
    return {**training, "voi_sum": volume["voi_sum"], "best": best}


def trainings(args: argparse.Namespace) -> list[Row]:
    """All trainings of all seeds."""
    tried = [(args.sections[0], UNCHANGED, 1)]
    numbers = itertools.product(args.iterations, args.sections)
    tried += [(n, name, iterations) for iterations, n in numbers for name in (SCRATCH, TUNED)]
    names = ("sections", "network", "iterations")
    return [
        {"seed": seed, **dict(zip(names, one, strict=True))} for seed in args.seeds for one in tried
    ]


def cells(rows: Sequence[Row], network: str, **chosen: int) -> list[str]:
    """VOI at the chosen threshold, and the lowest of the curve; means and spread over seeds."""
    chosen_items = {"network": network, **chosen}.items()
    same = [row for row in rows if chosen_items <= row.items()]
    return [shown(row[name] for row in same) for name in ("voi_sum", "best")]


def scores_table(rows: Sequence[Row]) -> str:
    """Rows are numbers of labelled sections, columns what training starts from."""
    lines = [["0", "0", "–", "–", *cells(rows, UNCHANGED)]]
    done = {(row["iterations"], row["sections"]) for row in rows if row["network"] == TUNED}
    for iterations, count in sorted(done):
        chosen = {"sections": count, "iterations": iterations}
        scores = [*cells(rows, SCRATCH, **chosen), *cells(rows, TUNED, **chosen)]
        lines.append([str(count), str(iterations), *scores])
    heading = ["labelled sections", "iterations", "from scratch", "its best", "from FIB-25"]
    return table([*heading, "its best"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what has not been scored yet, and prints a table of all that has been scored."""
    args = parse_args(argv)
    print(describe_machine(), flush=True)
    link_data(args.folder, args.shared)
    rows = scored(args.folder / "scored.json", trainings(args), lambda one: run(args, one))
    print(f"\n{scores_table(rows)}\nVOI of z 37-49, bits, at the threshold chosen on z 30-36, and")
    print(f"at the best threshold of the test sections; seeds {sorted({r['seed'] for r in rows})}")


if __name__ == "__main__":
    main()
