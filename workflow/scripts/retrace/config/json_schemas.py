"""JSON schemas of the settings, for editors that complete and check YAML files: config/schemas.

`python -m retrace.config.json_schemas FOLDER` writes them; a test compares them with the models.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema

from retrace.config.dataset_model import DatasetFile
from retrace.config.examples_model import ExamplesFile
from retrace.config.families import FAMILIES
from retrace.config.workflow import WorkflowConfig
from retrace.settings_model import SettingsModel, plain_value

_NETWORK = "{system}: a network of the family {name} (config/networks/NAME.yaml)"

MODELS: dict[str, tuple[type[SettingsModel], str]] = {
    "config": (WorkflowConfig, "config/config.yaml"),
    "dataset": (DatasetFile, "A dataset (config/datasets/NAME.yaml)"),
    "examples_dataset": (
        ExamplesFile,
        "A dataset of single examples with a class each (config/datasets/NAME.yaml)",
    ),
    **{
        family.schema: (
            family.load("file"),
            _NETWORK.format(system=family.system, name=family.name),
        )
        for family in FAMILIES.values()
    },
}
"""The model of each kind of file, and its title."""

HEADER = "# Generated from {module} by `make schemas`; do not edit.\n"


class _Schema(GenerateJsonSchema):
    """JSON schemas without titles of fields, and with defaults as in YAML files."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """No: a title would repeat the key."""
        return False

    def encode_default(self, dft: Any) -> Any:
        """The default as JSON values."""
        return plain_value(dft)


def schema_text(kind: str) -> str:
    """The schema of a kind of file as YAML."""
    model, title = MODELS[kind]
    content = model.model_json_schema(schema_generator=_Schema)
    content = {"$schema": _Schema.schema_dialect, **_on_one_line(content), "title": title}
    text = yaml.safe_dump(content, sort_keys=False, width=110, allow_unicode=True)
    return HEADER.format(module=model.__module__) + text


def _on_one_line(node: Any) -> Any:
    """A schema whose descriptions, which may be docstrings, are single lines."""
    if isinstance(node, dict):
        return {
            key: " ".join(value.split())
            if key == "description" and isinstance(value, str)
            else _on_one_line(value)
            for key, value in node.items()
        }
    return [_on_one_line(inner) for inner in node] if isinstance(node, list) else node


def write_schemas(folder: Path) -> None:
    """Writes KIND.schema.yaml for every kind of file."""
    for kind in MODELS:
        (folder / f"{kind}.schema.yaml").write_text(schema_text(kind))


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
