"""ELEKTRONN's own files.

REQUIRED INPUTS: a trained network of the family elektronn, or the .param that `init` names
OUTPUTS: results/DATASET/NETWORK/net.param; results/DATASET/NETWORK/published.safetensors from `init` with
`weights: published`
"""


rule elektronn_model:
    """The weights of a .param, refused where they are of another network."""
    input:
        param=init_file,
        script=script("elektronn"),
        library=library("elektronn"),
        image=image_input("modern"),
    output:
        model="results/{dataset}/{network}/published.safetensors",
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
        settings=convert_json,
    shell:
        "python {input.script:q} model --settings {params.settings:q} --param {input.param:q}"
        " --output {output.model:q} 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule elektronn_network:
    """A trained network as a .param."""
    input:
        model="results/{dataset}/{network}/model.safetensors",
        script=script("elektronn"),
        library=library("elektronn"),
        image=image_input("modern"),
    output:
        param="results/{dataset}/{network}/net.param",
    log:
        "logs/elektronn_network/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("elektronn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(30),
    shell:
        "python {input.script:q} network --model {input.model:q} --output {output.param:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
