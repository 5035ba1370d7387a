"""A job of the workflow: the files it reads, by role, and its settings.

Planning builds it, the rule hands it to its program as one line of JSON (`--job`), and the program
reads it. A long job travels in a file, because Linux limits a command line to 128 KiB. A role holds
one file, a list of files, or files by the name of a volume or a network.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrace.errors import ConfigError
from retrace.files import atomic_write, digest

Files = str | Sequence[str] | Mapping[str, str] | Mapping[str, Sequence[str]]

LONGEST = 2**16
"""Length of the longest job on a command line, in quotes for two shells: half of Linux's limit."""
JOB_FILES = Path("work/jobs")
"""Folder of longer jobs, below the working directory, which all machines of a run see."""


@dataclass(frozen=True)
class Job:
    """What one job reads.

    `inputs`: files by role, which the program takes from here. `prerequisites`: further files that
    must be complete before the job starts: manifests, and files that the settings name.
    `measured`: those of all these files that only measure the work: unfinished work of this job is
    the same with others. `untracked`: roles whose files Snakemake is not to know, because they come
    from this very job or from a job that is not to run for them; their bytes count nevertheless.
    `execution`: what does not change the result, such as the shard. `identity`: the file in which
    planning describes what decides the result; None for a job that is run by hand. `copies`:
    whether the result is a verified copy, which depends on neither code nor image.
    """

    settings: Any = field(default_factory=dict)
    inputs: Mapping[str, Files] = field(default_factory=dict)
    prerequisites: Sequence[str] = ()
    execution: Mapping[str, Any] = field(default_factory=dict)
    untracked: Sequence[str] = ()
    measured: Sequence[str] = ()
    identity: str | None = None
    copies: bool = False

    def files(self) -> dict[str, list[str]]:
        """All files that the job waits for, by role, each role as one list."""
        tracked = {k: v for k, v in self.inputs.items() if k not in self.untracked}
        by_role = {role: list(_flat(files)) for role, files in tracked.items()}
        return {**by_role, "prerequisites": list(dict.fromkeys(self.prerequisites))}

    def untracked_files(self) -> list[str]:
        """The files of the untracked roles."""
        return [path for role in self.untracked for path in _flat(self.inputs.get(role, ()))]

    def as_json(self) -> str:
        """The job as its program receives it, the same line for the same job."""
        # Imported here: a packed experiment reads jobs before any package is installed.
        from retrace.settings_model import as_json

        content = {"settings": self.settings, "inputs": self.inputs, "execution": self.execution}
        return as_json(content | ({"identity": self.identity} if self.identity else {}))

    def as_argument(self, *, write: bool) -> str:
        """The value of `--job`: the job as JSON or, if that is too long, @FILE.

        The file's name is the digest of the job, so that the argument changes with the job. Without
        `write` the file is not written, for a run that only shows its plan.
        """
        text = self.as_json()
        if len(shlex.quote(shlex.quote(text))) <= LONGEST:
            return text
        path = JOB_FILES / f"{digest(text)}.json"
        if write and not path.is_file():
            atomic_write(path, text)
        return f"@{path}"

    @classmethod
    def parse(cls, argument: str) -> Job:
        """The job in a line of JSON, or in the file of @FILE (ConfigError if it is none)."""
        try:
            named = argument.startswith("@")
            content = json.loads(Path(argument[1:]).read_text() if named else argument)
            return cls(
                content["settings"],
                content.get("inputs", {}),
                execution=content.get("execution", {}),
                identity=content.get("identity"),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"--job: not the JSON of a job ({error})") from None
        except OSError as error:
            raise ConfigError(
                f"--job: {argument[1:]} cannot be read ({error.strerror}); run the same Snakemake "
                "command again, which writes it"
            ) from None

    def paths(self, role: str) -> list[Path]:
        """The files of a role, in order; none where the job has no such role."""
        return [Path(path) for path in _flat(self.inputs.get(role, ()))]

    def path(self, role: str) -> Path:
        """The one file of a role (ConfigError if there is not exactly one)."""
        paths = self.paths(role)
        if len(paths) != 1:
            raise ConfigError(f"--job: inputs: {role!r} needs one file, and has {len(paths)}")
        return paths[0]

    def optional_path(self, role: str) -> Path | None:
        """The one file of a role, None where the job has none."""
        return self.path(role) if self.paths(role) else None

    def named_paths(self, role: str) -> dict[str, Path]:
        """The files of a role by the name of their volume or network."""
        return {name: Path(str(path)) for name, path in self._by_name(role).items()}

    def named_path_lists(self, role: str) -> dict[str, list[Path]]:
        """Several files for each volume, by its name."""
        files = self._by_name(role)
        return {name: [Path(path) for path in _flat(paths)] for name, paths in files.items()}

    def _by_name(self, role: str) -> Mapping[str, Any]:
        files = self.inputs.get(role, {})
        if not isinstance(files, Mapping):
            raise ConfigError(f"--job: inputs: {role!r} needs files by name")
        return files


def _flat(files: Files) -> Iterator[str]:
    if isinstance(files, str):
        yield files
    elif isinstance(files, Mapping):
        for value in files.values():
            yield from _flat(value)
    else:
        yield from files
