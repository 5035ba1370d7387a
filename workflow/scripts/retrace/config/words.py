"""Types of settings in words, for messages and for the documentation."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic.fields import FieldInfo

from retrace.setting_types import InWords
from retrace.settings_model import SettingsModel

NOUNS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    bool: ("true or false", "true or false"),
    type(None): ("null", "null"),
}


def is_model(annotation: Any) -> bool:
    """Whether a type is a group of settings."""
    return isinstance(annotation, type) and issubclass(annotation, SettingsModel)


def unwrapped(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without its limits, and these."""
    limits: list[Any] = []
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for extra in more:
            limits += extra.metadata if isinstance(extra, FieldInfo) else [extra]
    return annotation, limits


def words(annotation: Any) -> str:
    """The values of a type in words: 'a whole number of at least 1, null, or text'."""
    return _joined(_kinds(annotation, several=False))


def _joined(alternatives: Iterable[str]) -> str:
    kinds = list(dict.fromkeys(alternatives))
    if len(kinds) < 2:
        return "".join(kinds)
    comma = "," if any("," in kind or " or " in kind for kind in kinds) or len(kinds) > 2 else ""
    return f"{', '.join(kinds[:-1])}{comma} or {kinds[-1]}"


def own_words(annotation: Any) -> InWords | None:
    """The words that are declared with a type."""
    _, limits = unwrapped(annotation)
    return next((limit for limit in limits if isinstance(limit, InWords)), None)


def _kinds(annotation: Any, several: bool) -> Iterator[str]:
    """The alternatives, each in words, in the plural for `several`."""
    bare, limits = unwrapped(annotation)
    if (own := own_words(annotation)) is not None:
        yield (several and own.several) or own.one
    elif get_origin(bare) in (Union, types.UnionType):
        for alternative in get_args(bare):
            yield from _kinds(alternative, several)
    elif get_origin(bare) is Literal:
        yield from (_literal(value) for value in get_args(bare))
    else:
        yield _noun(bare, limits, several)


def groups_in(annotation: Any) -> Iterator[tuple[str, type[SettingsModel]]]:
    """The groups of settings inside a type, each with the end of its key: "", "[]" or ".NAME"."""
    bare, _ = unwrapped(annotation)
    arguments = get_args(bare)
    if is_model(bare):
        yield "", bare
    elif get_origin(bare) in (Union, types.UnionType):
        for alternative in arguments:
            yield from groups_in(alternative)
    elif get_origin(bare) is dict:
        yield from ((f".NAME{mark}", group) for mark, group in groups_in(arguments[1]))
    elif get_origin(bare) in (list, tuple):
        yield from ((f"[]{mark}", group) for mark, group in groups_in(arguments[0]))


def _literal(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def literal_texts(annotation: Any) -> list[str]:
    """The fixed words that a type allows."""
    bare, _ = unwrapped(annotation)
    if get_origin(bare) is Literal:
        return [_literal(value) for value in get_args(bare)]
    if get_origin(bare) in (Union, types.UnionType):
        return [text for part in get_args(bare) for text in literal_texts(part)]
    return []


def _noun(bare: Any, limits: Sequence[Any], several: bool) -> str:
    if bare in NOUNS:
        return NOUNS[bare][several] + _limits(limits)
    if is_model(bare):
        *first, last = bare.model_fields
        return f"a mapping with the keys {', '.join(first)} and {last}" if first else f"{{{last}}}"
    if get_origin(bare) in (list, tuple):
        return ("lists of " if several else "a list of ") + _elements(get_args(bare))
    if get_origin(bare) is dict:
        return f"a mapping of names to {_several(get_args(bare)[1])}"
    return "another value"


def _several(annotation: Any) -> str:
    return _joined(_kinds(annotation, several=True))


def _elements(arguments: Sequence[Any]) -> str:
    """Elements of a list in words, with their number if it is fixed."""
    is_any_number = len(arguments) == 1 or arguments[1] is Ellipsis
    return ("" if is_any_number else f"{len(arguments)} ") + _several(arguments[0])


def _limits(limits: Sequence[Any]) -> str:
    """Limits of a number, in words."""
    least = next((limit.ge for limit in limits if isinstance(limit, Ge)), None)
    most = next((limit.le for limit in limits if isinstance(limit, Le)), None)
    if least is not None and most is not None:
        return f" from {least} to {most}"
    phrases = [f"of at least {least}"] if least is not None else []
    phrases += [f"above {limit.gt}" for limit in limits if isinstance(limit, Gt)]
    phrases += [f"of at most {most}"] if most is not None else []
    phrases += [f"below {limit.lt}" for limit in limits if isinstance(limit, Lt)]
    phrases += [
        f"that {limit.multiple_of} divides" for limit in limits if isinstance(limit, MultipleOf)
    ]
    return f" {' and '.join(phrases)}" if phrases else ""
