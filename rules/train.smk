"""Training.

REQUIRED INPUTS: volumes with labels, their masks
OUTPUTS: results/DATASET/NETWORK/model.safetensors and training.json
What a killed training goes on from, its snapshots and its TensorBoard scalars lie in work/train.
"""


rule train:
    """Trains until the iteration that the network, or --config iterations=N, says."""
    input:
        volumes=train_files,
        context=train_context,
        published=train_published,
        init=train_init,
        masks=train_masks,
        manifests=train_mask_manifests,
        script=script("train"),
        library=library("train"),
        image=image_input("modern"),
    output:
        model="results/{dataset}/{network}/model.safetensors",
        history="results/{dataset}/{network}/training.json",
    log:
        "logs/train/{dataset}_{network}.log",
    benchmark:
        "logs/train/{dataset}_{network}.benchmark.jsonl"
    container:
        image("modern")
    # each GPU has a process of its own
    threads: 8 * planning_train.gpus_for(config, "train")
    resources:
        gpu=planning_train.gpus_for(config, "train"),
        # neither grows with the retries: a training whose time was up goes on where it was
        mem_mb=24000 * planning_train.gpus_for(config, "train"),
        runtime=10000,
    params:
        settings=train_json,
        masks=train_mask_names,
        context=train_context_option,
        published=train_published_option,
        init=train_init_option,
    shell:
        "python {input.script:q} --settings {params.settings:q} --masks {params.masks:q}"
        " {params.context:q} {params.published:q} {params.init:q} --work work/train --output {output.model:q} --history {output.history:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
