"""Readers of single files for tests/fuzzing.py: examples, weights, skeletons, configurations."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import nn

import tiny_digits
import tiny_elektronn
import tiny_znn
import znn_case
from built_networks import built
from fuzzing import CountsAsAbsentError, FuzzReader
from retrace.alignment.stack_files import StackDataset
from retrace.alignment.stack_sampling import SampledStack, read_coordinates, write_coordinates
from retrace.alignment.stack_writer import resumable_stack
from retrace.checkpoints.elektronn import read_param, write_param
from retrace.checkpoints.safetensors import read_archive, save_model
from retrace.checkpoints.seamless import read_weights
from retrace.checkpoints.tensorflow import open_bundle, write_tensor_bundle
from retrace.checkpoints.znn import SgdParameters, network_file, read_h5, write_h5
from retrace.config.yaml_files import read_yaml
from retrace.elektronn.assignments import read_assignments
from retrace.evaluation.contingency import count_block
from retrace.evaluation.counting import Counted
from retrace.evaluation.nodes import read_segments
from retrace.evaluation.skeleton_files import read_dump, read_skeletons
from retrace.evaluation.tables import read_tables, save_tables
from retrace.formats.examples import read_array
from retrace.formats.examples_source import ExampleArray
from retrace.formats.mongo_dump import write_documents
from retrace.formats.safe_pickle import read_pickles
from retrace.formats.safetensors_header import header_metadata
from retrace.geometry import nm_triple
from retrace.storage.shards import SINGLE_SHARD
from retrace.training.elektronn_schedule import (
    BY_COMMAND,
    RateChange,
    RateSchedule,
    RateValues,
)
from retrace.training.state import TrainingProgress, load_state, save_state
from retrace.znn.cfg import read_cfg
from retrace.znn.net import read_net
from retrace.znn.spec import read_spec

RNG = np.random.default_rng(1)
IMAGES = RNG.integers(0, 255, (6, 5, 5)).astype(np.uint8)


def _written(name: str, content: bytes) -> Callable[[Path], None]:
    """Writes one file."""

    def write(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return write


# ---------------------------------------------------------------- examples


def example_readers() -> Iterator[FuzzReader]:
    """IDX, npy, h5 and pickled archives."""

    def read(folder: Path, name: str, array: str = "") -> Any:
        return read_array(ExampleArray(path=str(folder / name), array=array))

    def write_npy(folder: Path) -> None:
        np.save(folder / "a.npy", IMAGES)

    def write_h5_file(folder: Path) -> None:
        with h5py.File(folder / "a.h5", "w") as file:
            file["x"] = IMAGES

    idx = tiny_digits.idx(IMAGES)
    archive = pickle.dumps(tuple((IMAGES.reshape(6, 25) / 255, np.arange(6)) for _ in range(3)), 2)
    yield FuzzReader("IDX", _written("a", idx), partial(read, name="a"))
    packed = _written("a.gz", gzip.compress(idx, mtime=0))
    yield FuzzReader("IDX gzip", packed, partial(read, name="a.gz"), checksum=True)
    yield FuzzReader("npy", write_npy, partial(read, name="a.npy"))
    yield FuzzReader("h5 of examples", write_h5_file, partial(read, name="a.h5", array="x"))
    yield FuzzReader("pickle", _written("a", archive), lambda folder: read_pickles(folder / "a"))
    yield FuzzReader(
        "pickle gzip",
        _written("a", gzip.compress(archive, mtime=0)),
        lambda folder: read_pickles(folder / "a"),
        checksum=True,
    )


# ---------------------------------------------------------------- weights


def _module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.Linear(4, 2))


def _write_state(folder: Path) -> None:
    module = _module()
    optimizer = torch.optim.Adam(module.parameters())
    losses = torch.arange(6, dtype=torch.float32).reshape(3, 2)
    save_state(folder, module, optimizer, TrainingProgress(3, ("a", "b"), losses))


def _read_state(folder: Path) -> Any:
    module = _module()
    optimizer = torch.optim.Adam(module.parameters())
    progress = load_state(folder / "state_000000003.pt", module, optimizer)
    return [progress, module.state_dict(), optimizer.state_dict()]


def _write_pt(folder: Path) -> None:
    weights = {f"pyramid.mlist.{n}.conv1.weight": torch.rand(2, 2, 3, 3) for n in range(2)}
    torch.save(weights, folder / "a.pt")


def _write_bundle(folder: Path) -> None:
    arrays = {f"s/{n}": RNG.random((3, 4)).astype(np.float32) for n in range(4)}
    write_tensor_bundle(folder / "x", arrays)


def _read_bundle(folder: Path) -> Any:
    bundle = open_bundle(folder / "x")
    return {name: bundle.read(name) for name in bundle.entries}


def _write_param(folder: Path) -> None:
    write_param(folder / "a.param", built(tiny_elektronn.network()))


def _write_znn(folder: Path) -> None:
    tiny_znn.write_stack(folder)
    module = built(tiny_znn.network(tiny_znn.dataset(folder)))
    for file in folder.iterdir():
        file.unlink()
    curve = {"train": {"it": [1, 2], "err": [0.5, 0.25]}}
    write_h5(network_file(module, SgdParameters(0.01, 0.9, 0.0), curve, folder / "a.h5"))


def weight_readers() -> Iterator[FuzzReader]:
    """Trained networks in the formats of all programs."""
    metadata = {"network": {"name": "x", "family": "lsd"}, "iteration": 3}

    def write_model(folder: Path) -> None:
        save_model(folder / "m.safetensors", _module(), metadata)

    yield FuzzReader(
        "model.safetensors",
        write_model,
        lambda folder: read_archive(folder / "m.safetensors"),
        checksum=True,
    )
    yield FuzzReader("planning: model.safetensors", write_model, _header)
    yield FuzzReader("training state", _write_state, _read_state, checksum=True)
    yield FuzzReader(
        "SEAMLeSS .pt", _write_pt, lambda f: read_weights(f / "a.pt")[0], checksum=True
    )
    yield FuzzReader("TensorFlow index", _write_bundle, _read_bundle, "*.index", True)
    yield FuzzReader("TensorFlow data", _write_bundle, _read_bundle, "*.data*", True)
    yield FuzzReader("ELEKTRONN .param", _write_param, lambda f: _layers(read_param(f / "a.param")))
    yield FuzzReader("ZNN network h5", _write_znn, lambda f: _znn(read_h5(f / "a.h5")))


def _header(folder: Path) -> Any:
    metadata = header_metadata(folder / "m.safetensors")
    if not metadata:
        raise CountsAsAbsentError
    return metadata


def _layers(file: Any) -> Any:
    return [file.layers, file.pools]


def _znn(file: Any) -> Any:
    return [{n: [layer.fields, layer.arrays] for n, layer in file.layers.items()}, file.curve]


# ---------------------------------------------------------------- configurations


NEURO = """\
save_path = "~/CNN_Training/3D/"
save_name = 'neuro_3d'
save_path += save_name + '/'
n_dim = 3
desired_input = [127,127,7]
filters = [[4,4,1],[3,3,1],[3,3,3]]
nof_filters = [10,25,40]
d_files = [('raw_%i.h5'%i, 'raw') for i in range(3)]
del i
n_steps = 10**12
max_runtime = 2 * 3600
SGD_params = dict(LR=0.005, momentum=0.90)
"""
SPEC = """\
[image1]
fnames = raw.tif
pp_types = standard2D
[label1]
fnames = labels.h5
is_auto_crop = yes
[sample1]
input = 1
output = 1
"""
CFG = """\
[parameters]
fnet_spec = net.znn
fdata_spec = data.spec
out_type = boundary
train_range = 1
train_outsz = 1,10,10
Max_iter = 5000
"""
DATASET = """\
name: mine
voxel_size_nm: [40, 10, 10]
volumes:
  a:
    raw: {path: raw.h5, array: main}
    labels: {path: labels.h5, array: main, offset_nm: [0, 0, 0]}
train: [a]
test:
- volume: a
  roi_nm: {offset: [0, 0, 0], shape: [40, 100, 100]}
"""


def _samples(folder: Path) -> Any:
    """The samples of a .spec whose files exist."""
    samples = read_spec(folder / "data.spec")
    for sample in samples.values():
        for section in (*sample.images.values(), *sample.labels.values()):
            section.check()
    return samples


def _write_znn_texts(folder: Path) -> None:
    for name, text in (("data.spec", SPEC), ("config.cfg", CFG), ("net.znn", znn_case.SMALL)):
        (folder / name).write_text(text)
    for name in ("raw.tif", "labels.h5"):
        (folder / name).touch()


def text_readers() -> Iterator[FuzzReader]:
    """Configurations of this and other programs."""
    from retrace.config import datasets

    yield FuzzReader("ZNN .cfg", _write_znn_texts, lambda f: read_cfg(f / "config.cfg"), "*.cfg")
    yield FuzzReader("ZNN .spec", _write_znn_texts, _samples, "*.spec")
    yield FuzzReader(
        "ZNN .znn", _write_znn_texts, lambda f: _graph(read_net(f / "net.znn")), "*.znn"
    )
    yield FuzzReader(
        "ELEKTRONN configuration",
        _written("config.py", NEURO.encode()),
        lambda folder: dict(read_assignments(folder / "config.py")),
    )
    yield FuzzReader(
        "YAML", _written("a.yaml", DATASET.encode()), lambda f: read_yaml(f / "a.yaml")
    )
    yield FuzzReader(
        "dataset",
        _written("mine.yaml", DATASET.encode()),
        lambda f: datasets.load_dataset(f / "mine.yaml").plain(),
    )


def _graph(graph: Any) -> Any:
    return [graph.nodes, graph.edges, graph.inits]


# ---------------------------------------------------------------- skeletons, tables, stacks


TABLE = {
    "id": [1, 2, 3, 4],
    "position_nm": [[0, 0, 0], [40.5, 0, 0], [80, 4, 4], [0, 400, 400]],
    "skeleton": [1, 1, 1, 2],
    "edges": [[1, 2], [2, 3]],
}


def _write_dump(folder: Path) -> None:
    nodes = [{"id": n + 2**40, "z": 4 * n, "y": 2, "x": 3} for n in range(12)]
    edges = [{"source": n + 2**40, "target": n + 1 + 2**40} for n in range(11)]
    write_documents(folder / "s.nodes.bson", nodes)
    write_documents(folder / "s.edges.bson", edges)


def _write_tables(folder: Path) -> None:
    labels = RNG.integers(0, 4, (3, 5, 5)).astype(np.uint64)
    table = count_block(labels, labels[::-1])
    save_tables(folder / "a.npz", SINGLE_SHARD, {"x": Counted(table, 75)})


def _write_stacks(folder: Path) -> None:
    with h5py.File(folder / "a.h5", "w") as file:
        file["main/images"] = RNG.integers(0, 255, (2, 3, 8, 8)).astype(np.uint8)
        file["main/masks"] = np.zeros((2, 3, 8, 8), np.uint8)


def _read_stacks(folder: Path) -> Any:
    data = StackDataset([folder / "a.h5"])
    return [data[index] for index in range(min(len(data), 4))]


def _drawn(number: int) -> SampledStack:
    rng = np.random.default_rng(number)
    images = rng.integers(0, 255, (2, 4, 4)).astype(np.uint8)
    return SampledStack(nm_triple((0, 0, 0)), images, np.zeros_like(images), None)


def _not_drawn(number: int) -> SampledStack:
    raise CountsAsAbsentError


def _write_rates(folder: Path) -> None:
    schedule = RateSchedule(RateValues(0.1, 0.9), 0.99)
    schedule.resume(folder, 0)
    for iteration in range(3):
        schedule.add(RateChange(10 * iteration, RateValues(lr=0.5), BY_COMMAND, iteration))


def _read_rates(folder: Path) -> Any:
    schedule = RateSchedule(RateValues(0.1, 0.9), 0.99)
    schedule.resume(folder, 100)
    return schedule.changes


def table_readers() -> Iterator[FuzzReader]:
    """Skeletons, tables of evaluation, stacks of sections."""
    numbers = {name: np.array(values) for name, values in TABLE.items()}

    def write_npz(folder: Path) -> None:
        np.savez_compressed(folder / "a.npz", **numbers)

    table = json.dumps(TABLE).encode()
    yield FuzzReader(
        "skeletons json", _written("a.json", table), lambda f: read_skeletons(f / "a.json")
    )
    yield FuzzReader(
        "skeletons npz", write_npz, lambda f: read_skeletons(f / "a.npz"), checksum=True
    )
    yield FuzzReader("BSON dump", _write_dump, lambda f: read_dump(f, "s"))
    csv = b"node,segment\n" + b"".join(b"%d,%d\n" % (n, n * 7) for n in range(6))
    yield FuzzReader(
        "csv of segments", _written("a.csv", csv), lambda f: read_segments(f / "a.csv", 6)
    )
    yield FuzzReader(
        "contingency npz", _write_tables, lambda f: read_tables([f / "a.npz"]), checksum=True
    )
    yield FuzzReader("stacks h5", _write_stacks, _read_stacks)
    yield FuzzReader(
        "stacks npz",
        lambda folder: resumable_stack(folder, 1, _drawn),
        lambda folder: resumable_stack(folder, 1, _not_drawn),
        checksum=True,
    )

    yield FuzzReader("ELEKTRONN rates", _write_rates, _read_rates)

    def coordinates(folder: Path) -> Any:
        sizes = nm_triple((40, 8, 8)), nm_triple((40, 4, 4))
        return read_coordinates(folder / "a", sizes[0], (2, 10, 10), sizes[1])

    def write_list(folder: Path) -> None:
        corners = [nm_triple((0, 8 * n, 16)) for n in range(5)]
        write_coordinates(folder / "a", corners, nm_triple((80, 80, 80)))

    yield FuzzReader("coordinates json", write_list, coordinates)
    seamless = b"[(0, 0, 0, 20, 2), (8, 16, 1, 20, 2)]\n"
    yield FuzzReader("coordinates of SEAMLeSS", _written("a", seamless), coordinates)


def file_readers() -> list[FuzzReader]:
    """All readers of single files."""
    groups = (example_readers, weight_readers, text_readers, table_readers)
    return [reader for group in groups for reader in group()]
