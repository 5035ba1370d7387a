"""Checks content against a model; its errors name the thing, the value and what is allowed."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from retrace.config.words import is_model, literal_texts, unwrapped, words
from retrace.config.yaml_files import read_scalar
from retrace.errors import ConfigError, nearest
from retrace.limits import SETTING_CHARACTERS
from retrace.redaction import WITH_CREDENTIALS, has_credentials
from retrace.setting_types import WrittenFraction, WrittenWhole
from retrace.settings_model import SettingsModel

Model = TypeVar("Model", bound=SettingsModel)
Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """An error at a place of the content."""

    place: Place
    message: str

    def __str__(self) -> str:
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.place)
        return f"{place[1:]}: {self.message}" if place else self.message


def check(model: type[Model], content: Any, where: str) -> Model:
    """The content as a model; ConfigError names `where` it is from and its first error.

    Settings are shown, stored with every result and packed: credentials in an address are refused.
    """
    if found := _wrong_text(content, ()):
        raise ConfigError(f"{where}: {found}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = _in_model(model, content, ()) or _reported(error)
        raise ConfigError(f"{where}: {problem}") from None


def _wrong_text(content: Any, place: Place) -> Problem | None:
    """The first address with credentials in it, or text that is too long; None without any."""
    if isinstance(content, str):
        if len(content) > SETTING_CHARACTERS:
            return Problem(
                place, f"has {len(content)} characters; allowed: {SETTING_CHARACTERS}; shorten it"
            )
        return Problem(place, WITH_CREDENTIALS) if has_credentials(content) else None
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(content, Mapping):
        items = content.items()
    elif isinstance(content, (list, tuple)):
        items = enumerate(content)
    for key, one in items:
        inner = (*place, key)
        wrong_key = _wrong_text(key, inner) if isinstance(key, str) else None
        if found := wrong_key or _wrong_text(one, inner):
            return found
    return None


def _reported(error: ValidationError) -> Problem:
    """The first error that pydantic reports."""
    first = error.errors(include_url=False)[0]
    reason = first.get("ctx", {}).get("error", first["msg"])
    return Problem(first["loc"], str(reason))


def _in_model(model: type[SettingsModel], content: Any, place: Place) -> Problem | None:
    """The first problem of a group of settings: unknown and missing keys, then each value."""
    if isinstance(content, SettingsModel):
        content = content.plain()
    if not isinstance(content, Mapping):
        return Problem(place, f"{content!r} is not allowed; give {words(model)}")
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    if message := _wrong_keys(model, fields, content):
        return Problem(place, message)
    for key, value in content.items():
        if problem := _in_value(annotation_of(fields[key]), value, (*place, key)):
            return problem
    return _in_whole(model, content, place)


def _wrong_keys(
    model: type[SettingsModel], fields: Mapping[str, FieldInfo], content: Mapping[Any, Any]
) -> str:
    messages = [
        f"`{key}` is called `{model.renamed[key]}` now; rename it"
        for key in content
        if key in model.renamed
    ]
    unknown = [key for key in content if key not in fields and key not in model.renamed]
    for key in unknown:
        hint, allowed = nearest(str(key), fields).split("allowed: ")
        end = f"{hint}allowed: {allowed}" if key == unknown[-1] else hint.strip(" ?")
        messages.append(f"unknown key {key!r}, {end}".removesuffix(", "))
    for name, info in fields.items():
        if info.is_required() and name not in content:
            messages.append(f"`{name}` is missing; add {words(annotation_of(info))}")
    return "; ".join(messages)


def _in_whole(model: type[SettingsModel], content: Any, place: Place) -> Problem | None:
    """Values that contradict each other although each one is allowed."""
    try:
        model.model_validate(content)
    except ValidationError as error:
        problem = _reported(error)
        return Problem((*place, *problem.place), problem.message)
    return None


def annotation_of(info: FieldInfo) -> Any:
    """The type of a field with its limits."""
    if not info.metadata:
        return info.annotation
    return Annotated[(info.annotation, *info.metadata)]


def accepts(annotation: Any, value: Any) -> bool:
    """Whether a value is allowed by a type."""
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return True


def _in_value(annotation: Any, value: Any, place: Place) -> Problem | None:
    """The first problem of a value, at the innermost place that can be named."""
    if accepts(annotation, value):
        return None
    inner = fitting(annotation, value)
    if inner is not None:
        problem = _in_container(inner, value, place)
        if problem is not None:
            return problem
    message = f"{_shown(value)} is not allowed; give {words(annotation)}"
    return Problem(place, message + _hint(annotation, value))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, (WrittenWhole, WrittenFraction)):
        return value.written
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _hint(annotation: Any, value: Any) -> str:
    """The end of a message: the word that was probably meant, or what quotes change."""
    close = difflib.get_close_matches(str(value), literal_texts(annotation), n=1, cutoff=0.7)
    if isinstance(value, str) and accepts(annotation, read_scalar(value)):
        return "; write it without quotes"
    if (value is None or isinstance(value, bool)) and accepts(annotation, "x"):
        return "; put quotes around text that YAML reads as true, false or null"
    return f" (did you mean {close[0]!r}?)" if close else ""


def fitting(annotation: Any, value: Any) -> Any:
    """The only alternative of a type that takes a mapping or list, like the value; else None."""
    fitting = [a for a in alternatives(annotation) if _has_shape(a, value)]
    return fitting[0] if len(fitting) == 1 else None


def alternatives(annotation: Any) -> Iterator[Any]:
    """The types that a value may have, without their limits."""
    bare, _ = unwrapped(annotation)
    if get_origin(bare) in (Union, types.UnionType):
        for alternative in get_args(bare):
            yield from alternatives(alternative)
    else:
        yield bare


def _has_shape(bare: Any, value: Any) -> bool:
    if isinstance(value, (Mapping, SettingsModel)):
        return is_model(bare) or get_origin(bare) is dict
    return isinstance(value, (list, tuple)) and get_origin(bare) in (list, tuple)


def _in_container(bare: Any, value: Any, place: Place) -> Problem | None:
    if is_model(bare):
        return _in_model(bare, value, place)
    arguments = get_args(bare)
    if isinstance(value, Mapping):
        return _in_mapping(arguments[0], arguments[1], value, place)
    return _in_sequence(arguments, value, place)


def _in_mapping(
    key_type: Any, value_type: Any, content: Mapping[Any, Any], place: Place
) -> Problem | None:
    for key, value in content.items():
        if not accepts(key_type, key):
            return Problem(place, f"{key!r} is not allowed as a name; give {words(key_type)}")
        if problem := _in_value(value_type, value, (*place, key)):
            return problem
    return None


def _in_sequence(types_: Sequence[Any], values: Sequence[Any], place: Place) -> Problem | None:
    """The first problem of an element; None if only the length is wrong."""
    repeated = len(types_) == 1 or types_[-1] is Ellipsis
    if not repeated and len(types_) != len(values):
        return None
    for number, value in enumerate(values):
        element = types_[0] if repeated else types_[number]
        if problem := _in_value(element, value, (*place, number)):
            return problem
    return None
