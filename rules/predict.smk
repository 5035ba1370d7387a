"""Prediction.

REQUIRED INPUTS: a trained network, a volume
OUTPUTS: results/DATASET/NETWORK/VOLUME/prediction.zarr (arrays affs, lsds), and its manifest; with
`shards` above 1 shards/prediction_1-of-8.zarr ..., which rules/shards.smk puts together
"""


rule predict:
    """All tiles of one volume, of the part that validation and test need, or of a share of it."""
    input:
        model=predict_model,
        volume=predict_files,
        descriptors=predict_descriptors,
        script=script("predict"),
        library=library("predict"),
        image=image_input("modern"),
    output:
        zarr=directory(share("prediction")),
        manifest=manifest(share("prediction")),
    log:
        share_log("predict"),
    cache: True
    container:
        image("modern")
    threads: 8
    resources:
        gpu=planning_train.gpus_for(config, "predict"),
        mem_mb=growing(24000),
        runtime=growing(600),
    params:
        settings=predict_json,
        shard=shard_option,
    shell:
        "python {input.script:q} --settings {params.settings:q} --model {input.model:q}"
        " --work work/predict --output {output.zarr:q} {params.shard:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
