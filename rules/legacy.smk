"""Training and prediction with the original kind of programs: `engine: legacy`.

REQUIRED INPUTS: as for the modern engine, and a legacy image (`legacy_image`)
OUTPUTS: the files that train.smk and predict.smk make, at the same places, and the TensorFlow
checkpoint in results/DATASET/NETWORK/checkpoint

The legacy image knows neither zarr nor our samplers. Batches come to it through a pipe, from a job in
the modern image that runs beside it; what is predicted lies in mapped .npy files before and after.
"""


rule legacy_batches:
    """The batches that the modern engine would train on, for as long as the other side reads."""
    input:
        volumes=train_files,
        context=train_context,
        published=train_published,
        masks=train_masks,
        manifests=train_mask_manifests,
        script=script("legacy_batches"),
        library=library("legacy_batches"),
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
        settings=train_json,
        masks=train_mask_names,
        context=train_context_option,
        published=train_published_option,
    shell:
        "python {input.script:q} --settings {params.settings:q} --masks {params.masks:q}"
        " {params.context:q} {params.published:q} --work work/legacy --output {output.batches:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule legacy_train:
    """Builds the TensorFlow graph and trains it on them."""
    input:
        batches="results/{dataset}/{network}/batches.pipe",
        published=train_published,
        script=script("legacy/train"),
        library=legacy_library(),
        image=image_input(config["legacy_image"]),
    output:
        checkpoint=directory("results/{dataset}/{network}/checkpoint"),
        history="results/{dataset}/{network}/training.json",
    log:
        "logs/train/{dataset}_{network}.log",
    benchmark:
        "logs/train/{dataset}_{network}.benchmark.jsonl"
    container:
        image(config["legacy_image"])
    threads: legacy_threads
    resources:
        gpu=1,
        mem_mb=24000,
        runtime=10000,
    params:
        # Not read here but over the pipe: changed, they rerun this job.
        settings=train_json,
        python=legacy_python(),
        begin=train_begin_option,
    shell:
        "{params.python:q} {input.script:q} --batches {input.batches:q} {params.begin:q}"
        " --work work/legacy --output {output.checkpoint:q} --history {output.history:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule legacy_model:
    """The trained TensorFlow weights as safetensors, refused where they do not fit the network."""
    input:
        checkpoint="results/{dataset}/{network}/checkpoint",
        script=script("convert"),
        library=library("convert"),
        image=image_input("modern"),
    output:
        model="results/{dataset}/{network}/model.safetensors",
    log:
        "logs/convert/{dataset}_{network}_trained.log",
    container:
        image("modern")
    resources:
        mem_mb=16000,
        runtime=60,
    params:
        settings=convert_json,
    shell:
        "python {input.script:q} --settings {params.settings:q} --checkpoint {input.checkpoint:q}"
        " --output {output.model:q} 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule legacy_input:
    """What the network reads of a volume, mirrored or empty past its border, and the tiles."""
    input:
        volume=predict_files,
        descriptors=predict_descriptors,
        script=script("legacy_arrays"),
        library=library("legacy_arrays"),
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
        settings=predict_json,
    shell:
        "python {input.script:q} input --settings {params.settings:q} --output {output.folder:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule legacy_predict:
    """All tiles through the TensorFlow graph, with the checkpoint as it is."""
    input:
        folder="results/{dataset}/{network}/{volume}/legacy_input",
        checkpoint=legacy_checkpoint,
        script=script("legacy/predict"),
        library=legacy_library(),
        image=image_input(config["legacy_image"]),
    output:
        folder=temp(directory("results/{dataset}/{network}/{volume}/legacy_output")),
    log:
        "logs/predict/{dataset}_{network}/{volume}.log",
    container:
        image(config["legacy_image"])
    threads: 8
    resources:
        gpu=1,
        mem_mb=24000,
        runtime=600,
    params:
        python=legacy_python(),
    shell:
        "{params.python:q} {input.script:q} --input {input.folder:q}"
        " --checkpoint {input.checkpoint[0]:q} --work work/legacy_predict"
        " --output {output.folder:q} 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule legacy_output:
    """The predicted arrays as the modern engine stores them."""
    input:
        volume=predict_files,
        descriptors=predict_descriptors,
        read="results/{dataset}/{network}/{volume}/legacy_input",
        predicted="results/{dataset}/{network}/{volume}/legacy_output",
        checkpoint=legacy_checkpoint,
        script=script("legacy_arrays"),
        library=library("legacy_arrays"),
        image=image_input("modern"),
    output:
        zarr=directory("results/{dataset}/{network}/{volume}/prediction.zarr"),
        manifest="results/{dataset}/{network}/{volume}/prediction.manifest.json",
    log:
        "logs/legacy_output/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=4000,
        runtime=600,
    params:
        settings=predict_json,
    shell:
        "python {input.script:q} output --settings {params.settings:q} --input {input.read:q}"
        " --predicted {input.predicted:q} --checkpoint {input.checkpoint[0]:q}"
        " --output {output.zarr:q} 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
