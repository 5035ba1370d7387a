"""Segmentation.

REQUIRED INPUTS: a prediction with affinities; for the segments also the chosen threshold
OUTPUTS: results/DATASET/NETWORK/VOLUME/fragments.zarr (fragments and the graph of their merge
scores) and segmentation.zarr (segments), each with its manifest; with `shards` above 1 their
shards, which rules/shards.smk assembles
"""

from retrace.planning.segment import fragments_job, segment_job


rule fragments:
    """Over-segments a prediction and scores which fragments belong together."""
    input:
        unpack(files_of(fragments_job)),
        script=ancient(script("segment")),
        image=image_input("modern"),
    output:
        manifest=update(manifest(output_store(PLANNER.config.shards, "fragments"))),
    log:
        log_file(PLANNER.config.shards, "fragments"),
    container:
        image("modern")
    threads: 4
    resources:
        mem_mb=memory(fragments_job, 16000),
        runtime=minutes(fragments_job, 600),
    params:
        zarr=output_store(PLANNER.config.shards, "fragments"),
        job=job_of(fragments_job),
    shell:
        "python {input.script:q} fragments"
        " --job {params.job:q}"
        " --work work/segment"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule segment:
    """Joins the fragments at the threshold that the validation volumes chose."""
    input:
        unpack(files_of(segment_job)),
        script=ancient(script("segment")),
        image=image_input("modern"),
    output:
        manifest=update(manifest(output_store(PLANNER.config.shards, "segmentation"))),
    log:
        log_file(PLANNER.config.shards, "segment"),
    container:
        image("modern")
    resources:
        mem_mb=memory(segment_job, 8000),
        runtime=minutes(segment_job, 120),
    params:
        zarr=output_store(PLANNER.config.shards, "segmentation"),
        job=job_of(segment_job),
    shell:
        "python {input.script:q} apply"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
