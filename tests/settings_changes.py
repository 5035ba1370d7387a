"""Changed settings for tests: models are immutable, and programs read them as JSON."""

from __future__ import annotations

import json
from typing import Any

from retrace.config.dataset_model import Dataset
from retrace.settings_model import as_json


def as_job(settings: Any) -> Any:
    """Settings as a program reads them from its job."""
    return json.loads(as_json(settings))


def with_volume(data: Dataset, name: str, **parts: Any) -> Dataset:
    """The dataset with some parts of a volume replaced."""
    volumes = data.plain()["volumes"]
    volumes[name] |= as_job(parts)
    return data.with_(volumes=volumes)
