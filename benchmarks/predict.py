"""Speed of prediction from raw on disk to a finished store, by OpenVINO and by torch.

    python benchmarks/predict.py      # mtlsd_small: a volume that is one tile, and one of 36 tiles
    python benchmarks/predict.py --network mtlsd --dataset zfinch --shape 96 356 356

Everything that predict.py does is timed: checking, reading, computing, compressing, writing,
checksums. Each prediction is a process of its own; libraries and precisions take turns. The matrix
products of each precision, on as many threads, run before each round, and a fraction is that of
the same round. FLOP are those of all tiles, halo included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import Spread, describe_machine, matrix_rate, peak_gpu_mb, table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

from retrace.checkpoints.safetensors import save_model
from retrace.config.datasets import load_dataset
from retrace.config.network_settings import VoxelNetworkSettings
from retrace.config.networks import head_names, network_for
from retrace.device import choose_device, cpu_multiplies_bf16
from retrace.geometry import Triple, VoxelBox, triple
from retrace.inference.tiles import TileNetwork, output_box, tiles
from retrace.networks import build_network
from retrace.storage.manifest import read_manifest
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume

PROGRAM = Path(__file__).resolve().parent.parent / "workflow" / "scripts" / "predict.py"
VOLUMES: dict[str, tuple[Triple, Triple | None]] = {
    "one tile": ((124, 200, 200), None),
    "36 tiles": ((256, 300, 300), (64, 112, 112)),
}
"""Raw and tile, z y x, unless `--shape` is given. A single tile overlaps with nothing and meets
memory that was never used; in several tiles, reading and storing happen while the network
computes."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
HEADING = (
    *("raw, tiles", "library", "precision", "output Mvoxel/s", "GFLOP/s"),
    *("of the matrix products' rate", "peak memory"),
)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mtlsd_small")
    parser.add_argument("--dataset", default="fib25", help="whose recipe and voxel size are taken")
    parser.add_argument("--shape", type=int, nargs=3, help="raw, z y x (default: two volumes)")
    parser.add_argument("--tile", type=int, nargs=3, help="tile of `--shape`, z y x (chosen)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="default: what is fast")
    parser.add_argument("--libraries", nargs="+", default=["auto", "torch"], help="cpu_library")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, help="default: as torch chooses")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args(argv)
    if args.tile and not args.shape:
        parser.error("--tile needs --shape")
    return args


@dataclass
class Case:
    """A prediction that is repeated: its folder, settings, and what each round measured."""

    folder: Path
    settings: dict[str, Any]
    manifests: list[dict[str, Any]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    """FLOP/s of matrix products in the same rounds."""

    def run(self) -> None:
        """A whole prediction in a process of its own."""
        output = self.folder / "prediction.zarr"
        places = {"--model": self.folder / "model", "--work": self.folder / "work"}
        flat = [str(part) for pair in places.items() for part in pair]
        command = [sys.executable, str(PROGRAM), "--output", str(output), *flat]
        command += ["--settings", json.dumps(self.settings)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self.manifests.append(read_manifest(output))

    def row(self, voxels: int, flop: float) -> Sequence[object]:
        """The row of the table."""
        shape = " × ".join(map(str, open_volume(self.folder / "raw.zarr", "raw").box.shape))
        seconds = [float(manifest["seconds"]) for manifest in self.manifests]
        fractions = [flop / s / r * 100 for s, r in zip(seconds, self.rates, strict=True)]
        peak = max(float(manifest["peak_memory_mb"]) for manifest in self.manifests)
        return (
            f"{shape}, {self.manifests[0]['tiles']}",
            self.manifests[0]["library"],
            self.settings["precision"],
            format(Spread(tuple(voxels / s / 1e6 for s in seconds)), ".3f"),
            format(Spread(tuple(flop / s / 1e9 for s in seconds)), ".0f"),
            f"{Spread(tuple(fractions)):.0f} % of {max(self.rates) / 1e9:.0f}",
            f"{peak / 1e3:.1f} GB",
        )


def write_raw(folder: Path, raw_shape: Triple, voxel_size_nm: Sequence[int]) -> Path:
    """A store of random raw of the requested shape."""
    store = folder / "raw.zarr"
    array = create_volume(
        store,
        "raw",
        shape=raw_shape,
        chunks=(64, 64, 64),
        dtype=np.uint8,
        voxel_size_nm=voxel_size_nm,
        offset_nm=(0, 0, 0),
    )
    array[...] = np.random.default_rng(0).integers(0, 256, raw_shape, dtype=np.uint8)
    return store


def cases(
    args: argparse.Namespace, folder: Path, tile: Triple | None, network: VoxelNetworkSettings
) -> list[Case]:
    """A prediction for each precision and library; on a GPU there is only torch."""
    raw = folder / "raw.zarr"
    device = choose_device(args.device)
    fast = ["fp32", "bf16"] if device.type == "cuda" or cpu_multiplies_bf16() else ["fp32"]
    settings = {
        "volume": {"raw": {"path": str(raw), "array": "raw"}, "roi_nm": None},
        "network": network.plain(),
        "tile": tile or "auto",
        "dtype": "uint8",
        "heads": head_names(network),
        "device": args.device,
        "compile": args.compile,
        **({"threads": args.threads} if args.threads else {}),
    }
    return [
        Case(folder, settings | {"precision": precision, "cpu_library": library})
        for precision in args.precisions or fast
        for library in (["torch"] if device.type == "cuda" else args.libraries)
    ]


def measure(all_cases: Sequence[Case], device: torch.device, rounds: int) -> None:
    """Runs the cases in turn, each round beginning with another, after the matrix products."""
    precisions = {str(case.settings["precision"]) for case in all_cases}
    for number in range(rounds):
        rates = {name: matrix_rate(device, PRECISIONS[name]) for name in precisions}
        turn = number % len(all_cases)
        for case in [*all_cases[turn:], *all_cases[:turn]]:
            case.run()
            case.rates.append(rates[case.settings["precision"]])


def arithmetic(module: TileNetwork, box: VoxelBox, case: Case) -> float:
    """FLOP of all tiles of a prediction."""
    grid = tiles(module, box, case.manifests[0]["tile_shape"])
    return float(sum(module.flop(tile.window.shape) for tile in grid))


def volume_rows(
    args: argparse.Namespace, folder: Path, raw_shape: Triple, tile: Triple | None
) -> list[Sequence[object]]:
    """The rows of one volume."""
    dataset = load_dataset(args.dataset)
    network: Any = network_for(args.network, dataset)
    raw = write_raw(folder, raw_shape, dataset.voxel_size_nm)
    module: Any = build_network(network)
    save_model(folder / "model", module, {"network": network.plain()})
    all_cases = cases(args, folder, tile, network)
    measure(all_cases, choose_device(args.device), args.rounds)
    box = output_box(open_volume(raw, "raw"), module, network.predict_padding)
    return [case.row(box.size, arithmetic(module, box, case)) for case in all_cases]


def report(args: argparse.Namespace, folder: Path) -> str:
    device = choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    volumes = VOLUMES
    if args.shape:
        volumes = {"given": (triple(args.shape), triple(args.tile) if args.tile else None)}
    rows: list[Sequence[object]] = []
    for name, (raw_shape, tile) in volumes.items():
        (folder / name).mkdir()
        rows += volume_rows(args, folder / name, raw_shape, tile)
    memory = f", GPU {peak_gpu_mb(device):.0f} MB" if device.type == "cuda" else ""
    return f"{describe_machine(device)}; {args.network}{memory}\n\n{table(HEADING, rows)}"


def main(argv: Sequence[str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(report(parse_args(argv), Path(folder)))


if __name__ == "__main__":
    main()
