"""Builds, or pulls, the container image that all other rules run in.

REQUIRED INPUTS: containers/modern.def and the locks it installs
OUTPUTS: containers/images/modern-DIGEST.sif, the digest being that of recipe and locks
"""


rule image_modern:
    """The image, wanted by every rule as soon as --use-singularity is given."""
    input:
        script=source("containers", "build.sh"),
        recipe=[os.path.relpath(path) for path in images.image_sources(ROOT, "modern")],
    output:
        image=image("modern"),
    log:
        "logs/containers/modern.log",
    localrule: True
    # Runs on the machine itself, alone, since it makes what everything else runs in.
    handover: True
    resources:
        mem_mb=4000,
        runtime=60,
    shell:
        "bash {input.script:q} modern {output.image:q} > {log:q} 2>&1"
