"""Prediction.

REQUIRED INPUTS: a trained network, a volume
OUTPUTS: results/DATASET/NETWORK/VOLUME/prediction.zarr (arrays affs, lsds), and its manifest; with
`shards` above 1 shards/prediction_1-of-8.zarr ..., which rules/shards.smk assembles
"""

from retrace.planning.predict import predict_job


rule predict:
    """Predicts the part of a volume that validation and test need, or one shard of it."""
    input:
        unpack(files_of(predict_job)),
        script=ancient(script("predict")),
        image=image_input("modern"),
    output:
        manifest=update(manifest(output_store(PLANNER.config.shards, "prediction"))),
    log:
        log_file(PLANNER.config.shards, "predict"),
    container:
        image("modern")
    threads: 8
    resources:
        gpu=gpus_for(PLANNER.config, "predict"),
        mem_mb=memory(predict_job, 24000),
        runtime=minutes(predict_job, 600),
    params:
        zarr=output_store(PLANNER.config.shards, "prediction"),
        job=job_of(predict_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --work work/predict"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
