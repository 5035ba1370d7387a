"""Networks of the family znn: layers, and the parameters of ZNN's `.cfg` files.

All triples are in the order z, y, x.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from retrace.config.network_settings import (
    DIRECT_NEIGHBORHOOD,
    EXTENDS,
    DatasetTraits,
    Head,
    RecursiveInput,
    VoxelNetworkSettings,
)
from retrace.config.network_size import WeightedLayer
from retrace.errors import ConfigError
from retrace.setting_types import Count, Flag, GrowBoundary, Name, Shape, Text
from retrace.settings_model import ONLY_TRAINED, SettingsModel
from retrace.znn.cfg import read_cfg
from retrace.znn.graph import Edge, Graph, Init, Node
from retrace.znn.layers import graph_of_layers
from retrace.znn.net import read_net
from retrace.znn.parameters import (
    CostFunction,
    InitKind,
    ZnnConfig,
    ZnnLayer,
    ZnnParameters,
    ZnnTrainingParameters,
)

OUTPUT_NAMES = {"boundary": "boundary", "affinity": "affs", "semantic": "classes"}
"""Name of an output, by `out_type`: the inside of cells and the membranes; affinities to the lower
neighbours z, y, x; one map for each class of voxels."""
COSTS: dict[str, CostFunction] = {
    "boundary": "softmax_loss",
    "affinity": "binomial_cross_entropy",
    "semantic": "softmax_loss",
}
"""What `cost_fn: auto` means, by `out_type`."""
OUTPUT_CHANNELS = {"boundary": (1, 2), "affinity": (3,)}
"""Maps that an output may have, by `out_type`; for classes any number."""


class ZnnNetworkFile(SettingsModel):
    """A network of the family znn: config/networks/NAME.yaml, `extends` merged."""

    name: Name = Field(description="Name of the network, the same as the file's name.")
    family: Literal["znn"] = Field(description="The system the network comes from.")
    extends: EXTENDS = ()
    cfg: Text | None = Field(
        None,
        description="Path of a .cfg file. All its parameters override `parameters`, and its "
        "fnet_spec overrides `layers`.",
    )
    net: Text | None = Field(None, description="Path of a .znn file; overrides `layers`.")
    init: InitKind = Field("zero", description="How the filters of `layers` are initialised.")
    pooling: Literal["max_filter", "max_pool"] = Field(
        "max_filter",
        description="Whether the max filters of `layers` keep the resolution (max_filter) or "
        "reduce it (max_pool). Predictions are dense either way.",
    )
    layers: Annotated[tuple[ZnnLayer, ...], Field(min_length=1)] | None = Field(
        None, description="The network's layers, each with the node it leads to."
    )
    changes: dict[str, ZnnLayer] = Field(
        {}, description="Settings that differ in single layers of the extended networks, by name."
    )
    recursive: dict[str, RecursiveInput] = Field(
        {},
        description="Input nodes that read the prediction of another network, which is trained "
        "and run first where a volume has no `inputs` of its own for the node.",
    )
    grow_boundary: Literal["auto"] | GrowBoundary | None = Field(
        "auto",
        description="How labels of touching objects get the boundaries that are learned. auto: "
        "by one voxel where the dataset's labels have none; null: labels are unchanged.",
    )
    snapshot_every: Count = Field(1000, description="Iterations between two snapshots for viewing.")
    parameters: ZnnParameters = Field(
        default_factory=ZnnParameters, description="ZNN's parameters, named as in a .cfg file."
    )


class ZnnHead(Head):
    """One output of a network: a node of its graph that no edge starts from."""

    node: Text = Field(description="Name of the node.")


class GraphSettings(SettingsModel):
    """Nodes and edges by name: everything that decides what a network computes."""

    nodes: dict[str, Node] = Field(description="Sets of feature maps.")
    edges: dict[str, Edge] = Field(description="Operations, each from one node to another.")

    @model_validator(mode="after")
    def _is_readable(self) -> Self:
        Graph(self.nodes, self.edges).check_counts()
        return self


class ZnnNetFiles(SettingsModel):
    """Where ZNN's own network files are written while training."""

    prefix: Text = Field(description="Start of their paths.")
    is_stdio: Flag = Field(description="Whether the learning curve is part of these files.")
    recorded: dict[str, Text] = Field(
        {},
        description="With `logging`, files that are copied next to the networks, by the end of "
        "the copy's name; a log is written, too.",
    )


class ZnnNetworkSettings(ZnnTrainingParameters, VoxelNetworkSettings):
    """A network of the family znn, resolved for one dataset."""

    family: Literal["znn"] = Field("znn", description="The system the network comes from.")
    graph: GraphSettings = Field(description="Nodes and edges.")
    inits: dict[str, Init] = Field(description="How filters and biases are initialised, by name.")
    unseeded: tuple[str, ...] = Field(
        (), description="Layers that a file of earlier weights does not fill."
    )
    heads: tuple[ZnnHead, ...] = Field(description="Outputs, in order.")
    inputs: tuple[str, ...] = Field(description="Input nodes; the first reads raw.")
    predict_padding: Literal["valid", "symmetric"] = Field(
        description="valid: the prediction is smaller than raw by the context; symmetric: raw is "
        "mirrored at its border, outermost voxel included."
    )
    grow_boundary: Annotated[GrowBoundary | None, ONLY_TRAINED] = Field(
        None, description="How labels of touching objects get a boundary."
    )
    net_files: Annotated[ZnnNetFiles | None, ONLY_TRAINED] = Field(
        None, description="Network files in ZNN's format that training writes."
    )

    def weighted_layers(self) -> Iterator[WeightedLayer]:
        """The convolutions; the biases of a node count for each convolution that leads to it."""
        nodes = self.graph.nodes
        for edge in self.graph.edges.values():
            if edge.type == "conv" and {edge.input, edge.output} <= nodes.keys():
                inputs, outputs = nodes[edge.input].size, nodes[edge.output].size
                yield WeightedLayer(f"edge {edge.name!r}", inputs, outputs, math.prod(edge.size))

    @property
    def optimizer_in_words(self) -> str:
        """The optimizer and its rates for a methods section."""
        return f"gradient descent (eta {self.eta:g}, momentum {self.momentum:g})"

    @property
    def prediction_tile(self) -> Shape | None:
        """`forward_outsz`: the output of one prediction step, voxels (z, y, x)."""
        return self.forward_outsz

    @property
    def measured_shapes(self) -> tuple[Sequence[int], Sequence[int]]:
        """The box of a patch; affinities need the voxel before each."""
        extra = int(self.out_type == "affinity")
        labels = [n + extra for n in self.train_outsz]
        if self.predict_padding == "symmetric":
            return (1, 1, 1), labels
        return [n + extra for n in self.input_shape], labels


def resolve_znn(file: ZnnNetworkFile, dataset: DatasetTraits) -> ZnnNetworkSettings:
    """The network for one dataset, from its file and the files that this names.

    ConfigError if an output does not fit what is predicted, or parameters contradict each
    other.
    """
    config = read_cfg(Path(file.cfg)) if file.cfg else None
    parameters = config or file.parameters
    graph = _graph(file, config)
    kind = parameters.out_type
    heads = _heads(file.name, graph, kind)
    cost = COSTS[kind] if parameters.cost_fn == "auto" else parameters.cost_fn
    _check(file.name, parameters, cost, heads)
    tile = parameters.forward_outsz or parameters.train_outsz
    shared = {name: getattr(parameters, name) for name in ZnnTrainingParameters.model_fields}
    return ZnnNetworkSettings(
        **{**shared, "cost_fn": cost},
        name=file.name,
        family="znn",
        graph=GraphSettings(
            nodes=dict(sorted(graph.nodes.items())), edges=dict(sorted(graph.edges.items()))
        ),
        inits=dict(sorted(graph.inits.items())),
        unseeded=graph.unseeded,
        **_recursive(file, graph),
        **_net_files(config, file.cfg),
        heads=heads,
        **({"n_lab": heads[0].channels, "labels_are_classes": True} if kind == "semantic" else {}),
        neighborhood=DIRECT_NEIGHBORHOOD if kind == "affinity" else (),
        input_channels=graph.channels,
        inputs=graph.inputs,
        input_shape=_input_shape(graph, parameters.train_outsz),
        inference_shape=_input_shape(graph, tile),
        predict_padding="symmetric" if parameters.is_bd_mirror else "valid",
        grow_boundary=_grown_boundary(file, kind, dataset),
        iterations=parameters.max_iter,
        checkpoint_every=parameters.num_iter_per_save,
        snapshot_every=file.snapshot_every,
    )


def _graph(file: ZnnNetworkFile, config: ZnnConfig | None) -> Graph:
    if path := (config and config.fnet_spec) or file.net:
        return read_net(Path(path))
    if file.layers is None:
        raise ConfigError(
            f"network {file.name!r} has no layers; give `net: PATH.znn`, `cfg: PATH.cfg` or "
            "`layers`"
        )
    return graph_of_layers(file.name, file.layers, file.changes, file.init, file.pooling)


def _grown_boundary(file: ZnnNetworkFile, kind: str, dataset: DatasetTraits) -> GrowBoundary | None:
    """How labels get boundaries; `auto` adds them for boundary networks if labels have none."""
    if file.grow_boundary != "auto":
        return file.grow_boundary
    needed = kind == "boundary" and not dataset.boundaries_drawn
    return GrowBoundary(steps=1, only_xy=not dataset.isotropic) if needed else None


def _net_files(config: ZnnConfig | None, cfg: str | None) -> dict[str, ZnnNetFiles]:
    """Where the .cfg has ZNN's network files written while training; empty without a prefix."""
    if config is None or config.train_net_prefix is None:
        return {}
    files = {"network.znn": config.fnet_spec, "data.spec": config.fdata_spec, "config.cfg": cfg}
    recorded = {end: path for end, path in files.items() if path and config.logging}
    own = ZnnNetFiles(
        prefix=config.train_net_prefix,
        is_stdio=config.is_stdio,
        **({"recorded": recorded} if recorded else {}),
    )
    return {"net_files": own}


def _recursive(file: ZnnNetworkFile, graph: Graph) -> dict[str, dict[str, RecursiveInput]]:
    """The networks whose predictions are inputs, by node; empty if there are none."""
    for node in file.recursive:
        if node not in graph.inputs[1:]:
            raise ConfigError(
                f"network {file.name!r}: recursive names {node!r}; input nodes other than the "
                f"first, which reads raw: {', '.join(graph.inputs[1:]) or 'none'}"
            )
    nodes = {node: file.recursive[node].complete() for node in sorted(file.recursive)}
    return {"recursive": nodes} if nodes else {}


def _heads(name: str, graph: Graph, kind: str) -> tuple[ZnnHead, ...]:
    """Each output node with its maps and array; of several, the array is named by the node too."""
    heads = [_head(name, graph, node, kind) for node in graph.outputs]
    if len(heads) > 1:
        heads = [head.with_(name=f"{head.name}_{head.node}") for head in heads]
    if kind == "semantic" and len({head.channels for head in heads}) > 1:
        raise ConfigError(
            f"network {name!r}: the outputs {', '.join(graph.outputs)} have different numbers of "
            "maps; with out_type semantic all have a map for each of the same classes"
        )
    return tuple(heads)


def _head(name: str, graph: Graph, node: str, kind: str) -> ZnnHead:
    channels = graph.nodes[node].size
    if channels not in OUTPUT_CHANNELS.get(kind, (channels,)):
        allowed = " or ".join(map(str, OUTPUT_CHANNELS[kind]))
        raise ConfigError(
            f"network {name!r}: output node {node!r} has {channels} maps; out_type {kind} needs "
            f"{allowed}. Set `maps` of the last layer, or, where each map is a class of voxels, "
            "`out_type: semantic`"
        )
    return ZnnHead(name=OUTPUT_NAMES[kind], channels=channels, node=node)


def _check(
    name: str, parameters: ZnnTrainingParameters, cost: str, heads: Sequence[ZnnHead]
) -> None:
    if parameters.is_malis and parameters.out_type != "affinity":
        raise ConfigError(
            f"network {name!r}: is_malis needs out_type affinity; in ZNN too MALIS on boundaries "
            "never worked"
        )
    if cost == "softmax_loss" and any(head.channels == 1 for head in heads):
        raise ConfigError(
            f"network {name!r}: softmax over its one map is always 1; take cost_fn square_loss or "
            "binomial_cross_entropy"
        )
    z, y, x = parameters.train_outsz
    if parameters.is_data_aug and y != x:
        raise ConfigError(
            f"network {name!r}: is_data_aug exchanges y and x, which train_outsz [{z}, {y}, {x}] "
            "does not allow; make them equal, or set is_data_aug: false"
        )


def _input_shape(graph: Graph, output: Sequence[int]) -> Shape:
    """Largest input that a dense output of that shape needs, voxels (z, y, x)."""
    sizes = graph.dense().sizes(output)
    z, y, x = (max(sizes[name][axis] for name in graph.inputs) for axis in range(3))
    return z, y, x
