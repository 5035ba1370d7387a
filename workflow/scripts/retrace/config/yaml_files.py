"""YAML files of datasets and networks: found, read and merged."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from retrace.errors import ConfigError, nearest
from retrace.setting_types import UnusualNumber

Settings = dict[str, Any]


def _shipped_config() -> Path:
    """`files` next to this module if the library is installed, else the repository's `config`."""
    here = Path(__file__).resolve()
    installed = here.with_name("files")
    return installed if installed.is_dir() else here.parents[4] / "config"


WORKFLOW_CONFIG = _shipped_config()
"""The datasets, networks and settings that retrace comes with."""
MERGE_KEY, TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
"""YAML's kinds of scalars: `<<`, and text."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads YAML by libyaml where PyYAML has it; keys and dates stay text as they are written.

    A whole number that is written in another way, such as 2024_01, remembers how.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are text."""
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE_KEY:
                key.tag = TEXT
        content: dict[Any, Any] = super().construct_mapping(node, deep)
        return content

    def whole_number(self, node: yaml.ScalarNode) -> int:
        """A whole number, which remembers its text where that is unusual."""
        number: int = self.construct_yaml_int(node)
        return number if str(number) == node.value else UnusualNumber(number, node.value)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.construct_yaml_str)


@lru_cache(maxsize=512)
def _parsed(text: str) -> bytes:
    """The content of a YAML text, pickled.

    Every start of the workflow reads some fifty files, and each of them dozens of times; unpickling
    copies the content for each reader in a fifth of the time of deepcopy.
    """
    return pickle.dumps(yaml.load(text, Loader=_Loader))


def read_yaml(path: Path) -> Settings:
    """The mapping in a YAML file; ConfigError where it is unreadable or something else."""
    try:
        content = pickle.loads(_parsed(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, not {type(content).__name__}")
    return content


def _folders(kind: str) -> list[Path]:
    return [Path("config") / kind, WORKFLOW_CONFIG / kind]


def names(kind: str) -> list[str]:
    """All `datasets` or `networks` there are, in alphabetical order."""
    files = (path for folder in _folders(kind) for path in folder.glob("*.yaml"))
    return sorted({path.stem for path in files})


def yaml_file(kind: str, name: str) -> Path:
    for folder in _folders(kind):
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise ConfigError(f"no {kind[:-1]} {name!r} in config/{kind}; {nearest(name, names(kind))}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """`over` laid over `base`: mappings key by key, everything else as a whole."""
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged
