"""ELEKTRONN's own files.

REQUIRED INPUTS: a trained network of the family elektronn, or the .param that `init` names
OUTPUTS: results/DATASET/NETWORK/net.param; results/DATASET/NETWORK/published.safetensors from `init` with
`weights: published`
"""

from retrace.planning.foreign_files import exported_network_job
from retrace.planning.weights import IMPORT_JOBS


rule elektronn_model:
    """Reads the weights of a .param; refuses those of another network."""
    input:
        unpack(files_of(IMPORT_JOBS["param"])),
        script=ancient(script("elektronn")),
        image=image_input("modern"),
    output:
        model=update("results/{dataset}/{network}/published.safetensors"),
    log:
        "logs/elektronn_model/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("elektronn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    params:
        job=job_of(IMPORT_JOBS["param"]),
    shell:
        "python {input.script:q} model"
        " --job {params.job:q}"
        " --output {output.model:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule elektronn_network:
    """Writes a trained network as a .param."""
    input:
        unpack(files_of(exported_network_job)),
        script=ancient(script("elektronn")),
        image=image_input("modern"),
    output:
        param=update("results/{dataset}/{network}/net.param"),
    log:
        "logs/elektronn_network/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("elektronn"),
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
        " --output {output.param:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
