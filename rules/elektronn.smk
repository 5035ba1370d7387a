"""Single examples with one class each, such as MNIST, and the curves of ELEKTRONN's trainings.

REQUIRED INPUTS: a dataset with `examples`; a trained network of the family elektronn
OUTPUTS: results/DATASET/NETWORK/predictions.h5, the
probabilities of the test split (an auto-encoder's reconstructions), evaluation.json and evaluation.png
from it; history.csv, timeline.png, history.png and errors.png of a training
"""

from retrace.planning.examples import (
    curves_job,
    evaluate_examples_job,
    predict_examples_job,
)
from retrace.planning.network_names import predicting


rule predict_examples:
    """Probabilities of the classes of each example of the test split."""
    input:
        unpack(files_of(predict_examples_job)),
        script=ancient(script("examples")),
        image=image_input("modern"),
    output:
        predictions=update("results/{dataset}/{network}/predictions.h5"),
    log:
        "logs/predict/{dataset}_{network}.log",
    wildcard_constraints:
        network=pattern(predicting("examples")),
    container:
        image("modern")
    resources:
        gpu=gpus_for(PLANNER.config, "predict"),
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(predict_examples_job),
    shell:
        "python {input.script:q} predict"
        " --job {params.job:q}"
        " --output {output.predictions:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule evaluate_examples:
    """Error and NLL on the test split."""
    input:
        unpack(files_of(evaluate_examples_job)),
        script=ancient(script("examples")),
        image=image_input("modern"),
    output:
        scores=update("results/{dataset}/{network}/evaluation.json"),
        plot=update(
            report(
                "results/{dataset}/{network}/evaluation.png",
                caption="../workflow/report/evaluation.rst",
                category="Evaluation",
                labels={"dataset": "{dataset}", "network": "{network}"},
            )
        ),
    log:
        "logs/evaluate/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=pattern(predicting("examples")),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(evaluate_examples_job),
    shell:
        "python {input.script:q} evaluate"
        " --job {params.job:q}"
        " --output {output.scores:q}"
        " --plot {output.plot:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule training_curves:
    """The curves that ELEKTRONN draws, and its history as a table."""
    input:
        unpack(files_of(curves_job)),
        script=ancient(script("examples")),
        image=image_input("modern"),
    output:
        history=update("results/{dataset}/{network}/history.csv"),
        timeline=update("results/{dataset}/{network}/timeline.png"),
        losses=update("results/{dataset}/{network}/history.png"),
        errors=update("results/{dataset}/{network}/errors.png"),
    log:
        "logs/curves/{dataset}_{network}.log",
    wildcard_constraints:
        network=family_pattern("elektronn"),
    container:
        image("modern")
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        folder="results/{dataset}/{network}",
        job=job_of(curves_job),
    shell:
        "python {input.script:q} curves"
        " --job {params.job:q}"
        " --output {params.folder:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
