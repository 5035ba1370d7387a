"""Pages of the documentation that list every setting: key, default, values, meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from retrace.config.json_schemas import MODELS
from retrace.config.schema import alternatives, annotation_of
from retrace.config.words import groups_in, own_words, words
from retrace.settings_model import SettingsModel, plain_value

LONGEST_DEFAULT = 60
"""Characters of a default that are still shown."""


def settings_pages() -> dict[str, str]:
    """By kind of file the page of its settings, in Markdown."""
    return {kind: _page(kind, model, title) for kind, (model, title) in MODELS.items()}


def _page(kind: str, model: type[SettingsModel], title: str) -> str:
    description = " ".join((model.__doc__ or "").split())
    lines = [f"# Settings: {kind.replace('_', ' ')}", "", f"{title}. {description}", ""]
    lines += [f"Generated from the model `{model.__name__}`; any other key is an error.", ""]
    lines += ["| key | default | values | meaning |", "|---|---|---|---|"]
    return "\n".join([*lines, *_rows(model, "", {})]) + "\n"


def _rows(
    model: type[SettingsModel], prefix: str, shown: dict[type[SettingsModel], str]
) -> Iterator[str]:
    """A row for each setting of a group, followed by the groups inside it.

    `shown`: the first key of each group that has its rows already; later keys refer to it.
    """
    for name, info in model.model_fields.items():
        key = f"{prefix}{info.alias or name}"
        annotation = annotation_of(info)
        groups = list(groups_in(annotation))
        values = _group_values(annotation, shown) if groups else _cell(words(annotation))
        yield f"| `{key}` | {_default(info)} | {values} | {_cell(info.description or '')} |"
        for mark, group in groups:
            if group not in shown:
                shown[group] = f"{key}{mark}"
                yield from _rows(group, f"{key}{mark}.", shown)


def _group_values(annotation: Any, shown: Mapping[type[SettingsModel], str]) -> str:
    """The values of a setting that is one group of settings or several: a link to their rows."""
    ((mark, group),) = groups_in(annotation)
    is_only_group = all(list(groups_in(a)) for a in alternatives(annotation) if a is not type(None))
    if not is_only_group or own_words(annotation):
        return _cell(words(annotation))
    several = {"": "", "[]": "a list, each ", ".NAME": "by name, each "}[mark]
    place = f"as `{shown[group]}`" if group in shown else "as below"
    return several + place if several or group in shown else ""


def _default(info: FieldInfo) -> str:
    """The default of a setting as code; empty for a group, whose fields have their own defaults."""
    if info.is_required():
        return "required"
    value = plain_value(info.get_default(call_default_factory=True))
    if value is None or value in ({}, []):
        return ""
    return _code(yaml.safe_dump(value, default_flow_style=True))


def _code(text: str) -> str:
    line = " ".join(text.removesuffix("...\n").split())
    return f"`{line}`" if len(line) <= LONGEST_DEFAULT else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
