"""All networks of a dataset side by side.

REQUIRED INPUTS: evaluations, models, training histories and predictions of all networks that are compared
OUTPUTS: results/DATASET/comparison.json, .md and .png
"""


rule compare:
    """One table: scores, parameters, work, seconds and memory; what cannot run is listed with the reason."""
    input:
        evaluations=compare_evaluations,
        models=compare_models,
        histories=compare_histories,
        predictions=compare_predictions,
        volumes=compare_files,
        masks=compare_masks,
        published=compare_published,
        script=script("compare"),
        library=library("compare"),
        image=image_input("modern"),
    output:
        table="results/{dataset}/comparison.json",
        text="results/{dataset}/comparison.md",
        plot=report(
            "results/{dataset}/comparison.png",
            caption="../workflow/report/comparison.rst",
            category="Comparison",
            labels={"dataset": "{dataset}"},
        ),
    log:
        "logs/compare/{dataset}.log",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        settings=compare_json,
        evaluations=compare_evaluation_names,
        models=compare_model_names,
        histories=compare_history_names,
        predictions=compare_prediction_names,
        masks=compare_mask_names,
    shell:
        "python {input.script:q} --settings {params.settings:q} --threads {threads}"
        " --evaluation {params.evaluations:q} --model {params.models:q}"
        " --history {params.histories:q} --prediction {params.predictions:q}"
        " --masks {params.masks:q} --published {input.published:q}"
        " --output {output.table:q} --text {output.text:q} --plot {output.plot:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
