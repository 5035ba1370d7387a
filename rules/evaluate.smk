"""Evaluation.

REQUIRED INPUTS: fragments, segments and labels
OUTPUTS: results/DATASET/NETWORK/threshold.json from the validation entries alone, evaluation.json and
evaluation.png from the test entries. Boundary maps and classes of voxels are scored without fragments and
segments; of boundary maps, where objects are numbered, their segments are scored too, in objects.json.
"""


rule choose_threshold:
    """The threshold of the least VOI on the validation entries."""
    input:
        labels=choose_files,
        masks=choose_masks,
        fragments=choose_fragments,
        tables=choose_tables,
        script=script("evaluate"),
        library=library("evaluate"),
        image=image_input("modern"),
    output:
        threshold="results/{dataset}/{network}/threshold.json",
    log:
        "logs/choose/{dataset}_{network}.log",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=choose_json,
        masks=choose_mask_names,
        fragments=choose_fragment_names,
        tables=choose_table_options,
    shell:
        "python {input.script:q} choose --threads {threads} --settings {params.settings:q}"
        " --fragments {params.fragments:q} --masks {params.masks:q}"
        " --output {output.threshold:q} {params.tables:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule evaluate:
    """Scores of the test entries at that threshold; the table is also in the log."""
    input:
        volumes=score_files,
        masks=score_masks,
        fragments=score_fragments,
        segmentations=score_segmentations,
        tables=score_tables,
        threshold="results/{dataset}/{network}/threshold.json",
        script=script("evaluate"),
        library=library("evaluate"),
        image=image_input("modern"),
    output:
        scores="results/{dataset}/{network}/evaluation.json",
        plot=report(
            "results/{dataset}/{network}/evaluation.png",
            caption="../workflow/report/evaluation.rst",
            category="Evaluation",
            labels={"dataset": "{dataset}", "network": "{network}"},
        ),
    log:
        "logs/evaluate/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=other_networks(),
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=score_json,
        masks=score_mask_names,
        fragments=score_fragment_names,
        segmentations=score_segmentation_names,
        tables=score_table_options,
    shell:
        "python {input.script:q} score --threads {threads} --settings {params.settings:q}"
        " --fragments {params.fragments:q} --segmentation {params.segmentations:q}"
        " --masks {params.masks:q}"
        " --threshold-file {input.threshold:q} --output {output.scores:q} --plot {output.plot:q}"
        " {params.tables:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


use rule evaluate as evaluate_objects with:
    output:
        scores="results/{dataset}/{network}/objects.json",
        plot="results/{dataset}/{network}/objects.png",
    log:
        "logs/evaluate_objects/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate_objects/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=f"{boundary_networks()}|{class_networks()}",


rule evaluate_boundaries:
    """Pixel error, and Rand and information after thinning, of networks that predict boundaries."""
    input:
        labels=boundary_files,
        masks=boundary_masks,
        predictions=boundary_predictions,
        manifests=boundary_manifests,
        script=script("evaluate_boundaries"),
        library=library("evaluate_boundaries"),
        image=image_input("modern"),
    output:
        scores="results/{dataset}/{network}/evaluation.json",
        plot=report(
            "results/{dataset}/{network}/evaluation.png",
            caption="../workflow/report/evaluation.rst",
            category="Evaluation",
            labels={"dataset": "{dataset}", "network": "{network}"},
        ),
    log:
        "logs/evaluate/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=boundary_networks(),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=boundary_json,
        masks=boundary_mask_names,
        predictions=boundary_prediction_names,
    shell:
        "python {input.script:q} --settings {params.settings:q}"
        " --prediction {params.predictions:q} --masks {params.masks:q}"
        " --output {output.scores:q} --plot {output.plot:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


use rule evaluate_boundaries as evaluate_class_boundaries with:
    output:
        scores="results/{dataset}/{network}/boundaries.json",
        plot="results/{dataset}/{network}/boundaries.png",
    log:
        "logs/evaluate_class_boundaries/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate_class_boundaries/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=class_networks(),


rule evaluate_classes:
    """Error and negative log-likelihood of the voxels of the test entries, of networks that give classes."""
    input:
        labels=class_files,
        masks=class_masks,
        predictions=class_predictions,
        manifests=class_manifests,
        script=script("evaluate_classes"),
        library=library("evaluate_classes"),
        image=image_input("modern"),
    output:
        scores="results/{dataset}/{network}/evaluation.json",
        plot=report(
            "results/{dataset}/{network}/evaluation.png",
            caption="../workflow/report/evaluation.rst",
            category="Evaluation",
            labels={"dataset": "{dataset}", "network": "{network}"},
        ),
    log:
        "logs/evaluate/{dataset}_{network}.log",
    benchmark:
        "logs/evaluate/{dataset}_{network}.benchmark.jsonl"
    wildcard_constraints:
        network=class_networks(),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=class_json,
        masks=class_mask_names,
        predictions=class_prediction_names,
    shell:
        "python {input.script:q} --settings {params.settings:q}"
        " --prediction {params.predictions:q} --masks {params.masks:q}"
        " --output {output.scores:q} --plot {output.plot:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
