"""ZNN networks in torch: any graph of ZNN's nodes and edges, with an output at every voxel.

Source: seung-lab/znn-release, src/include/network. A max filter with stride s keeps every voxel and
dilates all filters behind it by s. ZNN convolves and torch correlates, so a weight here is ZNN's
filter flipped on all three axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from retrace.errors import DataError
from retrace.networks.convolution import convolve
from retrace.networks.max_filter import filter_and_split, is_fused, is_within_section
from retrace.networks.phases import merge_phases, phase_voxels, split_phases
from retrace.networks.pooling import max_pool, sliding_window
from retrace.networks.seeded_init import with_seeded_weights
from retrace.znn.graph import ONE, Edge, Graph, Init, Node, Shape

MAX_SLIDING_WINDOW = 3
"""Largest edge of a max filter that `sliding_window` computes; torch's pooling does larger ones."""
AFFINITIES = "affs"
"""The head with affinities: in ZNN its channels are x, y, z, here z, y, x."""


class ZnnConvolution(nn.Module):
    """A `conv` edge; weight (O, I, z, y, x), each filter ZNN's one flipped on all axes.

    `mode`: how it is computed, see `convolution.MODES`.
    """

    def __init__(self, edge: Edge, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *edge.size))
        self.repeat = edge.repeat
        self.mode = "direct"

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(N, O, Z', Y', X') from (N, I, Z, Y, X); `bias` (O,) is that of the node behind it."""
        return convolve(x, self.weight, bias, self.mode)

    @torch.no_grad()
    def tie(self) -> None:
        """Replaces each block of `repeat` (z, y, x) voxels of the filters by its mean."""
        if math.prod(self.repeat) == 1:
            return
        blocks = self.weight
        for axis, (size, edge) in enumerate(zip(self.weight.shape[2:], self.repeat, strict=True)):
            axis += 2
            means = blocks.unflatten(axis, (size // edge, edge)).mean(axis + 1)
            blocks = means.repeat_interleave(edge, axis)
        self.weight.copy_(blocks)


class MaxFilter(nn.Module):
    """A `max_filter` edge (stride 1) or `max_pool` edge (stride = window)."""

    def __init__(self, edge: Edge) -> None:
        super().__init__()
        self.size, self.stride = edge.size, edge.size if edge.type == "max_pool" else ONE

    def forward(self, x: Tensor) -> Tensor:
        """The largest value of each window of `x` (N, C, Z, Y, X)."""
        needs_gradient = torch.is_grad_enabled() and x.requires_grad
        if needs_gradient or math.prod(self.stride) > 1 or max(self.size) > MAX_SLIDING_WINDOW:
            return max_pool(x, self.size, self.stride)
        return sliding_window(x, self.size)


class TransferNode(nn.Module):
    """A `transfer` node: a function of the sum of its inputs and a bias per channel."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(node.size))
        self.function, self.args = node.function, node.args

    def forward(self, x: Tensor, *, is_own: bool = False) -> Tensor:
        """The function of `x` (N, C, Z, Y, X), which includes the bias; in place if `is_own`."""
        if self.function == "rectify_linear":
            # In place on a view, its gradient would be copied three times.
            return functional.relu(x, inplace=is_own and not (x.requires_grad and x._is_view()))
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
        # forward_logistics: a sigmoid whose gradient is that of the identity.
        return torch.sigmoid(x).detach() + (x - x.detach())


class ZnnNetwork(nn.Module):
    """A ZNN graph as a module; input (N, C, Z, Y, X), channels of all input nodes in name order.

    Output {head: (N, C, Z', Y', X')}: the values of the output nodes, in evaluation with `softmax`
    probabilities. `heads`: the output node of each head.
    """

    def __init__(self, graph: Graph, heads: Mapping[str, str], *, softmax: bool = False) -> None:
        super().__init__()
        self.graph, self.output_nodes, self.softmax = graph, dict(heads), softmax
        self.edges = nn.ModuleDict()
        self.nodes = nn.ModuleDict()
        for edge in graph.edges.values():
            if edge.type == "conv":
                sizes = graph.nodes[edge.input].size, graph.nodes[edge.output].size
                self.edges[_key(edge.name)] = ZnnConvolution(edge, *sizes)
            elif edge.type in ("max_filter", "max_pool"):
                self.edges[_key(edge.name)] = MaxFilter(edge)
        for node in graph.nodes.values():
            if node.type == "transfer":
                self.nodes[_key(node.name)] = TransferNode(node)
        self._rectified_later = {name for name in graph.nodes if self._is_only_filtered(name)}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """{head: (N, C, Z', Y', X')}, affinities in the order z, y, x; see `output_shape`."""
        raw = self.raw_outputs(x)
        outputs = {head: raw[node] for head, node in self.output_nodes.items()}
        if self.softmax and not self.training:
            outputs = {head: _softmax(y) for head, y in outputs.items()}
        return {head: y.flip(1) if is_affinities(head) else y for head, y in outputs.items()}

    def raw_outputs(self, x: Tensor) -> dict[str, Tensor]:
        """{output node: (N, C, Z', Y', X')} before softmax, channels in ZNN's order."""
        shape, sizes = self._shapes(x)
        maps = self._split_inputs(x, shape, sizes)
        for name in self.graph.order:
            if name not in self.graph.inputs:
                maps[name] = self._node(self.graph.nodes[name], maps, sizes)
        return {
            name: merge_phases(maps[name], self.graph.dilations[name], sizes[name])
            for name in self.graph.outputs
        }

    def _shapes(self, x: Tensor) -> tuple[Shape, dict[str, Shape]]:
        """The output's shape for an input `x`, and that of each node.

        While torch records a pass, sizes are tensors: the record then holds for every input.
        """
        if not torch.jit.is_tracing():
            shape = self.output_shape(x.shape[-3:])
            return shape, self.graph.sizes(shape)
        z, y, x_ = (size - lost for size, lost in zip(x.shape[-3:], self.context, strict=True))
        single = self.graph.sizes(ONE)  # Every node is larger than the output by as many voxels.
        return (z, y, x_), {
            name: (z + node[0] - 1, y + node[1] - 1, x_ + node[2] - 1)
            for name, node in single.items()
        }

    def _split_inputs(
        self, x: Tensor, shape: Shape, sizes: Mapping[str, Shape]
    ) -> dict[str, Tensor]:
        """The channels of each input node, cropped to what it needs around the common centre."""
        parts = torch.split(x, [self.graph.nodes[n].size for n in self.graph.inputs], 1)
        inputs = {}
        for name, part in zip(self.graph.inputs, parts, strict=True):
            for axis in range(3):
                size = sizes[name][axis]
                # All crops share the centre voxel, at floor((field of view - 1) / 2).
                lead = (part.shape[axis + 2] - shape[axis]) // 2 - (size - shape[axis]) // 2
                part = part.narrow(axis + 2, lead, size)
            inputs[name] = part
        return inputs

    def _node(self, node: Node, maps: Mapping[str, Tensor], sizes: Mapping[str, Shape]) -> Tensor:
        """The value of a node, split into its phases, from those of the nodes before it."""
        edges = self.graph.incoming(node.name)
        transfer = self._transfer(node.name) if node.type == "transfer" else None
        bias = transfer.bias if transfer else None
        fused = next((edge for edge in edges if edge.type == "conv"), None)
        total: Tensor | None = None
        for edge in edges:
            y = self._edge(edge, maps[edge.input], bias if edge is fused else None, sizes)
            if total is None:
                total = y
            else:
                total = torch.maximum(total, y) if node.type == "maxout" else total + y
        assert total is not None
        if transfer is None:
            return total
        if fused is None:
            total = total + transfer.bias[:, None, None, None]
        if self._is_rectified_later(node.name, total):
            return total
        # The sum is a new tensor that nothing else reads, so it may be changed in place.
        value: Tensor = transfer(total, is_own=True)
        return value

    def _edge(
        self, edge: Edge, x: Tensor, bias: Tensor | None, sizes: Mapping[str, Shape]
    ) -> Tensor:
        """An edge's result, in the phases of its output node, from `x`, in those of its input."""
        before = self.graph.dilations[edge.input]
        if self._is_fused(edge) and is_fused(x):
            rectify = self._is_rectified_later(edge.input, x)
            return filter_and_split(x, edge.size, edge.stride, before, rectify)
        if edge.type == "conv":
            x = self.edges[_key(edge.name)](x, bias)
        elif edge.type in ("max_filter", "max_pool"):
            x = self.edges[_key(edge.name)](x)
        elif edge.type == "dropout":
            x = functional.dropout(x, 1 - edge.ratio, self.training)
        elif edge.type == "crop":
            x = _crop(merge_phases(x, before, sizes[edge.input]), before, edge.offset)
        stride = edge.stride if edge.type in ("conv", "max_filter") else ONE
        if self.graph.nodes[edge.output].dense:
            return merge_phases(x, before, sizes[edge.output])
        return split_phases(x, stride, before)

    def _is_fused(self, edge: Edge) -> bool:
        """Whether an edge's filter and phases may be computed in one pass."""
        return (
            edge.type == "max_filter"
            and not self.graph.nodes[edge.output].dense
            and is_within_section(edge.size, edge.stride)
        )

    def _is_only_filtered(self, name: str) -> bool:
        """Whether a node is a ReLU that only such filters read: they may compute it too."""
        readers = [edge for edge in self.graph.edges.values() if edge.input == name]
        return (
            self.graph.nodes[name].type == "transfer"
            and self.graph.nodes[name].function == "rectify_linear"
            and name not in self.graph.outputs
            and bool(readers)
            and all(self._is_fused(edge) for edge in readers)
        )

    def _is_rectified_later(self, name: str, x: Tensor) -> bool:
        """Whether the value `x` of a node is that before its ReLU, which its readers compute."""
        return name in self._rectified_later and is_fused(x)

    @property
    def input_channels(self) -> int:
        """Channels C of the input, of all input nodes together."""
        return self.graph.channels

    @property
    def convolutions(self) -> dict[str, ZnnConvolution]:
        """The convolutions by edge name, sorted."""
        names = sorted(e.name for e in self.graph.edges.values() if e.type == "conv")
        return {name: cast(ZnnConvolution, self.edges[_key(name)]) for name in names}

    @property
    def transfers(self) -> dict[str, TransferNode]:
        """The transfer nodes by name, sorted."""
        names = sorted(n.name for n in self.graph.nodes.values() if n.type == "transfer")
        return {name: self._transfer(name) for name in names}

    def _transfer(self, name: str) -> TransferNode:
        return cast(TransferNode, self.nodes[_key(name)])

    @property
    def stride(self) -> Shape:
        """(1, 1, 1): every voxel has an output, except with `max_pool` edges (`Graph.dense`)."""
        return ONE

    @property
    def context(self) -> Shape:
        """Voxels (z, y, x) by which the output is smaller than the input, both sides together."""
        z, y, x = (size - 1 for size in self.graph.field_of_view)
        return z, y, x

    def valid_shape(self, min_output: Sequence[int] = ONE) -> Shape:
        """Input shape (z, y, x) whose output has `min_output` voxels."""
        sizes = self.graph.sizes(min_output)
        z, y, x = (max(sizes[name][axis] for name in self.graph.inputs) for axis in range(3))
        return z, y, x

    def output_shape(self, input_shape: Sequence[int]) -> Shape:
        """Output shape (z, y, x) for an input shape; DataError if below the field of view."""
        if any(edge.type == "max_pool" for edge in self.graph.edges.values()):
            z, y, x = self._pooled_shape(input_shape)
        else:
            z, y, x = (size - lost for size, lost in zip(input_shape, self.context, strict=True))
        if min(z, y, x) < 1:
            raise DataError(
                f"volume smaller than the field of view: input {list(input_shape)} voxels zyx, "
                f"this network needs at least {list(self.graph.field_of_view)}; take a larger "
                "volume or another network"
            )
        return z, y, x

    def _pooled_shape(self, input_shape: Sequence[int]) -> Shape:
        """The largest output shape that `input_shape` suffices for, with `max_pool` edges."""
        shape = [0, 0, 0]
        for axis, size in enumerate(input_shape):
            for candidate in range(1, size + 1):
                output = [1, 1, 1]
                output[axis] = candidate
                if self.valid_shape(output)[axis] > size:
                    break
                shape[axis] = candidate
        return shape[0], shape[1], shape[2]

    def flop(self, input_shape: Sequence[int]) -> int:
        """Floating-point operations of a forward pass: two per multiply-add of the convolutions."""
        sizes = self.graph.sizes(self.output_shape(input_shape))
        nodes = self.graph.nodes
        return sum(
            2
            * nodes[e.input].size
            * nodes[e.output].size
            * math.prod(e.size)
            * math.prod(_valid_sizes(e, sizes, self.graph.dilations))
            for e in self.graph.edges.values()
            if e.type == "conv"
        )

    def layer_values(self, input_shape: Sequence[int]) -> int:
        """Values that the largest layer reads and writes, phases with their padding."""
        sizes, nodes = self.graph.sizes(self.output_shape(input_shape)), self.graph.nodes
        dilations = self.graph.dilations
        stored = {name: phase_voxels(sizes[name], dilations[name]) for name in nodes}
        transfers = [2 * n.size * stored[n.name] for n in nodes.values() if n.type == "transfer"]
        edges = [edge for edge in self.graph.edges.values() if _key(edge.name) in self.edges]
        read = self.graph.channels * math.prod(input_shape)
        return max([read, *transfers, *(self._edge_values(edge, sizes) for edge in edges)])

    def _edge_values(self, edge: Edge, sizes: Mapping[str, Shape]) -> int:
        """Values that a convolution or a max filter reads and writes."""
        nodes, dilation = self.graph.nodes, self.graph.dilations[edge.input]
        read = nodes[edge.input].size * phase_voxels(sizes[edge.input], dilation)
        left = tuple(_valid_sizes(edge, sizes, self.graph.dilations))
        return read + nodes[edge.output].size * phase_voxels(left, dilation)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draws filters and biases from the graph's initialisers, layer by layer in name order."""
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
        """Makes repeated filter values equal again; call it after every update."""
        for layer in self.convolutions.values():
            layer.tie()


def _valid_sizes(
    edge: Edge, sizes: Mapping[str, Shape], dilations: Mapping[str, Shape]
) -> Iterable[int]:
    """Voxels per axis (z, y, x) that a dilated filter leaves."""
    taps = zip(sizes[edge.input], edge.size, dilations[edge.input], strict=True)
    return (size - (k - 1) * d for size, k, d in taps)


def is_affinities(head: str) -> bool:
    """Whether a head holds affinities: `affs`, or `affs_NODE` where there are several."""
    return head.split("_")[0] == AFFINITIES


def _softmax(y: Tensor) -> Tensor:
    """Softmax over the channels of `y` (N, C, Z, Y, X), in float64 or else in float32."""
    return torch.softmax(y if y.dtype == torch.float64 else y.float(), 1)


def _key(name: str) -> str:
    """A layer's name as a key of ModuleDict: without dots, and different from its methods."""
    return f"{name.replace('.', '_')}_"


def _crop(x: Tensor, dilation: Shape, offset: Shape) -> Tensor:
    """`x` (N, C, Z, Y, X) without `offset` voxels on both sides, split into `dilation` phases."""
    for axis, cut in enumerate(offset, start=2):
        x = x.narrow(axis, cut, x.shape[axis] - 2 * cut)
    return split_phases(x, dilation)


def _fill(
    values: Tensor, init: Init, taps: int, fan: tuple[int, int], generator: torch.Generator
) -> None:
    """Draws `values`; distributions and defaults are ZNN's (src/include/initializator).

    `taps`: voxels of a filter; `fan`: channels of its input and output.
    """
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
    """Ends of a uniform distribution; for xavier Glorot's."""
    if init.kind == "xavier":
        high = math.sqrt(6) / math.sqrt(fan[0] * taps + fan[1] * taps)
        return -high, high
    if len(init.args) == 2:
        return init.args[0], init.args[1]
    high = init.args[0] if init.args else 0.1
    return -high, high


def build_znn(
    graph: Graph,
    heads: Mapping[str, str],
    *,
    softmax: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ZnnNetwork:
    """A `ZnnNetwork` with weights drawn from `seed` by the graph's initialisers.

    `max_pool` edges are computed as their dense equivalent. On device "meta" it has shapes without
    memory.
    """
    with torch.device("meta"):
        module = ZnnNetwork(graph.dense(), heads, softmax=softmax)
    return with_seeded_weights(module, seed, device)
