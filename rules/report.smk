"""The report: all configured experiments on one page.

REQUIRED INPUTS: the evaluations of config.yaml's `experiments`
OUTPUTS: results/report.html; `snakemake --report report.zip` writes Snakemake's own report
"""

from retrace.planning.report import report_job


rule report_page:
    """Pictures, curves, scores next to the paper's, steps, costs, machine."""
    input:
        unpack(files_of(report_job)),
        script=ancient(script("report")),
        image=image_input("modern"),
    output:
        page=update("results/report.html"),
    log:
        "logs/report.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        job=job_of(report_job),
    shell:
        "python {input.script:q}"
        " --job {params.job:q}"
        " --output {output.page:q}"
        " 2>&1 | (trap '' INT TERM; exec tee {log:q})"


rule report:
    """The target: `snakemake report`."""
    input:
        "results/report.html",
    localrule: True
