"""ZNN's network files: HDF5 with a group for each node and edge.

Source: seung-lab/znn-release, python/front_end/znetio. Filters lie as (inputs, outputs, s0, s1, s2)
in a buffer whose first spatial axis runs fastest; ours are (outputs, inputs, z, y, x), flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import torch
from torch import Tensor

from retrace.errors import DataError
from retrace.files import sync_folder
from retrace.znn.graph import Edge, Init, Node

if TYPE_CHECKING:  # networks lie above checkpoints
    from retrace.networks.znn import ZnnNetwork

ROOT = "processing/znn/train"
NETWORK = f"{ROOT}/network"
STATISTICS = f"{ROOT}/statistics"

Velocity = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """A group of the file: text fields, sizes, and for filters and biases values and velocity."""

    fields: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]

    @property
    def values(self) -> np.ndarray | None:
        """Filters (I, O, s0, s1, s2) or biases (n,) as they lie in the file."""
        return self.arrays.get("filters", self.arrays.get("biases"))


@dataclass(frozen=True)
class NetworkFile:
    """All layers of a file by name, and its learning curve."""

    path: Path
    layers: Mapping[str, Layer]
    curve: Mapping[str, Any]


def read_h5(path: Path) -> NetworkFile:
    """A network of ZNN, in either of its layouts; DataError for another file or for NaN."""
    if not path.is_file():
        raise DataError(f"{path} does not exist; correct the path of the ZNN network")
    try:
        with h5py.File(path, "r") as file:
            root = file.get(NETWORK, file)
            layers = {name: _layer(root[name]) for name in root if "group_type" in root[name]}
            curve = _read_curve(file[STATISTICS]) if STATISTICS in file else {}
    except (OSError, TypeError) as error:
        raise DataError(f"{path} is no readable h5 of ZNN ({error})") from error
    if not layers:
        raise DataError(
            f"{path} holds no network of ZNN: no group with `group_type`, neither in /{NETWORK} "
            "nor at the top"
        )
    for name, layer in layers.items():
        if layer.values is not None and not np.isfinite(layer.values).all():
            raise DataError(f"{path}: layer {name!r} holds NaN or infinity; take another file")
    return NetworkFile(path, layers, curve)


def _layer(group: h5py.Group) -> Layer:
    fields, arrays = {}, {}
    for key, item in group.items():
        value = item[()]
        if isinstance(value, bytes | str):
            fields[key] = value.decode() if isinstance(value, bytes) else value
        else:
            arrays[key] = np.asarray(value)
    return Layer(fields, arrays)


def _read_curve(group: h5py.Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in group.items():
        is_group = isinstance(item, h5py.Group)
        found[key] = {k: np.asarray(v) for k, v in item.items()} if is_group else item[()]
    return found


def torch_filters(stored: np.ndarray) -> Tensor:
    """Weight (O, I, z, y, x) of filters as they lie in a file, (I, O, s0, s1, s2)."""
    inputs, outputs, *shape = stored.shape
    true = np.ascontiguousarray(stored).reshape(inputs, outputs, *shape[::-1])
    flipped = true.transpose(1, 0, 4, 3, 2)[..., ::-1, ::-1, ::-1]
    return torch.from_numpy(flipped.copy())


def stored_filters(weight: Tensor) -> np.ndarray:
    """The inverse of `torch_filters`."""
    values = weight.detach().cpu().numpy()
    true = values[..., ::-1, ::-1, ::-1].transpose(1, 0, 4, 3, 2)
    shape = (weight.shape[1], weight.shape[0], *weight.shape[2:])
    return np.ascontiguousarray(true).reshape(shape)


def _parameters(module: ZnnNetwork) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name, layer in module.convolutions.items():
        yield name, layer.weight
    for name, node in module.transfers.items():
        yield name, node.bias


@torch.no_grad()
def seed_from(
    file: NetworkFile, module: ZnnNetwork, velocity_of: Velocity | None = None
) -> list[str]:
    """Fills every layer of `module` that the file has by name and shape; says what was left.

    `velocity_of`: the optimiser's velocity of a parameter, which is filled as well. ZNN loads and
    seeds in the same way, without looking at shapes: there a mismatch reads past the
    array. Here the layer keeps its first weights. DataError where no layer fits.
    """
    lines, taken = [], 0
    known = {name for name, _ in _parameters(module)}
    for name, parameter in _parameters(module):
        stored = file.layers[name].values if name in file.layers else None
        if stored is None:
            lines.append(f"{name}: not in {file.path}, begins as configured")
        elif name in module.graph.unseeded:
            lines.append(f"{name}: `seeding 0`, begins as configured")
        elif (found := _like(stored, parameter)) is None:
            shape = list(parameter.shape)
            lines.append(f"{name}: {list(stored.shape)} there, {shape} here; begins as configured")
        else:
            parameter.copy_(found)
            velocity = file.layers[name].arrays.get("momentum_vol")
            if velocity_of is not None and velocity is not None:
                velocity_of(parameter).copy_(_as_parameter(velocity))
            taken += 1
    if not taken:
        raise DataError(
            f"{file.path} holds another network: no layer has a name and shape of this one. There: "
            f"{', '.join(sorted(file.layers))}; here: {', '.join(sorted(known))}"
        )
    spare = (n for n, layer in file.layers.items() if layer.values is not None and n not in known)
    return lines + [f"{name}: only in {file.path}, not copied" for name in sorted(spare)]


def _as_parameter(stored: np.ndarray) -> Tensor:
    return torch_filters(stored) if stored.ndim == 5 else torch.from_numpy(stored)


def _like(stored: np.ndarray, parameter: Tensor) -> Tensor | None:
    if stored.ndim != parameter.ndim:
        return None
    found = _as_parameter(stored)
    return found if found.shape == parameter.shape else None


def load_whole(file: NetworkFile, module: ZnnNetwork) -> None:
    """Fills `module`; DataError where a layer is missing or of another shape."""
    lines = seed_from(file, module)
    if lines:
        raise DataError(f"{file.path} holds another network: {'; '.join(lines)}")


def network_file(
    module: ZnnNetwork,
    training: Mapping[str, Any],
    curve: Mapping[str, Any],
    path: Path,
    velocity_of: Velocity = torch.zeros_like,
) -> NetworkFile:
    """The file that ZNN would write of `module`, to be written to `path`.

    `training`: eta, momentum and weight_decay as told to ZNN. Velocities are 0 where nobody hands
    over those of a training.
    """
    told = (module, training, velocity_of)
    layers = {name: _of_edge(edge, *told) for name, edge in module.graph.edges.items()}
    layers |= {name: _of_node(node, *told) for name, node in module.graph.nodes.items()}
    return NetworkFile(path, layers, curve)


def as_curve(rows: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of a learning curve: iterations as integers, everything else as floats."""
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


def _learning(training: Mapping[str, Any]) -> dict[str, str]:
    return {key: f"{training[key]:.17g}" for key in ("eta", "momentum", "weight_decay")}


def _of_edge(
    edge: Edge, module: ZnnNetwork, training: Mapping[str, Any], velocity_of: Velocity
) -> Layer:
    fields = _common(edge.name, edge.type, "edge", module.graph.inits.get(edge.name))
    fields |= {"input": edge.input, "output": edge.output}
    arrays: dict[str, np.ndarray] = {}
    if edge.type in ("conv", "max_filter", "max_pool"):
        arrays = {key: np.array(getattr(edge, key), np.int64) for key in ("size", "stride")}
    if edge.type == "conv":
        weight = module.convolutions[edge.name].weight
        velocity = stored_filters(velocity_of(weight))
        arrays |= {"filters": stored_filters(weight), "momentum_vol": velocity}
        fields |= {"fft": "0", **_learning(training)}
    if edge.type == "crop":
        fields["offset"] = _numbers(edge.offset)
    if edge.type == "dropout":
        fields["ratio"] = f"{edge.ratio:g}"
    return Layer(fields, arrays)


def _of_node(
    node: Node, module: ZnnNetwork, training: Mapping[str, Any], velocity_of: Velocity
) -> Layer:
    fields = _common(node.name, node.type, "node", module.graph.inits.get(node.name))
    arrays = {"size": np.array([node.size], np.int64)}
    if node.type == "transfer":
        bias = module.transfers[node.name].bias
        both = {"biases": bias, "momentum_vol": velocity_of(bias)}
        arrays |= {key: values.detach().cpu().numpy() for key, values in both.items()}
        fields |= {"function": node.function, **_learning(training)}
        if node.args:
            fields["function_args"] = _numbers(node.args)
    return Layer(fields, arrays)


def write_h5(file: NetworkFile, *, is_stdio: bool = True) -> Path:
    """Writes a network in ZNN's standard-IO layout, or with its layers at the top and no curve."""
    with _aside(file.path) as h5:
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
    """Writes a learning curve as ZNN does beside networks that have none within."""
    with _aside(path) as h5:
        _write_curve(h5, curve, "")
    return path


@contextmanager
def _aside(path: Path) -> Iterator[h5py.File]:
    """A new file under another name, renamed when it is whole."""
    partial = path.with_name(path.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(partial, "w") as h5:
        yield h5
    partial.replace(path)
    sync_folder(path.parent)


def _write_curve(h5: h5py.File, curve: Mapping[str, Any], where: str) -> None:
    for key, content in curve.items():
        if isinstance(content, Mapping):
            for name, values in content.items():
                h5.create_dataset(f"{where}{key}/{name}", data=values)
        else:
            h5.create_dataset(f"{where}{key}", data=content)
