"""Published weights.

OUTPUTS: data/DATASET/checkpoints/NETWORK as in the bucket, and its manifest;
results/DATASET/NETWORK/published.safetensors, the same weights for our own network
"""

from retrace.planning.fetch import fetch_checkpoint_job
from retrace.planning.weights import convert_job


rule fetch_checkpoint:
    """Fetches one published checkpoint; an interrupted job resumes."""
    input:
        unpack(files_of(fetch_checkpoint_job)),
        script=ancient(script("fetch")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("data/{dataset}/checkpoints/{network}")),
    log:
        "logs/fetch_checkpoint/{dataset}_{network}.log",
    retries: 3
    localrule: True
    container:
        image("modern")
    resources:
        mem_mb=growing(1000),
        runtime=growing(600),
    params:
        folder="data/{dataset}/checkpoints/{network}",
        job=job_of(fetch_checkpoint_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {params.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule convert:
    """Converts a TensorFlow checkpoint to safetensors; refuses one that does not fit the network."""
    input:
        unpack(files_of(convert_job)),
        script=ancient(script("convert")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/published.safetensors"),
    log:
        "logs/convert/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("lsd"),
    container:
        image("modern")
    resources:
        mem_mb=growing(16000),
        runtime=growing(60),
    params:
        job=job_of(convert_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.model:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
