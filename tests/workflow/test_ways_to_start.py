"""The workflow runs by itself, from its folder or a link to it, with options that work here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny_workflow
from file_server import served
from plans import Run, output_of, planned

MODULE = 'module retrace:\n    snakefile: "{}"\n'
CALLS = 'module retrace:\n    snakefile: "{}"\n    config: config["retrace"]\n    prefix: "sub"\n'


@pytest.mark.parametrize(
    "text",
    [
        MODULE + "use rule * from retrace\n",
        MODULE + "use rule * from retrace as retrace_*\n",
        MODULE + "use rule mask from retrace with:\n    threads: 2\n",
        'config["retrace"] = {{}}\n' + CALLS + "use rule * from retrace\n",
        'include: "{}"\n',
    ],
)
def test_another_workflow_learns_how_to_use_the_results(
    tmp_path: Path, repository: Path, text: str
) -> None:
    snakefile = tmp_path / "other.smk"
    snakefile.write_text(text.format(repository / "Snakefile"))
    status, printed = tiny_workflow.finish(
        tmp_path, ["--snakefile", str(snakefile), "--dry-run", "mask_phantom"]
    )
    assert status != 0 and "Traceback" not in printed
    assert "retrace cannot be part of another workflow" in printed
    assert f"--snakefile {repository}/Snakefile --directory {tmp_path} TARGET" in printed


def test_a_link_to_the_clone_is_the_clone(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "clone").symlink_to(repository)
    plan = output_of(tmp_path / "clone", tmp_path, "--dry-run", "mask_phantom")
    assert planned(plan)["mask"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("mask_phantom", "--cache", "mask"), "cache would hold manifests without their stores"),
        (("mask_phantom", "-nt"), "a dry run (-n) prints which results are computed again"),
        (("mask_phantom", "--delete-all-output"), "delete the manifests and keep the stores"),
        (("results/a/b/prediction.zarr",), "results/a/b/prediction.manifest.json"),
    ],
)
def test_options_that_would_do_something_wrong_are_refused(
    snakemake: Run, options: tuple[str, ...], message: str
) -> None:
    run = snakemake(*options)
    assert run.returncode != 0 and "Traceback" not in run.stdout
    assert message in run.stdout


def test_options_of_a_profile_are_refused_too(tmp_path: Path) -> None:
    """A profile is relative to the folder where Snakemake starts, not to --directory."""
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile/config.yaml").write_text("touch: true\n")
    (tmp_path / "place").mkdir()
    words = ["--directory", "place", "--profile", "profile", "mask_phantom"]
    status, printed = tiny_workflow.finish(tmp_path, words)
    assert status != 0 and "Traceback" not in printed
    assert "--touch does not work here" in printed


@pytest.fixture
def address(repository: Path) -> Iterator[str]:
    """The address of a server with the files of the repository."""
    with served(repository) as server:
        yield server


def test_a_snakefile_on_a_server_is_refused(tmp_path: Path, address: str) -> None:
    words = ["--snakefile", f"{address}/Snakefile", "--dry-run", "mask_phantom"]
    status, printed = tiny_workflow.finish(tmp_path, words)
    assert status != 0 and "Traceback" not in printed
    assert f"retrace does not run from {address}" in printed
    assert "clone the repository" in printed


def test_a_snakemake_that_quotes_in_another_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "from snakemake_interface_executor_plugins import utils\n"
        "utils.format_cli_arg = lambda flag, value, **_: f'{flag} {value!r}'\n"
    )
    words = ["--dry-run", "mask_phantom"]
    status, printed = tiny_workflow.finish(tmp_path, words, {"PYTHONPATH": str(tmp_path)})
    assert status != 0 and "Traceback" not in printed
    assert "install the one that envs/host.txt names" in printed
