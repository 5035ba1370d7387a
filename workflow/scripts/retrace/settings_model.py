"""The base of every typed group of settings: one class per group, one field per setting.

A field declares a setting once: its name, type, default, limits and description. From it come the
checks with their messages, the JSON schemas, the pages of the documentation, the defaults, and what
a program reads from its job.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo


class SettingsModel(BaseModel):
    """A group of settings: immutable, and without keys that it does not declare."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    renamed: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Current names of settings that had another name before."""

    not_decided_by: ClassVar[frozenset[object]] = frozenset()
    """Marks of settings, in groups inside this one, that do not decide what this job computes."""

    def plain(self) -> dict[str, Any]:
        """The settings that were set, as JSON values; numbers keep their notation."""
        fields_set = self.model_fields_set
        return {
            info.alias or name: plain_value(getattr(self, name))
            for name, info in type(self).model_fields.items()
            if name in fields_set
        }

    def explicit(self) -> dict[str, Any]:
        """The settings that were set, by name."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def without(self, *names: str) -> Self:
        """A copy in which these settings are not set."""
        return type(self)(**{k: v for k, v in self.explicit().items() if k not in names})

    def complete(self, deep: bool = False) -> Self:
        """A copy whose defaults count as set, so that `plain` writes them too.

        `deep`: also those of the groups inside it.
        """
        values = {name: getattr(self, name) for name in type(self).model_fields}
        if deep:
            values = {name: _completed(value) for name, value in values.items()}
        return self.model_copy(update=values)

    def with_(self, **changes: Any) -> Self:
        """A checked copy with some settings changed."""
        return type(self).model_validate({**self.plain(), **changes})


@dataclass(frozen=True)
class NoEffect:
    """Marks a setting that changes no result: how fast, where from, how often a try is repeated."""


NO_EFFECT = NoEffect()
"""In the type of a setting: `Annotated[Count, NO_EFFECT]`."""


@dataclass(frozen=True)
class NotTrained:
    """Marks a setting of a network that decides its predictions, and no training."""


NOT_TRAINED = NotTrained()
"""In the type of a setting: `Annotated[Shape, NOT_TRAINED]`."""


@dataclass(frozen=True)
class OnlyTrained:
    """Marks a setting of a network that decides its training, and no prediction."""


ONLY_TRAINED = OnlyTrained()
"""In the type of a setting: `Annotated[Positive, ONLY_TRAINED]`."""


def deciding(value: Any, ignored: frozenset[object] = frozenset({NO_EFFECT})) -> Any:
    """The settings that decide a result, defaults included, as JSON values.

    `ignored`: marks of the settings that do not.
    """
    if isinstance(value, SettingsModel):
        ignored |= value.not_decided_by
        return {
            info.alias or name: deciding(getattr(value, name), ignored)
            for name, info in type(value).model_fields.items()
            if decides(info, ignored)
        }
    if isinstance(value, Mapping):
        return {key: deciding(inner, ignored) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [deciding(inner, ignored) for inner in value]
    return plain_value(value)


def decides(setting: FieldInfo, ignored: frozenset[object]) -> bool:
    """Whether a setting counts where those with the marks `ignored` do not."""
    return not any(mark in setting.metadata for mark in ignored)


def as_json(content: Any) -> str:
    """Settings as one line, always the same for the same content."""
    return json.dumps(content, sort_keys=True, default=as_plain)


def _completed(value: Any) -> Any:
    if isinstance(value, SettingsModel):
        return value.complete(deep=True)
    return {k: _completed(v) for k, v in value.items()} if isinstance(value, dict) else value


def as_plain(value: Any) -> Any:
    """A group of settings as JSON values; for `default` of json.dumps."""
    if isinstance(value, SettingsModel) or is_dataclass(value):
        return plain_value(value)
    raise TypeError(f"{type(value).__name__} is no JSON value: {value!r}")


def plain_value(value: Any) -> Any:
    """JSON values of a setting: groups and mappings as dicts, sequences as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, SettingsModel):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: plain_value(inner) for key, inner in value.items()}
    return [plain_value(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def all_optional(
    model: type[SettingsModel], name: str, doc: str, leave_out: Collection[str] = (), /, **more: Any
) -> type[SettingsModel]:
    """A model `name` with the fields of `model` but those in `leave_out`, none of them required.

    For files that contain only some settings, or differences from another file. `more` adds fields,
    each as (type, Field(...)).
    """
    declared: dict[str, Any] = {}
    for key, info in model.model_fields.items():
        if key not in leave_out:
            parts = info.asdict()
            attributes = {**parts["attributes"], "default": None}
            attributes.pop("default_factory", None)
            annotation = (parts["annotation"], *parts["metadata"], Field(**attributes))
            declared[key] = Annotated[annotation]
    declared |= more
    optional = create_model(
        name, __base__=SettingsModel, __doc__=doc, __module__=model.__module__, **declared
    )
    return cast(type[SettingsModel], optional)
