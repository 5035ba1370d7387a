"""Volumes from the bucket, and files from an address of their own.

OUTPUTS: data/DATASET/VOLUME.zarr as in the bucket, and its manifest; data/DATASET/FILE as the dataset's
`obtain`, or the `fetch` of its `examples`, says
"""

from retrace.config.downloads import downloaded_names
from retrace.planning.fetch import fetch_file_job, fetch_job


rule fetch:
    """Fetches one volume; an interrupted job resumes. Runs on the machine that has internet access."""
    input:
        unpack(files_of(fetch_job)),
        script=ancient(script("fetch")),
        image=image_input("modern"),
    output:
        manifest=update(manifest("data/{dataset}/{volume}")),
    log:
        "logs/fetch/{dataset}/{volume}.log",
    retries: 3
    localrule: True
    container:
        image("modern")
    resources:
        mem_mb=memory(fetch_job, 1000, grows=False),
        runtime=minutes(fetch_job, 600),
    params:
        zarr="data/{dataset}/{volume}.zarr",
        job=job_of(fetch_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {params.zarr:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule fetch_file:
    """Fetches one file of a dataset; a file that you put there yourself stays."""
    input:
        unpack(files_of(fetch_file_job)),
        script=ancient(script("fetch_file")),
        image=image_input("modern"),
    output:
        file=update("data/{file}"),
    log:
        "logs/fetch/{file}.log",
    wildcard_constraints:
        file=pattern(downloaded_names()),
    retries: 2
    localrule: True
    container:
        image("modern")
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        job=job_of(fetch_file_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.file:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
