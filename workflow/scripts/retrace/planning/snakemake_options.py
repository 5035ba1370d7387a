"""Options of Snakemake that would leave or report something wrong, and what to do instead.

Snakemake itself decides by times and by its own memory, and knows stores only by their manifests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retrace.errors import ConfigError
from retrace.planning.paths import manifest

DRY_RUN = "a dry run (-n) prints which results are computed again, and why"
COMPARES_MEMORY = f"it compares with Snakemake's memory, which decides nothing here; {DRY_RUN}"
REFUSED = {
    "all_temp": (
        "it would delete manifests and models, and keep the stores; delete yourself what you do "
        "not need in `results`"
    ),
    "archive": (
        "the archive would hold neither the library nor the stores; `bundle_DATASET_NETWORK` packs "
        "an experiment, and `crate_DATASET_NETWORK` its results"
    ),
    "cache": (
        "the cache would hold manifests without their stores. Finished results are found by their "
        "records: to use them elsewhere, start with --directory FOLDER, or make `data` and "
        "`results` links to that folder's"
    ),
    "containerize": (
        "the image would lack the programs' packages; `containers` has the images, and "
        "--use-singularity uses them"
    ),
    "default_storage_provider": (
        "stores are folders that jobs read and write in place; use a file system that all machines "
        "see"
    ),
    "delete_all_output": (
        "it would delete the manifests and keep the stores; to start again, delete `results` and "
        "`work` yourself, and `data` to fetch the volumes again"
    ),
    "export_cwl": "Snakemake ignores it, and runs the jobs; leave the option out",
    "generate_unit_tests": (
        "the tests would copy manifests without their stores; `make demo` runs the workflow on "
        "small generated volumes"
    ),
    "list_changes": COMPARES_MEMORY,
    "list_input_changes": COMPARES_MEMORY,
    "list_params_changes": COMPARES_MEMORY,
    "list_untracked": (
        "it would list the stores, which hold your data and results, as files without use; only "
        "`logs`, and `work` with its unfinished work, can be deleted"
    ),
    "omit_flags": (
        "without their flags, outputs are deleted before a job runs, and times of files count"
    ),
    "replace_workflow_config": (
        "jobs on other machines would still read config/config.yaml; leave the option out, because "
        "--configfile and --config take precedence anyway"
    ),
    "touch": (
        "times of files do not count, so that it would change nothing and report jobs as done; "
        f"{DRY_RUN}"
    ),
}
"""Why an option is refused and what to do, by its name in Snakemake's parser."""
REQUESTS = ("targets", "forcerun", "until", "omit_from", "prioritize")
"""Names of the options, and of the positional arguments, that list rules and files."""


def check_options(options: Mapping[str, Any]) -> None:
    """ConfigError for a refused option, and for a store where Snakemake expects a target."""
    for name, reason in REFUSED.items():
        if is_used(name, options):
            raise ConfigError(f"--{name.replace('_', '-')} does not work here: {reason}")
    for name in REQUESTS:
        for target in options.get(name) or ():
            check_target(str(target).rstrip("/"))


def is_used(name: str, options: Mapping[str, Any]) -> bool:
    """Whether an option is used; `--cache` also without the names of rules."""
    if name == "touch" and options.get("executor") == "touch":
        return True
    value = options.get(name)
    return value is not None if name == "cache" else bool(value)


def check_target(target: str) -> None:
    """Refuses a store, which Snakemake would not find, or ignore after --omit-from."""
    if target.endswith(".zarr"):
        raise ConfigError(f"{target} is no target; name its manifest: {manifest(target)}")
