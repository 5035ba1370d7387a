"""A program that is killed while it replaces outputs leaves the old or the new ones, complete."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import replaced_outputs
import tiny_workflow
from replaced_outputs import AMID, BEFORE, FinishedJob

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

TARGETS = ("evaluate", "export", "package", "crate")


@contextmanager
def computed(
    place: Path, targets: Sequence[str], config: Sequence[str]
) -> Iterator[dict[str, FinishedJob]]:
    """A job of each rule in a working directory where the targets are computed."""
    tiny_workflow.write_network(place)
    with tiny_workflow.serving() as address:
        settings = ["iterations=2", "evaluate={untrained: false}", f"endpoint_url={address}"]
        arguments = [*targets, "--config", *settings, *config]
        options = [*tiny_workflow.threads(), "--quiet", "host", "--cores", "2"]
        tiny_workflow.succeed(place, [*options, *arguments])
        jobs = replaced_outputs.finished_jobs(place, arguments)
        yield {job.rule: job for job in jobs}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FinishedJob]]:
    """A job of each rule in a working directory with all results of a network."""
    targets = [*(f"{verb}_phantom_tiny" for verb in TARGETS), "compare_phantom", "report"]
    config = ["compare={networks: [tiny]}", "experiments=[phantom_tiny]"]
    with computed(tmp_path_factory.mktemp("replaced"), targets, config) as jobs:
        yield jobs


def test_every_program_leaves_whole_outputs(jobs: dict[str, FinishedJob]) -> None:
    assert {"fetch", "mask", "train", "predict", "fragments", "evaluate", "crate"} <= jobs.keys()
    for job in jobs.values():
        replaced_outputs.assert_whole_after_kills(job, (BEFORE, AMID))


@pytest.mark.parametrize("rule", ["mask", "compare"])
def test_each_step_of_a_replacement_may_be_the_last(
    jobs: dict[str, FinishedJob], rule: str
) -> None:
    job = jobs[rule]
    steps = 0
    while True:
        job.mark_previous()
        if job.run(steps).returncode == 0:
            break
        assert job.is_previous() == (steps == BEFORE)
        steps += 1
    assert steps > len(job.files) + len(job.stores) + 1
    assert not job.is_previous()


def test_programs_that_join_shards_leave_whole_outputs(tmp_path: Path) -> None:
    config = ["shards=2", "segment={block_shape: [16, 40, 40]}"]
    joining = {"assemble_prediction", "assemble_segmentation", "edges", "join", "count"}
    with computed(tmp_path, ["evaluate_phantom_tiny"], config) as jobs:
        assert joining <= jobs.keys()
        for rule in sorted(joining):
            replaced_outputs.assert_whole_after_kills(jobs[rule], (BEFORE, AMID))
