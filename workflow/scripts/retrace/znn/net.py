"""Reader of `.znn` files: network architectures.

Each line is a key and a value; what stands behind is ignored, as ZNN does. `nodes NAME` or
`edges NAME` opens an object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retrace.errors import ConfigError
from retrace.znn.graph import (
    EDGE_TYPES,
    FUNCTIONS,
    INITS,
    NODE_INITS,
    NODE_TYPES,
    ONE,
    Edge,
    Graph,
    Init,
    Node,
    Shape,
)
from retrace.znn.values import Field, read_text


@dataclass
class _Object:
    """One `nodes` or `edges` object: its fields as they stand in the file."""

    opened: Field
    fields: dict[str, Field] = field(default_factory=dict)

    def needed(self, key: str) -> Field:
        """A field that must be there."""
        if key not in self.fields:
            raise ConfigError(
                f"{self.opened.where}: {self.opened.name} {self.opened.text!r} has no `{key}`; "
                "add it"
            )
        return self.fields[key]

    def shape(self, key: str, default: Shape | None = None, least: int = 1) -> Shape:
        """A triple; required where there is no default."""
        if key not in self.fields and default is not None:
            return default
        return self.needed(key).shape(least)

    def flag(self, key: str, default: bool) -> bool:
        """0 or 1."""
        return self.fields[key].boolean() if key in self.fields else default


def read_net(path: Path) -> Graph:
    """The graph of a `.znn` file; ConfigError with file, line and field for what ZNN has not."""
    return parse_net(read_text(path, ".znn file"), path)


def parse_net(text: str, path: Path) -> Graph:
    """The graph that `text`, the content of `path`, describes."""
    objects = _objects(text, path)
    nodes, edges, inits, unseeded = {}, {}, {}, []
    for name, found in objects.items():
        init = None
        if found.opened.name == "nodes":
            nodes[name] = _node(name, found)
            init = _init(found, NODE_INITS) if nodes[name].type == "transfer" else None
        else:
            edges[name] = _edge(name, found)
            init = _init(found, INITS) if edges[name].type == "conv" else None
        if init:
            inits[name] = init
        if not found.flag("seeding", True):
            unseeded.append(name)
    return Graph(nodes, edges, inits, tuple(unseeded)).check(_places(objects, path))


def _places(objects: dict[str, _Object], path: Path) -> Callable[[str], str]:
    def where(name: str) -> str:
        return objects[name].opened.where if name in objects else str(path)

    return where


def _objects(text: str, path: Path) -> dict[str, _Object]:
    found: dict[str, _Object] = {}
    current: _Object | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        value = Field(path, number, words[0], words[1] if len(words) > 1 else "")
        if value.name in ("nodes", "edges"):
            current = found[_new_name(value, found)] = _Object(value)
        elif current is None:
            raise ConfigError(
                f"{value.where}: {value.name!r} before the first object; allowed: nodes, edges. "
                "Comments do not exist in .znn files"
            )
        else:
            current.fields[value.name] = _whole_list(value, line)
    if not found:
        raise ConfigError(f"{path} holds no `nodes` and no `edges`")
    return found


def _new_name(value: Field, found: dict[str, _Object]) -> str:
    if not value.text:
        raise ConfigError(f"{value.where}: {value.name} without a name")
    if value.text in found:
        raise ConfigError(
            f"{value.where}: {value.text!r} is there twice, first at "
            f"{found[value.text].opened.where}"
        )
    return value.text


def _whole_list(value: Field, line: str) -> Field:
    """Refuses `size 1, 4, 4`, of which ZNN would read `1,` and stop."""
    if value.text.endswith(","):
        raise ConfigError(
            f"{value.where}: {value.name} is {line.split(None, 1)[1]!r}; allowed: numbers with "
            "commas and no spaces between them"
        )
    return value


def _node(name: str, found: _Object) -> Node:
    kind = found.needed("type").choice(NODE_TYPES)
    size = found.needed("size").integer(1)
    function = ""
    args: tuple[float, ...] = ()
    if kind == "transfer":
        function = found.needed("function").choice(FUNCTIONS)
        args = _function_args(function, found)
    return Node(name, kind, size, function, args, found.flag("dense", False))


def _function_args(function: str, found: _Object) -> tuple[float, ...]:
    default = FUNCTIONS[function]
    if "function_args" not in found.fields:
        return default
    given = found.fields["function_args"]
    values = given.numbers()
    if len(values) > len(default):
        raise given.error(f"{len(default)} numbers for {function}")
    return values + default[len(values) :]


def _edge(name: str, found: _Object) -> Edge:
    kind = found.needed("type").choice(EDGE_TYPES)
    ends = found.needed("input").text, found.needed("output").text
    size = stride = repeat = ONE
    if kind in ("conv", "max_filter", "max_pool"):
        size = found.shape("size")
    if kind in ("conv", "max_filter"):
        stride = found.shape("stride", ONE if kind == "conv" else None)
    if kind == "conv":
        repeat = found.shape("repeat", ONE)
        if any(s % r for s, r in zip(size, repeat, strict=True)):
            raise found.needed("repeat").error(f"divisors of the size {list(size)}")
    offset = found.shape("offset", least=0) if kind == "crop" else (0, 0, 0)
    ratio = 0.5
    if kind == "dropout" and "ratio" in found.fields:
        ratio = found.fields["ratio"].number(0, 1)
        if not ratio:
            raise found.fields["ratio"].error("numbers above 0 and up to 1: the share that is kept")
    return Edge(name, kind, *ends, size, stride, offset, ratio, repeat)


def _init(found: _Object, allowed: dict[str, tuple[int, int]] | tuple[str, ...]) -> Init | None:
    if "init" not in found.fields:
        return None
    kind = found.fields["init"].choice(list(allowed))
    fewest, most = INITS[kind]
    given = found.fields.get("init_args")
    args = given.numbers() if given else ()
    if not fewest <= len(args) <= most:
        place = given or found.fields["init"]
        raise place.error(f"{fewest} to {most} arguments for init {kind}")
    return Init(kind, args)
