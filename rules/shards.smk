"""A volume in shares, each a job: what is between the shares and one store.

REQUIRED INPUTS: shards/NAME_1-of-N.zarr ... of prediction, fragments and segmentation, made by their rules
OUTPUTS: prediction.zarr, fragments.zarr and segmentation.zarr as a single job would make them (chunks are
links to those of the shares, not copies); the graph between fragments, the segment of every fragment,
and tables of counted voxels in shards/
"""

for assembled in ASSEMBLED:

    rule:
        name:
            f"assemble_{assembled}"
        input:
            shares=shares_of(assembled),
            manifests=share_manifests_of(assembled),
            script=script("assemble"),
            library=library("assemble"),
            image=image_input("modern"),
        output:
            zarr=directory(assembled_store(assembled)),
            manifest=manifest(assembled_store(assembled)),
        log:
            f"logs/assemble_{assembled}/{{dataset}}_{{network}}/{{volume}}.log",
        container:
            image("modern")
        threads: 4
        resources:
            mem_mb=growing(4000),
            runtime=growing(240),
        shell:
            "python {input.script:q} --shares {input.shares:q} --output {output.zarr:q}"
            " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule edges:
    """Which fragments touch, and the score at which they join, in a share of the blocks."""
    input:
        prediction="results/{dataset}/{network}/{volume}/prediction.zarr",
        manifest="results/{dataset}/{network}/{volume}/prediction.manifest.json",
        fragments="results/{dataset}/{network}/{volume}/shards/fragments.zarr",
        fragments_manifest="results/{dataset}/{network}/{volume}/shards/fragments.manifest.json",
        tissue_mask=tissue_mask,
        script=script("segment"),
        library=library("segment"),
        image=image_input("modern"),
    output:
        zarr=directory(share("edges")),
        manifest=manifest(share("edges")),
    log:
        share_log("edges"),
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(16000),
        runtime=growing(600),
    params:
        settings=segment_json,
        shard=shard_option,
    shell:
        "python {input.script:q} edges --settings {params.settings:q}"
        " --prediction {input.prediction:q} --fragments {input.fragments:q}"
        " --work work/segment --output {output.zarr:q} {params.shard:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule join:
    """The segment of every fragment: the only step over a whole volume, of its graph alone."""
    input:
        fragments="results/{dataset}/{network}/{volume}/fragments.zarr",
        manifest="results/{dataset}/{network}/{volume}/fragments.manifest.json",
        threshold="results/{dataset}/{network}/threshold.json",
        script=script("segment"),
        library=library("segment"),
        image=image_input("modern"),
    output:
        zarr=directory("results/{dataset}/{network}/{volume}/shards/lut.zarr"),
        manifest="results/{dataset}/{network}/{volume}/shards/lut.manifest.json",
    log:
        "logs/join/{dataset}_{network}/{volume}.log",
    container:
        image("modern")
    resources:
        mem_mb=growing(16000),
        runtime=growing(240),
    shell:
        "python {input.script:q} join --fragments {input.fragments:q}"
        " --threshold-file {input.threshold:q} --output {output.zarr:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule count:
    """How often a segment and a label meet, in a share of the blocks."""
    input:
        store=counted_store,
        manifest=counted_manifest,
        labels=mask_files,
        mask="results/{dataset}/masks/{volume}.zarr",
        script=script("evaluate"),
        library=library("evaluate"),
        image=image_input("modern"),
    output:
        tables="results/{dataset}/{network}/{volume}/shards/{split}_{array}_{shard}.npz",
    log:
        "logs/count/{dataset}_{network}/{volume}_{split}_{array}_{shard}.log",
    wildcard_constraints:
        split="validation|test",
        array="fragments|segments",
    container:
        image("modern")
    threads: 2
    resources:
        mem_mb=growing(8000),
        runtime=growing(240),
    params:
        settings=count_json,
    shell:
        "python {input.script:q} count --threads {threads} --settings {params.settings:q}"
        " --volume {wildcards.volume} --split {wildcards.split} --array {wildcards.array}"
        " --store {input.store:q} --masks {wildcards.volume}={input.mask:q}"
        " --shard {wildcards.shard} --output {output.tables:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
