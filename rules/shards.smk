"""A volume in shards, one job each: the steps between the shards and one store.

REQUIRED INPUTS: shards/NAME_1-of-N.zarr ... of prediction, fragments and segmentation, from their rules
OUTPUTS: prediction.zarr, fragments.zarr and segmentation.zarr as a single job writes them (chunks are
hard links to those of the shards, not copies); the graph between fragments, the segment of every fragment,
and tables of counted voxels in shards/
"""

from retrace.planning.evaluate import count_job
from retrace.planning.segment import edges_job, join_job
from retrace.planning.shards import ASSEMBLE_JOBS, assembled_store

for assembled in ASSEMBLE_JOBS:

    rule:
        name:
            f"assemble_{assembled}"
        input:
            unpack(files_of(ASSEMBLE_JOBS[assembled])),
            script=ancient(script("assemble")),
            image=image_input("modern"),
        output:
            manifest=update(manifest(assembled_store(assembled))),
        log:
            f"logs/assemble_{assembled}/{{dataset}}_{{network}}/{{volume}}.log",
        container:
            image("modern")
        threads: 4
        resources:
            mem_mb=memory(ASSEMBLE_JOBS[assembled], 4000),
            runtime=minutes(ASSEMBLE_JOBS[assembled], 240),
        params:
            zarr=assembled_store(assembled),
            job=job_of(ASSEMBLE_JOBS[assembled]),
        shell:
            "python {input.script:q}"
            " --job {params.job:q}"
            " --output {params.zarr:q}"
            " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule edges:
    """Scores which fragments touch, in one shard of the blocks."""
    input:
        unpack(files_of(edges_job)),
        script=ancient(script("segment")),
        image=image_input("modern"),
    output:
        manifest=update(manifest(output_store(PLANNER.config.shards, "edges"))),
    log:
        log_file(PLANNER.config.shards, "edges"),
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=memory(edges_job, 16000),
        runtime=minutes(edges_job, 600),
    params:
        zarr=output_store(PLANNER.config.shards, "edges"),
        job=job_of(edges_job),
    shell:
        "python {input.script:q} edges"
        " --job {params.job:q}"
        " --work work/segment"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule join:
    """Computes the segment of every fragment: the only step over a whole volume, and only over its graph."""
    input:
        unpack(files_of(join_job)),
        script=ancient(script("segment")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("results/{dataset}/{network}/{volume}/shards/lut")),
    log:
        "logs/join/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=memory(join_job, 16000),
        runtime=minutes(join_job, 240),
    params:
        zarr="results/{dataset}/{network}/{volume}/shards/lut.zarr",
        job=job_of(join_job),
    shell:
        "python {input.script:q} join"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule count:
    """Counts how often a segment and a label meet, in one shard of the blocks."""
    input:
        unpack(files_of(count_job)),
        script=ancient(script("evaluate")),
        image=image_input("modern"),
    output:
        tables=update(
            "results/{dataset}/{network}/{volume}/shards/{split}_{array}_{shard}.npz"
        ),
    log:
        "logs/count/{dataset}_{network}/{volume}_{split}_{array}_{shard}.log",
    wildcard_constraints:
        split="validation|test",
        array="fragments|segments",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=job_of(count_job),
    shell:
        "python {input.script:q} count"
        " --job {params.job:q}"
        " --threads {threads}"
        " --output {output.tables:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
