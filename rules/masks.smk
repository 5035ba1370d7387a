"""Masks of the labels.

REQUIRED INPUTS: a volume with labels
OUTPUTS: results/DATASET/masks/VOLUME.zarr (array labels_mask, 0 on background), and its manifest
"""

from retrace.planning.mask import mask_job


rule mask:
    """Marks the voxels with ground truth, by the background ids of the dataset."""
    input:
        unpack(files_of(mask_job)),
        script=ancient(script("mask")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("results/{dataset}/masks/{volume}")),
    log:
        "logs/mask/{dataset}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=memory(mask_job, 2000),
        runtime=minutes(mask_job, 60),
    params:
        zarr="results/{dataset}/masks/{volume}.zarr",
        job=job_of(mask_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
