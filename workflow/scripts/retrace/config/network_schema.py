"""Checks the file of a network against its JSON schema, until networks have models too."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from retrace.config.yaml_files import WORKFLOW_CONFIG, read_yaml
from retrace.errors import ConfigError, nearest

FAMILIES = {
    "lsd": "network",
    "znn": "znn_network",
    "elektronn": "elektronn_network",
    "seamless": "seamless_network",
}
"""Families of networks, and the schema of their files."""


@cache
def _validator(kind: str) -> Draft202012Validator:
    return Draft202012Validator(read_yaml(WORKFLOW_CONFIG / "schemas" / f"{kind}.schema.yaml"))


def _unknown_keys(error: ValidationError) -> str | None:
    schema, instance = error.schema, error.instance
    if error.validator != "additionalProperties" or not isinstance(schema, Mapping):
        return None
    known = schema.get("properties", {})
    unknown = [key for key in instance if key not in known]  # type: ignore[union-attr]
    return "; ".join(f"unknown key {key!r}, {nearest(str(key), known)}" for key in unknown)


def check(content: Mapping[str, Any], kind: str, where: str) -> None:
    """Checks against the schema of that kind (ConfigError)."""
    error = best_match(_validator(kind).iter_errors(content))
    if error is None:
        return
    place = ".".join(str(part) for part in error.absolute_path)
    message = _unknown_keys(error) or error.message
    raise ConfigError(f"{where}{': ' + place if place else ''}: {message}")
