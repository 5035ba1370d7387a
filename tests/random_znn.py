"""Random networks of ZNN for property tests: stages of branches that merge and fork."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from naive_znn import ONE, NaiveEdge, NaiveNetwork, NaiveNode, Shape, times

FUNCTION_ARGS = {
    "linear": st.sampled_from([(), (2.0,), (-0.5, 1.5)]),
    "rectify_linear": st.just(()),
    "tanh": st.sampled_from([(), (1.7159,), (1.7159, 0.6666)]),
    "soft_sign": st.just(()),
    "logistics": st.just(()),
    "forward_logistics": st.just(()),
}
"""Transfer functions, and arguments of which later ones may be missing."""
SMOOTH = ("linear", "tanh", "soft_sign", "logistics", "forward_logistics")


@dataclass
class _Builder:
    """A network that grows; all nodes that nothing reads yet have the same size."""

    draw: st.DrawFn
    network: NaiveNetwork = field(default_factory=lambda: NaiveNetwork([], []))
    functions: tuple[str, ...] = tuple(FUNCTION_ARGS)
    kinds: tuple[str, ...] = ("conv", "two convs", "max_filter")
    dilation: Shape = ONE

    def name(self, kind: str) -> str:
        """A new name; its first letter makes the order of names differ from that of nodes."""
        letter = self.draw(st.sampled_from("amz"))
        return f"{letter}{kind}.{len(self.network.nodes) + len(self.network.edges)}"

    def node(self, kind: str, size: int, *, dense: bool = False) -> str:
        """Adds a node; returns its name."""
        function, args = "", ()
        if kind == "transfer":
            function = self.draw(st.sampled_from(self.functions))
            args = self.draw(FUNCTION_ARGS[function])
        name = self.name("n")
        self.network.nodes.append(NaiveNode(name, kind, size, function, args, dense))
        return name

    def edge(self, kind: str, start: str, end: str, *shapes: Shape) -> None:
        """Adds an edge with its size, stride and offset."""
        self.network.edges.append(NaiveEdge(self.name("e"), kind, start, end, *shapes))

    def maps(self, name: str) -> int:
        """Feature maps of a node."""
        return next(node.size for node in self.network.nodes if node.name == name)

    def stage(self, live: dict[str, Shape], stride: Shape, *, is_last: bool) -> list[str]:
        """New nodes that read the `live` ones, each through its window; all are read."""
        draw = self.draw
        count = draw(st.integers(1, 2))
        dense = not is_last and draw(st.integers(0, 7)) == 0
        sources = [draw(st.lists(st.sampled_from(sorted(live)), max_size=1)) for _ in range(count)]
        for name in sorted(live):
            sources[draw(st.integers(0, count - 1))].append(name)
        new = []
        for read in filter(None, sources):
            kind = draw(st.sampled_from(["sum", "transfer", "transfer", "maxout"]))
            size = draw(st.integers(1, 2))
            pending = [(name, self._end(kind, size)) for name in read]
            new.append(self.node(kind, size, dense=dense))
            for name, end in pending:
                self._path(name, end or new[-1], live[name], stride)
                if end:
                    self.edge("maxout", end, new[-1])
        self.dilation = ONE if dense else times(self.dilation, stride)
        return new

    def _end(self, kind: str, size: int) -> str | None:
        """The node in front of a maxout; None where the new node reads the edge itself."""
        if kind != "maxout":
            return None
        return self.node(self.draw(st.sampled_from(["sum", "transfer"])), size)

    def _path(self, start: str, end: str, size: Shape, stride: Shape) -> None:
        """One or two edges from `start` to `end` with the window and stride of the stage."""
        same_maps = self.maps(start) == self.maps(end)
        kinds = [kind for kind in self.kinds if same_maps or kind != "max_filter"]
        lost = times((size[0] - 1, size[1] - 1, size[2] - 1), self.dilation)
        if same_maps and stride == ONE and not any(side % 2 for side in lost):
            kinds += ["crop" if any(lost) else "identity"] * 2
        kind = self.draw(st.sampled_from(kinds))
        if kind == "two convs":
            self._two_convolutions(start, end, size, stride)
        elif kind == "crop":
            self.edge("crop", start, end, ONE, ONE, (lost[0] // 2, lost[1] // 2, lost[2] // 2))
        elif kind == "identity":
            self.edge(self.draw(st.sampled_from(["dummy", "dropout"])), start, end)
        else:
            self.edge(kind, start, end, size, stride)

    def _two_convolutions(self, start: str, end: str, size: Shape, stride: Shape) -> None:
        """A window split into two, of which the second has the stride."""
        z, y, x = (self.draw(st.integers(1, side)) for side in size)
        middle = self.node("transfer", self.draw(st.integers(1, 2)))
        self.edge("conv", start, middle, (z, y, x), ONE)
        rest = (size[0] - z + 1, size[1] - y + 1, size[2] - x + 1)
        self.edge("conv", middle, end, rest, stride)


WINDOWS = st.one_of(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([(1, 1, 1), (1, 3, 3), (3, 1, 3)]),
)
STRIDES = st.one_of(
    st.just(ONE), st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 3))
)


@st.composite
def networks(draw: st.DrawFn, *, smooth: bool = False) -> NaiveNetwork:
    """A network with weights; `smooth`: without kinks, which rounding can move voxels over."""
    builder = _Builder(draw)
    if smooth:
        builder.functions, builder.kinds = SMOOTH, ("conv", "two convs")
    inputs = [
        builder.node("input", draw(st.integers(1, 2))) for _ in range(draw(st.integers(1, 3)))
    ]
    live = {name: draw(WINDOWS) for name in inputs}
    stages = draw(st.integers(1, 3))
    for number in range(stages):
        new = builder.stage(live, draw(STRIDES), is_last=number == stages - 1)
        window = draw(WINDOWS)
        live = dict.fromkeys(new, window)
    network = builder.network
    network.nodes.sort(key=lambda node: _depth(network, node.name))
    network.draw_weights(np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    return network


def _depth(network: NaiveNetwork, name: str) -> int:
    """Edges on the longest way from an input: nodes sorted by it come after those they read."""
    return max((1 + _depth(network, edge.input) for edge in network.into(name)), default=0)
