"""Programs that are killed while they replace finished outputs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiny_workflow
import warm_python
from retrace.records.contents import content_digest, output_digest
from retrace.records.record import KEY, version_of
from retrace.replacement import settle
from retrace.storage.manifest import check_manifest

HOOK = Path(__file__).resolve().parent / "crash_hook"
PREVIOUS = b"the previous version\n"
MARK = "previous.txt"
"""A file in stores of the previous version."""
BEFORE, AMID = 0, 3
"""Changes of files, after the journal appears, that a killed program completes."""


@dataclass(frozen=True)
class FinishedJob:
    """A job in a working directory with results: its command, and what it wrote."""

    place: Path
    rule: str
    command: str

    @property
    def record(self) -> Path:
        return self.place / self._plan["record"]

    @property
    def files(self) -> list[Path]:
        """Outputs that are neither manifests nor records."""
        ends = (".manifest.json", ".record.json")
        return [self.place / o for o in self._plan["outputs"] if not o.endswith(ends)]

    @property
    def stores(self) -> list[Path]:
        """Folders that a manifest among the outputs describes."""
        manifests = [self.place / o for o in self._plan["outputs"] if o.endswith(".manifest.json")]
        names = [json.loads(path.read_text())["store"] for path in manifests]
        stores = [path.with_name(name) for path, name in zip(manifests, names, strict=True)]
        return [store for store in stores if store.is_dir()]

    @property
    def _plan(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self._plan_file.read_text())
        return content

    @property
    def _plan_file(self) -> Path:
        plan = re.search(r"work/plans/\w+\.json", self.command)
        assert plan is not None, self.command
        return self.place / plan[0]

    def mark_previous(self) -> None:
        """Replaces the outputs by a previous version that can be recognised, and is complete."""
        manifest = json.loads(self.record.read_text())
        for file in self.files:
            file.write_bytes(PREVIOUS)
            name = str(file.relative_to(self.place))
            manifest[KEY]["outputs"][name] = content_digest(file)
        for store in self.stores:
            (store / MARK).write_bytes(PREVIOUS)
        manifest[KEY]["version"] = "previous"
        if "listing" in manifest:  # of a fetch, which keeps what the server still has
            manifest["listing"] = "previous"
        self.record.write_text(json.dumps(manifest))
        # Else a fetch takes this version for the work of another run, and keeps it.
        plan = {**self._plan, "found": version_of(self.record)}
        self._plan_file.write_text(json.dumps(plan))

    def run(self, crash_at: int | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the program; `crash_at`: changes of files until it is killed, if it is."""
        python = warm_python.program()
        path = os.pathsep.join([str(Path(python).parent), os.environ["PATH"]])
        crash = {"PYTHONPATH": str(HOOK), "CRASH_AT": str(crash_at)}
        hook = {} if crash_at is None else crash
        command = ["bash", "-c", f"set -o pipefail; {self.command}"]
        environment = {"RETRACE_PYTHON": python, "OMP_NUM_THREADS": "1", **hook}
        return subprocess.run(
            command,
            cwd=self.place,
            env={**os.environ, "PATH": path, **environment},
            capture_output=True,
            text=True,
        )

    def is_previous(self) -> bool:
        """Whether all outputs are those of the previous version; AssertionError for a mixture."""
        settle(self.record)
        manifest = json.loads(self.record.read_text())
        marks = [manifest[KEY].get("version") == "previous"]
        marks += [file.read_bytes() == PREVIOUS for file in self.files]
        marks += [(store / MARK).is_file() for store in self.stores]
        assert len(set(marks)) == 1, f"{self.rule}: a mixture of versions, {marks}"
        for name, sha256 in manifest[KEY]["outputs"].items():
            assert output_digest(self.place / name) == sha256, f"{self.rule}: {name}"
        for store in self.stores:
            check_manifest(store, digests=True)
        return marks[0]


def finished_jobs(place: Path, arguments: Sequence[str]) -> list[FinishedJob]:
    """One job of each rule with a program, from the plan to compute again what `place` holds."""
    options = ["--dry-run", "--printshellcmds", "--forceall", "--cores", "1"]
    printed = tiny_workflow.succeed(place, [*options, *arguments])
    planned = re.findall(r"^(?:local)?rule (\w+):|^Shell command: (.*)$", printed, re.M)
    commands = {
        rule: command
        for (rule, _), (_, command) in pairwise(planned)
        if rule and "work/plans/" in command
    }
    return [FinishedJob(place, rule, command) for rule, command in commands.items()]


def assert_whole_after_kills(job: FinishedJob, allowed: Sequence[int]) -> None:
    """Kills the program while it replaces its outputs: the old or the new version is complete.

    `allowed`: after how many changes of files, from the journal on, it is killed.
    """
    for changes in allowed:
        job.mark_previous()
        killed = job.run(changes)
        assert killed.returncode == 128 + 9, f"{job.rule}: {killed.stdout[-3000:]}{killed.stderr}"
        assert job.is_previous() == (changes == BEFORE), f"{job.rule}, {changes} changes"
