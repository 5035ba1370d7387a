"""States of other trainings of the same experiment: none resumes from them, and why is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from retrace.files import read_json, write_json
from retrace.planning.identity import differences
from retrace.planning.training_folders import IDENTITY, data_of_states
from retrace.records.record import Running

SHOWN = 3
"""Differences that are printed for each other training."""


def note_identity(folder: Path, job: Running | None) -> None:
    """Writes what a training depends on into its folder, for later trainings to compare."""
    if job is not None and not (folder / IDENTITY).is_file():
        write_json(folder / IDENTITY, job.work_content())


def other_states(
    folder: Path, experiment: str, job: Running | None, *, validation_decides: bool
) -> Iterator[str]:
    """A line for each other training of an experiment that has a state, with what differs.

    Nothing if `folder` has a state of its own, from which the training resumes.
    `validation_decides`: whether data that it is measured on are a reason.
    """
    if job is None or _has_state(folder):
        return
    for other in sorted(folder.parent.glob(f"{experiment}_*")):
        if other != folder and _has_state(other) and (other / IDENTITY).is_file():
            noted = read_json(other / IDENTITY)
            reasons = _reasons(noted, job.work_content(), validation_decides)
            shown = "; ".join(islice(reasons, SHOWN))
            yield f"does not resume from {other}: {shown or 'other iterations'}"


def _has_state(folder: Path) -> bool:
    return any(folder.glob("state_*"))


def _without_validation(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a training depends on, without the data that it is only measured on."""
    settings = content["settings"]
    data = data_of_states(settings["dataset"])
    return {**content, "settings": {**settings, "dataset": data}}


def _reasons(
    before: Mapping[str, Any], after: Mapping[str, Any], validation_decides: bool
) -> Iterator[str]:
    if not validation_decides:
        before, after = map(_without_validation, (before, after))
    yield from differences(before, after)
    for path in sorted(before["inputs"].keys() | after["inputs"].keys()):
        versions = (content["inputs"].get(path, {}) for content in (before, after))
        one, two = (
            {k: v for k, v in version.items() if k != "fingerprint"} for version in versions
        )
        if one != two:
            yield f"{path} changed"
