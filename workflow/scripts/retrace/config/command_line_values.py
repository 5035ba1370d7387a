"""Values of `--config` as text; the type of a setting decides whether they become numbers.

Snakemake reads `run=2024_01` as a number, and leaves what is inside `key={...}` as text.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml

from retrace.config.aliases import is_called, translated
from retrace.config.schema import accepts, alternatives, annotation_of, check, fitting
from retrace.config.words import is_model
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import (
    Settings,
    check_names,
    load_yaml,
    merge,
    read_scalar,
    read_yaml,
)
from retrace.errors import ConfigError
from retrace.settings_model import SettingsModel

WHERE = "config"
"""How messages call config.yaml and what `--config` adds to it."""
OTHER_NAMES = {"state_archive": is_called("init"), "num_epochs": is_called("epochs")}
"""SEAMLeSS's names of settings."""


def read_config(files: Iterable[str | Path], words: Iterable[str]) -> WorkflowConfig:
    """The settings of a run: files, each merged over those before it, and KEY=VALUE words.

    ConfigError names the setting, the value and what is allowed.
    """
    content: Settings = {}
    for file in files:
        content = merge(content, translated(read_yaml(Path(file)), OTHER_NAMES, str(file)))
    typed = translated(dict(_pair(word) for word in words), OTHER_NAMES, WHERE)
    content = merge(content, read_typed(WorkflowConfig, typed))
    config = check(WorkflowConfig, content, WHERE).complete(deep=True)
    if isinstance(config.iterations, dict):
        check_names("networks", config.iterations, f"{WHERE}: iterations")
    return config


ENCODED = "encoded="
"""Start of the word that stands for all words of `--config`."""
PLAIN_WORD = re.compile(r"[\w@%+=:,./\[\]{} -]*", re.ASCII)
"""Words in quotes that every shell, also that of a cluster, passes on unchanged."""


def encoded(words: Iterable[str]) -> list[str]:
    """Words of `--config` as they are passed to jobs: as one word if a shell could change them."""
    words = list(words)
    if all(PLAIN_WORD.fullmatch(word) for word in words):
        return words
    return [ENCODED + urlsafe_b64encode(json.dumps(words).encode()).decode().rstrip("=")]


def decoded(words: Iterable[str]) -> list[str]:
    """The words that `encoded` received."""
    words = list(words)
    if len(words) != 1 or not words[0].startswith(ENCODED):
        return words
    text = words[0].removeprefix(ENCODED)
    try:
        inner = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        return [str(word) for word in inner]
    except (ValueError, TypeError):
        raise ConfigError(f"{WHERE}: {ENCODED}{text} is reserved for jobs; leave it out") from None


def _pair(word: str) -> tuple[str, Any]:
    """Key and value of KEY=VALUE; in a list or mapping all scalars stay text."""
    key, _, text = word.partition("=")
    if not text:
        return key, None
    if text[0] not in "[{\"'":
        return key, text
    try:
        return key, load_yaml(text, yaml.BaseLoader)
    except yaml.YAMLError:
        raise ConfigError(
            f"{WHERE}: {key}: {text!r} cannot be read; close every bracket, brace and quote, and "
            "write lists as [a, b] and mappings as {a: 1, b: 2}"
        ) from None


def read_typed(model: type[SettingsModel], content: Mapping[str, Any]) -> Settings:
    """Text as numbers, true, false and null, where the fields of a model have these types."""
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    return {
        key: _value(annotation_of(fields[key]), value) if key in fields else value
        for key, value in content.items()
    }


def _value(annotation: Any, value: Any) -> Any:
    if isinstance(value, str):
        return _scalar(annotation, value)
    inner = fitting(annotation, value)
    if inner is None:
        return value
    if is_model(inner):
        return read_typed(inner, value)
    arguments = get_args(inner)
    if isinstance(value, Mapping):
        return {key: _value(arguments[1], one) for key, one in value.items()}
    repeated = len(arguments) != len(value) or arguments[-1] is Ellipsis
    elements = [arguments[0]] * len(value) if repeated else arguments
    return [_value(element, one) for element, one in zip(elements, value, strict=True)]


def _scalar(annotation: Any, text: str) -> Any:
    """null or text where the type allows it; else a number, true or false."""
    read = read_scalar(text)
    if read is None and type(None) in alternatives(annotation):
        return None
    if accepts(annotation, text):
        return text
    return next((value for value in (read, *_whole(read)) if accepts(annotation, value)), text)


def _whole(number: Any) -> list[int]:
    """1000.0 as the whole number that it is."""
    is_whole = isinstance(number, float) and number.is_integer()
    return [int(number)] if is_whole else []
