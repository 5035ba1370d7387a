"""Builds, or pulls, the container images that rules run in.

REQUIRED INPUTS: containers/NAME.def and the locks it installs
OUTPUTS: containers/images/NAME-DIGEST.sif, the digest being that of recipe and locks
"""

for image_name in images.SOURCES:

    # The modern image is wanted by every rule as soon as --use-singularity is given.
    rule:
        name:
            f"image_{image_name}"
        input:
            script=source("containers", "build.sh"),
            recipe=[
                os.path.relpath(path)
                for path in images.image_sources(ROOT, image_name)
            ],
        output:
            image=image(image_name),
        log:
            f"logs/containers/{image_name}.log",
        localrule: True
        # Runs on the machine itself, alone, since it makes what others run in.
        handover: True
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            name=image_name,
        shell:
            "bash {input.script:q} {params.name} {output.image:q} > {log:q} 2>&1"
