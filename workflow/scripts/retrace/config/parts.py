"""Settings that name a part of a family, such as a loss: the family's entry lists them.

Each part declares a few words about itself and its own settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, cast

from pydantic import Field, create_model

from retrace.config.families import load
from retrace.settings_model import SettingsModel

Group = TypeVar("Group", bound=SettingsModel)


class Part(Protocol):
    """What the settings of a family need to know about a part."""

    @property
    def about(self) -> str:
        """A few words for the page of settings."""
        ...

    @property
    def settings(self) -> type[SettingsModel]:
        """The settings of the part."""
        ...


def chooses(field: str, places: Mapping[str, str]) -> Callable[[type[Group]], type[Group]]:
    """Decorates a group of settings whose `field` names a part; adds the settings of all parts."""
    parts = _loaded(places)
    literal: Any = Literal
    about = "; ".join(f"{name}: {part.about}" for name, part in parts.items())
    own = [part.settings for part in parts.values() if part.settings is not SettingsModel]
    fields: Any = {field: (literal[tuple(parts)], Field(description=f"{about}."))}
    return lambda group: _extended(group, own, fields)


def one_of(places: Mapping[str, str]) -> Callable[[type[Group]], type[Group]]:
    """Decorates a group of settings with a field for each part, which holds its settings."""
    parts = _loaded(places)
    fields: Any = {
        name: (part.settings | None, Field(None, description=part.about))
        for name, part in parts.items()
    }
    return lambda group: _extended(group, [], fields)


def _loaded(places: Mapping[str, str]) -> dict[str, Part]:
    return {name: load(place) for name, place in places.items()}


def _extended(
    group: type[Group], more: list[type[SettingsModel]], fields: dict[str, Any]
) -> type[Group]:
    """The group under its own name with more fields; its own come first."""
    bases: Any = tuple(dict.fromkeys([*reversed(more), group]))
    model = create_model(
        group.__name__, __base__=bases, __doc__=group.__doc__, __module__=group.__module__, **fields
    )
    return cast(type[Group], model)
