"""Container images of the rules, built or pulled, and the published ones, fetched.

REQUIRED INPUTS: containers/NAME.def and the locks it installs; containers/images.yaml
OUTPUTS: containers/images/NAME-DIGEST.sif, the digest being that of recipe and locks;
containers/images/NAME.img as in the bucket, its manifest, and its checksum
"""

from functools import partial

from retrace.planning.fetch import fetch_container_job

for image_name in container_images.SOURCES:

    # With --use-singularity, every rule needs the modern image.
    rule:
        name:
            f"image_{image_name}"
        input:
            script=source("containers", "build.sh"),
            recipe=[
                os.path.relpath(path)
                for path in container_images.image_sources(ROOT, image_name)
            ],
        output:
            # Not removed before the job runs: another run may have made it and use it.
            image=update(image(image_name)),
        log:
            f"logs/containers/{image_name}.log",
        # A build downloads several hundred megabytes.
        retries: 1
        localrule: True
        # Runs alone and outside containers: other jobs run in what it builds.
        handover: True
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            name=image_name,
        shell:
            "test -e {output.image:q} ||"
            " bash {input.script:q} {params.name:q} {output.image:q} 2>&1 | tee {log:q}"


container_jobs = {
    name: partial(fetch_container_job, name=name)
    for name in container_images.published_images(ROOT)
}

for image_name, container_job in container_jobs.items():

    rule:
        name:
            f"fetch_container_{image_name}"
        input:
            unpack(files_of(container_job)),
            script=ancient(script("fetch_object")),
            image=image_input("modern"),
        output:
            image=update(
                str(
                    container_images.published_path(
                        Path("containers/images"), image_name
                    )
                )
            ),
            manifest=update(manifest(f"containers/images/{image_name}")),
        log:
            f"logs/containers/{image_name}.log",
        retries: 3
        localrule: True
        container:
            image("modern")
        resources:
            mem_mb=1000,
            runtime=600,
        params:
            job=job_of(container_job),
        shell:
            "python {input.script:q}"
            " --job {params.job:q}"
            " --output {output.image:q}"
            " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
