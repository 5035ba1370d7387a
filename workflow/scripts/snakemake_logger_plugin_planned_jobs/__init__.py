"""A logger of Snakemake, `--logger planned-jobs`: writes each job that it plans as a line of JSON.

The environment variable RETRACE_PLANNED_JOBS names the file. Snakemake's own output joins names
with commas, which names may contain.
"""

from __future__ import annotations

import json
import os
import re
from logging import LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

REMARK = re.compile(
    r" \((pipe|service|nodelocal|(before )?update|access: \w+|cached)(, [a-z ]+)?\)$"
)
"""What Snakemake adds to the name of a file."""


class LogHandler(LogHandlerBase):
    """Adds planned jobs to the file."""

    writes_to_stream = False  # the default output stays: it says why a plan fails
    writes_to_file = False  # Snakemake would announce the file
    has_filter = True
    has_formatter = True
    needs_rulegraph = False

    def __post_init__(self) -> None:
        self.file = Path(os.environ["RETRACE_PLANNED_JOBS"])

    def emit(self, record: LogRecord) -> None:
        """Writes the record of a job."""
        if getattr(record, "event", None) == LogEvent.JOB_INFO:
            with self.file.open("a") as file:
                file.write(json.dumps(fields_of(vars(record))) + "\n")


def fields_of(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record that `retrace.planning.planned_jobs.PlannedJob` is made from."""
    benchmark = record["benchmark"]
    return {
        "rule": record["rule_name"],
        "inputs": names(record["input"]),
        "outputs": names(record["output"]),
        "logs": names(record["log"]),
        "benchmarks": names([] if benchmark is None else [benchmark]),
        "wildcards": {name: str(value) for name, value in record["wildcards"].items()},
        "threads": record["threads"],
        "resources": {name: number(value) for name, value in record["resources"].items()},
    }


def names(files: list[str]) -> list[str]:
    """Names of files, without Snakemake's remarks."""
    return [REMARK.sub("", str(file)) for file in files]


def number(value: Any) -> float | None:
    """A number; None for a resource that is text, or known only when the job starts."""
    return float(value) if isinstance(value, int | float) else None
