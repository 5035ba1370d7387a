"""YAML files of datasets and networks: looked up, read and merged."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from retrace.errors import ConfigError, nearest
from retrace.limits import DEPTH, YAML_BYTES, YAML_VALUES
from retrace.reading import DamagedError, cause, read_bytes
from retrace.setting_types import WrittenFraction, WrittenWhole

Settings = dict[str, Any]


def _shipped_config() -> Path:
    """`files` next to this module if the library is installed, else the repository's `config`."""
    here = Path(__file__).resolve()
    installed = here.with_name("files")
    return installed if installed.is_dir() else here.parents[4] / "config"


WORKFLOW_CONFIG = _shipped_config()
"""The datasets, networks and settings that retrace comes with."""
MERGE_KEY, TEXT, INT, FLOAT = (f"tag:yaml.org,2002:{k}" for k in ("merge", "str", "int", "float"))
"""YAML's kinds of scalars: `<<`, text and numbers."""


WHOLE = re.compile("[-+]?(?:0x[0-9a-fA-F_]+|[0-9][0-9_]*)$")
FRACTION = re.compile(
    r"[-+]?(?:\.[0-9][0-9_]*|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
"""Numbers as people write them. YAML 1.1 alone reads 1e-4 as text, 010 as 8 and 1:30 as 90."""


MOST_DIGITS = 1000
"""Digits of a whole number; Python refuses to show those of more than 4300."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML with libyaml if PyYAML has it; keys and dates stay text.

    A number that is written in another way than Python writes it, such as 2024_01 or 1e-4,
    remembers how. A key that occurs twice in a mapping is refused.
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (INT, FLOAT)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text, each of them once."""
        written: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key is a list or mapping", problem_mark=key.start_mark
                )
            if key.value in written:
                problem = f"the key {key.value!r} occurs twice; keep one of them"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.tag != MERGE_KEY:
                key.tag = TEXT
                written.add(key.value)
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """A whole number, which remembers its text where that is unusual."""
        digits = node.value.replace("_", "")
        if len(digits) > MOST_DIGITS:
            problem = f"a number of {len(digits)} digits; up to {MOST_DIGITS} are read"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        number = int(digits, 16 if "x" in digits else 10)
        return number if str(number) == node.value else WrittenWhole(number, node.value)

    def fraction(self, node: yaml.ScalarNode) -> float:
        """A number with a point or an exponent; 1e5, which is whole, counts as a whole number."""
        number: float = self.construct_yaml_float(node)
        if "." not in node.value and number.is_integer():
            return WrittenWhole(int(number), node.value)
        return number if repr(number) == node.value else WrittenFraction(number, node.value)


_Loader.add_implicit_resolver(INT, WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver(FLOAT, FRACTION, list("-+.0123456789"))
_Loader.add_constructor(INT, _Loader.whole_number)
_Loader.add_constructor(FLOAT, _Loader.fraction)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


def load_yaml(text: str, loader: Any = _Loader) -> Any:
    """The content of a YAML text; YAMLError if it is not YAML, or beyond the limits.

    A few aliases can stand for more values than memory holds, and nesting for more recursion than
    the machine allows: both are counted in the stream of events, before any value is built.
    """
    if "*" in text or max(map(text.count, "[{")) > DEPTH // 2 or _INDENTED.search(text):
        _check_events(text, loader)
    return yaml.load(text, Loader=loader)


_INDENTED = re.compile(rf"^[ ?:-]{{{DEPTH // 2},}}", re.MULTILINE)
"""A line that may be deep inside lists and mappings; brackets make others."""


def _check_events(text: str, loader: Any) -> None:
    """YAMLError for nesting beyond DEPTH, or for more than YAML_VALUES values with all aliases."""
    parents: list[_Counts] = [_Counts(None)]
    known: dict[str, _Counts] = {}
    events: Iterator[Any] = yaml.parse(text, Loader=loader)
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            parents.append(_Counts(event.anchor))
            counts = _Counts(None, 0)
        elif isinstance(event, yaml.CollectionEndEvent):
            counts = parents.pop()
            counts.levels += 1
        elif isinstance(event, yaml.AliasEvent):  # of itself, if it is not known yet
            endless = _Counts(None, YAML_VALUES + 1)
            counts = replace(known.get(str(event.anchor), endless), anchor=None)
        else:
            is_value = isinstance(event, yaml.ScalarEvent)
            counts = _Counts(getattr(event, "anchor", None), int(is_value))
        if counts.anchor:
            known[counts.anchor] = counts
        parents[-1].add(counts)
        if len(parents) - 1 + parents[-1].levels > DEPTH or parents[-1].values > YAML_VALUES:
            problem = f"more than {DEPTH} levels, or {YAML_VALUES} values with repeated aliases"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


@dataclass
class _Counts:
    """A value in a YAML text, with the values in it and their levels as far as they are read."""

    anchor: str | None
    values: int = 1
    levels: int = 0

    def add(self, inner: _Counts) -> None:
        """Counts a value that is in this one."""
        self.values += inner.values
        self.levels = max(self.levels, inner.levels)


def read_scalar(text: str) -> Any:
    """The number, true, false, null or text that a word of a YAML file is; text for all else."""
    try:
        value = load_yaml(text)
    except yaml.YAMLError:
        return text
    return text if isinstance(value, (dict, list)) else value


@lru_cache(maxsize=512)
def _parsed(text: str) -> bytes:
    """The content of a YAML text, pickled.

    Every start of the workflow reads some fifty files, and each of them dozens of times; unpickling
    copies the content for each reader in a fifth of the time of deepcopy.
    """
    return pickle.dumps(load_yaml(text))


def read_yaml(path: Path) -> Settings:
    """The mapping in a YAML file; ConfigError if it is unreadable or something else."""
    try:
        content = _content(read_bytes(path, YAML_BYTES), path)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8; save it as such") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; correct the path") from error
    except DamagedError as error:
        raise ConfigError(f"{path} {error.fault}; shorten it") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from None
    if content is None:
        raise ConfigError(f"{path} is empty; write `key: value` lines")
    if not isinstance(content, dict):
        kind = "a list" if isinstance(content, list) else "a single value"
        raise ConfigError(f"{path} must hold `key: value` lines, not {kind}")
    return content


def _content(text: bytes, path: Path) -> Any:
    """The content of a YAML text; ConfigError for what is YAML but no configuration."""
    decoded = text.decode()
    try:
        return pickle.loads(_parsed(decoded))
    except (ValueError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        raise ConfigError(f"{path} cannot be read: {cause(error)}; correct the file") from None


def _reason(error: yaml.YAMLError) -> str:
    """Why a text is not YAML, and where."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return (
        f"line {mark.line + 1}, column {mark.column + 1}: {str(error.problem).removeprefix('but ')}"
    )


def _folders(kind: str) -> list[Path]:
    return [Path("config") / kind, WORKFLOW_CONFIG / kind]


_GIVEN: dict[tuple[str, str], tuple[str, bytes]] = {}
"""By kind and name the settings that have no file: where they come from, and they, pickled."""


def give(kind: str, name: str, settings: Settings, where: str) -> None:
    """Adds a dataset or network without a file of its own; `where` names it in messages."""
    _GIVEN[kind, name] = (where, pickle.dumps(settings))


def is_given(kind: str, name: str) -> bool:
    """Whether a dataset or network has no file, but was given."""
    return (kind, name) in _GIVEN


def settings_of(kind: str, name: str) -> tuple[Settings, str]:
    """The content of a dataset or network, and the file that it is in, for messages.

    ConfigError for an unknown name, and as `read_yaml`.
    """
    if (kind, name) in _GIVEN:
        where, content = _GIVEN[kind, name]
        return pickle.loads(content), where
    path = yaml_file(kind, name)
    return read_yaml(path), str(path)


def names(kind: str) -> list[str]:
    """All `datasets` or `networks` there are, in alphabetical order."""
    files = (path for folder in _folders(kind) for path in folder.glob("*.yaml"))
    given = (name for given_kind, name in _GIVEN if given_kind == kind)
    return sorted({path.stem for path in files}.union(given))


def version(kind: str) -> tuple[Any, ...]:
    """What tells whether any of the `datasets` or `networks` has changed: their files, as they are.

    Far cheaper than reading them all again.
    """
    found: list[Any] = [item for item in _GIVEN.items() if item[0][0] == kind]
    for folder in _folders(kind):
        if folder.is_dir():
            with os.scandir(folder.absolute()) as entries:
                stats = [(one.path, one.stat()) for one in entries if one.name.endswith(".yaml")]
            found += sorted((path, one.st_mtime_ns, one.st_size) for path, one in stats)
    return tuple(found)


def yaml_file(kind: str, name: str) -> Path:
    for folder in _folders(kind):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise ConfigError(f"no {kind[:-1]} {name!r} in config/{kind}; {nearest(name, names(kind))}")


def check_names(kind: str, requested: Iterable[str], where: str) -> None:
    """ConfigError for an unknown name of `datasets` or `networks`, with the nearest name."""
    available = names(kind)
    for name in requested:
        if name not in available:
            raise ConfigError(f"{where}: no {kind[:-1]} {name!r}; {nearest(name, available)}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`over` merged over `base`: mappings key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
