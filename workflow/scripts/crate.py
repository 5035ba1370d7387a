"""Writes a finished experiment as a Workflow Run RO-Crate: a folder, and the same as a zip.

The crate carries the workflow, its configuration as run, logs, manifests and all results that are
files; volumes, predictions and segmentations are named with their digests, fetched ones with the
place they came from. Profile: Provenance Run Crate 0.5 (w3id.org/ro/wfrun/provenance).

Runs where Snakemake runs, not in the image: it reads Snakemake's records of the jobs.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from retrace import __version__
from retrace.errors import run
from retrace.provenance.folders import code_files, sha256_of
from retrace.provenance.jobs import Job, check_chain, jobs_behind, read_jobs, utc
from retrace.storage.manifest import input_digest, manifest_path

ROOT = Path(__file__).resolve().parents[2]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
TERMS = "https://w3id.org/ro/terms/workflow-run#"
RUN_TERMS = {name: TERMS + name for name in ("ContainerImage", "containerImage", "sha256")}
"""Terms of the profile that RO-Crate's own context lacks."""
CONFIG, TARGET = "run.yaml", "target.json"
WORKFLOW_KINDS = ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"]
"""HowTo: its rules are steps."""
IMAGE_SUFFIXES = (".sif", ".img")
LARGEST_BYTES = 1 << 28
"""A larger file is named with its digest and not carried."""


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, type=json.loads, help="one JSON object")
    parser.add_argument("--results", required=True, nargs="+", help="what the crate is about")
    parser.add_argument("--output", required=True, type=Path, help="the folder to make")
    parser.add_argument("--zip", required=True, type=Path)
    return parser.parse_args(argv)


class Description:
    """The crate under construction: entities for files, images, rules, jobs and the run."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self.crate = ROCrate(version="1.1", gen_preview=False)
        self.crate.metadata.extra_terms.update(RUN_TERMS)
        self.crate.name = name
        self.crate.description = (
            f"{name}: configuration, workflow, jobs and results, each traced to the objects it was "
            "made of by digest"
        )
        self.crate.license = self.context(
            "https://spdx.org/licenses/MIT", "CreativeWork", name="MIT License"
        )
        profiles = [
            self.context(i, "CreativeWork", name=n, version=i.rpartition("/")[2])
            for i, n in PROFILES.items()
        ]
        self.crate.root_dataset["conformsTo"] = profiles
        self.code = code_files(ROOT, Path())
        self.entities: dict[str, Any] = {}
        self.tools: dict[str, Any] = {}
        self.workflow = self._workflow()
        self._carry_code()
        text = json.dumps(settings["config"], indent=1) + "\n"  # JSON is YAML
        self._carry_text(CONFIG, text, "The configuration as run")
        target = json.dumps({"target": settings["target"]}) + "\n"
        self._carry_text(TARGET, target, "What Snakemake was asked for")

    def context(self, identifier: str, kind: str | list[str], **properties: Any) -> Any:
        """An entity that is no file of the crate."""
        content = {"@type": kind, **properties}
        return self.crate.add(ContextEntity(self.crate, identifier, properties=content))

    def _workflow(self) -> Any:
        found = self.crate.add_workflow(
            self.code.pop("Snakefile"),
            "Snakefile",
            main=True,
            lang="snakemake",
            lang_version=version("snakemake"),
            properties={"@type": WORKFLOW_KINDS},
        )
        found["sha256"] = sha256_of(ROOT / "Snakefile")
        found["name"], found["version"] = "retrace", __version__
        return found

    def _carry_code(self) -> None:
        for name, path in self.code.items():
            self._carry(name, path)

    def _carry_text(self, name: str, text: str, description: str) -> None:
        path = Path("work/crate") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self._carry(name, path)["description"] = description

    def _carry(self, name: str, path: Path) -> Any:
        facts = {"sha256": sha256_of(path), "contentSize": str(path.stat().st_size), "name": name}
        self.entities[name] = self.crate.add_file(path, name, properties=facts)
        return self.entities[name]

    def entity(self, path: str) -> Any:
        """What stands for a file or store: carried, or named with its digest."""
        inside = Path(path).resolve()
        if inside.is_relative_to(ROOT) and inside.relative_to(ROOT).as_posix() in self.entities:
            return self.entities[inside.relative_to(ROOT).as_posix()]
        if path not in self.entities:
            here = Path(path)
            small = here.is_file() and here.stat().st_size <= LARGEST_BYTES
            portable = small and not here.is_absolute() and ".." not in here.parts
            self.entities[path] = self._carry(path, here) if portable else self._named(here)
        return self.entities[path]

    def _named(self, path: Path) -> Any:
        """A store, or a file too large to carry, or one outside the working directory."""
        facts: dict[str, Any] = {"name": path.as_posix()}
        if path.is_file():
            facts |= {"sha256": sha256_of(path), "contentSize": str(path.stat().st_size)}
        elif path.is_dir():
            facts["identifier"] = f"retrace-digest:{input_digest(path)}"
        manifest = manifest_path(path)
        if path.is_dir() and manifest.is_file():
            content = json.loads(manifest.read_text())
            facts["description"] = f"digests of its arrays are in {manifest.as_posix()}"
            if "source" in content:
                facts["isBasedOn"] = self._source(content)
        made = self.context(f"#{path.as_posix()}", "CreativeWork")
        for key, value in facts.items():
            made[key] = value
        return made

    def _source(self, manifest: Mapping[str, Any]) -> Any:
        """Where a fetched store came from, and how its objects were compared with the bucket's."""
        address = str(manifest["source"]).split()[0]
        checks = ", ".join(f"{count} by {how}" for how, count in manifest["verified"].items())
        facts = {"name": str(manifest["source"]), "description": f"objects verified: {checks}"}
        return self.context(address, "CreativeWork", **facts)

    def image(self, path: Path) -> Any:
        """A container image, with the digest of its file."""
        identifier = f"#{path.as_posix()}"
        return self.crate.get(identifier) or self.context(
            identifier, "ContainerImage", name=path.name, sha256=sha256_of(path)
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

    def action(self, job: Job) -> Any:
        """A job: its rule, what it read and made, when, and in which image."""
        tool, _ = self.tool(job.rule, len(self.tools) + 1)
        made = self.context(f"#job-{job.name.replace(' ', '-')}", "CreateAction", **timed(job))
        made["name"], made["description"] = job.name, job.command
        made["instrument"] = tool
        made["object"] = [self.entity(path) for path in job.inputs if not is_image(path)]
        made["result"] = [self.entity(path) for path in job.outputs]
        logs = [self.entity(path) for path in job.logs if Path(path).is_file()]
        made["subjectOf"] = logs
        inside = [path for path in job.inputs if is_image(path)]
        if inside:
            made["containerImage"] = [self.image(Path(path)) for path in inside]
        return made

    def describe_run(self, target: str, actions: Sequence[Any], jobs: Sequence[Job]) -> None:
        """The run as a whole, its engine, and which step each job was."""
        tools, steps = zip(*self.tools.values(), strict=True)
        self.workflow["hasPart"], self.workflow["step"] = list(tools), list(steps)
        whole = {"name": f"snakemake {target}", **timed(*jobs)}
        made = self.context("#run", "CreateAction", **whole)
        made["instrument"] = self.workflow
        made["object"] = [self.entities[CONFIG]]
        made["result"] = [self.entity(path) for path in jobs[-1].outputs]
        controls = []
        for job, action in zip(jobs, actions, strict=True):
            control = self.context(
                f"#control-{job.name.replace(' ', '-')}", "ControlAction", name=f"runs {job.name}"
            )
            control["instrument"], control["object"] = self.tools[job.rule][1], action
            controls.append(control)
        engine = self.context(
            "#snakemake", "SoftwareApplication", name="Snakemake", version=version("snakemake")
        )
        organized = self.context("#organized", "OrganizeAction", **whole)
        organized["instrument"], organized["object"] = engine, controls
        organized["result"] = made
        self.crate.root_dataset["mentions"] = [made, *actions, organized]


def timed(*jobs: Job) -> dict[str, str]:
    """When jobs began and ended, for an action."""
    return {
        "startTime": utc(min(job.begun for job in jobs)),
        "endTime": utc(max(job.ended for job in jobs)),
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def is_image(path: str) -> bool:
    """Whether an input of a job is the container image that it ran in."""
    return Path(path).suffix in IMAGE_SUFFIXES


def describe(settings: Mapping[str, Any], results: Sequence[str]) -> ROCrate:
    """The crate of the jobs behind `results`; DataError where they are not known or not current."""
    jobs = jobs_behind(results, read_jobs())
    links = check_chain(jobs)
    print(f"[crate] {len(jobs)} jobs, {links} digests compared", flush=True)
    description = Description(settings["name"], settings)
    actions = [description.action(job) for job in jobs]
    description.describe_run(settings["target"], actions, jobs)
    return description.crate


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    crate = describe(args.settings, args.results)
    partial = args.output.with_name(f"{args.output.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    crate.write(partial)
    archive = args.zip.with_name(f"{args.zip.stem}.partial")
    made = Path(shutil.make_archive(str(archive), "zip", partial))
    shutil.rmtree(args.output, ignore_errors=True)
    partial.rename(args.output)
    made.replace(args.zip)
    print(f"[crate] {args.output} and {args.zip}", flush=True)


if __name__ == "__main__":
    run(main)
