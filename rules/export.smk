"""Results for other programs.

REQUIRED INPUTS: a segmentation, a prediction; for raw also the volume; for packages a network
OUTPUTS: results/DATASET/NETWORK/VOLUME/precomputed/LAYER, a precomputed layer with all mips, or
VOLUME/ome_zarr/LAYER.zarr, an OME-Zarr image with all levels; VOLUME/nodes, tables of skeleton nodes;
results/DATASET/NETWORK/package, a bioimage.io model, and package.zip. Each has a manifest next to it.
"""

from retrace.planning.evaluate import nodes_job
from retrace.planning.export import EXPORT_JOBS, package_job
from retrace.storage.layer_formats import LAYER_FORMATS

for form, entry in LAYER_FORMATS.items():

    rule:
        name:
            entry.rule
        input:
            unpack(files_of(EXPORT_JOBS[form])),
            script=ancient(script("export")),
            image=image_input("modern"),
        output:
            manifest=update(
                manifest(
                    f"results/{{dataset}}/{{network}}/{{volume}}/{form}/{{layer}}"
                )
            ),
        log:
            f"logs/{entry.rule}/{{dataset}}_{{network}}/{{volume}}_{{layer}}.log",
        wildcard_constraints:
            layer="segments|fragments|affinities|raw",
        container:
            image("modern")
        threads: 4
        resources:
            mem_mb=growing(8000),
            runtime=growing(600),
        params:
            layer=f"results/{{dataset}}/{{network}}/{{volume}}/{form}/{{layer}}{entry.suffix}",
            job=job_of(EXPORT_JOBS[form]),
        shell:
            "python {input.script:q}"
            " --job {params.job:q}"
            " --threads {threads}"
            " --work work/export"
            " --output {params.layer:q}"
            " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule export_nodes:
    """Writes in which segment each skeleton node of a volume is, at every threshold."""
    input:
        unpack(files_of(nodes_job)),
        script=ancient(script("evaluate")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("results/{dataset}/{network}/{volume}/nodes")),
    log:
        "logs/export_nodes/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        tables="results/{dataset}/{network}/{volume}/nodes",
        job=job_of(nodes_job),
    shell:
        "python {input.script:q} nodes"
        " --job {params.job:q}"
        " --output {params.tables:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule package:
    """Packs a network as a bioimage.io model, and as ten lines that need torch, numpy and safetensors."""
    input:
        unpack(files_of(package_job)),
        script=ancient(script("package")),
        image=image_input("modern"),
    output:
        archive=update("results/{dataset}/{network}/package.zip"),
        manifest=update(manifest("results/{dataset}/{network}/package")),
    log:
        "logs/package/{dataset}_{network}.log",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        folder="results/{dataset}/{network}/package",
        job=job_of(package_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {params.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
