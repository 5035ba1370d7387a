"""Training and prediction with TensorFlow 1, as in the original programs: `engine: legacy`.

REQUIRED INPUTS: as for the modern engine, and a legacy image (`legacy_image`)
OUTPUTS: the same files as train.smk and predict.smk, and the TensorFlow
checkpoint in results/DATASET/NETWORK/checkpoint

The legacy image has neither zarr nor our samplers. A job in the modern image runs at the same time and sends
it batches through a pipe; before and after a prediction, arrays are in memory-mapped .npy files.
"""

from retrace.planning.legacy import (
    batches_job,
    input_job,
    legacy_predict_job,
    legacy_train_job,
    output_job,
    trained_checkpoint_job,
)


def legacy_python() -> str:
    """The interpreter inside the legacy image."""
    return container_images.python(ROOT, PLANNER.config.legacy_image)


def legacy_threads(wildcards: Any) -> int:
    """Half the cores: the two ends of a pipe run at the same time."""
    return max(1, min(8, (workflow.cores or 16) // 2))


rule legacy_batches:
    """Sends the batches that the modern engine would train on, until the other side stops reading."""
    input:
        unpack(files_of(batches_job)),
        script=ancient(script("legacy_batches")),
        image=image_input("modern"),
    output:
        batches=pipe("results/{dataset}/{network}/batches.pipe"),
    log:
        "logs/legacy_batches/{dataset}_{network}.log",
    container:
        image("modern")
    threads: legacy_threads
    resources:
        mem_mb=16000,
        runtime=10000,
    params:
        job=job_of(batches_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --work work/legacy"
        " --output {output.batches:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule legacy_train:
    """Builds the TensorFlow graph and trains it on these batches."""
    input:
        unpack(files_of(legacy_train_job)),
        script=ancient(script("legacy/train")),
        image=image_input(PLANNER.config.legacy_image),
    output:
        record=update("results/{dataset}/{network}/checkpoint.record.json"),
        history=update("results/{dataset}/{network}/training.json"),
    log:
        "logs/train/{dataset}_{network}.log",
    benchmark:
        "logs/train/{dataset}_{network}.benchmark.jsonl"
    container:
        image(PLANNER.config.legacy_image)
    threads: legacy_threads
    resources:
        gpu=1,
        mem_mb=24000,
        runtime=minutes(legacy_train_job, 10000, resumes=True),
    params:
        checkpoint="results/{dataset}/{network}/checkpoint",
        job=job_of(legacy_train_job),
        python=legacy_python(),
    shell:
        "{params.python:q} {input.script:q}"
        " --job {params.job:q}"
        " --work work/legacy"
        " --output {params.checkpoint:q}"
        " --history {output.history:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule legacy_model:
    """Converts the trained TensorFlow weights to safetensors."""
    input:
        unpack(files_of(trained_checkpoint_job)),
        script=ancient(script("convert")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/model.safetensors"),
    log:
        "logs/convert/{dataset}_{network}_trained.log",
    container:
        image("modern")
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        job=job_of(trained_checkpoint_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.model:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule legacy_input:
    """Writes the input of the network and its tiles; beyond the border raw is mirrored or empty."""
    input:
        unpack(files_of(input_job)),
        script=ancient(script("legacy_arrays")),
        image=image_input("modern"),
    output:
        folder=temp(directory("results/{dataset}/{network}/{volume}/legacy_input")),
    log:
        "logs/legacy_input/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=4000,
        runtime=600,
    params:
        job=job_of(input_job),
    shell:
        "python {input.script:q} input"
        " --job {params.job:q}"
        " --output {output.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule legacy_predict:
    """Predicts all tiles with the TensorFlow graph and the unchanged checkpoint."""
    input:
        unpack(files_of(legacy_predict_job)),
        script=ancient(script("legacy/predict")),
        image=image_input(PLANNER.config.legacy_image),
    output:
        folder=temp(directory("results/{dataset}/{network}/{volume}/legacy_output")),
    log:
        "logs/predict/{dataset}_{network}/{volume}.log",
    container:
        image(PLANNER.config.legacy_image)
    threads: 8
    resources:
        gpu=1,
        mem_mb=24000,
        runtime=600,
    params:
        job=job_of(legacy_predict_job),
        python=legacy_python(),
    shell:
        "{params.python:q} {input.script:q}"
        " --job {params.job:q}"
        " --work work/legacy_predict"
        " --output {output.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule legacy_output:
    """Writes the predicted arrays as the modern engine does."""
    input:
        unpack(files_of(output_job)),
        script=ancient(script("legacy_arrays")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("results/{dataset}/{network}/{volume}/prediction")),
    log:
        "logs/legacy_output/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=4000,
        runtime=600,
    params:
        zarr="results/{dataset}/{network}/{volume}/prediction.zarr",
        job=job_of(output_job),
    shell:
        "python {input.script:q} output"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
