"""From a bucket of electron microscopy to an evaluated segmentation.

A target is verb_dataset_network, for example

    snakemake --use-singularity train_zfinch_mtlsd
    snakemake --use-singularity evaluate_zfinch_mtlsd --config iterations=1000 seed=1

with the verbs train, package, predict, segment, evaluate, export, align, view, view_batch, crate and bundle.
fetch_DATASET, mask_DATASET, view_data_DATASET, and for sections to align stacks_DATASET,
train_defects_DATASET and mask_stacks_DATASET need no network. compare_DATASET compares all networks,
reproduce_DATASET compares them with the paper. `make list` shows what can run here. Datasets are
config/datasets/*.yaml, networks config/networks/*.yaml, everything else config/config.yaml.

Jobs print to the terminal and to their log. A signal that stops a job must not stop `tee` first, because
the job still reports how far it came: hence `(trap '' INT TERM; exec tee)`. A cluster sends the signal
to every process of a job; the shell must not end before its program, which still saves its work: hence the
trap in the shell prefix.
"""

from snakemake.utils import min_version

min_version("9.20.0")


include: "rules/start.smk"
include: "rules/common.smk"
include: "rules/shared_outputs.smk"
include: "rules/identity.smk"


configfile: source("config", "config.yaml")


PLANNER = prepare()
shell.prefix(
    f"set -euo pipefail; trap : TERM; export {job_environment(PLANNER.config)}; "
)


include: "rules/resources.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    dataset=pattern(names("datasets")),
    network=pattern(names("networks")),
    volume="[A-Za-z0-9][A-Za-z0-9_.-]*",
    folder="[A-Za-z0-9_]+",
    shard=r"\d+-of-\d+",


from retrace.planning.report import evaluated_files


rule all:
    input:
        target_files(evaluated_files),


include: "rules/containers.smk"
include: "rules/fetch.smk"
include: "rules/checkpoints.smk"
include: "rules/masks.smk"


if PLANNER.config.engine == "legacy":

    include: "rules/legacy.smk"

else:

    include: "rules/train.smk"
    include: "rules/predict.smk"


include: "rules/segment.smk"


if PLANNER.config.shards > 1:

    include: "rules/shards.smk"


include: "rules/evaluate.smk"
include: "rules/znn.smk"
include: "rules/elektronn.smk"
include: "rules/elektronn_files.smk"
include: "rules/compare.smk"
include: "rules/stacks.smk"
include: "rules/align.smk"
include: "rules/reproduce.smk"
include: "rules/export.smk"
include: "rules/view.smk"
include: "rules/report.smk"
include: "rules/pack.smk"
include: "rules/targets.smk"
