"""ZNN's network files: HDF5 with one group per node and edge.

Source: seung-lab/znn-release, python/front_end/znetio. Filters are stored as (inputs, outputs, s0,
s1, s2) in a buffer whose first spatial axis varies fastest; here they are (outputs, inputs, z, y,
x), flipped on the spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from retrace.checkpoints.znn_checks import VELOCITY, check_curve, check_layer
from retrace.errors import DataError
from retrace.formats.h5_files import opened_h5
from retrace.networks.znn import ZnnNetwork
from retrace.reading import reading_content, retried
from retrace.replacement import put, sync_folder
from retrace.znn.graph import Edge, Init, Node
from retrace.znn.net_h5 import STATISTICS, known_iteration, statistics_file

ROOT = "processing/znn/train"
NETWORK = f"{ROOT}/network"

Velocity = Callable[[Tensor], Tensor]
"""The optimizer's velocity (momentum) of a parameter, of the same shape."""


@dataclass(frozen=True)
class StoredLayer:
    """A group of the file: a node or an edge."""

    fields: Mapping[str, str]
    """Text datasets, such as `type`."""
    arrays: Mapping[str, np.ndarray]
    """Sizes, filters or biases, and their velocity."""

    @property
    def values(self) -> np.ndarray | None:
        """Filters (I, O, s0, s1, s2) or biases (n,) in the file's layout; None for other layers."""
        return self.arrays.get("filters", self.arrays.get("biases"))


@dataclass(frozen=True)
class SgdParameters:
    """ZNN's parameters of gradient descent, which its files store with each layer."""

    eta: float
    momentum: float
    weight_decay: float

    def as_fields(self) -> dict[str, str]:
        """Text fields, without loss of precision."""
        values = {"eta": self.eta, "momentum": self.momentum, "weight_decay": self.weight_decay}
        return {name: f"{value:.17g}" for name, value in values.items()}


@dataclass(frozen=True)
class NetworkFile:
    """All layers of a file by name, and its learning curve."""

    path: Path
    layers: Mapping[str, StoredLayer]
    curve: Mapping[str, Any]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    """The learning curve in the file next to a network of the layout without one."""

    @property
    def iteration(self) -> int | None:
        """The last iteration, of the curve or else of the name; None if neither states one."""
        return known_iteration(self.path)


def read_h5(path: Path) -> NetworkFile:
    """A network file of ZNN, in either of its layouts.

    Networks in the layout without a curve have it in a file next to them. DataError if the file is
    absent, another kind of file, or holds what cannot be a trained network: NaN, infinity, huge
    values, velocities of another shape, layers without their filters or biases.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path of the ZNN network")
    with reading_content(path, "name an h5 that ZNN wrote"):
        layers, curve = retried(lambda: _content(path), path)
    if not layers:
        raise DataError(
            f"{path} holds no network of ZNN: no group with `group_type`, neither in /{NETWORK} "
            "nor at the top"
        )
    for name, layer in layers.items():
        check_layer(path, name, layer.fields, layer.arrays)
    if curve is not None:
        check_curve(path, curve)
        return NetworkFile(path, layers, curve)
    return NetworkFile(path, layers, {}, _read_statistics(path))


def _content(path: Path) -> tuple[dict[str, StoredLayer], dict[str, Any] | None]:
    """The layers of a file by name, and its learning curve; None if it has none."""
    with opened_h5(path, read_whole=True) as file:
        whole = file.get(NETWORK)
        # At the top, other groups than layers may be; in the network there are only layers.
        root = file if whole is None else whole
        groups = {name: root[name] for name in root if isinstance(root[name], h5py.Group)}
        layers = {
            name: _layer(group)
            for name, group in groups.items()
            if whole is not None or "group_type" in group
        }
        return layers, _read_curve(file[STATISTICS]) if STATISTICS in file else None


def _read_statistics(network: Path) -> dict[str, Any]:
    """The learning curve in the file of its own next to a network; empty if there is none."""
    path = statistics_file(network)
    if not path.is_file():
        return {}

    def read() -> dict[str, Any]:
        with opened_h5(path, read_whole=True) as file:
            return _read_curve(file)

    with reading_content(path, "correct it, or move it away from the network"):
        curve = retried(read, path)
    check_curve(path, curve)
    return curve


def _layer(group: h5py.Group) -> StoredLayer:
    """A group as text fields and arrays, in the byte order of this machine."""
    fields, arrays = {}, {}
    for key, item in group.items():
        value = item[()]
        if isinstance(value, bytes | str):
            fields[key] = value.decode() if isinstance(value, bytes) else value
        else:
            array = np.asarray(value)
            arrays[key] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return StoredLayer(fields, arrays)


def _read_curve(group: h5py.Group) -> dict[str, Any]:
    curve: dict[str, Any] = {}
    for key, item in group.items():
        is_group = isinstance(item, h5py.Group)
        curve[key] = {k: np.asarray(v) for k, v in item.items()} if is_group else item[()]
    return curve


def torch_filters(stored: np.ndarray) -> Tensor:
    """Weight (O, I, z, y, x) from filters (I, O, s0, s1, s2) in the file's layout."""
    inputs, outputs, *shape = stored.shape
    unscrambled = np.ascontiguousarray(stored).reshape(inputs, outputs, *shape[::-1])
    flipped = unscrambled.transpose(1, 0, 4, 3, 2)[..., ::-1, ::-1, ::-1]
    return torch.from_numpy(flipped.copy())


def stored_filters(weight: Tensor) -> np.ndarray:
    """Filters (I, O, s0, s1, s2) in the file's layout; the inverse of `torch_filters`."""
    values = weight.detach().cpu().numpy()
    unflipped = values[..., ::-1, ::-1, ::-1].transpose(1, 0, 4, 3, 2)
    shape = (weight.shape[1], weight.shape[0], *weight.shape[2:])
    return np.ascontiguousarray(unflipped).reshape(shape)


def _parameters(module: ZnnNetwork) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Weights of convolutions and biases of transfer nodes, by layer name."""
    for name, layer in module.convolutions.items():
        yield name, layer.weight
    for name, node in module.transfers.items():
        yield name, node.bias


@torch.no_grad()
def seed_from(
    file: NetworkFile, module: ZnnNetwork, velocity_of: Velocity | None = None
) -> list[str]:
    """ZNN's seeding: fills the layers of `module` whose name and shape are in the file.

    `velocity_of`: filled as well, if given. Returns one line per layer that was not filled or is
    left over. ZNN does not compare shapes and reads past the end of an array on a mismatch; here
    such a layer keeps its initial weights. DataError if no layer fits.
    """
    lines, count = [], 0
    names = {name for name, _ in _parameters(module)}
    for name, parameter in _parameters(module):
        stored = file.layers[name].values if name in file.layers else None
        if stored is None:
            lines.append(f"{name}: not in {file.path}, begins as configured")
        elif name in module.graph.unseeded:
            lines.append(f"{name}: `seeding 0`, begins as configured")
        elif (values := _fitting(stored, parameter)) is None:
            shape = list(parameter.shape)
            lines.append(f"{name}: {list(stored.shape)} there, {shape} here; begins as configured")
        else:
            parameter.copy_(values)
            if velocity_of is not None:
                lines += _seed_velocity(file, name, velocity_of(parameter))
            count += 1
    if not count:
        raise DataError(
            f"{file.path} holds another network: no layer has a name and shape of this one. There: "
            f"{', '.join(sorted(file.layers))}; here: {', '.join(sorted(names))}"
        )
    spare = (n for n, layer in file.layers.items() if layer.values is not None and n not in names)
    return lines + [f"{name}: only in {file.path}, not copied" for name in sorted(spare)]


def _seed_velocity(file: NetworkFile, name: str, velocity: Tensor) -> list[str]:
    """Fills the velocity of a layer; a line if the file has none for it."""
    stored = file.layers[name].arrays.get(VELOCITY)
    if stored is None:
        return [f"{name}: no {VELOCITY} in {file.path}, its velocity begins at 0"]
    velocity.copy_(_as_parameter(stored))
    return []


def _as_parameter(stored: np.ndarray) -> Tensor:
    """Filters or biases in the layout of torch."""
    return torch_filters(stored) if stored.ndim == 5 else torch.from_numpy(stored)


def _fitting(stored: np.ndarray, parameter: Tensor) -> Tensor | None:
    """Stored values in the layout of `parameter`; None if shapes differ."""
    if stored.ndim != parameter.ndim:
        return None
    values = _as_parameter(stored)
    return values if values.shape == parameter.shape else None


def load_h5(file: NetworkFile, module: ZnnNetwork) -> None:
    """Fills every layer of `module`; DataError unless the file has exactly these layers."""
    lines = seed_from(file, module)
    if lines:
        raise DataError(f"{file.path} holds another network: {'; '.join(lines)}")


def network_file(
    module: ZnnNetwork,
    sgd: SgdParameters,
    curve: Mapping[str, Any],
    path: Path,
    velocity_of: Velocity = torch.zeros_like,
) -> NetworkFile:
    """The content of ZNN's file for `module`, to be written to `path` by `write_h5`.

    `velocity_of`: the optimizer's, by default 0.
    """
    arguments = (module, sgd, velocity_of)
    layers = {name: _of_edge(edge, *arguments) for name, edge in module.graph.edges.items()}
    layers |= {name: _of_node(node, *arguments) for name, node in module.graph.nodes.items()}
    return NetworkFile(path, layers, curve)


def as_curve(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """A learning curve as arrays {split: {column: (rows,)}}: `it` int64, all others float64."""
    return {
        part: {
            name: np.array(values, np.int64 if name == "it" else np.float64)
            for name, values in columns.items()
        }
        for part, columns in rows.items()
    }


def _numbers(values: Iterable[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _common(name: str, kind: str, group: str, init: Init | None) -> dict[str, str]:
    fields = {"name": name, "type": kind, "group_type": group}
    if init is not None:
        fields["init"] = init.kind
        if init.args:
            fields["init_args"] = _numbers(init.args)
    return fields


def _of_edge(
    edge: Edge, module: ZnnNetwork, sgd: SgdParameters, velocity_of: Velocity
) -> StoredLayer:
    """The group of an edge."""
    fields = _common(edge.name, edge.type, "edge", module.graph.inits.get(edge.name))
    fields |= {"input": edge.input, "output": edge.output}
    arrays: dict[str, np.ndarray] = {}
    if edge.type in ("conv", "max_filter", "max_pool"):
        arrays = {key: np.array(getattr(edge, key), np.int64) for key in ("size", "stride")}
    if edge.type == "conv":
        weight = module.convolutions[edge.name].weight
        velocity = stored_filters(velocity_of(weight))
        arrays |= {"filters": stored_filters(weight), VELOCITY: velocity}
        is_fft = module.convolutions[edge.name].mode == "fft"
        fields |= {"fft": str(int(is_fft)), **sgd.as_fields()}
    if edge.type == "crop":
        fields["offset"] = _numbers(edge.offset)
    if edge.type == "dropout":
        fields["ratio"] = f"{edge.ratio:g}"
    return StoredLayer(fields, arrays)


def _of_node(
    node: Node, module: ZnnNetwork, sgd: SgdParameters, velocity_of: Velocity
) -> StoredLayer:
    """The group of a node."""
    fields = _common(node.name, node.type, "node", module.graph.inits.get(node.name))
    arrays = {"size": np.array([node.size], np.int64)}
    if node.type == "transfer":
        bias = module.transfers[node.name].bias
        both = {"biases": bias, VELOCITY: velocity_of(bias)}
        arrays |= {key: values.detach().cpu().numpy() for key, values in both.items()}
        fields |= {"function": node.function, **sgd.as_fields()}
        if node.args:
            fields["function_args"] = _numbers(node.args)
    return StoredLayer(fields, arrays)


def write_h5(file: NetworkFile, *, is_stdio: bool = True) -> Path:
    """Writes ZNN's standard-IO layout, or else layers at the top and no learning curve."""
    with _written_aside(file.path) as h5:
        for name, layer in sorted(file.layers.items()):
            group = h5.create_group(f"{NETWORK}/{name}" if is_stdio else name)
            for key, text in layer.fields.items():
                group.create_dataset(key, data=text, dtype=h5py.string_dtype("ascii"))
            for key, values in layer.arrays.items():
                group.create_dataset(key, data=values)
        if is_stdio:
            _write_curve(h5, file.curve, f"{STATISTICS}/")
    return file.path


def write_statistics(curve: Mapping[str, Any], path: Path) -> Path:
    """Writes a learning curve to a file of its own, as ZNN does next to networks without one."""
    with _written_aside(path) as h5:
        _write_curve(h5, curve, "")
    return path


@contextmanager
def _written_aside(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file that appears at `path` when it is complete."""
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(partial, "w") as h5:
        yield h5
    put(partial, path)
    sync_folder(path.parent)


def _write_curve(h5: h5py.File, curve: Mapping[str, Any], where: str) -> None:
    """Writes `curve` below the group `where` (empty or ending in /)."""
    for key, content in curve.items():
        if isinstance(content, Mapping):
            for name, values in content.items():
                h5.create_dataset(f"{where}{key}/{name}", data=values)
        else:
            h5.create_dataset(f"{where}{key}", data=content)
