"""Pictures in neuroglancer, and neuroglancer itself.

REQUIRED INPUTS: the stores of the layers
OUTPUTS: results/DATASET/view.png, results/DATASET/NETWORK/view.png and view_batch.png
"""

from retrace.planning.served_views import end_views_on_interrupt
from retrace.planning.view import view_batch_job, view_data_job, view_job

if PLANNER.config.serve and workflow.is_main_process:
    end_views_on_interrupt()


rule view_data:
    """Raw, labels and mask of the first training volume."""
    input:
        unpack(files_of(view_data_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        picture=update(
            report(
                "results/{dataset}/view.png",
                caption="../workflow/report/view.rst",
                category="Data",
                labels={"dataset": "{dataset}"},
            )
        ),
    log:
        "logs/view/{dataset}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_data_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --screenshot {output.picture:q}"
        " > {log:q} 2>&1"


rule view:
    """Data and results of the last predicted volume."""
    input:
        unpack(files_of(view_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        picture=update(
            report(
                "results/{dataset}/{network}/view.png",
                caption="../workflow/report/view.rst",
                category="Pictures",
                labels={"dataset": "{dataset}", "network": "{network}"},
            )
        ),
    log:
        "logs/view/{dataset}_{network}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --screenshot {output.picture:q}"
        " > {log:q} 2>&1"


rule view_batch:
    """A batch of a training with its predictions: the newest snapshot, or --config batch=ITERATION."""
    input:
        unpack(files_of(view_batch_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        picture=update(
            report(
                "results/{dataset}/{network}/view_batch.png",
                caption="../workflow/report/view.rst",
                category="Batches",
                labels={"dataset": "{dataset}", "network": "{network}"},
            )
        ),
    log:
        "logs/view_batch/{dataset}_{network}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_batch_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --screenshot {output.picture:q}"
        " > {log:q} 2>&1"


rule serve_data:
    """Neuroglancer on the data until Ctrl-C: `--config serve=true view_data_DATASET`."""
    input:
        unpack(files_of(view_data_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        done=temp("results/{dataset}/serve.done"),
    log:
        "logs/serve/{dataset}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_data_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --serve"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
        " && touch {output.done:q}"


rule serve:
    """Neuroglancer on the results until Ctrl-C: `--config serve=true view_DATASET_NETWORK`."""
    input:
        unpack(files_of(view_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        done=temp("results/{dataset}/{network}/serve.done"),
    log:
        "logs/serve/{dataset}_{network}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --serve"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
        " && touch {output.done:q}"


rule serve_batch:
    """Neuroglancer on a batch until Ctrl-C: `--config serve=true view_batch_DATASET_NETWORK`."""
    input:
        unpack(files_of(view_batch_job)),
        script=ancient(script("view")),
        image=image_input("modern"),
    output:
        done=temp("results/{dataset}/{network}/serve_batch.done"),
    log:
        "logs/serve_batch/{dataset}_{network}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(view_batch_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --serve"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
        " && touch {output.done:q}"
