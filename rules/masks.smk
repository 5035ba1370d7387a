"""Masks of the labels.

REQUIRED INPUTS: a volume with labels
OUTPUTS: results/DATASET/masks/VOLUME.zarr (array labels_mask, 0 on background), and its manifest
"""


rule mask:
    """Which voxels have ground truth, by the background ids of the dataset."""
    input:
        volume=mask_files,
        script=script("mask"),
        library=library("mask"),
        image=image_input("modern"),
    output:
        zarr=directory("results/{dataset}/masks/{volume}.zarr"),
        manifest="results/{dataset}/masks/{volume}.manifest.json",
    log:
        "logs/mask/{dataset}/{volume}.log",
    cache: True
    container:
        image("modern")
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=mask_json,
    shell:
        "python {input.script:q} --settings {params.settings:q} --output {output.zarr:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
