"""Networks and predictions as ZNN's own files.

REQUIRED INPUTS: a trained network of the family znn, or the .h5 that `init` names; a prediction
OUTPUTS: results/DATASET/NETWORK/net.h5, the network and its learning curve in ZNN's standard-IO layout;
results/DATASET/NETWORK/published.safetensors from `init` with `weights: published`; with `output_prefix`
results/DATASET/NETWORK/VOLUME/znn_outputs.json, which lists PREFIX_sampleN_NODE.h5 and its tifs
results/DATASET/NETWORK/VOLUME/whole_prediction.zarr, which a recursive network (VD2D3D) reads
"""

from retrace.planning.foreign_files import exported_network_job, outputs_job
from retrace.planning.predict import predict_whole_job
from retrace.planning.weights import IMPORT_JOBS


rule predict_whole:
    """Predicts a whole volume in floats, as an input image of another network."""
    input:
        unpack(files_of(predict_whole_job)),
        script=ancient(script("predict")),
        image=image_input("modern"),
    output:
        manifest=update(
            manifest("results/{dataset}/{network}/{volume}/whole_prediction")
        ),
    log:
        "logs/predict_whole/{dataset}_{network}/{volume}.log",
    wildcard_constraints:
        network=family_pattern("znn"),
    container:
        image("modern")
    threads: 8
    resources:
        gpu=gpus_for(PLANNER.config, "predict"),
        mem_mb=memory(predict_whole_job, 24000),
        runtime=minutes(predict_whole_job, 600),
    params:
        zarr="results/{dataset}/{network}/{volume}/whole_prediction.zarr",
        job=job_of(predict_whole_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --work work/predict"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule znn_model:
    """Reads the weights of an h5 of ZNN; refuses those of another network."""
    input:
        unpack(files_of(IMPORT_JOBS["h5"])),
        script=ancient(script("znn")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/published.safetensors"),
    log:
        "logs/znn_model/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("znn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        job=job_of(IMPORT_JOBS["h5"]),
    shell:
        "python {input.script:q} model"
        " --job {params.job:q}"
        " --output {output.model:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule znn_network:
    """Writes a trained network and its learning curve in ZNN's standard-IO layout."""
    input:
        unpack(files_of(exported_network_job)),
        script=ancient(script("znn")),
        image=image_input("modern"),
    output:
        h5=update("results/{dataset}/{network}/net.h5"),
    log:
        "logs/znn_network/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("znn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        job=job_of(exported_network_job),
    shell:
        "python {input.script:q} network"
        " --job {params.job:q}"
        " --output {output.h5:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule znn_outputs:
    """Writes a prediction under ZNN's file names: an h5 of all channels, a tif of each."""
    input:
        unpack(files_of(outputs_job)),
        script=ancient(script("znn")),
        image=image_input("modern"),
    output:
        files=update("results/{dataset}/{network}/{volume}/znn_outputs.json"),
    log:
        "logs/znn_outputs/{dataset}_{network}/{volume}.log",
    wildcard_constraints:
        network=family_pattern("znn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        job=job_of(outputs_job),
    shell:
        "python {input.script:q} outputs"
        " --job {params.job:q}"
        " --output {output.files:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
