"""Programs of the repository as modules."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SITE = Path(__file__).resolve().parents[1] / "docs/_site"


def site_program(name: str) -> ModuleType:
    """A program that makes pages of the documentation; it imports others next to it."""
    sys.path.insert(0, str(SITE))
    try:
        return program(SITE / name)
    finally:
        sys.path.pop(0)


def program(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{path.parent.name}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module
