"""The configuration of a run, for tests: config/config.yaml with some settings changed."""

from __future__ import annotations

from typing import Any

from retrace.config.schema import check
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import WORKFLOW_CONFIG, merge, read_yaml


def run_config(**changes: Any) -> WorkflowConfig:
    """The settings of config/config.yaml, merged with `changes`."""
    content = merge(read_yaml(WORKFLOW_CONFIG / "config.yaml"), changes)
    return check(WorkflowConfig, content, "config.yaml")
