"""Whether Snakemake's records are of the jobs that computed the results, by their settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError, DataError
from retrace.job import Job
from retrace.planning.records import record_next_to
from retrace.provenance.jobs import RECORDS, FinishedJob
from retrace.reading import json_if_intact
from retrace.replacement import MANIFEST


def check_settings(jobs: Iterable[FinishedJob]) -> None:
    """DataError for a result that comes from another run than Snakemake's record of it.

    Results that are copied from another machine may be newer than the records of Snakemake here.
    """
    for job in jobs:
        passed = _passed_settings(job.command)
        for output, settings in _settings_by_output(job):
            for name, in_command, in_result in _differing(passed, settings):
                raise DataError(
                    f"{output} was computed with {name} {in_result!r}, and Snakemake's record of "
                    f"it in {RECORDS} is of a job with {in_command!r}: the result comes from "
                    "another run. Copy .snakemake together with results, or compute it again with "
                    "--forcerun"
                )


def _passed_settings(command: str) -> Any:
    """The settings in the `--job` of a command; none if it has no job, or its file is gone."""
    try:
        words = shlex.split(command)
        return Job.parse(words[words.index("--job") + 1]).settings
    except (ValueError, IndexError, ConfigError):
        return {}


def _settings_by_output(job: FinishedJob) -> Iterator[tuple[str, Any]]:
    """The outputs of a job that have a record, each with the settings that decided it."""
    for output in job.outputs:
        is_manifest = output.endswith(MANIFEST)
        record = Path(output if is_manifest else record_next_to(output))
        identity = json_if_intact(record).get("identity")
        if isinstance(identity, dict) and "settings" in identity:
            yield output, identity["settings"]


def _differing(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each setting that both have, with different values: its name and the values."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() & other.keys()):
            yield from _differing(one[key], other[key], f"{name}.{key}" if name else key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from _differing(*pair, f"{name}[{index}]")
    elif one != other:
        yield name, one, other
