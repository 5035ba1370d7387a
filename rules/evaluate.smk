"""Evaluation.

REQUIRED INPUTS: fragments, segments and labels
OUTPUTS: results/DATASET/NETWORK/edge_classifier.safetensors and .json (where `segment: method` is multicut) and
threshold.json from the validation entries alone, evaluation.json and
evaluation.png from the test entries, and the largest splits and merges in errors.json, errors.csv and
errors_layer.json. Boundary maps and classes of voxels are scored without fragments and
segments; of boundary maps, where objects are numbered, their segments are scored too, in objects.json.
"""

from retrace.planning.evaluate import (
    boundaries_job,
    choose_job,
    classes_job,
    learn_job,
    score_job,
)
from retrace.planning.network_names import predicting


rule learn_edges:
    """Trains the classifier of edges on the labels of the validation entries."""
    input:
        unpack(files_of(learn_job)),
        script=ancient(script("evaluate")),
        image=image_input("modern"),
    output:
        classifier=update("results/{dataset}/{network}/edge_classifier.safetensors"),
        facts=update("results/{dataset}/{network}/edge_classifier.json"),
    log:
        "logs/learn/{dataset}_{network}.log",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=memory(learn_job, 8000),
        runtime=minutes(learn_job, 240),
    params:
        job=job_of(learn_job),
    shell:
        "python {input.script:q} learn"
        " --job {params.job:q}"
        " --threads {threads}"
        " --output {output.classifier:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule choose_threshold:
    """Chooses the threshold with the lowest VOI on the validation entries."""
    input:
        unpack(files_of(choose_job)),
        script=ancient(script("evaluate")),
        image=image_input("modern"),
    output:
        threshold=update("results/{dataset}/{network}/threshold.json"),
    log:
        "logs/choose/{dataset}_{network}.log",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=memory(choose_job, 8000),
        runtime=minutes(choose_job, 240),
    params:
        job=job_of(choose_job),
    shell:
        "python {input.script:q} choose"
        " --job {params.job:q}"
        " --threads {threads}"
        " --output {output.threshold:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule evaluate:
    """Scores the test entries at that threshold; the log has the table too."""
    input:
        unpack(files_of(score_job)),
        script=ancient(script("evaluate")),
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
        errors=update("results/{dataset}/{network}/errors.json"),
        errors_table=update("results/{dataset}/{network}/errors.csv"),
        errors_layer=update("results/{dataset}/{network}/errors_layer.json"),
    log:
        "logs/evaluate/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=pattern(predicting("affinities")),
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=memory(score_job, 8000),
        runtime=minutes(score_job, 240),
    params:
        job=job_of(score_job),
    shell:
        "python {input.script:q} score"
        " --job {params.job:q}"
        " --threads {threads}"
        " --output {output.scores:q}"
        " --plot {output.plot:q}"
        " --errors {output.errors:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


use rule evaluate as evaluate_objects with:
    output:
        scores=update("results/{dataset}/{network}/objects.json"),
        plot=update("results/{dataset}/{network}/objects.png"),
        errors=update("results/{dataset}/{network}/errors.json"),
        errors_table=update("results/{dataset}/{network}/errors.csv"),
        errors_layer=update("results/{dataset}/{network}/errors_layer.json"),
    log:
        "logs/evaluate_objects/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate_objects/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=pattern([*predicting("boundary"), *predicting("classes")]),


rule evaluate_boundaries:
    """Scores a boundary map: pixel error, and Rand and information scores after thinning."""
    input:
        unpack(files_of(boundaries_job)),
        script=ancient(script("evaluate_boundaries")),
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
        network=pattern(predicting("boundary")),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=job_of(boundaries_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.scores:q}"
        " --plot {output.plot:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


use rule evaluate_boundaries as evaluate_class_boundaries with:
    output:
        scores=update("results/{dataset}/{network}/boundaries.json"),
        plot=update("results/{dataset}/{network}/boundaries.png"),
    log:
        "logs/evaluate_class_boundaries/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate_class_boundaries/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=pattern(predicting("classes")),


rule evaluate_classes:
    """Scores classes of voxels: error and negative log-likelihood on the test entries."""
    input:
        unpack(files_of(classes_job)),
        script=ancient(script("evaluate_classes")),
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
        network=pattern(predicting("classes")),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        job=job_of(classes_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.scores:q}"
        " --plot {output.plot:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
