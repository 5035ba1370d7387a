"""Labelled sections against VOI: a network trained from scratch, and from weights of other tissue.

    python benchmarks/fine_tune.py                        # about a quarter of an hour on 2 cores
    python benchmarks/fine_tune.py --sections 10 --iterations 300 --seeds 0 1 2

The task is the FIB-25 sample (../shared/data): N of its sections z 0-79 are labelled, the threshold
is chosen on z 80-99, and z 100-124 are scored. The other tissue is the volume `gala` of
../shared/data, whose voxel size is not stated and taken as 10 nm, or generated neurites. All
trainings on the labelled sections have the same number of iterations; those that start from other
weights had `--pretraining` iterations more, on the other tissue.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from experiment import REPOSITORY, snakemake
from machine import describe_machine, table

sys.path.insert(0, str(REPOSITORY / "workflow" / "scripts"))

from retrace.synthetic.neurites import generate_neurites  # noqa: E402

VOXEL_NM = 10
MIDDLE = 40
"""Section in the middle of those that may be labelled."""
SCORED_FROM = 80
"""First section of those that choose the threshold and are scored; they are not trained on."""
TISSUES = ("gala", "generated")
"""Other tissue to start from."""
GENERATED_SHAPE = (100, 160, 160)
NETWORK = {
    "extends": "baseline_small",
    # Few labelled sections fill a small part of a block; blocks are smaller, to be faster.
    "min_masked": 0.1,
    "recipes": {"isotropic": {"input_shape": [60, 60, 60]}},
    # The average of the weights must forget the first iterations of a short training.
    "optimizer": {"average": 0.98},
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--iterations", type=int, default=60, help="on the labelled sections")
    parser.add_argument("--pretraining", type=int, default=300, help="iterations on other tissue")
    parser.add_argument("--tissues", nargs="+", choices=TISSUES, default=["gala"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data", type=Path, default=REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--folder", type=Path, default=Path("fine_tune"), help="all files")
    return parser.parse_args(argv)


# ---------------------------------------------------------------- files


def write(folder: Path, kind: str, name: str, content: dict[str, Any]) -> None:
    """Writes config/KIND/NAME.yaml."""
    path = folder / "config" / kind / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"name": name, **content}))


def box(first: int, last: int) -> dict[str, list[int]]:
    """Sections of the cube of 250 x 250 pixels, as a region in nm."""
    shape = [(last - first) * VOXEL_NM, 250 * VOXEL_NM, 250 * VOXEL_NM]
    return {"offset": [first * VOXEL_NM, 0, 0], "shape": shape}


def write_sections(folder: Path, cube: Path, count: int) -> None:
    """A dataset with labels on `count` sections around the middle, and on those that are scored."""
    first = MIDDLE - count // 2
    file = folder / f"labelled_{count}.h5"
    with h5py.File(cube) as source, h5py.File(file, "w") as target:
        is_labelled = np.zeros(source["raw"].shape, np.uint8)
        is_labelled[first : first + count] = is_labelled[SCORED_FROM:] = 1
        target["mask"] = is_labelled
    volume = {
        "raw": {"path": str(cube), "array": "raw"},
        "labels": {"path": str(cube), "array": "labels_gt"},
        "labels_mask": {"path": file.name, "array": "mask"},
    }
    content = {
        "voxel_size_nm": [VOXEL_NM] * 3,
        "lsd_sigma_nm": 80,
        "volumes": {"cube": volume},
        "train": ["cube"],
        "validation": [{"volume": "cube", "roi_nm": box(SCORED_FROM, 100)}],
        "test": [{"volume": "cube", "roi_nm": box(100, 125)}],
    }
    write(folder, "datasets", f"sections_{count}", content)


def write_tissues(folder: Path, data: Path, tissues: Sequence[str]) -> None:
    """The datasets of other tissue."""
    generated = folder / "generated.h5"
    raw, labels = generate_neurites(GENERATED_SHAPE, [VOXEL_NM] * 3, seed=0)
    with h5py.File(generated, "w") as file:
        file["raw"], file["labels_gt"] = raw, labels.astype(np.uint32)
    files = {"gala": str(data / "gala" / "train.h5"), "generated": generated.name}
    for name in tissues:
        parts = {"raw": "raw", "labels": "labels_gt"}
        volume = {part: {"path": files[name], "array": array} for part, array in parts.items()}
        content = {"voxel_size_nm": [VOXEL_NM] * 3, "lsd_sigma_nm": 80, "volumes": {"all": volume}}
        write(folder, "datasets", f"tissue_{name}", {**content, "train": ["all"]})


def write_config(folder: Path, args: argparse.Namespace) -> None:
    """All datasets and networks; the networks differ by what their training starts from."""
    data = args.data.resolve()
    write_tissues(folder, data, args.tissues)
    for count in args.sections:
        write_sections(folder, data / "fib25" / "training_sample2_z000-124.h5", count)
    write(folder, "networks", "few", NETWORK)
    for tissue in args.tissues:
        write(folder, "networks", f"few_{tissue}", {"extends": "few"})


# ---------------------------------------------------------------- runs


def pretrain(folder: Path, args: argparse.Namespace, seed: int) -> None:
    """Trains on the other tissue; the weights become TISSUE.safetensors."""
    targets = [f"train_tissue_{tissue}_few" for tissue in args.tissues]
    snakemake(folder, targets, [f"iterations={args.pretraining}", f"seed={seed}"])
    for tissue in args.tissues:
        trained = folder / "results" / f"tissue_{tissue}" / "few" / "model.safetensors"
        shutil.copy2(trained, folder / f"{tissue}.safetensors")


def scores(folder: Path, count: int, network: str) -> float:
    """VOI of the test sections."""
    file = folder / "results" / f"sections_{count}" / network / "evaluation.json"
    (volume,) = json.loads(file.read_text())["volumes"].values()
    return float(volume["voi_sum"])


def run_seed(folder: Path, args: argparse.Namespace, seed: int) -> dict[tuple[int, str], float]:
    """VOI by the number of sections and the network, for one seed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, args)
    pretrain(folder, args, seed)
    start = ", ".join(f"few_{tissue}: {tissue}.safetensors" for tissue in args.tissues)
    networks = ["few", *(f"few_{tissue}" for tissue in args.tissues)]
    config = [f"iterations={args.iterations}", f"seed={seed}", f"init={{{start}}}"]
    found = {}
    for count in args.sections:
        snakemake(folder, [f"evaluate_sections_{count}_{n}" for n in networks], config)
        for network in networks:
            found[count, network] = scores(folder, count, network)
            voi = found[count, network]
            print(f"seed {seed}, {count} sections, {network}: VOI {voi:.3f}", flush=True)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table: rows are numbers of labelled sections, columns what training starts from."""
    args = parse_args(argv)
    print(describe_machine(), flush=True)
    begin = time.monotonic()
    found = [run_seed(args.folder / f"seed_{seed}", args, seed) for seed in args.seeds]
    networks = ("few", *(f"few_{tissue}" for tissue in args.tissues))
    rows = []
    for count in args.sections:
        voi = [[one[count, network] for one in found] for network in networks]
        rows.append([str(count), *(shown(values) for values in voi)])
    print("\n" + table(("labelled sections", "from scratch", *args.tissues), rows))
    seconds = time.monotonic() - begin
    print(f"VOI of z 100-124, bits; seeds {args.seeds}, {seconds / 60:.0f} minutes")


def shown(values: Sequence[float]) -> str:
    """The mean of the seeds, and their range where there are several."""
    mean = f"{statistics.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f}-{max(values):.3f})"


if __name__ == "__main__":
    main()
