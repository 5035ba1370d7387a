"""The paper's numbers, computed again.

REQUIRED INPUTS: published checkpoints and ground truth, config/published/DATASET.yaml
OUTPUTS: results/DATASET/reproduction.json and .txt, every number next to the paper's; reproduced.txt, only
where all of them are within their tolerance
"""

from retrace.planning.fetch import fetch_ground_truth_job
from retrace.planning.reproduce import judge_job, reproduce_job


use rule fetch_checkpoint as fetch_ground_truth with:
    input:
        unpack(files_of(fetch_ground_truth_job)),
        script=ancient(script("fetch")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("data/{dataset}/ground_truth/{folder}")),
    log:
        "logs/fetch_ground_truth/{dataset}_{folder}.log",
    params:
        folder="data/{dataset}/ground_truth/{folder}",
        job=job_of(fetch_ground_truth_job),


rule compare_published:
    """Compares all networks with the paper; the verdict is a separate rule, so that the table stays."""
    input:
        unpack(files_of(reproduce_job)),
        script=ancient(script("reproduce")),
        image=image_input("modern"),
    output:
        table=update("results/{dataset}/reproduction.json"),
        text=update(
            report(
                "results/{dataset}/reproduction.txt",
                caption="../workflow/report/reproduction.rst",
                category="Reproduction",
                labels={"dataset": "{dataset}"},
            )
        ),
    log:
        "logs/compare_published/{dataset}.log",
    container:
        image("modern")
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        job=job_of(reproduce_job),
    shell:
        "python {input.script:q} table"
        " --job {params.job:q}"
        " --output {output.table:q}"
        " --text {output.text:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule judge_published:
    """Fails if a number is outside its tolerance or missing."""
    input:
        unpack(files_of(judge_job)),
        script=ancient(script("reproduce")),
        image=image_input("modern"),
    output:
        verdict=update("results/{dataset}/reproduced.txt"),
    log:
        "logs/judge_published/{dataset}.log",
    container:
        image("modern")
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        job=job_of(judge_job),
    shell:
        "python {input.script:q} judge"
        " --job {params.job:q}"
        " --output {output.verdict:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
