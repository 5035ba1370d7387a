"""Speed of prediction from raw on disk to a finished store, and of matrix products.

    python benchmarks/predict.py      # mtlsd_small on a volume of the FIB-25 sample's size
    python benchmarks/predict.py --network mtlsd --dataset zfinch --shape 128 356 356

Everything that predict.py does is timed: checking, reading, computing, compressing, writing,
checksums. The matrix products (3000 x 3000, in the precision of the prediction) run right before
and after; the best of them counts. FLOP are those of all tiles, halo included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import matrix_rate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow" / "scripts"))

import predict
from retrace.checkpoints.safetensors import save_model
from retrace.config.datasets import load_dataset
from retrace.config.networks import head_names, network_for
from retrace.device import choose_device, uses_bf16  # noqa: E402
from retrace.inference.tiles import output_box, tiles  # noqa: E402
from retrace.networks import build_network  # noqa: E402
from retrace.storage.manifest import read_manifest
from retrace.storage.volumes import open_volume
from retrace.storage.zarr_writer import create_volume


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mtlsd_small")
    parser.add_argument("--dataset", default="fib25", help="whose recipe and voxel size are taken")
    parser.add_argument("--shape", type=int, nargs=3, default=(124, 152, 152), help="raw, z y x")
    parser.add_argument("--tile", type=int, nargs=3, help="tile, z y x (chosen from free memory)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--repeats", type=int, default=2, help="predictions; the fastest counts")
    return parser.parse_args(argv)


def write_raw(folder: Path, args: argparse.Namespace, voxel_size_nm: Sequence[int]) -> Path:
    """A store of random raw of the requested shape."""
    store = folder / "raw.zarr"
    array = create_volume(
        store,
        "raw",
        shape=args.shape,
        chunks=(64, 64, 64),
        dtype=np.uint8,
        voxel_size_nm=voxel_size_nm,
        offset_nm=(0, 0, 0),
    )
    array[...] = np.random.default_rng(0).integers(0, 256, args.shape, dtype=np.uint8)
    return store


def settings_for(args: argparse.Namespace, raw: Path, network: dict[str, Any]) -> dict[str, Any]:
    return {
        "volume": {"raw": {"path": str(raw), "array": "raw"}, "roi_nm": None},
        "network": network,
        "tile": args.tile or "auto",
        "dtype": "uint8",
        "heads": head_names(network),
        "device": args.device,
        "precision": args.precision,
        "compile": args.compile,
    }


def timed(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest of one whole prediction."""
    output = folder / "prediction.zarr"
    places = {"--model": folder / "model", "--work": folder / "work", "--output": output}
    flat = [str(part) for pair in places.items() for part in pair]
    predict.main(["--settings", json.dumps(settings), *flat])
    return read_manifest(output)


def report(args: argparse.Namespace, folder: Path) -> str:
    dataset = load_dataset(args.dataset)
    network = network_for(args.network, dataset)
    raw = write_raw(folder, args, dataset.voxel_size_nm)
    module = build_network(network)
    save_model(folder / "model", module, {"network": network})
    device = choose_device(args.device)
    dtype = torch.bfloat16 if uses_bf16(args.precision, device) else torch.float32
    rates = [matrix_rate(device, dtype)]
    settings = settings_for(args, raw, network)
    manifest = min((timed(folder, settings) for _ in range(args.repeats)), key=_seconds)
    rates.append(matrix_rate(device, dtype))
    box = output_box(open_volume(raw, "raw"), module, network["predict_padding"])
    grid = list(tiles(module, box, manifest["tile_shape"]))
    flop = sum(module.flop(tile.window.shape) for tile in grid)
    seconds = manifest["seconds"]
    rate = max(rates)
    peak_gpu = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else 0
    return "\n".join(
        [
            f"{args.network} on {args.dataset}: raw {list(args.shape)}, output {list(box.shape)}",
            f"{len(grid)} tiles of {manifest['tile_shape']}, {device}, {dtype}",
            f"whole prediction    {seconds:10.2f} s   {box.size / seconds / 1e6:.3f} Mvoxel/s",
            f"arithmetic          {flop / 1e12:10.3f} TFLOP  {flop / seconds / 1e9:.1f} GFLOP/s",
            f"matrix products     {rate / 1e9:10.1f} GFLOP/s",
            f"fraction            {flop / seconds / rate:10.1%}",
            f"peak memory         {manifest['peak_memory_mb']:10.0f} MB, GPU {peak_gpu:.0f} MB",
        ]
    )


def _seconds(manifest: dict[str, Any]) -> float:
    return float(manifest["seconds"])


def main(argv: Sequence[str] | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        print(report(parse_args(argv), Path(folder)))


if __name__ == "__main__":
    main()
