"""Where this workflow is, and how it may be started; no rules here."""

import sys
from pathlib import Path
from traceback import walk_stack
from typing import Any

from snakemake.cli import args_to_api
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir).resolve()

# The workflow is no module: its planning needs the rerun triggers of the whole run, see rules/identity.smk.
if len(workflow.included_stack) > 2:
    repository = workflow.current_basedir.get_path_or_uri(True).rpartition("/")[0]
    raise WorkflowError(
        "retrace cannot be part of another workflow (module, use rule, include): it turns Snakemake's rerun"
        " triggers off, also for your rules. Run it by itself, and let your rules read its results:\n"
        f"    snakemake --snakefile {repository}/Snakefile --directory {Path.cwd()} TARGET"
    )
if not ROOT.is_dir():
    raise WorkflowError(
        f"retrace does not run from {workflow.basedir}, because its programs are not there; clone the"
        " repository and name the clone's Snakefile"
    )

sys.path.insert(0, str(ROOT / "workflow" / "scripts"))


def command_line_options() -> dict[str, Any]:
    """The options of this run by name, also those of profiles; none if Snakemake's API started it.

    Snakemake keeps only some of them. Reading them again would miss the folder that profiles are relative to.
    """
    for frame, _ in walk_stack(None):
        if frame.f_code is args_to_api.__code__:
            return vars(frame.f_locals["args"])
    return {}
