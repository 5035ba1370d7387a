"""Jobs that Snakemake plans, without running them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from plans import LEGACY, PROGRAMS, Run, planned

DATASETS = ("zfinch", "fib25", "hemi")
NETWORKS = ("baseline", "long_range", "malis", "mtlsd", "lsd", "aclsd", "acrlsd")


def test_the_21_experiments_plan_their_training(snakemake: Run) -> None:
    targets = [f"train_{d}_{n}" for d in DATASETS for n in NETWORKS]
    run = snakemake(*targets, "--dry-run", "--quiet", "rules")

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("fetch", "mask", "train")] == [3, 3, 21]
    assert all(jobs[target] == 1 for target in targets)


def test_auto_context_plans_the_network_it_reads(snakemake: Run) -> None:
    run = snakemake("train_zfinch_acrlsd", "--dry-run", "--printshellcmds")

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["train"] == 2
    assert '"context": "results/zfinch/lsd/model.safetensors"' in run.stdout
    inputs = re.findall(r"^    input: (.*)$", run.stdout, re.M)
    files = [line.split(", ") for line in inputs]
    assert len(files) == 5 and all(len(each) == len(set(each)) for each in files)
    assert max(map(len, inputs)) < 500 and "scripts/retrace/" not in "".join(inputs)
    assert "eligible for caching" not in run.stdout
    run = snakemake("evaluate_phantom_aclsd_small", "--dry-run", "--quiet", "rules")
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("train", "predict", "fragments")] == [2, 4, 2]


def test_published_weights_are_fetched_and_not_trained(snakemake: Run) -> None:
    run = snakemake("predict_zfinch_acrlsd", "-np", "--config", "weights=published")

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("fetch_checkpoint", "convert", "train")] == [2, 2, 0]
    assert "funke/zebrafinch/training/checkpoints/acrlsd" in run.stdout
    run = snakemake("fetch_hemi_mtlsd_checkpoint", "--dry-run", "--quiet", "rules")
    assert planned(run.stdout) == {"fetch_checkpoint": 1, "fetch_hemi_mtlsd_checkpoint": 1}


@pytest.mark.parametrize(("dataset", "folders"), [("zfinch", 2), ("fib25", 2), ("hemi", 2)])
def test_the_papers_numbers_plan_every_network(snakemake: Run, dataset: str, folders: int) -> None:
    run = snakemake(f"reproduce_{dataset}", "--dry-run", "--quiet", "rules")

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("fetch_checkpoint", "convert", "predict")] == [7, 7, 7]
    assert [jobs[rule] for rule in ("fragments", "segment", "evaluate")] == [6, 6, 6]
    assert [jobs[rule] for rule in ("compare_published", "judge_published")] == [1, 1]
    assert (jobs["fetch_ground_truth"], jobs["train"], jobs["fetch"]) == (folders, 0, 0)


def test_one_network_of_the_paper_alone(snakemake: Run) -> None:
    chosen = ("--config", "reproduce={networks: [mtlsd]}")
    run = snakemake("reproduce_zfinch", "-np", *chosen)

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["predict"] == 1
    assert "rawdata_realigned" in run.stdout
    assert "results/zfinch/mtlsd/published.safetensors" in run.stdout


def test_training_continues_from_published_weights(snakemake: Run) -> None:
    chosen = ("weights=published", "iterations={acrlsd: 190100}")
    run = snakemake("train_zfinch_acrlsd", "--dry-run", "--printshellcmds", "--config", *chosen)

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["train"] == 1
    assert '"context": "results/zfinch/lsd/published.safetensors"' in run.stdout
    assert '"published": "data/zfinch/checkpoints/acrlsd"' in run.stdout
    assert '"iterations": 190100' in run.stdout


def test_an_evaluation_plans_every_step_between(snakemake: Run) -> None:
    run = snakemake("evaluate_phantom_mtlsd_small", "--dry-run")

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout) == {
        "fetch": 3,
        "mask": 3,
        "train": 1,
        "predict": 2,
        "fragments": 2,
        "choose_threshold": 1,
        "segment": 1,
        "evaluate": 1,
        "evaluate_phantom_mtlsd_small": 1,
    }
    choosing = run.stdout.split("rule choose_threshold:")[1].split("\nrule ")[0]
    assert "val_0" in choosing
    assert "test_0" not in choosing


def test_shards_are_separate_jobs(snakemake: Run) -> None:
    blocks = "segment={block_shape: [16, 32, 32]}"
    run = snakemake("evaluate_phantom_mtlsd_small", "--dry-run", "--config", "shards=4", blocks)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    # Two volumes; segments of the test volume alone, because validation needs only the graph.
    assert {rule: jobs[rule] for rule in ("predict", "fragments", "edges", "count", "segment")} == {
        "predict": 8,
        "fragments": 8,
        "edges": 8,
        "count": 12,
        "segment": 4,
    }
    assembled = ("prediction", "fragments", "graph", "segmentation")
    assert [jobs[f"assemble_{name}"] for name in assembled] == [2, 2, 2, 1]
    assert (jobs["train"], jobs["join"]) == (1, 1)


def test_the_documented_command_uses_the_image_and_accepts_overrides(snakemake: Run) -> None:
    overrides = ("--printshellcmds", "--config", "iterations=7", "seed=3", "volumes=all")
    run = snakemake("--use-singularity", "train_fib25_mtlsd", "--dry-run", *overrides)

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["fetch"] == 4
    assert '"iterations": 7' in run.stdout
    assert '"seed": 3' in run.stdout
    assert re.search(r"input: .*containers/images/modern-[0-9a-f]{12}\.sif", run.stdout)


def test_a_custom_volume_needs_one_file(snakemake: Run, tmp_path: Path) -> None:
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "cubes.h5").touch()
    (tmp_path / "config/datasets/mine.yaml").write_text(
        """
        name: mine
        voxel_size_nm: [10, 10, 10]
        volumes:
          a: {raw: {path: cubes.h5, array: a/raw}, labels: {path: cubes.h5, array: a/labels}}
          b: {raw: {path: cubes.h5, array: b/raw}, labels: {path: cubes.h5, array: b/labels}}
        train: [a]
        validation: [{volume: a, roi_nm: {offset: [100, 0, 0], shape: [100, 500, 500]}}]
        test: [b]
        """
    )
    run = snakemake("evaluate_mine_mtlsd", "--dry-run", "--quiet", "rules")

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["fetch"] == 0
    assert planned(run.stdout)["predict"] == 2


ELSEWHERE = """
name: mine
voxel_size_nm: [10, 10, 10]
bucket: {read: blocks, prefix: somebody/em, raw: raw, labels: ids}
volumes:
  a: {}
  b: {raw: {path: "gs://somebody/em"}}
train: [a]
validation: [{volume: a, roi_nm: {offset: [100, 0, 0], shape: [100, 500, 500]}}]
test: [b]
"""


def write_dataset(folder: Path, text: str) -> None:
    (folder / "config/datasets").mkdir(parents=True)
    (folder / "config/datasets/mine.yaml").write_text(text)


def test_remote_volumes_are_streamed_and_not_fetched(snakemake: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path, ELSEWHERE)
    options = (
        "--dry-run",
        "--printshellcmds",
        "--config",
        "endpoint_url=http://near",
        "bucket=ours",
    )
    run = snakemake("evaluate_mine_mtlsd", "view_mine_mtlsd", *options)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("fetch", "mask", "predict")] == [0, 2, 2]
    place = '"endpoint_url": "http://near", "missing_chunks": "fill", "path": "s3://ours/somebody/em/a.zarr"'
    assert place in run.stdout
    assert '"path": "gs://somebody/em"' in run.stdout


def test_exports_are_planned_layer_by_layer(snakemake: Run, tmp_path: Path) -> None:
    chosen = "export={layers: [meshes, raw], gzip: true}"
    run = snakemake("export_zfinch_mtlsd", "--dry-run", "--printshellcmds", "--config", chosen)

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["export"] == 2
    for layer in ("raw", "segments"):
        assert f"/precomputed/{layer}.manifest.json" in run.stdout
    assert '"labels": true, "shapes": {"files": [], "meshes": true' in run.stdout


def test_every_format_and_table_of_an_export_is_a_job(snakemake: Run) -> None:
    chosen = "export={layers: [segments, raw, nodes], formats: [precomputed, ome_zarr]}"
    published = ("weights=published", "reproduce={regions: [11_micron]}")
    run = snakemake("export_zfinch_paper_mtlsd", "-np", "--config", chosen, *published)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("export", "export_ome_zarr", "export_nodes")] == [2, 2, 1]
    assert "/ome_zarr/raw.zarr" in run.stdout


def test_a_package_needs_the_weights_alone(snakemake: Run) -> None:
    run = snakemake("package_hemi_mtlsd", "-np", "--config", "weights=published")

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout) == {
        "fetch_checkpoint": 1,
        "convert": 1,
        "package": 1,
        "package_hemi_mtlsd": 1,
    }


def test_the_legacy_engine_plans_its_own_rules_and_the_same_results(snakemake: Run) -> None:
    run = snakemake("evaluate_zfinch_acrlsd", *LEGACY)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("train", "predict", "image_legacy")] == [0, 0, 1]
    assert [jobs[f"legacy_{rule}"] for rule in ("batches", "train", "model")] == [2, 2, 1]
    assert [jobs[f"legacy_{rule}"] for rule in ("input", "predict", "output")] == [2, 2, 2]
    assert '"checkpoint": "results/zfinch/acrlsd/checkpoint"' in run.stdout
    assert re.search(r"input: .*containers/images/legacy-[0-9a-f]{12}\.sif", run.stdout)


def test_a_published_image_is_fetched_and_its_python_called_by_path(snakemake: Run) -> None:
    chosen = ("legacy_image=lsd_legacy", "weights=published")
    run = snakemake("predict_zfinch_mtlsd", *LEGACY, *chosen)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[r] for r in ("fetch_container_lsd_legacy", "fetch_checkpoint")] == [1, 1]
    assert [jobs[r] for r in ("legacy_train", "convert")] == [0, 0]
    assert '"checkpoint": "data/zfinch/checkpoints/mtlsd"' in run.stdout
    assert "/opt/conda/envs/lsd_legacy/bin/python" in run.stdout
    assert '"key": "funke/singularity/lsd_legacy.img"' in run.stdout
    run = snakemake("fetch_container_lsd_v0.8", "--dry-run", "--quiet", "rules")
    assert "fetch_container_lsd_v0.8" in run.stdout


ZNN = {
    "train_zfinch_n4": {"fetch": 1, "mask": 1, "train": 1},
    "evaluate_zfinch_n4": {
        "fetch": 1,
        "mask": 1,
        "train": 1,
        "predict": 1,
        "evaluate_boundaries": 1,
    },
    "evaluate_zfinch_n4_a": {
        "fetch": 1,
        "mask": 1,
        "train": 1,
        "predict": 1,
        "fragments": 1,
        "choose_threshold": 1,
        "segment": 1,
        "evaluate": 1,
    },
    "results/zfinch/n4/net.h5": {"fetch": 1, "mask": 1, "train": 1, "znn_network": 1},
}


def test_networks_of_znn_plan_what_their_outputs_need(snakemake: Run) -> None:
    for target, jobs in ZNN.items():
        run = snakemake(target, "--dry-run", "--quiet", "rules")
        own = {target: 1} if "/" not in target else {}
        assert planned(run.stdout) == jobs | own, target


def test_isbi2012_needs_its_two_files(snakemake: Run, tmp_path: Path) -> None:
    run = snakemake("train_isbi2012_n4", "--dry-run")
    assert run.returncode != 0
    assert "data/isbi2012/train-labels.tif" in run.stdout
    (tmp_path / "data/isbi2012").mkdir(parents=True)
    for part in ("volume", "labels"):
        (tmp_path / f"data/isbi2012/train-{part}.tif").touch()
    run = snakemake("train_isbi2012_n4", "train_isbi2012_vd2d", "--dry-run", "--quiet", "rules")
    assert planned(run.stdout)["train"] == 2
    # VD2D3D reads VD2D's prediction of the whole stack.
    run = snakemake("predict_isbi2012_vd2d3d", "--dry-run", "--quiet", "rules")
    jobs = planned(run.stdout)
    assert [jobs[rule] for rule in ("train", "predict_whole", "predict")] == [2, 1, 1]
    run = snakemake("train_isbi2012_vd2d3d_tanh", "--dry-run")
    assert "results/isbi2012/vd2d_tanh/stack/whole_prediction.manifest.json" in run.stdout


def test_a_znn_h5_predicts_without_training(snakemake: Run, tmp_path: Path) -> None:
    (tmp_path / "net.h5").touch()
    chosen = ("weights=published", "init=net.h5", "output_prefix=out/net")
    run = snakemake("predict_zfinch_n4", "--dry-run", "--printshellcmds", "--config", *chosen)

    jobs = planned(run.stdout)
    rules = ("znn_model", "predict", "znn_outputs", "train", "convert")
    assert [jobs[rule] for rule in rules] == [1, 1, 1, 0, 0]
    assert '"h5": "net.h5"' in run.stdout


def test_a_comparison_segments_boundaries_too_and_names_what_cannot_run(snakemake: Run) -> None:
    networks = "compare={networks: [mtlsd_small, lsd_small, n4, neuro3d_doc]}"
    run = snakemake("compare_phantom", "-np", "--config", networks)

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert [jobs[r] for r in ("train", "evaluate", "evaluate_objects", "compare")] == [3, 1, 2, 1]
    assert '"lsd_small": "evaluate_phantom_lsd_small: network' in run.stdout
    assert "results/phantom/n4/objects.json" in run.stdout


def test_published_figures_are_read_with_the_comparison(snakemake: Run) -> None:
    run = snakemake("compare_fib25", "-np", "--config", "compare={networks: [mtlsd_small]}")
    assert run.returncode == 0, run.stdout
    assert "config/published/fib25.yaml" in run.stdout
    assert '"regions": ["roi_1"]' in run.stdout


def test_networks_are_compared_after_equal_time(snakemake: Run) -> None:
    networks = "compare={networks: [n4, mtlsd_small]}"
    run = snakemake("--config", "train_seconds=600", networks, "-np", "--", "compare_phantom")
    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["train"] == 2
    assert run.stdout.count('"seconds": 600') == 2


def test_a_bundle_contains_the_volumes_streamed_from_the_bucket(
    snakemake: Run, tmp_path: Path
) -> None:
    options = ("--use-singularity", "-np", "--config", "endpoint_url=http://near", "bucket=ours")
    write_dataset(tmp_path, ELSEWHERE)
    run = snakemake("bundle_mine_mtlsd", *options)
    assert run.returncode
    assert "volume 'b' of dataset 'mine' is streamed from gs://somebody/em" in run.stdout

    (tmp_path / "config/datasets/mine.yaml").write_text(
        ELSEWHERE.replace('{raw: {path: "gs://somebody/em"}}', "{}")
    )
    run = snakemake("bundle_mine_mtlsd", *options)
    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["fetch"] == 2
    packed = '"files": ["data/mine/a.zarr", "data/mine/a.manifest.json", "data/mine/b.zarr"'
    assert packed in run.stdout


def test_a_bundle_leaves_out_synthetic_sections(snakemake: Run) -> None:
    run = snakemake("bundle_phantom_sections_seamless_small", "--use-singularity", "-np")
    assert run.returncode == 0, run.stdout
    assert planned(run.stdout)["bundle"] == 1
    assert '"files": []' in run.stdout


def test_sections_are_generated_sampled_and_masked(snakemake: Run) -> None:
    run = snakemake("mask_stacks_phantom_sections", "--dry-run", "--quiet", "rules")

    assert run.returncode == 0, run.stdout
    assert planned(run.stdout) == {
        "make_sections": 1,
        "gen_stack": 2,
        "train_defects": 1,
        "mask_stacks": 2,
        "mask_stacks_phantom_sections": 1,
    }


def test_steps_are_listed_without_the_targets_of_each_pair(snakemake: Run) -> None:
    listed = snakemake("--list-rules").stdout

    names = set(re.findall(r"^(\w+)", listed, re.M))
    assert {"all", "train", "evaluate", "image_modern"} <= names
    assert len(names) < 100 and "train_zfinch_mtlsd" not in names
    assert "`make list` shows what can run here" in listed


def test_every_wrong_name_is_refused_in_one_message(snakemake: Run) -> None:
    names = ["trian_zfinch_mtlsd", "mask_phantom", "zfinch_mtlsd", "evaluate", "nothing_like_it"]
    run = snakemake(*names, "--dry-run", "--until", "predct")

    assert run.returncode == 1 and "Exception" not in run.stdout
    _, *lines = run.stdout.partition("error: ")[2].splitlines()
    assert "no verb 'trian'; did you mean train_zfinch_mtlsd?" in run.stdout
    assert lines[0].startswith("zfinch_mtlsd: name a verb too; did you mean view_zfinch_mtlsd")
    assert lines[1].startswith("evaluate: name a dataset and a network too; did you mean")
    assert lines[2:4] == [
        "nothing_like_it: no target, rule or file has this name",
        "predct: no target, rule or file has this name; did you mean predict?",
    ]
    assert lines[4:] == ["`make list` shows what can run here"]


def test_the_workflow_is_clean(snakemake: Run, repository: Path) -> None:
    lint = snakemake("--lint")
    style = subprocess.run(
        [PROGRAMS / "snakefmt", "--check", repository / "Snakefile", repository / "rules"],
        capture_output=True,
        text=True,
    )

    assert "your workflow is in a good condition" in lint.stdout
    assert style.returncode == 0, style.stderr
