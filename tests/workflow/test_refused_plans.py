"""What cannot work is refused when the workflow is planned, with the reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from plans import LEGACY, Run, planned
from retrace.planning import local_device


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_zfinch_mtlsd", "--config", "engine=legacy"], "add --use-singularity"),
        (["train_zfinch_malis", *LEGACY[:1], *LEGACY[3:]], "trained with MALIS after iteration"),
        (["train_zfinch_mtlsd", *LEGACY[:1], *LEGACY[3:], "batch_size=2"], "one sample at a time"),
        (
            ["evaluate_zfinch_mtlsd", "--config", "gpus=2"],
            "set `batch_size` (config or network) to",
        ),
        (["train_zfinch_mtlsd", "--config", "gpus={trian: 2}"], "did you mean 'train'"),
        (["fetch_container_lsd_v08"], "did you mean 'lsd_v0.8'"),
        (["train_zfnch_mtlsd"], "no dataset 'zfnch'; did you mean train_zfinch_mtlsd?"),
        (["evaluate_zfinch_lsd"], "predicts no affinities"),
        (["train_zfinch_mtlsd", "--config", "sede=1"], "did you mean 'seed'"),
        (["train_zfinch_paper_mtlsd"], "predicted with what was published for 'zfinch'"),
        (["reproduce_zfinch", "--config", "reproduce={regions: [12_micron]}"], "11_micron"),
        (["reproduce_zfinhc"], "did you mean reproduce_zfinch?"),
        (["export_zfinch_lsd"], "predicts no affinities"),
        (
            ["fetch_zfinch", "--config", "blocks={cache: /dev/null/x}"],
            "/dev/null is no writable folder",
        ),
        (["fetch_zfinch", "--config", "export={layers: [segmentation]}"], "segmentation"),
        (["compare_vnc_nc", "--config", "compare={networks: [mtlsd]}"], "are membranes"),
        (["evaluate_vnc_nc_neuro3d_doc"], "predicts none near the border of a stack"),
        (["compare_phantom", "--config", "compare={networks: [n44]}"], "no network 'n44'"),
        (["fetch_zfinch", "--config", "package={license: none}"], "CC-BY-4.0"),
        (["export_zfinch_mtlsd", "--config", "export={layers: [nodes]}"], "`skeletons`"),
        (["train_isbi2012_mtlsd"], "are membranes, whose objects end with each section"),
        (["train_zfinch_hd2d"], "has 4 maps, each a class of voxels"),
        (["predict_zfinch_n4", "--config", "weights=published"], "with `init: FILE.h5`"),
        (["train_mnist_pretrained", "--config", "init=net.param"], "init={autoencoder: net.param}"),
    ],
)
def test_impossible_settings_are_refused_at_planning(
    snakemake: Run,
    arguments: list[str],
    message: str,
) -> None:
    run = snakemake("--dry-run", *arguments)

    assert run.returncode != 0
    assert message in run.stdout


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("stacks_basil", "the path of volume 'sections' is not filled in yet"),
        ("stacks_zfinch", "has no `alignment`"),
        ("train_phantom_sections_mtlsd", "holds sections to align and no labels"),
    ],
)
def test_unavailable_sections_are_refused(snakemake: Run, target: str, word: str) -> None:
    run = snakemake(target, "--dry-run")

    assert run.returncode != 0
    assert word in run.stdout


def starts(output: str) -> list[str]:
    """The weights that the planned trainings start from."""
    return re.findall(r'"init": "([^"]+)"', output)


def test_init_is_for_the_network_that_the_target_names(snakemake: Run, tmp_path: Path) -> None:
    (tmp_path / "first.safetensors").touch()
    options = ("-np", "--config", "init=first.safetensors")
    run = snakemake("train_zfinch_acrlsd", *options)

    assert planned(run.stdout)["train"] == 2
    assert starts(run.stdout) == ["first.safetensors"]
    run = snakemake("train_zfinch_acrlsd", *options[:2], "init={lsd: first.safetensors}")
    assert starts(run.stdout) == ["first.safetensors"]
    run = snakemake("results/zfinch/acrlsd/model.safetensors", *options)
    assert starts(run.stdout) == ["first.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_zfinch_n4", "train_zfinch_mtlsd"], "several are requested (n4, mtlsd)"),
        (["compare_zfinch"], "does not say which network it is for"),
    ],
)
def test_init_for_several_networks_is_refused(
    snakemake: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "net.h5").touch()
    run = snakemake(*arguments, "--dry-run", "--config", "init=net.h5")

    assert run.returncode != 0
    assert message in run.stdout
    assert run.stdout.count(message) == 1


def test_init_may_be_a_result_of_the_workflow(snakemake: Run, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "zfinch" / "n4"
    own = "init=results/zfinch/n4/net.h5"
    run = snakemake("train_zfinch_n4", "-np", "--config", own)
    assert run.returncode != 0
    assert "is made from the training that is to start from it" in run.stdout

    folder.mkdir(parents=True)
    (folder / "net.h5").touch()
    run = snakemake("train_zfinch_n4", "-np", "--config", own)
    assert run.returncode == 0, run.stdout
    assert (planned(run.stdout)["train"], starts(run.stdout)) == (1, ["results/zfinch/n4/net.h5"])
    assert "Cyclic" not in run.stdout

    model = "init=results/zfinch/n4/model.safetensors"
    run = snakemake("train_zfinch_n4", "-np", "--config", model)
    assert "is the file that this training replaces; copy it" in run.stdout

    run = snakemake("train_fib25_n4", "-np", "--config", own)
    assert (planned(run.stdout)["train"], starts(run.stdout)) == (1, ["results/zfinch/n4/net.h5"])


@pytest.mark.parametrize(
    ("target", "path", "trained"),
    [
        ("train_phantom_acrlsd_small", "phantom/lsd_small/model.safetensors", 2),
        ("train_mnist_mlp", "mnist/mlp/net.param", 1),
        ("train_phantom_sections_seamless_small", "phantom_sections/seamless/model.pt", 1),
    ],
)
def test_only_the_network_asked_for_begins_from_a_result(
    snakemake: Run, tmp_path: Path, target: str, path: str, trained: int
) -> None:
    file = tmp_path / "results" / path
    file.parent.mkdir(parents=True)
    file.write_text("put there by hand")
    run = snakemake(target, "-np", "--config", f"init=results/{path}")

    assert run.returncode == 0, run.stdout
    jobs = planned(run.stdout)
    assert jobs["train"] + jobs["fit_alignment"] == trained
    assert starts(run.stdout) == [f"results/{path}"]
    assert "Cyclic" not in run.stdout


@pytest.mark.parametrize("option", [("--dry-run",), ("--cores", "1")])
def test_fewer_iterations_are_refused_for_targets_and_files(
    snakemake: Run, tmp_path: Path, option: tuple[str, ...]
) -> None:
    folder = tmp_path / "results" / "zfinch" / "mtlsd_small"
    folder.mkdir(parents=True)
    model = folder / "model.safetensors"
    model.write_text("weights")
    (folder / "training.json").write_text('{"iterations": 6, "seed": 0}')
    for target in ("evaluate_zfinch_mtlsd_small", "results/zfinch/mtlsd_small/model.safetensors"):
        run = snakemake(target, *option, "--config", "iterations=4")
        assert run.returncode != 0
        assert "is trained for 6 iterations, and 4 are requested" in run.stdout
    assert model.read_text() == "weights"


@pytest.mark.parametrize("extra", [[], ["--cores", "1"]])
def test_an_absent_gpu_is_refused(snakemake: Run, extra: list[str]) -> None:
    if local_device.has_gpu():
        pytest.skip("this machine has a GPU")
    run = snakemake("train_zfinch_mtlsd", *(extra or ["-n"]), "--config", "device=cuda")

    assert run.returncode != 0
    assert "`device: cuda` needs a GPU" in run.stdout
