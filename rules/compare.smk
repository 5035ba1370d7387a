"""All networks of a dataset in one table.

REQUIRED INPUTS: evaluations, models, training histories and predictions of all networks that are compared
OUTPUTS: results/DATASET/comparison.json, .md, .png and .html
"""

from retrace.planning.compare import compare_job, comparison_page_job


rule compare:
    """Scores, parameters, operations, seconds and memory; lists networks that cannot run, with the reason."""
    input:
        unpack(files_of(compare_job)),
        script=ancient(script("compare")),
        image=image_input("modern"),
    output:
        table=update("results/{dataset}/comparison.json"),
        text=update("results/{dataset}/comparison.md"),
        plot=update(
            report(
                "results/{dataset}/comparison.png",
                caption="../workflow/report/comparison.rst",
                category="Comparison",
                labels={"dataset": "{dataset}"},
            )
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
        job=job_of(compare_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --threads {threads}"
        " --output {output.table:q}"
        " --text {output.text:q}"
        " --plot {output.plot:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule comparison_page:
    """The comparison as one page: a table that sorts, and plots that show values under the mouse."""
    input:
        unpack(files_of(comparison_page_job)),
        script=ancient(script("comparison_page")),
        image=image_input("modern"),
    output:
        page=update("results/{dataset}/comparison_page.html"),
    log:
        "logs/compare/{dataset}_page.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        job=job_of(comparison_page_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.page:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"
