"""Prediction of a volume in tiles with one network: ours, and bioimageio.core's predictor.

Both take an array and return probabilities in memory, with the same tiles and the same mirrored
border. The network's outputs are smaller than its inputs, but bioimageio.core only joins tiles of
the same size: there zeros surround the outputs, and the description has a halo, which it cuts off.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import side_by_side
from side_by_side import Comparison, Contender, Work

VOLUME, TILE = (96, 96, 96), (48, 48, 48)
NETWORK, DATASET = "mtlsd_small", "fib25"
PADDED = '''

def padded_model(**arguments):
    """The network with outputs of the input's size."""
    module = build(**arguments)

    def pad(_, inputs, outputs):
        return tuple(_padded(values, inputs[0]) for values in outputs.values())

    module.register_forward_hook(pad)
    return module


def _padded(values, x):
    lost = [(a - b) // 2 for a, b in zip(x.shape[:1:-1], values.shape[:1:-1])]
    return torch.nn.functional.pad(values, [edge for size in lost for edge in (size, size)])
'''


def network() -> Any:
    """The settings of the network."""
    side_by_side.ours()
    from retrace.config.datasets import load_dataset
    from retrace.config.networks import network_for

    return network_for(NETWORK, load_dataset(DATASET))


def make(folder: Path) -> None:
    settings = network()
    import numpy as np

    from retrace.checkpoints.safetensors import save_model
    from retrace.networks import build_network
    from retrace.packaging.bioimageio import package_files
    from retrace.planning.package_settings import PackagedDataset, PackageSettings

    module: Any = build_network(settings)
    save_model(folder / "model.safetensors", module, {"network": settings.plain()})
    dataset = PackagedDataset(name=DATASET, voxel_size_nm=(8, 8, 8))
    package = PackageSettings(network=settings, dataset=dataset, authors=("nobody",), license="MIT")
    files = package_files(folder / "model.safetensors", package)
    for name, content in with_halo(files, module).items():
        (folder / name).write_bytes(content)
    raw = np.random.default_rng(0).integers(0, 256, VOLUME, dtype=np.uint8)
    np.save(folder / "raw.npy", raw)


def with_halo(files: dict[str, bytes], module: Any) -> dict[str, bytes]:
    """The package with outputs of the input's size, whose description has a halo."""
    import yaml

    code = files["network.py"] + PADDED.encode()
    description = yaml.safe_load(files["rdf.yaml"])
    architecture = description["weights"]["pytorch_state_dict"]["architecture"]
    architecture |= {"callable": "padded_model", "sha256": hashlib.sha256(code).hexdigest()}
    lost = dict(zip("zyx", module.context, strict=True))
    for output in description["outputs"]:
        del output["test_tensor"]["sha256"]
        for axis in output["axes"]:
            if axis["type"] == "space":
                axis["size"]["offset"] = 0
                axis["halo"] = lost[axis["id"]] // 2
    return files | {
        "network.py": code,
        "rdf.yaml": yaml.safe_dump(description, sort_keys=False).encode(),
    }


def ours(folder: Path) -> Work:
    settings = network()
    import numpy as np
    import torch

    from retrace.checkpoints.safetensors import load_model
    from retrace.geometry import VoxelBox
    from retrace.inference.forward import choose_forward
    from retrace.inference.predictor import Predictor
    from retrace.inference.tiles import half_context, tiles
    from retrace.networks import build_network

    torch.set_num_threads(1)
    module: Any = build_network(settings)
    load_model(folder / "model.safetensors", module, settings)
    cpu = torch.device("cpu")
    forward = choose_forward(module.eval(), cpu)
    heads = tuple(head.name for head in settings.heads)
    predictor = Predictor(module, cpu, heads=heads, forward=forward, dtype="float32")
    lead = half_context(module)
    margins = [(edge, edge) for edge in lead]
    raw = np.pad(np.load(folder / "raw.npy"), margins, mode="symmetric")[None]
    grid = list(tiles(module, VoxelBox(lead, VOLUME), TILE))

    def work() -> Any:
        channels = sum(head.channels for head in settings.heads)
        result = np.empty((channels, *VOLUME), np.float32)
        for tile in grid:
            window = predictor.staged(raw[(slice(None), *tile.window.slices((0, 0, 0)))])
            parts = [values.numpy() for values in predictor(tile, window).values()]
            result[(slice(None), *tile.core.slices(lead))] = np.concatenate(parts)
        return result

    return work


def with_bioimageio(folder: Path) -> Work:
    import numpy as np
    import torch
    from bioimageio.core import create_prediction_pipeline
    from bioimageio.core.digest_spec import create_sample_for_model
    from bioimageio.spec import ValidationContext, load_model_description

    torch.set_num_threads(1)
    with ValidationContext(perform_io_checks=False):
        model: Any = load_model_description(folder / "rdf.yaml")
    pipeline: Any = create_prediction_pipeline(model, devices=["cpu"])
    raw = np.load(folder / "raw.npy").astype(np.float32)[None, None]
    halos = {axis.id: axis.halo for axis in model.outputs[0].axes if axis.type == "space"}
    edges = {axis: edge + 2 * halos[axis] for axis, edge in zip("zyx", TILE, strict=True)}
    block = {"raw": {"batch": 1, "channel": 1, **edges}}

    def work() -> Any:
        sample = create_sample_for_model(model, inputs={"raw": raw})
        result = pipeline.predict_sample_with_fixed_blocking(sample, block)
        return np.concatenate([result.members[o.id].data.data[0] for o in model.outputs])

    return work


def difference(ours: Any, theirs: Any) -> str:
    """The largest difference of the probabilities."""
    import numpy as np

    return f"at most {np.abs(ours - theirs).max():.1g}"


COMPARISON = Comparison(
    file=__file__,
    title="tiled prediction, mtlsd_small, 96³ voxels in 8 tiles, float32",
    make=make,
    contenders=(
        Contender("ours", ours),
        Contender("bioimageio.core 0.11.0", with_bioimageio),
    ),
    amount=0.884736,
    unit="Mvoxel/s",
    difference=difference,
)

if __name__ == "__main__":
    side_by_side.main(COMPARISON)
