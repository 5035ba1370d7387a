"""Results for neuroglancer.

REQUIRED INPUTS: a segmentation, a prediction; for raw also the volume
OUTPUTS: results/DATASET/NETWORK/VOLUME/precomputed/LAYER, a precomputed layer with all mips, and its manifest
"""


rule export:
    """One layer of one volume."""
    input:
        volumes=export_files,
        script=script("export"),
        library=library("export"),
        image=image_input("modern"),
    output:
        layer=directory("results/{dataset}/{network}/{volume}/precomputed/{layer}"),
        manifest="results/{dataset}/{network}/{volume}/precomputed/{layer}.manifest.json",
    log:
        "logs/export/{dataset}_{network}/{volume}_{layer}.log",
    wildcard_constraints:
        layer="segments|fragments|affinities|raw",
    container:
        image("modern")
    threads: 4
    resources:
        mem_mb=growing(8000),
        runtime=growing(600),
    params:
        settings=export_json,
    shell:
        "python {input.script:q} --settings {params.settings:q} --threads {threads}"
        " --work work/export --output {output.layer:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
