"""Reader of `.znn` files, which hold network architectures.

Each line is a key and a value, of one word. `nodes NAME` and `edges NAME` start an object. ZNN
ignores further words and unknown keys; here they are refused. What follows # in an object is a
comment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from retrace.errors import ConfigError, nearest
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
    with_defaults,
)
from retrace.znn.values import WrittenValue, read_text

NODE_KEYS: dict[str, tuple[str, ...]] = {
    "input": ("size",),
    "sum": ("size", "dense"),
    "transfer": ("size", "dense", "function", "function_args", "init", "init_args", "seeding"),
    "maxout": ("size", "dense"),
}
"""Keys that count for a node, by its type, apart from `type`."""
EDGE_KEYS: dict[str, tuple[str, ...]] = {
    "conv": ("size", "stride", "repeat", "init", "init_args", "seeding"),
    "max_filter": ("size", "stride"),
    "max_pool": ("size",),
    "dropout": ("ratio",),
    "crop": ("offset",),
    "maxout": (),
    "dummy": (),
}
"""Keys that count for an edge, by its type, apart from `type`, `input` and `output`."""
WITHOUT_EFFECT = {
    "load": "layers with the same name and shape are loaded, unless `seeding 0` says otherwise",
    "fft": "the conv modes of the .cfg decide",
    "eta": "that of the .cfg counts, as in ZNN",
    "momentum": "that of the .cfg counts, as in ZNN",
    "weight_decay": "that of the .cfg counts, as in ZNN",
}
"""Keys of ZNN that never count, and why."""
KNOWN_KEYS = sorted(
    {"type", "input", "output", *WITHOUT_EFFECT}.union(*NODE_KEYS.values(), *EDGE_KEYS.values())
)


@dataclass
class _Object:
    """One `nodes` or `edges` object with its fields as written."""

    header: WrittenValue
    fields: dict[str, WrittenValue] = field(default_factory=dict)

    def needed(self, key: str) -> WrittenValue:
        """A required field."""
        if key not in self.fields:
            raise ConfigError(
                f"{self.header.where}: {self.header.name} {self.header.text!r} has no `{key}`; "
                "add it"
            )
        return self.fields[key]

    def shape(self, key: str, default: Shape | None = None, least: int = 1) -> Shape:
        """A triple (z, y, x); required if there is no default."""
        if key not in self.fields and default is not None:
            return default
        return self.needed(key).shape(least)

    def flag(self, key: str, default: bool) -> bool:
        """0 or 1."""
        return self.fields[key].boolean() if key in self.fields else default


def read_net(path: Path) -> Graph:
    """The graph of a `.znn` file; ConfigError names file, line and field of an error."""
    return parse_net(read_text(path, ".znn file"), path)


def unused_keys(path: Path) -> list[str]:
    """A line for each key of a `.znn` file that has no effect, with the reason."""
    lines = []
    for part in _objects(read_text(path, ".znn file"), path).values():
        is_node = part.header.name == "nodes"
        kind = part.needed("type").text
        used = ("type", *(NODE_KEYS if is_node else EDGE_KEYS).get(kind, ()))
        used = used if is_node else (*used, "input", "output")
        for key, value in part.fields.items():
            if key not in used:
                reason = WITHOUT_EFFECT.get(key, f"{part.header.name} of type {kind} have none")
                lines.append(f"{value.where}: {key} = {value.text} has no effect: {reason}")
    return lines


def parse_net(text: str, path: Path) -> Graph:
    """The graph that `text`, the content of `path`, describes."""
    objects = _objects(text, path)
    nodes, edges, inits, unseeded = {}, {}, {}, []
    for name, part in objects.items():
        init = None
        if part.header.name == "nodes":
            nodes[name] = _node(name, part)
            init = _init(part, NODE_INITS) if nodes[name].type == "transfer" else None
        else:
            edges[name] = _edge(name, part)
            init = _init(part, INITS) if edges[name].type == "conv" else None
        if init:
            inits[name] = init
        if not part.flag("seeding", True):
            unseeded.append(name)
    return Graph(nodes, edges, inits, tuple(unseeded)).check(_places(objects, path))


def _places(objects: dict[str, _Object], path: Path) -> Callable[[str], str]:
    def where(name: str) -> str:
        return objects[name].header.where if name in objects else str(path)

    return where


def _objects(text: str, path: Path) -> dict[str, _Object]:
    objects: dict[str, _Object] = {}
    current: _Object | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        value = WrittenValue(path, number, words[0], words[1] if len(words) > 1 else "")
        if value.name in ("nodes", "edges"):
            current = objects[_new_name(value, objects)] = _Object(value)
        elif current is None:
            raise ConfigError(
                f"{value.where}: {value.name!r} before the first object; allowed: nodes, edges. "
                "Comments are possible only after it"
            )
        elif not value.name.startswith("#"):
            _check_new_key(value, current)
            current.fields[value.name] = _whole_value(value, line)
    if not objects:
        raise ConfigError(f"{path} has no `nodes` and no `edges`")
    return objects


def _check_new_key(value: WrittenValue, part: _Object) -> None:
    """ConfigError for a key that ZNN does not know, or that the object has already."""
    owner = f"{value.where}: {part.header.name} {part.header.text!r}"
    if value.name not in KNOWN_KEYS:
        raise ConfigError(
            f"{owner} has the unknown key {value.name!r}; {nearest(value.name, KNOWN_KEYS)}"
        )
    if value.name in part.fields:
        first = part.fields[value.name].where
        raise ConfigError(f"{owner} has {value.name!r} twice, first at {first}; remove one")


def _new_name(value: WrittenValue, objects: dict[str, _Object]) -> str:
    """The name of an object that starts here; ConfigError if it is missing or not new."""
    if not value.text:
        raise ConfigError(f"{value.where}: {value.name} without a name")
    if value.text in objects:
        raise ConfigError(
            f"{value.where}: {value.text!r} is defined twice, first at "
            f"{objects[value.text].header.where}"
        )
    return value.text


def _whole_value(value: WrittenValue, line: str) -> WrittenValue:
    """The value; ConfigError for several words, of which ZNN would read only the first."""
    further = line.split()[2:]
    if value.text.endswith(",") or (further and not further[0].startswith("#")):
        raise ConfigError(
            f"{value.where}: {value.name} is {line.split(None, 1)[1]!r}; allowed: numbers with "
            "commas and no spaces between them, or one word"
        )
    return value


def _node(name: str, part: _Object) -> Node:
    kind = part.needed("type").choice(NODE_TYPES)
    size = part.needed("size").integer(1)
    function = ""
    args: tuple[float, ...] = ()
    if kind == "transfer":
        function = part.needed("function").choice(FUNCTIONS)
        args = _function_args(function, part)
    return Node(name, kind, size, function, args, part.flag("dense", False))


def _function_args(function: str, part: _Object) -> tuple[float, ...]:
    """Arguments of a transfer function; missing ones have their defaults."""
    if "function_args" not in part.fields:
        return with_defaults(function)
    written = part.fields["function_args"]
    values, most = written.numbers(), len(FUNCTIONS[function])
    if len(values) > most:
        raise written.error(f"{most} numbers for {function}")
    return with_defaults(function, values)


def _edge(name: str, part: _Object) -> Edge:
    kind = part.needed("type").choice(EDGE_TYPES)
    ends = part.needed("input").text, part.needed("output").text
    size = stride = repeat = ONE
    if kind in ("conv", "max_filter", "max_pool"):
        size = part.shape("size")
    if kind in ("conv", "max_filter"):
        stride = part.shape("stride", ONE if kind == "conv" else None)
    if kind == "conv":
        repeat = part.shape("repeat", ONE)
        if any(s % r for s, r in zip(size, repeat, strict=True)):
            raise part.needed("repeat").error(f"divisors of the size {list(size)}")
    offset = part.shape("offset", least=0) if kind == "crop" else (0, 0, 0)
    ratio = 0.5
    if kind == "dropout" and "ratio" in part.fields:
        ratio = part.fields["ratio"].number(0, 1)
        if not ratio:
            raise part.fields["ratio"].error(
                "numbers above 0 and up to 1: the fraction that is kept"
            )
    return Edge(name, kind, *ends, size, stride, offset, ratio, repeat)


def _init(part: _Object, allowed: dict[str, tuple[int, int]] | tuple[str, ...]) -> Init | None:
    if "init" not in part.fields:
        return None
    kind = part.fields["init"].choice(list(allowed))
    fewest, most = INITS[kind]
    written = part.fields.get("init_args")
    args = written.numbers() if written else ()
    if not fewest <= len(args) <= most:
        place = written or part.fields["init"]
        raise place.error(f"{fewest} to {most} arguments for init {kind}")
    return Init(kind, args)
