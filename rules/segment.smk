"""Segmentation.

REQUIRED INPUTS: a prediction with affinities; for the segments also the chosen threshold
OUTPUTS: results/DATASET/NETWORK/VOLUME/fragments.zarr (fragments and the graph of their merge
scores) and segmentation.zarr (segments), each with its manifest; with `shards` above 1 shares of them,
whose graph is made and which are put together by rules/shards.smk
"""


rule fragments:
    """Over-segments a prediction and scores which fragments belong together."""
    input:
        prediction="results/{dataset}/{network}/{volume}/prediction.zarr",
        manifest="results/{dataset}/{network}/{volume}/prediction.manifest.json",
        tissue_mask=tissue_mask,
        script=script("segment"),
        library=library("segment"),
        image=image_input("modern"),
    output:
        zarr=directory(share("fragments")),
        manifest=manifest(share("fragments")),
    log:
        share_log("fragments"),
    container:
        image("modern")
    threads: 4
    resources:
        mem_mb=growing(16000),
        runtime=growing(600),
    params:
        settings=segment_json,
        shard=shard_option,
    shell:
        "python {input.script:q} fragments --settings {params.settings:q}"
        " --prediction {input.prediction:q} --work work/segment --output {output.zarr:q}"
        " {params.shard:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"


rule segment:
    """Joins the fragments at the threshold that the validation volumes chose."""
    input:
        fragments="results/{dataset}/{network}/{volume}/fragments.zarr",
        manifest="results/{dataset}/{network}/{volume}/fragments.manifest.json",
        threshold="results/{dataset}/{network}/threshold.json",
        lut=lut_store,
        script=script("segment"),
        library=library("segment"),
        image=image_input("modern"),
    output:
        zarr=directory(share("segmentation")),
        manifest=manifest(share("segmentation")),
    log:
        share_log("segment"),
    container:
        image("modern")
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        shard=shard_option,
        lut=lut_option,
    shell:
        "python {input.script:q} apply --fragments {input.fragments:q}"
        " --threshold-file {input.threshold:q} --output {output.zarr:q}"
        " {params.shard:q} {params.lut:q}"
        " 2>&1 | env --ignore-signal=INT,TERM tee {log:q}"
