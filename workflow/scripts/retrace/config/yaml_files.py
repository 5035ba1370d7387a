"""YAML files of datasets and networks: found, read and merged."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from retrace.errors import ConfigError, nearest

Settings = dict[str, Any]


def _shipped_config() -> Path:
    """`files` next to this module if the library is installed, else the repository's `config`."""
    here = Path(__file__).resolve()
    installed = here.with_name("files")
    return installed if installed.is_dir() else here.parents[4] / "config"


WORKFLOW_CONFIG = _shipped_config()
"""The datasets, networks and settings that retrace comes with."""


@lru_cache(maxsize=512)
def _parsed(text: str) -> bytes:
    """What a YAML text says, pickled, by libyaml's parser where PyYAML was built with it.

    Every start of the workflow reads some fifty files, and each of them dozens of times; unpickling
    makes a copy for the reader in a fifth of the time of deepcopy.
    """
    return pickle.dumps(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


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


def retyped(value: Any) -> Any:
    """Numbers, true, false and null that came as text: Snakemake leaves those within a
    `--config key={...}` unread."""
    if isinstance(value, Mapping):
        return {key: retyped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [retyped(inner) for inner in value]
    if not isinstance(value, str):
        return value
    try:
        read = yaml.safe_load(value)
    except yaml.YAMLError:
        return value
    return read if isinstance(read, (bool, int, float, type(None))) and value else value
