"""Volumes from the bucket.

OUTPUTS: data/DATASET/VOLUME.zarr as in the bucket, and its manifest
"""

from retrace.planning.fetch import fetch_job


rule fetch:
    """Fetches one volume; an interrupted job resumes. Runs on the machine that has internet access."""
    input:
        unpack(files_of(fetch_job)),
        script=ancient(script("fetch")),
        image=image_input("modern"),
    output:
        manifest=update("data/{dataset}/{volume}.manifest.json"),
    log:
        "logs/fetch/{dataset}/{volume}.log",
    retries: 3
    localrule: True
    container:
        image("modern")
    resources:
        mem_mb=1000,
        runtime=600,
    params:
        zarr="data/{dataset}/{volume}.zarr",
        job=job_of(fetch_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
