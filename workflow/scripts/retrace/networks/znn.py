"""ZNN networks in torch: any graph of its nodes and edges, with dense output.

Sources: seung-lab/znn-release, src/include/network. A max filter with stride s keeps every voxel
and dilates all filters behind it by s. Convolutions are true ones: the weight here is ZNN's filter
flipped on three axes, as torch correlates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.errors import DataError
from retrace.networks.convolution import convolve
from retrace.networks.phases import put_together, take_apart
from retrace.networks.pooling import max_pool, shifted
from retrace.networks.seeded_init import with_weights
from retrace.znn.graph import ONE, Edge, Graph, Init, Node, Shape, graph_from

WIDEST_BY_SHIFTS = 3
"""Largest window of a max filter that is made of shifted maps."""
AFFINITIES = "affs"
"""The head whose channels ZNN has in the order x, y, z, and we as z, y, x."""


class Convolution(nn.Module):
    """A `conv` edge: filters (O, I, z, y, x), each the flipped filter of ZNN."""

    def __init__(self, edge: Edge, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *edge.size))
        self.repeat = edge.repeat
        self.mode = "direct"

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return convolve(x, self.weight, bias, self.mode)

    @torch.no_grad()
    def tie(self) -> None:
        """Makes each block of `repeat` voxels of the filters its mean."""
        if math.prod(self.repeat) == 1:
            return
        blocks = self.weight
        for axis, (size, edge) in enumerate(zip(self.weight.shape[2:], self.repeat, strict=True)):
            axis += 2
            means = blocks.unflatten(axis, (size // edge, edge)).mean(axis + 1)
            blocks = means.repeat_interleave(edge, axis)
        self.weight.copy_(blocks)


class MaxFilter(nn.Module):
    """A `max_filter` edge: the largest value of each window, one a voxel."""

    def __init__(self, edge: Edge) -> None:
        super().__init__()
        self.size, self.stride = edge.size, edge.size if edge.type == "max_pool" else ONE

    def forward(self, x: Tensor) -> Tensor:
        trains = torch.is_grad_enabled() and x.requires_grad
        if trains or math.prod(self.stride) > 1 or max(self.size) > WIDEST_BY_SHIFTS:
            return max_pool(x, self.size, self.stride)
        return shifted(x, self.size)


class Transfer(nn.Module):
    """A `transfer` node: function(sum + bias)."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(node.size))
        self.function, self.args = node.function, node.args

    def forward(self, x: Tensor, *, is_own: bool = False) -> Tensor:
        """`x` (N, C, Z, Y, X) with the bias added already; changed where it `is_own`."""
        if self.function == "rectify_linear":
            return functional.relu(x, inplace=is_own)
        if self.function == "linear":
            slope, offset = self.args
            return x if self.args == (1, 0) else x * slope + offset
        if self.function == "tanh":
            height, frequency = self.args
            return height * torch.tanh(frequency * x)
        if self.function == "soft_sign":
            return functional.softsign(x)
        if self.function == "logistics":
            return torch.sigmoid(x)
        # forward_logistics: its gradient is passed through as if it were linear.
        return torch.sigmoid(x).detach() + (x - x.detach())


class ZnnNetwork(nn.Module):
    """A graph as a module; input (N, C, Z, Y, X), the channels of all inputs in name order.

    Output {head: (N, C, Z', Y', X')}: in training what the last nodes give, in evaluation, where
    `softmax` says so, probabilities. `heads` names the output node of each head.
    """

    def __init__(self, graph: Graph, heads: Mapping[str, str], *, softmax: bool = False) -> None:
        super().__init__()
        self.graph, self.output_nodes, self.softmax = graph, dict(heads), softmax
        self.edges = nn.ModuleDict()
        self.nodes = nn.ModuleDict()
        for edge in graph.edges.values():
            if edge.type == "conv":
                sizes = graph.nodes[edge.input].size, graph.nodes[edge.output].size
                self.edges[_key(edge.name)] = Convolution(edge, *sizes)
            elif edge.type in ("max_filter", "max_pool"):
                self.edges[_key(edge.name)] = MaxFilter(edge)
        for node in graph.nodes.values():
            if node.type == "transfer":
                self.nodes[_key(node.name)] = Transfer(node)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        raw = self.raw_outputs(x)
        outputs = {head: raw[node] for head, node in self.output_nodes.items()}
        if self.softmax and not self.training:
            outputs = {head: torch.softmax(y.float(), 1) for head, y in outputs.items()}
        return {head: y.flip(1) if is_affinities(head) else y for head, y in outputs.items()}

    def raw_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Per output node what it gives, (N, C, Z', Y', X'), channels in ZNN's order."""
        shape = self.output_shape(x.shape[-3:])
        sizes = self.graph.sizes(shape)
        seen = self._split(x, shape, sizes)
        for name in self.graph.order:
            if name not in self.graph.inputs:
                seen[name] = self._node(self.graph.nodes[name], seen, sizes)
        return {
            name: put_together(seen[name], self.graph.dilations[name], sizes[name])
            for name in self.graph.outputs
        }

    def _split(self, x: Tensor, shape: Shape, sizes: Mapping[str, Shape]) -> dict[str, Tensor]:
        """The inputs, each cut to what it needs around the common centre."""
        parts = torch.split(x, [self.graph.nodes[n].size for n in self.graph.inputs], 1)
        found = {}
        for name, part in zip(self.graph.inputs, parts, strict=True):
            for axis in range(3):
                size = sizes[name][axis]
                # The same voxel in the middle, which lies at floor((field of view - 1) / 2).
                lead = (part.shape[axis + 2] - shape[axis]) // 2 - (size - shape[axis]) // 2
                part = part.narrow(axis + 2, lead, size)
            found[name] = part
        return found

    def _node(self, node: Node, seen: Mapping[str, Tensor], sizes: Mapping[str, Shape]) -> Tensor:
        edges = self.graph.incoming(node.name)
        transfer = self._transfer(node.name) if node.type == "transfer" else None
        bias = transfer.bias if transfer else None
        fused = next((edge for edge in edges if edge.type == "conv"), None)
        total: Tensor | None = None
        for edge in edges:
            y = self._edge(edge, seen[edge.input], bias if edge is fused else None, sizes)
            if total is None:
                total = y
            else:
                total = torch.maximum(total, y) if node.type == "maxout" else total + y
        assert total is not None
        if transfer is None:
            return total
        if fused is None:
            total = total + transfer.bias[:, None, None, None]
        # Made here by a convolution or a sum, and nobody else reads it.
        value: Tensor = transfer(total, is_own=True)
        return value

    def _edge(
        self, edge: Edge, x: Tensor, bias: Tensor | None, sizes: Mapping[str, Shape]
    ) -> Tensor:
        """`x`, in the phases of the node it comes from, as it arrives in those of the next."""
        here = self.graph.dilations[edge.input]
        if edge.type == "conv":
            x = self.edges[_key(edge.name)](x, bias)
        elif edge.type in ("max_filter", "max_pool"):
            x = self.edges[_key(edge.name)](x)
        elif edge.type == "dropout":
            x = functional.dropout(x, 1 - edge.ratio, self.training)
        elif edge.type == "crop":
            x = _crop(put_together(x, here, sizes[edge.input]), here, edge.offset)
        stride = edge.stride if edge.type in ("conv", "max_filter") else ONE
        if self.graph.nodes[edge.output].dense:
            return put_together(x, here, sizes[edge.output])
        return take_apart(x, stride, here)

    @property
    def input_channels(self) -> int:
        """Channels that are read, those of all inputs."""
        return self.graph.channels

    @property
    def convolutions(self) -> dict[str, Convolution]:
        """The convolutions by the name of their edge, in the order of the names."""
        names = sorted(e.name for e in self.graph.edges.values() if e.type == "conv")
        return {name: cast(Convolution, self.edges[_key(name)]) for name in names}

    @property
    def transfers(self) -> dict[str, Transfer]:
        """The transfer nodes by name, in the order of the names."""
        names = sorted(n.name for n in self.graph.nodes.values() if n.type == "transfer")
        return {name: self._transfer(name) for name in names}

    def _transfer(self, name: str) -> Transfer:
        return cast(Transfer, self.nodes[_key(name)])

    @property
    def stride(self) -> Shape:
        """1: every voxel has its output (max_pool edges are the exception, see `Graph.dense`)."""
        return ONE

    @property
    def context(self) -> Shape:
        """Voxels the output is smaller than the input, both sides together."""
        z, y, x = (size - 1 for size in self.graph.field_of_view)
        return z, y, x

    def valid_shape(self, min_output: Sequence[int] = ONE) -> Shape:
        """The input that gives `min_output` voxels."""
        sizes = self.graph.sizes(min_output)
        z, y, x = (max(sizes[name][axis] for name in self.graph.inputs) for axis in range(3))
        return z, y, x

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Voxels that an input gives; DataError where it is below the field of view."""
        scale = math.prod(e.size[0] for e in self.graph.edges.values() if e.type == "max_pool")
        if scale == 1 and not any(e.type == "max_pool" for e in self.graph.edges.values()):
            z, y, x = (size - lost for size, lost in zip(input_shape, self.context, strict=True))
        else:
            z, y, x = self._pooled_shape(input_shape)
        if min(z, y, x) < 1:
            raise DataError(
                f"volume smaller than the field of view: input {list(input_shape)} voxels zyx, "
                f"this network needs at least {list(self.graph.field_of_view)}; take a larger "
                "volume or another network"
            )
        return z, y, x

    def _pooled_shape(self, input_shape: Sequence[int]) -> Shape:
        """The largest output whose input is not larger, where something is thinned out."""
        found = []
        for axis, size in enumerate(input_shape):
            best = 0
            for guess in range(1, size + 1):
                asked = [1, 1, 1]
                asked[axis] = guess
                if self.valid_shape(asked)[axis] > size:
                    break
                best = guess
            found.append(best)
        return found[0], found[1], found[2]

    def flop(self, input_shape: Sequence[int]) -> int:
        """Floating-point operations of a forward pass: two per multiply-add of convolutions."""
        sizes = self.graph.sizes(self.output_shape(input_shape))
        nodes = self.graph.nodes
        return sum(
            2
            * nodes[e.input].size
            * nodes[e.output].size
            * math.prod(e.size)
            * math.prod(_behind(e, sizes, self.graph.dilations))
            for e in self.graph.edges.values()
            if e.type == "conv"
        )

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Filters and biases as the graph's initialisers say, layer by layer in name order."""
        for name, layer in self.convolutions.items():
            edge = self.graph.edges[name]
            init = self.graph.inits.get(name, Init("zero"))
            fan = self.graph.nodes[edge.input].size, self.graph.nodes[edge.output].size
            _fill(layer.weight, init, math.prod(edge.size), fan, generator)
            layer.tie()
        for name, node in self.transfers.items():
            init = self.graph.inits.get(name, Init("zero"))
            _fill(node.bias, init, 1, (1, node.bias.numel()), generator)

    def tie(self) -> None:
        """Keeps repeated filter values equal; after every update."""
        for layer in self.convolutions.values():
            layer.tie()


def _behind(
    edge: Edge, sizes: Mapping[str, Shape], dilations: Mapping[str, Shape]
) -> Iterable[int]:
    taps = zip(sizes[edge.input], edge.size, dilations[edge.input], strict=True)
    return (size - (k - 1) * d for size, k, d in taps)


def is_affinities(head: str) -> bool:
    """Whether an output is affinities: `affs`, or of several outputs `affs_NODE`."""
    return head.split("_")[0] == AFFINITIES


def _key(name: str) -> str:
    """A layer's name as a key of ModuleDict, which has no dots and no method's name."""
    return f"{name.replace('.', '_')}_"


def _crop(x: Tensor, here: Shape, offset: Shape) -> Tensor:
    """Cuts `offset` voxels off both sides and takes the rest apart into `here` phases."""
    for axis, cut in enumerate(offset, start=2):
        x = x.narrow(axis, cut, x.shape[axis] - 2 * cut)
    return take_apart(x, here)


def _fill(
    values: Tensor, init: Init, taps: int, fan: tuple[int, int], generator: torch.Generator
) -> None:
    """Random or constant values. The ranges are ZNN's (src/include/initializator)."""
    kind, args = init.kind, init.args
    if kind in ("zero", "constant"):
        values.fill_(args[0] if kind == "constant" else 0)
    elif kind == "bernoulli":
        values.bernoulli_(args[0] if args else 0.5, generator=generator)
    elif kind in ("gaussian", "msra"):
        mean, std = (0.0, math.sqrt(2 / (fan[0] * taps))) if kind == "msra" else (0.0, 0.01)
        mean, std = (*args, *(mean, std)[len(args) :])
        values.normal_(mean, std, generator=generator)
    else:
        values.uniform_(*_range(init, taps, fan), generator=generator)


def _range(init: Init, taps: int, fan: tuple[int, int]) -> tuple[float, float]:
    """Ends of a uniform distribution: Glorot's for xavier."""
    if init.kind == "xavier":
        high = math.sqrt(6) / math.sqrt(fan[0] * taps + fan[1] * taps)
        return -high, high
    if len(init.args) == 2:
        return init.args[0], init.args[1]
    high = init.args[0] if init.args else 0.1
    return -high, high


def build_znn(
    network: Mapping[str, Any], *, seed: int = 0, device: torch.device | str = "cpu"
) -> ZnnNetwork:
    """The module of a network of the family znn, its weights drawn from `seed` alone.

    `max_pool` edges are computed as their dense equivalent; "meta" gives shapes without memory.
    """
    graph = graph_from(network["graph"], network["inits"], network["unseeded"]).dense()
    heads = {head["name"]: head["node"] for head in network["heads"]}
    with torch.device("meta"):
        module = ZnnNetwork(graph, heads, softmax=network["cost_fn"] == "softmax_loss")
    return with_weights(module, seed, device)
