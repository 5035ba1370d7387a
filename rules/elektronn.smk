"""Single examples with a class each (MNIST and its kind), and the curves of ELEKTRONN's trainings.

REQUIRED INPUTS: a dataset with `examples`; a trained network of the family elektronn
OUTPUTS: data/DATASET/FILE as the dataset's `fetch` says; results/DATASET/NETWORK/predictions.h5, the
probabilities of the test split (an auto-encoder's reconstructions), evaluation.json and evaluation.png
from it; history.csv, timeline.png, history.png and errors.png of a training
"""


rule fetch_examples:
    """One file of a dataset of examples. A file that was put there by hand stays."""
    input:
        script=ancient(script("fetch_file")),
        image=image_input("modern"),
    output:
        file="data/{dataset}/{file}",
    log:
        "logs/fetch/{dataset}/{file}.log",
    wildcard_constraints:
        dataset=fetched_examples(),
        file=r"[A-Za-z0-9][A-Za-z0-9_-]*(\.npy|\.h5|\.gz|\.pkl\.gz)",
    retries: 2
    localrule: True
    container:
        image("modern")
    resources:
        mem_mb=1000,
        runtime=60,
    params:
        url=fetch_examples_url,
        sha256=fetch_examples_sha256,
    shell:
        "python {input.script:q} --url {params.url:q} --sha256 {params.sha256} --output {output.file:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule predict_examples:
    """Probabilities of the classes of each example of the test split."""
    input:
        model=predict_model,
        files=scored_example_files,
        script=script("examples"),
        library=library("examples"),
        image=image_input("modern"),
    output:
        predictions="results/{dataset}/{network}/predictions.h5",
    log:
        "logs/predict/{dataset}_{network}.log",
    wildcard_constraints:
        network=example_networks(),
    container:
        image("modern")
    resources:
        gpu=planning_train.gpus_for(config, "predict"),
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=examples_json,
    shell:
        "python {input.script:q} predict --settings {params.settings:q} --model {input.model:q}"
        " --output {output.predictions:q} 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule evaluate_examples:
    """Error and NLL on the test split."""
    input:
        predictions="results/{dataset}/{network}/predictions.h5",
        files=scored_example_files,
        script=script("examples"),
        library=library("examples"),
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
        network=example_networks(),
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        settings=examples_json,
    shell:
        "python {input.script:q} evaluate --settings {params.settings:q}"
        " --predictions {input.predictions:q} --output {output.scores:q} --plot {output.plot:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule training_curves:
    """The curves that ELEKTRONN draws, and its history as a table."""
    input:
        history="results/{dataset}/{network}/training.json",
        script=script("examples"),
        library=library("examples"),
        image=image_input("modern"),
    output:
        history="results/{dataset}/{network}/history.csv",
        timeline="results/{dataset}/{network}/timeline.png",
        losses="results/{dataset}/{network}/history.png",
        errors="results/{dataset}/{network}/errors.png",
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
        folder=subpath(output.history, parent=True),
    shell:
        "python {input.script:q} curves --history {input.history:q} --output {params.folder:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
