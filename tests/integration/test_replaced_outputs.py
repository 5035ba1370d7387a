"""A program that is killed while it replaces outputs leaves the old or the new ones, complete."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import replaced_outputs
import tiny_workflow
from replaced_outputs import AMID, BEFORE, FinishedJob

pytestmark = [pytest.mark.s3, pytest.mark.timeout(1200)]

TARGETS = ("evaluate", "export", "package", "crate")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FinishedJob]]:
    """A job of each rule in a working directory with all results of a network."""
    place = tmp_path_factory.mktemp("replaced")
    tiny_workflow.write_network(place)
    with tiny_workflow.serving() as address:
        targets = [*(f"{verb}_phantom_tiny" for verb in TARGETS), "compare_phantom", "report"]
        config = ["iterations=2", "evaluate={untrained: false}", f"endpoint_url={address}"]
        config += ["compare={networks: [tiny]}", "experiments=[phantom_tiny]"]
        arguments = [*targets, "--config", *config]
        options = [*tiny_workflow.threads(), "--quiet", "host", "--cores", "2"]
        status, printed = tiny_workflow.finish(place, [*options, *arguments])
        assert status == 0, printed[-5000:]
        jobs = replaced_outputs.finished_jobs(place, arguments)
        yield {job.rule: job for job in jobs}


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
