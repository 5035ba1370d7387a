"""Settings under the names that another program gives them, translated to the names here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from retrace.config.yaml_files import Settings, merge
from retrace.errors import ConfigError


@dataclass(frozen=True)
class Alias:
    """What a setting of another program is here: other settings, or the reason for none."""

    settings: Callable[[Any], Settings] | None = None
    """From its value the settings that it stands for."""
    place: str = ""
    """The names of these settings, for messages."""
    refused: str = ""
    """Why there is no such setting here, and what to use."""


def is_called(*path: str) -> Alias:
    """An alias of the setting at `path`."""
    return Alias(lambda value: nested(path, value), ".".join(path))


def not_here(reason: str) -> Alias:
    """A setting without a counterpart."""
    return Alias(refused=reason)


def nested(path: tuple[str, ...], value: Any) -> Settings:
    """{"a": {"b": value}} for the path a, b."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def translated(content: Mapping[str, Any], aliases: Mapping[str, Alias], where: str) -> Settings:
    """`content` with the names of `aliases` replaced by those used here.

    ConfigError for a setting without a counterpart, and for a setting that has two values under two
    names; `where` the content is from.
    """
    result = {key: value for key, value in content.items() if key not in aliases}
    given = {path: path for path, _ in leaves(result)}
    for key in (key for key in content if key in aliases):
        alias, value = aliases[key], content[key]
        if alias.settings is None:
            raise ConfigError(f"{where}: {key}: {alias.refused}")
        try:
            meant = alias.settings(value)
        except ValueError as error:
            raise ConfigError(f"{where}: {key}: {value!r} is not allowed; {error}") from None
        for path, one in leaves(meant):
            _check_once(result, path, one, (where, key, given.get(path, path)))
            given.setdefault(path, key)
        result = merge(result, meant)
    return result


def leaves(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The path, joined by points, and value of everything in `content` that is no mapping."""
    for key, value in content.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def _check_once(
    content: Mapping[str, Any], path: str, value: Any, names: tuple[str, str, str]
) -> None:
    """ConfigError if `content` has another value at `path`, given under another name."""
    where, key, other = names
    found = dict(leaves(content)).get(path, value)
    if found != value or isinstance(found, bool) != isinstance(value, bool):
        raise ConfigError(
            f"{where}: {key} sets {path} to {value!r}, and {other} sets it to {found!r}; keep one"
        )


def constant(settings: Settings) -> Callable[[Any], Settings]:
    """For a flag: `settings` if it is true, nothing if it is false; ValueError for all else."""

    def of_flag(value: Any) -> Settings:
        if not isinstance(value, bool):
            raise ValueError("give true or false")
        return settings if value else {}

    return of_flag


def only(allowed: Any, reason: str) -> Callable[[Any], Settings]:
    """For a setting that has one possible value here; ValueError with the reason for others."""

    def of_value(value: Any) -> Settings:
        if value != allowed or isinstance(value, bool):
            raise ValueError(f"{reason}; give {allowed!r} or leave it out")
        return {}

    return of_value
