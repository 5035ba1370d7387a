"""Converts networks and predictions from and to ZNN's files.

    znn.py model   --settings JSON --h5 net.h5 --output published.safetensors
    znn.py network --model model.safetensors --history training.json --output net.h5
    znn.py outputs --settings JSON --prediction P.zarr --output outputs.json

Settings are a JSON object: for model `dataset` and `network`, for outputs `prefix`, `volume` and
the `heads` of the network.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import tifffile
import torch

from retrace.checkpoints.safetensors import load_model, read_metadata, save_model
from retrace.checkpoints.znn import as_curve, load_h5, network_file, read_h5, write_h5
from retrace.command_line import add_job, parse_job
from retrace.config.any_network import stored_network
from retrace.config.schema import check
from retrace.config.znn_network import ZnnNetworkSettings
from retrace.errors import DataError, run
from retrace.files import atomic_write, read_json
from retrace.geometry import VoxelBox
from retrace.networks import ZnnNetwork, build_network
from retrace.networks.znn import is_affinities
from retrace.planning.conversion_settings import ConversionSettings, OutputFilesSettings
from retrace.planning.foreign_files import output_files, output_stem
from retrace.progress import progress
from retrace.storage.manifest import check_manifest
from retrace.storage.owned_files import PREDICTIONS, RECORD, check_owned, put_owned
from retrace.storage.volumes import Volume, open_volume
from retrace.training.znn_files import sgd_of
from retrace.znn.spec import H5_ARRAY


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_job(verbs.add_parser("model"), file=["h5"])
    add_job(verbs.add_parser("network"), file=["model", "history"], has_settings=False)
    add_job(verbs.add_parser("outputs"), file=["prediction"])
    for verb in verbs.choices.values():
        verb.add_argument("--output", required=True, type=Path)
    return parse_job(parser, argv)


def h5_to_model(args: argparse.Namespace) -> None:
    """Converts a network file of ZNN to a model; DataError if it is another network."""
    settings = check(ConversionSettings, args.settings, "--settings")
    assert isinstance(settings.network, ZnnNetworkSettings)
    module: ZnnNetwork = build_network(settings.network)
    module.to(getattr(torch, settings.network.dtype))
    file = read_h5(args.h5)
    load_h5(file, module)
    metadata = {
        "network": settings.network.plain(),
        "dataset": settings.dataset,
        "source": args.h5.name,
    }
    if file.iteration is None:
        print(
            f"[znn] {args.h5}: its iteration is unknown; no learning curve is in the file or next "
            "to it, and its name states no iteration"
        )
    else:
        metadata["iteration"] = file.iteration
    save_model(args.output, module, metadata)


def model_to_h5(args: argparse.Namespace) -> None:
    """Writes a trained model with its learning curve as a network file of ZNN."""
    network = stored_network(read_metadata(args.model)["network"])
    if not isinstance(network, ZnnNetworkSettings):
        raise DataError(
            f"{args.model} holds network {network.name!r} of the family {network.family!r}; "
            "ZNN's files hold networks of the family znn"
        )
    module: ZnnNetwork = build_network(network)
    module.to(getattr(torch, network.dtype))
    load_model(args.model, module, network)
    history = read_json(args.history)
    seconds = history["seconds"] / max(history["iterations_this_run"], 1)
    curve = {**as_curve(history["learning_curve"]), "elapsed": seconds}
    write_h5(network_file(module, sgd_of(network), curve, args.output))


def write_outputs(args: argparse.Namespace) -> None:
    """Writes a prediction in ZNN's files; `output`, written last, lists them."""
    settings = check(OutputFilesSettings, args.settings, "--settings")
    check_manifest(args.prediction)
    record = args.output.with_name(RECORD)
    check_owned(record, output_files(settings), PREDICTIONS)
    files: list[Path] = []
    for head in settings.heads:
        stem = Path(output_stem(settings.prefix, settings.volume, head.node))
        files += write_output(open_volume(args.prediction, head.name), head.name, stem, record)
    atomic_write(args.output, json.dumps({"files": [str(f) for f in files]}, indent=1) + "\n")


def write_output(volume: Volume, head: str, stem: Path, record: Path) -> list[Path]:
    """Writes an h5 (C, Z, Y, X) and a tif (Z, Y, X) per channel, float32 in [0, 1].

    The channels of affinities are in ZNN's order x, y, z. `record`: where they are recorded.
    """
    order = range(volume.channels)
    channels = list(reversed(order)) if is_affinities(head) else list(order)
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = [stem.with_name(f"{stem.name}.h5")]
    files += [stem.with_name(f"{stem.name}_{index}.tif") for index in order]
    partial = [file.with_name(f"{file.name}.partial") for file in files]
    _write_h5(volume, channels, partial[0])
    for file, channel in zip(partial[1:], channels, strict=True):
        with tifffile.TiffWriter(file, bigtiff=True) as tif:
            for section in _sections(volume):
                tif.write(section[channel, 0], contiguous=True, photometric="minisblack")
    for temporary, final in zip(partial, files, strict=True):
        put_owned(record, temporary, final, PREDICTIONS)
    return files


def _sections(volume: Volume) -> Iterator[np.ndarray]:
    """Yields each section (C, 1, Y, X) as float32 in [0, 1]."""
    box = volume.box
    for z in range(box.offset[0], box.end[0]):
        values = volume.read(VoxelBox((z, *box.offset[1:]), (1, *box.shape[1:])))
        scale = 255 if values.dtype == np.uint8 else 1
        scaled: np.ndarray = (values / scale).astype(np.float32)
        yield scaled


def _write_h5(volume: Volume, channels: Sequence[int], path: Path) -> None:
    with h5py.File(path, "w") as file:
        array = file.create_dataset(
            H5_ARRAY, volume.array.shape, np.float32, compression="gzip", chunks=True
        )
        depth = volume.box.shape[0]
        for z, section in enumerate(progress(_sections(volume), depth, "write", "sections")):
            array[:, z : z + 1] = section[list(channels)]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    verbs = {"model": h5_to_model, "network": model_to_h5, "outputs": write_outputs}
    verbs[args.verb](args)


if __name__ == "__main__":
    run(main)
