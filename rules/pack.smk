"""A packed experiment: described together with its results, or with everything it needs to run.

REQUIRED INPUTS: for an RO-Crate the evaluation and everything it was computed from; for a bundle volumes,
published weights and images, but no results
OUTPUTS: results/DATASET/NETWORK/crate and crate.zip (RO-Crate); results/DATASET/NETWORK/bundle

Both jobs run next to Snakemake and not in an image: they read the whole working directory, Snakemake's own
records, and its programs.
"""

from retrace.planning.pack import bundle_job, crate_job, wheels_folder


rule crate:
    """What ran on which data with which result, as a Workflow Run RO-Crate."""
    input:
        unpack(files_of(crate_job)),
        script=ancient(script("crate")),
    output:
        record=update("results/{dataset}/{network}/crate.record.json"),
        zip=update("results/{dataset}/{network}/crate.zip"),
    log:
        "logs/crate/{dataset}_{network}.log",
    localrule: True
    # runs next to Snakemake, alone, for it reads the whole working directory
    handover: True
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        folder="results/{dataset}/{network}/crate",
        job=job_of(crate_job),
    shell:
        '"$RETRACE_PYTHON" {input.script:q}'
        " --job {params.job:q}"
        " --output {params.folder:q}"
        " --zip {output.zip:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule wheels:
    """The packages that Snakemake needs, and pip, for installation without internet access."""
    input:
        lock=source("envs", "host.txt"),
    output:
        folder=directory(wheels_folder(PLANNER)),
    log:
        "logs/wheels/host.log",
    retries: 3
    localrule: True
    handover: True
    resources:
        mem_mb=growing(1000),
        runtime=growing(60),
    shell:
        '"$RETRACE_PYTHON" -m pip wheel --quiet --no-deps --require-hashes'
        " --requirement {input.lock:q} --wheel-dir {output.folder:q} > {log:q} 2>&1;"
        ' "$RETRACE_PYTHON" -m pip wheel --quiet --no-deps --wheel-dir {output.folder:q} pip'
        " >> {log:q} 2>&1"


rule bundle:
    """One folder from which the experiment runs without internet access."""
    input:
        unpack(files_of(bundle_job)),
        script=ancient(script("bundle")),
    output:
        record=update("results/{dataset}/{network}/bundle.record.json"),
    log:
        "logs/bundle/{dataset}_{network}.log",
    localrule: True
    handover: True
    resources:
        mem_mb=growing(1000),
        runtime=growing(600),
    params:
        folder="results/{dataset}/{network}/bundle",
        job=job_of(bundle_job),
    shell:
        '"$RETRACE_PYTHON" {input.script:q} make'
        " --job {params.job:q}"
        " --output {params.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
