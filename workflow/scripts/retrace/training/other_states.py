"""States of other trainings of the same experiment: none resumes from them, and why is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from retrace.files import read_json, write_json
from retrace.planning.identity import differences
from retrace.planning.training_folders import IDENTITY
from retrace.records.record import Running

SHOWN = 3
"""Differences that are printed for each other training."""


def note_identity(folder: Path, job: Running | None) -> None:
    """Writes what a training depends on into its folder, for later trainings to compare."""
    if job is not None and not (folder / IDENTITY).is_file():
        write_json(folder / IDENTITY, job.content())


def other_states(folder: Path, experiment: str, job: Running | None) -> Iterator[str]:
    """A line for each other training of an experiment that has a state, with what differs.

    Nothing if `folder` has a state of its own, from which the training resumes.
    """
    if job is None or _has_state(folder):
        return
    for other in sorted(folder.parent.glob(f"{experiment}_*")):
        if other != folder and _has_state(other) and (other / IDENTITY).is_file():
            reasons = list(islice(_reasons(read_json(other / IDENTITY), job.content()), SHOWN))
            yield f"does not resume from {other}: {'; '.join(reasons) or 'other iterations'}"


def _has_state(folder: Path) -> bool:
    return any(folder.glob("state_*"))


def _reasons(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    yield from differences(before, after)
    for path in sorted(before["inputs"].keys() | after["inputs"].keys()):
        versions = (content["inputs"].get(path, {}) for content in (before, after))
        one, two = (
            {k: v for k, v in version.items() if k != "fingerprint"} for version in versions
        )
        if one != two:
            yield f"{path} changed"
