"""Prediction.

REQUIRED INPUTS: a trained network, a volume
OUTPUTS: results/DATASET/NETWORK/VOLUME/prediction.zarr (arrays affs, lsds), and its manifest
"""


rule predict:
    """All tiles of one volume, or of the part that validation and test need."""
    input:
        model=predict_model,
        volume=predict_files,
        descriptors=predict_descriptors,
        script=script("predict"),
        library=library("predict"),
        image=image_input("modern"),
    output:
        zarr=directory("results/{dataset}/{network}/{volume}/prediction.zarr"),
        manifest="results/{dataset}/{network}/{volume}/prediction.manifest.json",
    log:
        "logs/predict/{dataset}_{network}/{volume}.log",
    cache: True
    container:
        image("modern")
    threads: 8
    resources:
        gpu=1,
        mem_mb=growing(24000),
        runtime=growing(600),
    params:
        settings=predict_json,
    shell:
        "python {input.script:q} --settings {params.settings:q} --model {input.model:q}"
        " --work work/predict --output {output.zarr:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
