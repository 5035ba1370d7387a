"""Sections to align: synthetic sections, training stacks, the network that detects defects, its masks.

REQUIRED INPUTS: a dataset with `alignment`
OUTPUTS: results/DATASET/sections/layer and truth.zarr of synthetic sections;
results/DATASET/stacks/SET_SPLIT.h5, the coordinates and the manifest of it; results/DATASET/defects.safetensors;
results/DATASET/stacks/SET_SPLIT_masks.h5
"""

from retrace.planning.stacks import (
    make_job,
    mask_stacks_job,
    sample_job,
    train_defects_job,
)


rule make_sections:
    """Writes a layer of sections with known distortions, generated or from the raw of a volume."""
    input:
        unpack(files_of(make_job)),
        script=ancient(script("stacks")),
        image=image_input("modern"),
    output:
        layer_manifest=update(manifest("results/{dataset}/sections/layer")),
        truth_manifest=update(manifest("results/{dataset}/sections/truth")),
    log:
        "logs/make_sections/{dataset}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        layer="results/{dataset}/sections/layer",
        truth="results/{dataset}/sections/truth.zarr",
        job=job_of(make_job),
    shell:
        "python {input.script:q} make"
        " --job {params.job:q}"
        " --layer {params.layer:q}"
        " --truth {params.truth:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule gen_stack:
    """Samples training stacks from the sections; an interrupted job resumes."""
    input:
        unpack(files_of(sample_job)),
        script=ancient(script("stacks")),
        image=image_input("modern"),
    output:
        stacks=update("results/{dataset}/stacks/{stacks}_{split}.h5"),
        coordinates=update("results/{dataset}/stacks/{stacks}_{split}.coordinates.json"),
        manifest=update(manifest("results/{dataset}/stacks/{stacks}_{split}")),
    log:
        "logs/gen_stack/{dataset}/{stacks}_{split}.log",
    wildcard_constraints:
        stacks="[A-Za-z0-9]+",
        split="train|validation|test",
    retries: 2
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(600),
    params:
        job=job_of(sample_job),
        work="work/stacks/{dataset}_{stacks}_{split}",
    shell:
        "python {input.script:q} gen_stack"
        " --job {params.job:q}"
        " --work {params.work:q}"
        " --output {output.stacks:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule train_defects:
    """Trains the network that detects cracks, folds and missing areas, on labelled and artificial ones."""
    input:
        unpack(files_of(train_defects_job)),
        script=ancient(script("defects")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/defects.safetensors"),
        history=update("results/{dataset}/defects_training.json"),
    log:
        "logs/train_defects/{dataset}.log",
    benchmark:
        "benchmarks/train_defects/{dataset}.jsonl"
    container:
        image("modern")
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(600),
    params:
        job=job_of(train_defects_job),
        work="work/defects/{dataset}",
    shell:
        "python {input.script:q} train"
        " --job {params.job:q}"
        " --work {params.work:q}"
        " --output {output.model:q}"
        " --history {output.history:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule mask_stacks:
    """Detects the defects of stacks: 2 inside a defect, 1 near one."""
    input:
        unpack(files_of(mask_stacks_job)),
        script=ancient(script("defects")),
        image=image_input("modern"),
    output:
        masks=update("results/{dataset}/stacks/{stacks}_{split}_masks.h5"),
        manifest=update(manifest("results/{dataset}/stacks/{stacks}_{split}_masks")),
    log:
        "logs/mask_stacks/{dataset}/{stacks}_{split}.log",
    wildcard_constraints:
        stacks="[A-Za-z0-9]+",
        split="train|validation|test",
    container:
        image("modern")
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=job_of(mask_stacks_job),
    shell:
        "python {input.script:q} mask"
        " --job {params.job:q}"
        " --output {output.masks:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
