"""Training.

REQUIRED INPUTS: volumes with labels, their masks
OUTPUTS: results/DATASET/NETWORK/model.safetensors and training.json
work/train holds what an interrupted training resumes from, its snapshots and its TensorBoard scalars.
"""

from retrace.planning.train import train_job, trainable_networks


rule train:
    """Trains for the network's number of iterations, or for --config iterations=N."""
    input:
        unpack(files_of(train_job)),
        script=ancient(script("train")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/model.safetensors"),
        history=update("results/{dataset}/{network}/training.json"),
    log:
        "logs/train/{dataset}_{network}.log",
    benchmark:
        "logs/train/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=pattern(trainable_networks()),
    container:
        image("modern")
    # one process for each GPU
    threads: 8 * gpus_for(PLANNER.config, "train")
    resources:
        gpu=gpus_for(PLANNER.config, "train"),
        mem_mb=memory(train_job, 24000 * gpus_for(PLANNER.config, "train"), grows=False),
        runtime=minutes(train_job, 10000, resumes=True),
    params:
        job=job_of(train_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --work work/train"
        " --output {output.model:q}"
        " --history {output.history:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
