"""Alignment of serial sections.

REQUIRED INPUTS: a dataset with `alignment`: its training stacks, the masks of its defects unless it has
its own, and the sections
OUTPUTS: results/DATASET/NETWORK/model.safetensors and training.json, the same archive under the name of
its run in results/runs; aligned.zarr, precomputed/aligned and precomputed/field; evaluation.json,
alignment.txt, alignment.png and before_after.png
work/ holds what an interrupted training or alignment resumes from, pictures and TensorBoard scalars.
"""

from retrace.planning.align import align_job, fit_job, score_alignment_job


rule fit_alignment:
    """Trains the pyramid for its epochs, or for --config epochs=N or iterations=N."""
    input:
        unpack(files_of(fit_job)),
        script=ancient(script("align")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/model.safetensors"),
        history=update("results/{dataset}/{network}/training.json"),
    log:
        "logs/fit_alignment/{dataset}_{network}.log",
    benchmark:
        "logs/fit_alignment/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=family_pattern("seamless"),
    container:
        image("modern")
    threads: 8
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=minutes(fit_job, 10000, resumes=True),
    params:
        job=job_of(fit_job),
    shell:
        "python {input.script:q} train"
        " --job {params.job:q}"
        " --work work/train"
        " --runs results/runs"
        " --output {output.model:q}"
        " --history {output.history:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule align:
    """Aligns each section to those before it; an interrupted job resumes."""
    input:
        unpack(files_of(align_job)),
        script=ancient(script("align")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("results/{dataset}/{network}/aligned")),
        layer_manifest=update(
            manifest("results/{dataset}/{network}/precomputed/aligned")
        ),
        field_manifest=update(manifest("results/{dataset}/{network}/precomputed/field")),
    log:
        "logs/align/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("seamless"),
    container:
        image("modern")
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(16000),
        runtime=growing(1440),
    params:
        zarr="results/{dataset}/{network}/aligned.zarr",
        layer="results/{dataset}/{network}/precomputed/aligned",
        field="results/{dataset}/{network}/precomputed/field",
        job=job_of(align_job),
    shell:
        "python {input.script:q} stack"
        " --job {params.job:q}"
        " --threads {threads}"
        " --work work/align"
        " --output {params.zarr:q}"
        " --layer {params.layer:q}"
        " --field-layer {params.field:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule score_alignment:
    """Correlation of neighbours before and after, folds, drift, and the error where ground truth is known."""
    input:
        unpack(files_of(score_alignment_job)),
        script=ancient(script("align")),
        image=image_input("modern"),
    output:
        scores=update("results/{dataset}/{network}/evaluation.json"),
        table=update("results/{dataset}/{network}/alignment.txt"),
        plot=update(
            report(
                "results/{dataset}/{network}/alignment.png",
                caption="../workflow/report/alignment.rst",
                category="Alignment",
                labels={"dataset": "{dataset}", "network": "{network}"},
            )
        ),
        picture=update(
            report(
                "results/{dataset}/{network}/before_after.png",
                caption="../workflow/report/alignment.rst",
                category="Alignment",
                labels={"dataset": "{dataset}", "network": "{network}"},
            )
        ),
    log:
        "logs/score_alignment/{dataset}_{network}.log",
    benchmark:
        "logs/score_alignment/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=family_pattern("seamless"),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=job_of(score_alignment_job),
    shell:
        "python {input.script:q} evaluate"
        " --job {params.job:q}"
        " --output {output.scores:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
