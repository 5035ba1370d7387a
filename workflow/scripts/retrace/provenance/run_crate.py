"""A finished experiment as a Workflow Run RO-Crate: entities for files, rules, jobs and the run.

Profile: Provenance Run Crate 0.5 (w3id.org/ro/wfrun/provenance).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from retrace import __version__
from retrace.config.workflow import WorkflowConfig
from retrace.files import file_sha256, read_json
from retrace.planning.program_files import ROOT
from retrace.provenance.crate_files import TARGET
from retrace.provenance.folders import RUN_CONFIG, code_files, copy_if_secret
from retrace.provenance.jobs import FinishedJob, utc
from retrace.redaction import redacted
from retrace.replacement import put
from retrace.storage.manifest import input_digest, manifest_path

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = "https://w3id.org/ro/terms/workflow-run#"
RUN_TERMS = {name: TERMS + name for name in ("ContainerImage", "containerImage", "sha256")}
"""Terms of the profile that RO-Crate's own context lacks."""
WORKFLOW_KINDS = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
"""HowTo: its rules are steps."""
IMAGE_SUFFIXES = (".sif", ".img")
LARGEST_BYTES = 1 << 28
"""Larger files are named with their digest; their content is not included."""


class RunCrate:
    """An RO-Crate under construction. `entities`: files and stores by path."""

    def __init__(self, name: str, target: str, config: WorkflowConfig, scratch: Path) -> None:
        """Includes the workflow and its configuration; `scratch`: folder for generated files."""
        self.crate = ROCrate(version="1.1", gen_preview=False)
        self.crate.metadata.extra_terms.update(RUN_TERMS)
        self.crate.name = name
        self.crate.description = (
            f"{name}: configuration, workflow, jobs and results, each traced by digest to the "
            "objects it was computed from"
        )
        self.crate.license = self.context(
            "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License"
        )
        self.crate.root_dataset["conformsTo"] = [
            self.context(i, "CreativeWork", name=n, version=i.rpartition("/")[2])
            for i, n in PROFILES.items()
        ]
        self.scratch = scratch
        self.entities: dict[str, Any] = {}
        self.tools: dict[str, Any] = {}
        self._include_code()
        self._include_text(scratch / RUN_CONFIG, config.plain(), "The configuration of the run")
        self._include_text(scratch / TARGET, {"target": target}, "The target of the run")

    def context(self, identifier: str, kind: str | list[str], **properties: Any) -> Any:
        """Adds an entity that is not a file of the crate."""
        content = {"@type": kind, **properties}
        return self.crate.add(ContextEntity(self.crate, identifier, properties=content))

    def _include_code(self) -> None:
        code = code_files(ROOT, Path())
        self.workflow = self.crate.add_workflow(
            code.pop("Snakefile"),
            "Snakefile",
            main=True,
            lang="snakemake",
            lang_version=version("snakemake"),
            properties={"@type": WORKFLOW_KINDS},
        )
        self.workflow["sha256"] = file_sha256(ROOT / "Snakefile")
        self.workflow["name"], self.workflow["version"] = "retrace", __version__
        for name, path in code.items():
            self._include(name, path)

    def _include_text(self, path: Path, content: Mapping[str, Any], description: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        indent = 1 if path.name == RUN_CONFIG else None
        path.write_text(json.dumps(content, indent=indent) + "\n")  # JSON is YAML
        self._include(path.name, path)["description"] = description

    def _include(self, name: str, path: Path) -> Any:
        without_secrets = self.scratch / "hidden" / name
        if copy_if_secret(path, without_secrets):
            path = without_secrets
        facts = {"sha256": file_sha256(path), "contentSize": str(path.stat().st_size), "name": name}
        self.entities[name] = self.crate.add_file(path, name, properties=facts)
        return self.entities[name]

    def entity(self, path: str) -> Any:
        """The entity of a file or store: its content, or its name with the digest."""
        inside = Path(path).resolve()
        if inside.is_relative_to(ROOT) and inside.relative_to(ROOT).as_posix() in self.entities:
            return self.entities[inside.relative_to(ROOT).as_posix()]
        if path not in self.entities:
            file = Path(path)
            small = file.is_file() and file.stat().st_size <= LARGEST_BYTES
            portable = small and not file.is_absolute() and ".." not in file.parts
            self.entities[path] = self._include(path, file) if portable else self._named(file)
        return self.entities[path]

    def _named(self, path: Path) -> Any:
        """Names a store, a file above `LARGEST_BYTES`, or a file elsewhere, with its digest."""
        facts: dict[str, Any] = {"name": path.as_posix()}
        if path.is_file():
            facts |= {"sha256": file_sha256(path), "contentSize": str(path.stat().st_size)}
        elif path.is_dir():
            facts["identifier"] = f"retrace-digest:{input_digest(path)}"
        manifest = manifest_path(path)
        if path.is_dir() and manifest.is_file():
            content = read_json(manifest)
            facts["description"] = f"digests of its arrays are in {manifest.as_posix()}"
            if "source" in content:
                facts["isBasedOn"] = self._source(content)
        entity = self.context(f"#{path.as_posix()}", "CreativeWork")
        for key, value in facts.items():
            entity[key] = value
        return entity

    def _source(self, manifest: Mapping[str, Any]) -> Any:
        """The address of a fetched store, and how its objects were verified."""
        source = redacted(str(manifest["source"]))
        address = source.removeprefix("mirror ").partition(" at ")[0]
        checks = ", ".join(f"{count} by {how}" for how, count in manifest["verified"].items())
        facts = {"name": source, "description": f"objects verified: {checks}"}
        return self.context(address, "CreativeWork", **facts)

    def image(self, path: Path) -> Any:
        """A container image, with the digest of its file."""
        identifier = f"#{path.as_posix()}"
        return self.crate.get(identifier) or self.context(
            identifier, "ContainerImage", name=path.name, sha256=file_sha256(path)
        )

    def tool(self, rule: str, position: int) -> tuple[Any, Any]:
        """A rule as a tool, and the workflow's step that uses it."""
        if rule not in self.tools:
            tool = self.context(f"#{rule}", "SoftwareApplication", name=rule, version=__version__)
            step = self.context(
                f"#step-{rule}", "HowToStep", name=rule, position=str(position), workExample=tool
            )
            self.tools[rule] = tool, step
        return self.tools[rule]

    def action(self, job: FinishedJob) -> Any:
        """A job: its rule, inputs, outputs, logs, times and image."""
        tool, _ = self.tool(job.rule, len(self.tools) + 1)
        action = self.context(f"#job-{job.name.replace(' ', '-')}", "CreateAction", **times(job))
        action["name"], action["description"] = job.name, redacted(job.command)
        action["instrument"] = tool
        action["object"] = [self.entity(path) for path in job.inputs if not is_image(path)]
        action["result"] = [self.entity(path) for path in job.outputs]
        action["subjectOf"] = [self.entity(path) for path in job.logs if Path(path).is_file()]
        images = [path for path in job.inputs if is_image(path)]
        if images:
            action["containerImage"] = [self.image(Path(path)) for path in images]
        return action

    def describe_run(self, target: str, jobs: Sequence[FinishedJob]) -> None:
        """The run as a whole: its jobs, the steps that they are, and Snakemake."""
        actions = [self.action(job) for job in jobs]
        tools, steps = zip(*self.tools.values(), strict=True)
        self.workflow["hasPart"], self.workflow["step"] = list(tools), list(steps)
        whole = {"name": f"snakemake {target}", **times(*jobs)}
        run = self.context("#run", "CreateAction", **whole)
        run["instrument"] = self.workflow
        run["object"] = [self.entities[RUN_CONFIG]]
        run["result"] = [self.entity(path) for path in jobs[-1].outputs]
        engine = self.context(
            "#snakemake", "SoftwareApplication", name="Snakemake", version=version("snakemake")
        )
        organized = self.context("#organized", "OrganizeAction", **whole)
        organized["instrument"] = engine
        organized["object"] = self._controls(jobs, actions)
        organized["result"] = run
        self.crate.root_dataset["mentions"] = [run, *actions, organized]

    def _controls(self, jobs: Iterable[FinishedJob], actions: Iterable[Any]) -> list[Any]:
        """Which step of the workflow each job was."""
        controls = []
        for job, action in zip(jobs, actions, strict=True):
            control = self.context(
                f"#control-{job.name.replace(' ', '-')}", "ControlAction", name=f"runs {job.name}"
            )
            control["instrument"], control["object"] = self.tools[job.rule][1], action
            controls.append(control)
        return controls

    def write(self, folder: Path, archive: Path) -> None:
        """Writes the crate to a temporary folder and a zip, then renames both."""
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        self.crate.write(partial)
        base = archive.with_name(f"{archive.stem}.partial")
        partial_archive = Path(shutil.make_archive(str(base), "zip", partial))
        put(partial, folder)
        put(partial_archive, archive)


def times(*jobs: FinishedJob) -> dict[str, str]:
    """Start and end of jobs, for an action."""
    return {
        "startTime": utc(min(job.started for job in jobs)),
        "endTime": utc(max(job.ended for job in jobs)),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def is_image(path: str) -> bool:
    """Whether an input of a job is the container image that it ran in."""
    return Path(path).suffix in IMAGE_SUFFIXES
