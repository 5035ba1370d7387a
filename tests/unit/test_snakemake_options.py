"""Options of Snakemake that would leave or report something wrong are refused."""

from __future__ import annotations

from typing import Any

import pytest
from snakemake.cli import get_argument_parser

from retrace.errors import ConfigError
from retrace.planning.snakemake_options import REFUSED, check_options


def options(*words: str) -> dict[str, Any]:
    return vars(get_argument_parser().parse_args(list(words)))


def test_every_refused_option_exists() -> None:
    assert options().keys() >= REFUSED.keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train_a_b", "--cache"), r"--cache does not work here.*--directory"),
        (("--cache", "mask", "--", "train_a_b"), r"--cache does not work here.*links"),
        (("--tou",), r"--touch does not work here.*dry run"),
        (("-nt",), r"--touch does not work here"),
        (("-e", "touch"), r"--touch does not work here"),
        (("--delete-all-output", "-n"), r"--delete-all-output.*delete `results` and `work`"),
        (("--archive", "a.tar"), r"--archive.*bundle_DATASET_NETWORK"),
        (("--containerize",), r"--containerize.*`containers` has the images"),
        (("--export-cwl", "a.cwl"), r"--export-cwl.*runs the jobs"),
        (("--generate-unit-tests",), r"--generate-unit-tests.*make demo"),
        (("--all-temp",), r"--all-temp.*`results`"),
        (("--lu",), r"--list-untracked.*only `logs`"),
        (("--lc", "params"), r"--list-changes.*dry run"),
        (("--list-input-changes",), r"--list-input-changes.*dry run"),
        (("--omit-flags", "update"), r"--omit-flags.*deleted before a job runs"),
        (("--default-storage-provider", "s3"), r"--default-storage-provider.*file system"),
        (("--replace-workflow-config",), r"--replace-workflow-config.*--configfile"),
        (("results/a/b.zarr/",), r"results/a/b.zarr is no target.*results/a/b.manifest.json"),
        (("--omit-from", "results/a/b.zarr"), r"b.zarr is no target.*b.manifest.json"),
        (("-R", "results/a/b.zarr"), r"b.zarr is no target.*b.manifest.json"),
    ],
)
def test_an_option_that_leaves_a_wrong_state_is_refused(
    words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(options(*words))


@pytest.mark.parametrize(
    "words",
    [
        ("train_a_b", "--forcerun", "train", "--until", "predict", "--omit-from", "segment"),
        ("-F", "--batch", "evaluate=1/2"),
        ("--rerun-triggers", "mtime", "--summary"),
        ("--delete-temp-output", "--cleanup-metadata", "results/a.json", "--notemp"),
        ("--shadow-prefix", "/tmp", "--not-retrieve-storage"),
    ],
)
def test_options_without_harm_are_allowed(words: tuple[str, ...]) -> None:
    check_options(options(*words))
