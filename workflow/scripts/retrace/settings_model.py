"""The base of every typed group of settings: one class per group, one field per setting.

A field declares a setting once: its name, type, default, limits and description. From it come the
checks with their messages, the JSON schemas, the pages of the documentation, the defaults, and what
a program reads from its job.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class SettingsModel(BaseModel):
    """A group of settings: immutable, and without keys that it does not declare."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=False)

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values: only those that were given or differ from None."""
        return self.model_dump(mode="json", exclude_none=False, exclude_unset=True)

    def with_(self, **changes: Any) -> Self:
        """A checked copy with some settings changed."""
        return type(self).model_validate({**self.plain(), **changes})

    # Until every reader uses attributes, a group can also be read like the mapping it replaces:
    # a setting that is neither given nor has a value other than None counts as absent.

    def keys(self) -> list[str]:
        """Names of the settings that are given, or have a default other than None."""
        given = self.model_fields_set
        names = type(self).model_fields
        return [n for n in names if n in given or getattr(self, n) is not None]

    def __getitem__(self, key: str) -> Any:
        if key not in self:
            raise KeyError(key)
        return getattr(self, key)

    def get(self, key: str, default: Any = None) -> Any:
        """The setting `key`, or `default` where it is absent."""
        return getattr(self, key) if key in self else default

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def items(self) -> list[tuple[str, Any]]:
        """Names and values of the settings that are present."""
        return [(key, getattr(self, key)) for key in self.keys()]

    def values(self) -> list[Any]:
        """Values of the settings that are present."""
        return [value for _, value in self.items()]


Mapping.register(SettingsModel)


def as_json(content: Any) -> str:
    """Settings as one line, always the same for the same content."""
    return json.dumps(content, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, SettingsModel):
        return value.plain()
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")
