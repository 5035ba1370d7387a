"""An experiment to carry elsewhere: described with its results, or with all it needs to run.

REQUIRED INPUTS: for a crate the evaluation and whatever it was made of; for a bundle volumes, published
weights and images, but no results
OUTPUTS: results/DATASET/NETWORK/crate and crate.zip (RO-Crate); results/DATASET/NETWORK/bundle

Both run where Snakemake runs and not in an image: they look at the whole working directory, at
Snakemake's own records, and at its programs.
"""


rule crate:
    """What was run on what with which result, as a Workflow Run RO-Crate."""
    input:
        results=crate_files,
        script=script("crate"),
        library=library("crate"),
    output:
        folder=directory("results/{dataset}/{network}/crate"),
        zip="results/{dataset}/{network}/crate.zip",
    log:
        "logs/crate/{dataset}_{network}.log",
    localrule: True
    # on the machine itself, alone: they look at the whole working directory
    handover: True
    resources:
        mem_mb=growing(2000),
        runtime=growing(60),
    params:
        settings=carried_json,
    shell:
        '"$RETRACE_PYTHON" {input.script:q} --settings {params.settings:q}'
        " --results {input.results:q} --output {output.folder:q} --zip {output.zip:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule wheels:
    """The packages that Snakemake runs with, and pip, to be installed without network."""
    input:
        lock=wheel_lock(),
    output:
        folder=directory(wheels_folder()),
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
    """One folder from which the experiment runs on a machine without network."""
    input:
        files=bundle_files,
        images=bundle_images,
        wheels=wheels_folder(),
        script=script("bundle"),
        library=library("bundle"),
    output:
        folder=directory("results/{dataset}/{network}/bundle"),
    log:
        "logs/bundle/{dataset}_{network}.log",
    localrule: True
    handover: True
    resources:
        mem_mb=growing(1000),
        runtime=growing(600),
    params:
        settings=carried_json,
    shell:
        '"$RETRACE_PYTHON" {input.script:q} make --settings {params.settings:q}'
        " --files {input.files:q} --images {input.images:q} --wheels {input.wheels:q} --output {output.folder:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
