"""Functions that the rules call while the workflow is planned; no rules here."""

import json
import os
import platform
import shlex
import sys
from functools import cache, wraps
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from retrace.remote import addresses
from retrace.planning import align as planning_align
from retrace.planning import container_images as planning_container_images
from retrace.config import paper as config_paper
from retrace.planning import reproduce as planning_reproduce
from retrace.formats import precomputed
from retrace.config import alignment as config_alignment
from retrace.planning import stacks as planning_stacks
from retrace.planning import fetch as planning_fetch
from retrace.planning import train as planning_train
from retrace.planning import paths as planning_paths
from retrace.planning import export as planning_export
from retrace.planning import view as planning_view
from retrace.planning import predict as planning_predict
from retrace.planning import segment as planning_segment
from retrace.planning import evaluate as planning_evaluate
from retrace.planning import compare as planning_compare
from retrace.planning import report as planning_report
from retrace.planning import program_files as planning_program_files
from retrace.config import yaml_files as config_yaml_files
from retrace.config import datasets as config_datasets
from retrace.config import sources as config_sources
from retrace.config import networks as config_networks
from retrace.config import compatibility as config_compatibility
from retrace.config import splits as config_splits
from retrace.config.command_line_values import read_config
from retrace.planning import targets as planning_targets
from retrace.errors import ConfigError, RetraceError, nearest
from retrace.files import digest
from retrace.settings_model import as_json
from retrace.storage.shards import shard_names
from retrace.config.compatibility import check_division

PAIR_VERBS = (
    "train",
    "package",
    "predict",
    "segment",
    "evaluate",
    "export",
    "align",
    "view",
    "crate",
    "bundle",
)
SECTION_VERBS = ("stacks", "train_defects", "mask_stacks")
DATA_VERBS = ("fetch", "mask", "view_data", "compare", *SECTION_VERBS)
PAPER_VERBS = ("reproduce",)


def uses_containers():
    """Whether this run was started with --use-singularity or its equivalents."""
    return any(
        "apptainer" in str(m).lower()
        for m in workflow.deployment_settings.deployment_method
    )


def prepare():
    """Checks the configuration and the targets, and makes the outside world visible to the jobs."""
    try:
        config.update(run_config().plain())
        config_datasets.check_chosen(config["volumes"])
        # The targets as typed: Snakemake itself knows them only after this file has been read.
        check_block_cache()
        for target in typed_words():
            planning_container_images.check_target(ROOT, target)
            verbs = [*PAIR_VERBS, *DATA_VERBS, *PAPER_VERBS]
            planning_targets.check_target(target, all_targets(), verbs)
    except RetraceError as error:
        raise WorkflowError(str(error)) from None
    if uses_containers():
        bind_outside_folders()
    else:
        # Without containers the scripts run in the environment that Snakemake itself runs in.
        here = str(Path(sys.executable).parent)
        os.environ.update(
            PATH=os.pathsep.join(dict.fromkeys([here, *os.get_exec_path()]))
        )


@cache
def run_config():
    """The settings of this run; text is as it was written, which Snakemake's own is not."""
    own = workflow.overwrite_configfiles
    files = [file for file in workflow.configfiles if file not in own]
    return read_config([*files, *own], workflow.config_settings.config_args)


def typed_words():
    """What was typed and can be a target: no KEY=VALUE, as `train_seconds=600` would look like one."""
    return [word for word in sys.argv[1:] if "=" not in word]


def bind_outside_folders():
    """Adds the folders that lie outside the working directory to what the containers see."""
    here = Path.cwd()
    block_cache().mkdir(parents=True, exist_ok=True)
    folders = {
        ROOT,
        block_cache(),
        *(Path(path).resolve().parent for path in outside_files()),
    }
    for folder in sorted(
        f for f in folders if not f.is_relative_to(here) and f.is_dir()
    ):
        bind = f"--bind {folder}"
        if bind not in workflow.deployment_settings.apptainer_args:
            workflow.deployment_settings.apptainer_args += f" {bind}"


def block_cache():
    """The folder that blocks of volumes elsewhere are kept in."""
    return Path(config["blocks"]["cache"]).resolve()


def check_block_cache():
    """Refuses a cache where no folder can be."""
    place = block_cache()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(
            f"`blocks: cache: {place}` cannot be made: {there} is no folder one can write to"
        )


def job_environment():
    """What every job finds in its environment: settings that change no result.

    As parameters they would make everything again when the cache moves.
    """
    values = {
        "RETRACE_BLOCKS": block_cache(),
        "RETRACE_BLOCKS_GIB": config["blocks"]["cache_gib"],
        "RETRACE_BLOCKS_THREADS": config["fetch_threads"],
        "RETRACE_PYTHON": sys.executable,
    }
    words = [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    # Snakemake fills in what stands in braces.
    return " ".join(words).replace("{", "{{").replace("}", "}}")


def outside_files():
    """Every file that the datasets name, and the mirror of the bucket."""
    files = [str(Path(config["mirror"]) / "any")] if config["mirror"] else []
    for name in config_yaml_files.names("datasets"):
        try:
            files += config_sources.named_files(config_datasets.load_dataset(name))
        except RetraceError:
            continue  # whoever asks for that dataset gets the error
    return files + config_networks.net_prefixes()


@cache
def all_targets():
    """Every verb_dataset and verb_dataset_network."""
    datasets, networks = config_yaml_files.names("datasets"), config_yaml_files.names(
        "networks"
    )
    data = {f"{v}_{d}" for v in DATA_VERBS for d in datasets}
    data |= {f"fetch_{d}_{n}_checkpoint" for d in datasets for n in networks}
    data |= {
        f"fetch_container_{name}" for name in planning_container_images.published(ROOT)
    }
    data |= {f"{v}_{d}" for v in PAPER_VERBS for d in paper_datasets()}
    return data | {
        f"{v}_{d}_{n}" for v in PAIR_VERBS for d in datasets for n in networks
    }


@cache
def typed_targets():
    """The targets that were typed."""
    return all_targets() & set(sys.argv[1:])


def is_wanted(target):
    """Whether a target is put into the workflow: if it was typed, or all where none was.

    There are some two thousand, and each costs half a millisecond at every start. A job that a
    cluster runs (--target-jobs) needs none.
    """
    return target in typed_targets() or not (
        typed_targets() or "--target-jobs" in sys.argv
    )


def refusing(function):
    """Turns an error of the configuration into Snakemake's own, which has no traceback."""

    @wraps(function)
    def wrapped(*args):
        try:
            return function(*args)
        except RetraceError as error:
            raise WorkflowError(str(error)) from None

    return wrapped


@cache
@refusing
def paper_datasets():
    """By the dataset whose checkpoints are published: the one with the paper's regions."""
    return config_paper.datasets()


@cache
@refusing
def dataset(name):
    """A dataset with everything filled in."""
    data = config_datasets.load_dataset(name, config["volumes"])
    if "paper" in data:
        data = config_paper.choose_regions(data, run_config().reproduce.regions)
    # Here and not where a job asks for its files, because Snakemake overlooks an error of a job
    # whose output is there already, and would take what another layer gave.
    data = config_sources.located(data, run_config())
    config_sources.check_layers(data)
    if "alignment" in data:
        config_alignment.check(data)
    return data


@cache
@refusing
def network(dataset_name, name):
    """A network as it is trained on a dataset."""
    return config_networks.network_for(name, dataset(dataset_name))


@cache
@refusing
def pair(verb, dataset_name, network_name):
    """Dataset and network, refused with the reason where they cannot work for this verb."""
    data = dataset(dataset_name)
    config_compatibility.check_verb(data, verb)
    net = network(dataset_name, network_name)
    config_compatibility.check_pair(data, net, verb)
    scored_as_they_are = config_networks.is_scored_as_it_is(net) or "examples" in data
    scored_as_they_are |= not config_networks.head_names(net)
    if verb in ("segment", "evaluate", "export") and not scored_as_they_are:
        config_compatibility.check_segmentation(
            run_config().segment, config["shards"], net
        )
    if config["engine"] == "legacy":
        check_legacy(verb, net)
    if verb == "train":
        batch = planning_train.trained_network(config, net).get("batch_size", 1)
        gpus = planning_train.gpus_for(config, verb)
        if net["family"] == "elektronn" and gpus > 1:
            raise ConfigError(
                f"network {net['name']!r}: networks of the family elektronn are trained on one GPU,"
                f" and `gpus` asks for {gpus}; set `gpus: {{train: 1, predict: {gpus}}}`"
            )
        check_division(net["name"], batch, gpus)
    return data, net


def check_legacy(verb, net):
    """Refuses what the legacy engine cannot do."""
    if net["family"] != "lsd":
        raise ConfigError(
            f"`engine: legacy` trains the LSD family alone, and network {net['name']!r} is of the"
            f" family {net['family']!r}; use `engine: modern`"
        )
    if not uses_containers():
        raise ConfigError(
            "`engine: legacy` runs TensorFlow 1 in a container image, here"
            f" {image(config['legacy_image'])}; add --use-singularity, or use `engine: modern`"
        )
    if config["shards"] > 1:
        raise ConfigError(
            "`engine: legacy` predicts a volume in one job; set `shards: 1`, or use `engine: modern`"
        )
    if verb == "train":
        iterations = (
            planning_train.iterations_for(config, net["name"]) or net["iterations"]
        )
        config_compatibility.check_legacy_loss(net, iterations)
        config_compatibility.check_legacy_batch(
            planning_train.trained_network(config, net),
            planning_train.gpus_for(config, verb),
        )


def growing(first):
    """A resource that each retry asks for once more: FIRST, 2 x FIRST, 3 x FIRST ...

    A job that a cluster ended for its memory or its time gets more of it the next time.
    """

    def amount(wildcards, attempt):
        return first * attempt

    return amount


def source(*parts):
    """A file of this workflow, relative to the working directory."""
    return os.path.relpath(ROOT.joinpath(*parts))


def script(name):
    """The program that a rule runs."""
    return source("workflow", "scripts", f"{name}.py")


def library(name):
    """The library files that a program imports, so that an edit of one reruns the rule."""
    return [
        os.path.relpath(path) for path in planning_program_files.program_files(name)[1:]
    ]


def image(name):
    """The container image of that name: built, with a digest in its name, or as published."""
    folder = Path("containers/images")
    if name in planning_container_images.published(ROOT):
        return str(planning_container_images.published_path(folder, name))
    return str(planning_container_images.image_path(ROOT, folder, name))


def image_input(name):
    """The image as an input, so that it is built first; nothing where no containers are in use."""
    return [ancient(image(name))] if uses_containers() else []


def manifest(store):
    """The manifest beside a zarr."""
    return store.removesuffix(".zarr") + ".manifest.json"


def with_manifests(stores):
    """Zarr stores and their manifests."""
    return [file for store in stores for file in (store, manifest(store))]


@refusing
def own_files(data, path):
    """The inputs that stand for `path`: a fetched folder, the info of a layer, or the file."""
    if addresses.is_address(path):
        info = precomputed.local_info(path)
        return [] if info is None else [str(info)]
    folder = planning_fetch.ground_truth(data, path)
    return [path] if folder is None else [folder, f"{folder}.manifest.json"]


def volume_files(
    data, volumes, parts=("raw", "labels", "inputs", "outputs", "outputs_mask")
):
    """Files of the volumes: the fetched zarr and its manifest, or the user's own files."""
    files = []
    for volume in volumes:
        found = planning_paths.source_paths(data["volumes"][volume], parts)
        if data.get("bucket", {"read": "blocks"}).get("read") != "blocks":
            files += with_manifests(found[:1])
        else:
            files += [file for path in found for file in own_files(data, path)]
    return list(dict.fromkeys(files))


def mask_stores(data, volumes):
    """The labels masks of those volumes that have labels."""
    return [
        planning_paths.mask_store(data, v)
        for v in volumes
        if "labels" in data["volumes"][v]
    ]


def stores(data, network_name, volumes, name):
    """The zarr of that name which a network made of each volume."""
    return [
        planning_paths.results(data["name"], network_name, v, f"{name}.zarr")
        for v in volumes
    ]


def named_masks(paths):
    """VOLUME=PATH for masks, whose file names are the volumes'."""
    return [f"{Path(path).stem}={path}" for path in paths]


def named_results(paths):
    """VOLUME=PATH for results, which lie in a folder with the volume's name."""
    return [f"{Path(path).parent.name}={path}" for path in paths]


# ---------------------------------------------------------------- fetch and mask


def fetch_json(wildcards):
    """What fetch.py reads."""
    data = dataset(wildcards.dataset)
    if "bucket" not in data or wildcards.volume not in data["volumes"]:
        raise WorkflowError(
            f"the bucket has no {wildcards.volume!r} of {wildcards.dataset!r}"
        )
    return as_json(planning_fetch.fetch_settings(config, data, wildcards.volume))


def published(dataset_name, network_name):
    """Folder and manifest of a published checkpoint; refused where nobody published one."""
    if network(dataset_name, network_name)["family"] != "lsd":
        raise WorkflowError(
            f"no checkpoint of network {network_name!r} was published in the bucket; name a network"
            " of ZNN with `init: FILE.h5`, of ELEKTRONN with `init: FILE.param`"
        )
    if "checkpoints" not in dataset(dataset_name).get("bucket", {}):
        raise WorkflowError(
            f"dataset {dataset_name!r} has no published checkpoints (`bucket: checkpoints` in its"
            " file); take `weights: trained`"
        )
    folder = f"data/{dataset_name}/checkpoints/{network_name}"
    return folder, f"{folder}.manifest.json"


def fetch_checkpoint_json(wildcards):
    """What fetch.py reads for a checkpoint."""
    published(wildcards.dataset, wildcards.network)
    data = dataset(wildcards.dataset)
    return as_json(
        planning_fetch.fetch_checkpoint_settings(config, data, wildcards.network)
    )


def fetch_ground_truth_json(wildcards):
    """What fetch.py reads for a folder of ground truth."""
    data = dataset(wildcards.dataset)
    if wildcards.folder not in data.get("ground_truth", {}):
        raise WorkflowError(
            f"dataset {wildcards.dataset!r} has no `ground_truth` {wildcards.folder!r}"
        )
    return as_json(
        planning_fetch.fetch_ground_truth_settings(config, data, wildcards.folder)
    )


def convert_json(wildcards):
    """What convert.py reads."""
    net = network(wildcards.dataset, wildcards.network)
    return as_json({"dataset": wildcards.dataset, "network": net})


def fetch_container_json(name):
    """What fetch_object.py reads for a published image."""
    told = planning_container_images.published(ROOT)[name]
    return as_json(
        planning_fetch.fetch_object_settings(config, told["key"], told["sha256"])
    )


def checkpoint_target(dataset_name, network_name):
    """What `fetch_DATASET_NETWORK_checkpoint` wants, looked at only when it is asked for."""

    def files(wildcards):
        return list(published(dataset_name, network_name))

    return files


def mask_files(wildcards):
    """The labels a mask is made from."""
    parts = ["labels", "labels_mask"]
    return volume_files(dataset(wildcards.dataset), [wildcards.volume], parts)


def mask_json(wildcards):
    """What mask.py reads."""
    return as_json(
        planning_paths.mask_settings(dataset(wildcards.dataset), wildcards.volume)
    )


# ---------------------------------------------------------------- train, predict, segment


def train_files(wildcards):
    """The volumes, or the examples, a network is trained on."""
    data, net = pair("train", wildcards.dataset, wildcards.network)
    if "examples" in data:
        return config_sources.example_files(data.examples, "train")
    volumes = planning_train.trained_volumes(data, net)
    return volume_files(data, volumes) + recursive_stores(data, net, volumes)


def recursive_stores(data, net, volumes):
    """What other networks predicted of those volumes, which a recursive network reads."""
    found = [planning_train.recursive_inputs(data, net, v) for v in volumes]
    return with_manifests([s["path"] for by_node in found for s in by_node.values()])


def train_masks(wildcards):
    """Their masks."""
    data, net = pair("train", wildcards.dataset, wildcards.network)
    return mask_stores(data, planning_train.trained_volumes(data, net))


def train_mask_manifests(wildcards):
    """The manifests of those masks."""
    return [manifest(store) for store in train_masks(wildcards)]


def train_mask_names(wildcards):
    """VOLUME=MASK for the command line."""
    return named_masks(train_masks(wildcards))


def model_file(dataset_name, network_name):
    """The weights that are predicted with: trained, or published."""
    if parent := dataset(dataset_name).get("weights_of"):
        published(parent, network_name)
        return planning_paths.results(parent, network_name, "published.safetensors")
    is_read = network(dataset_name, network_name)["family"] in ("znn", "elektronn")
    if planning_train.is_published(config, network_name) and not (
        is_read and config["init"]
    ):
        published(dataset_name, network_name)
    return planning_train.model_file(config, dataset_name, network_name)


def train_context(wildcards):
    """The model whose descriptors an auto-context network reads, in a list, or nothing."""
    data, net = pair("train", wildcards.dataset, wildcards.network)
    name = net.get("autocontext")
    return [model_file(data["name"], name)] if name else []


def train_published(wildcards):
    """The published checkpoint that training goes on from, and its manifest, or nothing."""
    if config["weights"] != "published" or config["init"]:
        return []
    return list(published(wildcards.dataset, wildcards.network))


def train_begin_option(wildcards):
    """The same for the legacy engine."""
    return [f"--begin={path}" for path in train_published(wildcards)[:1]]


def legacy_checkpoint(wildcards):
    """Folder of the TensorFlow checkpoint that is predicted with, first; and its manifest."""
    data, _ = pair("predict", wildcards.dataset, wildcards.network)
    if planning_train.is_published(config, wildcards.network):
        return list(published(data["name"], wildcards.network))
    return [planning_paths.results(data["name"], wildcards.network, "checkpoint")]


def legacy_library():
    """The files that run inside the legacy image."""
    folder = ROOT / "workflow" / "scripts" / "legacy"
    return [os.path.relpath(path) for path in sorted(folder.glob("*.py"))]


def legacy_python():
    """The interpreter to call inside the legacy image."""
    return planning_container_images.python(ROOT, config["legacy_image"])


def legacy_threads(wildcards):
    """Half the cores: the two ends of a pipe run at the same time."""
    return max(1, min(8, (workflow.cores or 16) // 2))


def train_published_option(wildcards):
    """The same for the command line."""
    return [f"--published={path}" for path in train_published(wildcards)[:1]]


def train_init(wildcards):
    """The file that training begins from, in a list, or nothing."""
    data, net = pair("train", wildcards.dataset, wildcards.network)
    if net.get("pretrained"):
        first = net["pretrained"]["network"]
        pair("train", data["name"], first)
        return [model_file(data["name"], first)]
    return [config["init"]] if config["init"] else []


def train_init_option(wildcards):
    """The same for the command line."""
    return [f"--init={path}" for path in train_init(wildcards)]


def predict_model(wildcards):
    """The weights that a prediction is made with."""
    return model_file(wildcards.dataset, wildcards.network)


def train_context_option(wildcards):
    """The same for the command line."""
    return [f"--context={path}" for path in train_context(wildcards)]


def train_json(wildcards):
    """What train.py reads."""
    return as_json(
        planning_train.train_settings(
            config, *pair("train", wildcards.dataset, wildcards.network)
        )
    )


def predict_files(wildcards):
    """The raw that is predicted, and the labels where they say how much of it."""
    data, _ = pair("predict", wildcards.dataset, wildcards.network)
    by_labels = data["volumes"][wildcards.volume]["roi_nm"] == config_splits.LABELS_BOX
    parts = ["raw", "labels", "inputs"] if by_labels else ["raw", "inputs"]
    return volume_files(data, [wildcards.volume], parts) + tissue_mask(wildcards)


def predict_descriptors(wildcards):
    """What another network predicted that an auto-context or recursive network reads, or nothing."""
    data, net = pair("predict", wildcards.dataset, wildcards.network)
    name = net.get("autocontext")
    first = stores(data, name, [wildcards.volume], "prediction") if name else []
    return with_manifests(first) + recursive_stores(data, net, [wildcards.volume])


def whole_files(wildcards):
    """The images of a volume that is predicted as a whole."""
    data, _ = pair("predict", wildcards.dataset, wildcards.network)
    return volume_files(data, [wildcards.volume], ["raw", "inputs"])


def whole_json(wildcards):
    """What predict.py reads for a whole volume."""
    data, net = pair("predict", wildcards.dataset, wildcards.network)
    return as_json(planning_predict.whole_settings(config, data, net, wildcards.volume))


def predict_json(wildcards):
    """What predict.py reads."""
    data, net = pair("predict", wildcards.dataset, wildcards.network)
    return as_json(
        planning_predict.predict_settings(config, data, net, wildcards.volume)
    )


def segment_json(wildcards):
    """What `segment.py fragments` and `edges` read."""
    data, net = pair("segment", wildcards.dataset, wildcards.network)
    return as_json(
        planning_segment.segment_settings(config, data, net, wildcards.volume)
    )


def tissue_mask(wildcards):
    """The file that says where there is tissue, in a list, or nothing."""
    data = dataset(wildcards.dataset)
    mask = data["volumes"][wildcards.volume].get("tissue_mask")
    return own_files(data, mask["path"]) if mask else []


# ---------------------------------------------------------------- shards

ASSEMBLED = {
    "prediction": "prediction.zarr",
    "fragments": "shards/fragments.zarr",
    "graph": "fragments.zarr",
    "segmentation": "segmentation.zarr",
}
"""What is put together of shares, and where it then lies."""


def share(name):
    """Where a rule's store goes: under its own name, or with the shares of others."""
    stem = name if config["shards"] == 1 else f"shards/{name}_{{shard}}"
    return f"results/{{dataset}}/{{network}}/{{volume}}/{stem}.zarr"


def share_log(rule_name):
    """The log of a rule that may make a share."""
    stem = "{volume}" if config["shards"] == 1 else "{volume}_{shard}"
    return f"logs/{rule_name}/{{dataset}}_{{network}}/{stem}.log"


def shard_option(wildcards):
    """--shard for the command line, where there are shares."""
    return [f"--shard={wildcards.shard}"] if config["shards"] > 1 else []


def lut_store(wildcards):
    """The segments of all fragments, where they are made once for all shares."""
    if config["shards"] == 1:
        return []
    volume = (wildcards.dataset, wildcards.network, wildcards.volume)
    return [planning_paths.results(*volume, "shards/lut.zarr")]


def lut_option(wildcards):
    """The same for the command line."""
    return [f"--lut={path}" for path in lut_store(wildcards)]


def assembled_store(name):
    """Where a store lies that is put together of shares."""
    return f"results/{{dataset}}/{{network}}/{{volume}}/{ASSEMBLED[name]}"


def shares_of(name):
    """An input function: all shares of a store, of the graph after all fragments."""

    def files(wildcards):
        volume = (wildcards.dataset, wildcards.network, wildcards.volume)
        first = ["shards/fragments.zarr"] if name == "graph" else []
        stem = "edges" if name == "graph" else name
        shards = [
            f"shards/{stem}_{shard}.zarr" for shard in shard_names(config["shards"])
        ]
        return [planning_paths.results(*volume, store) for store in first + shards]

    return files


def share_manifests_of(name):
    """An input function: their manifests."""
    files = shares_of(name)

    def manifests(wildcards):
        return [manifest(store) for store in files(wildcards)]

    return manifests


def counted_store(wildcards):
    """The store that holds the array whose voxels are counted."""
    name = "fragments" if wildcards.array == "fragments" else "segmentation"
    volume = (wildcards.dataset, wildcards.network, wildcards.volume)
    return planning_paths.results(*volume, f"{name}.zarr")


def counted_manifest(wildcards):
    """Its manifest."""
    return manifest(counted_store(wildcards))


def count_json(wildcards):
    """What `evaluate.py count` reads: one split of the dataset."""
    data = dataset(wildcards.dataset)
    return as_json(planning_evaluate.count_settings(data, wildcards.split))


def tables(wildcards, split, array):
    """Per volume of a split the tables of all its shares; nothing without shares."""
    if config["shards"] == 1:
        return []
    pair_name = (wildcards.dataset, wildcards.network)
    volumes = dataset(wildcards.dataset)["volumes"]
    return [
        [
            planning_paths.results(
                *pair_name, volume, f"shards/{split}_{array}_{shard}.npz"
            )
            for shard in shard_names(config["shards"])
        ]
        for volume in scored_volumes(wildcards, split)
        if "labels"
        in volumes[volume]  # skeleton nodes are few: they are counted at once
    ]


def choose_table_lists(wildcards):
    """The tables that the threshold is chosen from."""
    return {"fragment": tables(wildcards, "validation", "fragments")}


def score_table_lists(wildcards):
    """The tables of the test volumes."""
    return {
        "fragment": tables(wildcards, "test", "fragments"),
        "segment": tables(wildcards, "test", "segments"),
    }


def flat(lists):
    """All files of `choose_table_lists` or `score_table_lists`."""
    return [path for kind in lists.values() for paths in kind for path in paths]


def options(lists):
    """The same for the command line: one option a volume."""
    return [
        word
        for kind, volumes in lists.items()
        for paths in volumes
        for word in (f"--{kind}-tables", *paths)
    ]


def choose_tables(wildcards):
    """Tables that the threshold is chosen from, or nothing."""
    return flat(choose_table_lists(wildcards))


def choose_table_options(wildcards):
    """The same for the command line."""
    return options(choose_table_lists(wildcards))


def score_tables(wildcards):
    """Tables of the test volumes, or nothing."""
    return flat(score_table_lists(wildcards))


def score_table_options(wildcards):
    """The same for the command line."""
    return options(score_table_lists(wildcards))


# ---------------------------------------------------------------- evaluate


def scored_volumes(wildcards, split):
    """The volumes of a split that have a truth."""
    data, _ = pair("segment", wildcards.dataset, wildcards.network)
    return planning_paths.volumes_of(config_splits.scorable(data, split))


def skeleton_files(data, split):
    """The skeletons of a split's entries."""
    found = [e["skeletons"]["path"] for e in data[split] if e["skeletons"]]
    return [file for path in dict.fromkeys(found) for file in own_files(data, path)]


@cache
def family_pattern(family):
    """Networks of a family, as a pattern of their names."""
    return "|".join(config_networks.of_family(family)) or "none"


def init_file(wildcards):
    """The file of another program whose weights are predicted with."""
    if not config["init"]:
        published(wildcards.dataset, wildcards.network)
    return config["init"]


def znn_outputs_json(wildcards):
    """What `znn.py outputs` reads."""
    net = network(wildcards.dataset, wildcards.network)
    if not config["output_prefix"]:
        raise WorkflowError(
            "`output_prefix` is not set; give it with --config output_prefix=out/net"
        )
    return as_json(planning_evaluate.outputs_settings(config, net, wildcards.volume))


@cache
def example_networks():
    """Networks that answer once for a whole input, as a pattern of their names."""
    found = [
        n
        for n in config_yaml_files.names("networks")
        if config_networks.answers_once(n)
    ]
    return "|".join(found) or "none"


@cache
def fetched_examples():
    """Datasets of single examples whose files can be fetched, as a pattern of their names."""
    return "|".join(config_datasets.fetched_examples()) or "none"


def fetched_file(wildcards):
    """Address of the folder and SHA-256 of a file that a dataset fetches."""
    told = dataset(wildcards.dataset)["examples"]["fetch"]
    if wildcards.file not in told["sha256"]:
        hint = nearest(wildcards.file, told["sha256"])
        raise WorkflowError(
            f"dataset {wildcards.dataset!r} cannot fetch {wildcards.file!r}; {hint}"
        )
    return told["url"], told["sha256"][wildcards.file]


def fetch_examples_url(wildcards):
    """Where a file of examples is got from."""
    return f"{fetched_file(wildcards)[0]}/{wildcards.file}"


def fetch_examples_sha256(wildcards):
    """What it must be."""
    return fetched_file(wildcards)[1]


def scored_example_files(wildcards):
    """The files of the test split, or those it is held out of."""
    data = dataset(wildcards.dataset)
    split = "test" if "test" in data["examples"] else "train"
    return config_sources.example_files(data.examples, split)


def examples_json(wildcards):
    """What `examples.py` reads."""
    data, net = pair("predict", wildcards.dataset, wildcards.network)
    return as_json(planning_train.examples_settings(config, data, net))


@cache
def boundary_networks():
    """Networks whose prediction is scored as it is, as a pattern of their names."""
    found = [
        n
        for n in config_yaml_files.names("networks")
        if config_networks.predicts_boundaries(n)
    ]
    return "|".join(found) or "none"


@cache
def other_networks():
    """All the others, whose prediction is segmented first."""
    apart = [
        *config_networks.of_family("elektronn"),
        *config_networks.of_family("seamless"),
    ]
    found = [
        n
        for n in config_yaml_files.names("networks")
        if not (
            config_networks.predicts_boundaries(n)
            or config_networks.labels_voxels(n)
            or n in apart
        )
    ]
    return "|".join(found) or "none"


@cache
def class_networks():
    """Networks that give classes of voxels, as a pattern of their names."""
    found = [
        n
        for n in config_yaml_files.names("networks")
        if config_networks.labels_voxels(n)
    ]
    return "|".join(found) or "none"


def boundary_volumes(wildcards):
    """The labelled volumes of validation and test."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    found = planning_evaluate.boundary_settings(config, data, net)["dataset"]
    return planning_paths.volumes_of([*found["validation"], *found["test"]])


def boundary_predictions(wildcards):
    """Their predictions."""
    volumes = boundary_volumes(wildcards)
    return stores(dataset(wildcards.dataset), wildcards.network, volumes, "prediction")


def boundary_manifests(wildcards):
    """The manifests of those."""
    return [manifest(store) for store in boundary_predictions(wildcards)]


def boundary_prediction_names(wildcards):
    """VOLUME=PREDICTION for the command line."""
    return named_results(boundary_predictions(wildcards))


def boundary_files(wildcards):
    """Their labels."""
    data = dataset(wildcards.dataset)
    return volume_files(data, boundary_volumes(wildcards), ["labels"])


def boundary_masks(wildcards):
    """Their masks."""
    return mask_stores(dataset(wildcards.dataset), boundary_volumes(wildcards))


def boundary_mask_names(wildcards):
    """VOLUME=MASK for the command line."""
    return named_masks(boundary_masks(wildcards))


def class_volumes(wildcards):
    """The labelled volumes of test."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    return planning_paths.volumes_of(
        planning_evaluate.class_settings(data, net)["dataset"]["test"]
    )


def class_predictions(wildcards):
    """Their predictions."""
    volumes = class_volumes(wildcards)
    return stores(dataset(wildcards.dataset), wildcards.network, volumes, "prediction")


def class_manifests(wildcards):
    """The manifests of those."""
    return [manifest(store) for store in class_predictions(wildcards)]


def class_prediction_names(wildcards):
    """VOLUME=PREDICTION for the command line."""
    return named_results(class_predictions(wildcards))


def class_files(wildcards):
    """Their images and labels."""
    data = dataset(wildcards.dataset)
    return volume_files(data, class_volumes(wildcards), ["raw", "labels"])


def class_masks(wildcards):
    """Their masks."""
    return mask_stores(dataset(wildcards.dataset), class_volumes(wildcards))


def class_mask_names(wildcards):
    """VOLUME=MASK for the command line."""
    return named_masks(class_masks(wildcards))


def class_json(wildcards):
    """What classes.py reads."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    return as_json(planning_evaluate.class_settings(data, net))


def boundary_json(wildcards):
    """What boundaries.py reads."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    return as_json(planning_evaluate.boundary_settings(config, data, net))


def choose_files(wildcards):
    """Labels and skeletons of the validation volumes."""
    data = dataset(wildcards.dataset)
    labels = volume_files(data, scored_volumes(wildcards, "validation"), ["labels"])
    return labels + skeleton_files(data, "validation")


def choose_fragments(wildcards):
    """Fragments of the validation volumes."""
    volumes = scored_volumes(wildcards, "validation")
    return stores(dataset(wildcards.dataset), wildcards.network, volumes, "fragments")


def choose_masks(wildcards):
    """Masks of the validation volumes."""
    return mask_stores(
        dataset(wildcards.dataset), scored_volumes(wildcards, "validation")
    )


def choose_json(wildcards):
    """What `evaluate.py choose` reads."""
    return as_json(
        planning_evaluate.choose_settings(config, dataset(wildcards.dataset))
    )


def score_volumes(wildcards):
    """The volumes that scoring looks at: test, and validation for the untrained watershed."""
    both = [
        *scored_volumes(wildcards, "validation"),
        *scored_volumes(wildcards, "test"),
    ]
    return list(dict.fromkeys(both))


def score_files(wildcards):
    """Their raw, labels and skeletons."""
    data, _ = pair("evaluate", wildcards.dataset, wildcards.network)
    files = volume_files(data, score_volumes(wildcards))
    return files + skeleton_files(data, "test")


def score_fragments(wildcards):
    """Their fragments."""
    data = dataset(wildcards.dataset)
    return stores(data, wildcards.network, score_volumes(wildcards), "fragments")


def score_segmentations(wildcards):
    """Segmentations of the test volumes."""
    volumes = scored_volumes(wildcards, "test")
    return stores(
        dataset(wildcards.dataset), wildcards.network, volumes, "segmentation"
    )


def score_masks(wildcards):
    """Their masks."""
    return mask_stores(dataset(wildcards.dataset), score_volumes(wildcards))


def score_json(wildcards):
    """What `evaluate.py score` reads."""
    return as_json(planning_evaluate.score_settings(config, dataset(wildcards.dataset)))


def choose_mask_names(wildcards):
    """VOLUME=MASK for choosing."""
    return named_masks(choose_masks(wildcards))


def choose_fragment_names(wildcards):
    """VOLUME=FRAGMENTS for choosing."""
    return named_results(choose_fragments(wildcards))


def score_mask_names(wildcards):
    """VOLUME=MASK for scoring."""
    return named_masks(score_masks(wildcards))


def score_fragment_names(wildcards):
    """VOLUME=FRAGMENTS for scoring."""
    return named_results(score_fragments(wildcards))


def score_segmentation_names(wildcards):
    """VOLUME=SEGMENTATION for scoring."""
    return named_results(score_segmentations(wildcards))


# ---------------------------------------------------------------- compare


@cache
def compared(dataset_name):
    """Networks that are put side by side, and why the others are not: ([name], {name: reason})."""
    names, refused = [], {}
    refusing(config_networks.check_networks)(config["compare"]["networks"] or [])
    for name in config["compare"]["networks"] or config_yaml_files.names("networks"):
        try:
            for verb in compared_verbs(dataset_name):
                pair(verb, dataset_name, name)
            names.append(name)
        except WorkflowError as error:
            refused[name] = str(error)
    if not names:
        raise WorkflowError(f"compare_{dataset_name}: {'; '.join(refused.values())}")
    return names, refused


def compared_verbs(dataset_name):
    """What a network must be able to do; segments are compared unless objects end with a section."""
    planar = config_datasets.is_planar(dataset(dataset_name))
    return ("predict", "evaluate") if planar else ("evaluate", "segment")


def compare_paths(dataset_name, file):
    """One file of every compared network."""
    return [
        planning_paths.results(dataset_name, n, file) for n in compared(dataset_name)[0]
    ]


def compare_evaluations(wildcards):
    """Their scores: of segments, or of boundaries where objects end with a section."""
    data = dataset(wildcards.dataset)
    planar = config_datasets.is_planar(data)
    return [
        planning_paths.results(data["name"], name, compared_scores(name, planar))
        for name in compared(data["name"])[0]
    ]


def compared_scores(name, planar):
    """The file of one network: its own scores, or those it has beside them for comparison."""
    if config_networks.labels_voxels(name):
        return "boundaries.json" if planar else "objects.json"
    apart = config_networks.predicts_boundaries(name) and not planar
    return "objects.json" if apart else "evaluation.json"


def compare_models(wildcards):
    """Their weights."""
    return compare_paths(wildcards.dataset, "model.safetensors")


def compare_histories(wildcards):
    """The histories of their training."""
    return compare_paths(wildcards.dataset, "training.json")


def compare_predictions(wildcards):
    """The manifests of their predictions of the first test volume."""
    data = dataset(wildcards.dataset)
    volume = planning_paths.volumes_of(data["test"])[0]
    return compare_paths(data["name"], f"{volume}/prediction.manifest.json")


def compare_files(wildcards):
    """The labels of the test entries, and what others made of them."""
    data = dataset(wildcards.dataset)
    return volume_files(data, scored_volumes_of(data), ["labels", "segmentations"])


def compare_masks(wildcards):
    """Their masks."""
    data = dataset(wildcards.dataset)
    return mask_stores(data, scored_volumes_of(data))


def scored_volumes_of(data):
    """The test volumes that have a truth."""
    return planning_paths.volumes_of(config_splits.scorable(data, "test"))


def compare_names(files):
    """NETWORK=FILE for files below results/DATASET/NETWORK."""
    return [f"{Path(file).parts[2]}={file}" for file in files]


def compare_evaluation_names(wildcards):
    """The same of the scores."""
    return compare_names(compare_evaluations(wildcards))


def compare_model_names(wildcards):
    """The same of the weights."""
    return compare_names(compare_models(wildcards))


def compare_history_names(wildcards):
    """The same of the histories."""
    return compare_names(compare_histories(wildcards))


def compare_prediction_names(wildcards):
    """The same of the predictions."""
    return compare_names(compare_predictions(wildcards))


def compare_mask_names(wildcards):
    """VOLUME=MASK for the command line."""
    return named_masks(compare_masks(wildcards))


def compare_json(wildcards):
    """What compare.py reads."""
    data = dataset(wildcards.dataset)
    names, refused = compared(data["name"])
    families = {n: network(data["name"], n)["family"] for n in names}
    found = refusing(config_paper.published_figures)(data)
    shown = None if found is None else found[1]
    return as_json(planning_compare.compare_settings(data, families, refused, shown))


def compare_published(wildcards):
    """The file with figures of others, where the dataset names one."""
    found = refusing(config_paper.published_figures)(dataset(wildcards.dataset))
    return [] if found is None else [os.path.relpath(found[0])]


# ---------------------------------------------------------------- reproduce


def paper_networks(dataset_name):
    """The networks that are compared with the paper."""
    return refusing(config_paper.networks)(
        dataset(dataset_name), run_config().reproduce.networks
    )


def reproduce_evaluations(wildcards):
    """The evaluations of all compared networks."""
    names = paper_networks(wildcards.dataset)
    return [
        file for n in names for file in pair_target("evaluate", wildcards.dataset, n)
    ]


def reproduce_published(wildcards):
    """The file with the paper's numbers."""
    return os.path.relpath(
        refusing(config_paper.published_file)(dataset(wildcards.dataset))
    )


def reproduce_names(wildcards):
    """NETWORK=EVALUATION for the command line."""
    return named_results(reproduce_evaluations(wildcards))


def reproduce_json(wildcards):
    """What `reproduce.py table` reads."""
    return as_json(
        planning_reproduce.table_settings(
            dataset(wildcards.dataset), config["reproduce"]
        )
    )


def reproduce_target(name):
    """The verdict that `reproduce_DATASET` wants, looked at only when it is asked for."""

    def files(wildcards):
        paper_networks(paper_datasets()[name])
        return [planning_paths.results(paper_datasets()[name], "reproduced.txt")]

    return files


# ---------------------------------------------------------------- export


def export_files(wildcards):
    """What an exported layer comes from, with manifests."""
    data, net = pair("export", wildcards.dataset, wildcards.network)
    store = planning_export.exported_store(
        data["name"], net["name"], wildcards.volume, wildcards.layer
    )
    raw = (
        volume_files(data, [wildcards.volume], ["raw"])
        if wildcards.layer == "raw"
        else []
    )
    return with_manifests([store]) + raw


def export_json(form):
    """An input function: what export.py reads for a layer in that format."""

    def content(wildcards):
        data, net = pair("export", wildcards.dataset, wildcards.network)
        place = (wildcards.volume, wildcards.layer, form)
        return as_json(planning_export.export_settings(config, data, net, *place))

    return content


def nodes_json(wildcards):
    """What `evaluate.py nodes` reads."""
    return as_json(planning_evaluate.nodes_settings(config, dataset(wildcards.dataset)))


def nodes_files(wildcards):
    """The skeletons of the test entries."""
    return skeleton_files(dataset(wildcards.dataset), "test")


def package_json(wildcards):
    """What package.py reads."""
    data, net = pair("package", wildcards.dataset, wildcards.network)
    if net["family"] == "seamless":
        voxel = refusing(planning_align.aligned_voxel_nm)(data, net)
        data = {**data, "voxel_size_nm": voxel}
    return as_json(planning_export.package_settings(config, data, net))


@refusing
def exported(data, network_name):
    """The stores that `export_DATASET_NETWORK` wants, by the layers and formats asked for."""
    asked = config["export"]
    tested = planning_paths.volumes_of(data["test"] or data["validation"])
    images = [
        f"{form}/{layer}{'.zarr' if form == 'ome_zarr' else ''}"
        for form in asked["formats"]
        for layer in asked["layers"]
        if layer != "nodes"
    ]
    made = [(volume, image) for volume in tested for image in images]
    if "nodes" in asked["layers"]:
        made += [(volume, "nodes") for volume in config_splits.with_skeletons(data)]
    return [
        planning_paths.results(data["name"], network_name, *place) for place in made
    ]


# ---------------------------------------------------------------- sections


def section_files(data):
    """The sections of a dataset that are made, with their truth, or the files they are read from."""
    layer, truth = refusing(config_alignment.made_layer)(
        data
    ), config_alignment.truth_store(data)
    if layer is not None:
        return [layer, manifest(layer), *with_manifests([truth])]
    files = volume_files(data, [data["alignment"]["volume"]], ["raw"])
    mask = data["alignment"]["mask"]
    return files + (own_files(data, mask["path"]) if mask else [])


def make_files(wildcards):
    """What sections are made of; nothing where they are generated."""
    data = dataset(wildcards.dataset)
    if refusing(planning_stacks.make_settings)(data)["raw"] is None:
        return []
    return volume_files(data, [data["alignment"]["volume"]], ["raw"])


def make_json(wildcards):
    """What `stacks.py make` reads."""
    return as_json(refusing(planning_stacks.make_settings)(dataset(wildcards.dataset)))


def gen_files(wildcards):
    """What stacks are sampled from."""
    data = dataset(wildcards.dataset)
    files = section_files(data)
    stacks = refusing(config_alignment.stack_set)(data, wildcards.stacks)
    return files + [f for f in [stacks["coordinates"]] if f]


def gen_truth(wildcards):
    """The option that names the known displacements; nothing where there are none."""
    truth = refusing(config_alignment.truth_store)(dataset(wildcards.dataset))
    return [] if truth is None else ["--truth", truth]


def gen_json(wildcards):
    """What `stacks.py gen_stack` reads."""
    gen = refusing(planning_stacks.gen_settings)
    return as_json(gen(dataset(wildcards.dataset), wildcards.stacks, wildcards.split))


def split_stacks(data, split):
    """The files of stacks of a split, with their manifests."""
    return with_h5_manifests(refusing(config_alignment.stack_stores)(data, split))


def with_h5_manifests(paths):
    """Files of stacks and their manifests."""
    return [
        f for path in paths for f in (path, path.removesuffix(".h5") + ".manifest.json")
    ]


def train_stacks(wildcards):
    """The training stacks of all sets."""
    return refusing(config_alignment.stack_stores)(dataset(wildcards.dataset), "train")


def held_out_stacks(wildcards):
    """The stacks of held-out sections that the defect network is scored on, if there are any."""
    return refusing(config_alignment.stack_stores)(dataset(wildcards.dataset), "test")


def held_out_option(wildcards):
    """The same for the command line."""
    stacks = held_out_stacks(wildcards)
    return ["--held-out", *stacks] if stacks else []


def defect_files(wildcards):
    """What the defect network learns from besides the training stacks."""
    return refusing(config_alignment.sections_of)(dataset(wildcards.dataset))[
        "defects"
    ]["labelled"]


def defect_json(wildcards):
    """What `defects.py train` reads."""
    return as_json(
        refusing(planning_stacks.defect_settings)(config, dataset(wildcards.dataset))
    )


def detector_json(wildcards):
    """What `defects.py mask` reads."""
    return as_json(
        refusing(planning_stacks.detector_settings)(config, dataset(wildcards.dataset))
    )


def section_target(verb, data):
    """The files that a verb of sections wants."""
    splits = config_alignment.SPLITS
    if verb == "stacks":
        return [file for split in splits for file in split_stacks(data, split)]
    if verb == "train_defects":
        refusing(config_alignment.sections_of)(data)
        return [planning_paths.results(data["name"], "defects.safetensors")]
    mask_stores_of = refusing(config_alignment.mask_stores)
    return with_h5_manifests([f for s in splits for f in mask_stores_of(data, s)])


# ---------------------------------------------------------------- align


def align_stacks(wildcards):
    """The stacks that a network is trained on."""
    data, _ = pair("train", wildcards.dataset, wildcards.network)
    return refusing(config_alignment.stack_stores)(data, "train")


def align_stack_manifests(wildcards):
    """Their manifests."""
    return [
        path.removesuffix(".h5") + ".manifest.json" for path in align_stacks(wildcards)
    ]


def align_masks(wildcards):
    """The masks of those stacks; none where the stacks bring their own."""
    data, _ = pair("train", wildcards.dataset, wildcards.network)
    known = data["alignment"]["made"] or data["alignment"]["mask"]
    return [] if known else refusing(config_alignment.mask_stores)(data, "train")


def align_mask_option(wildcards):
    """The same for the command line."""
    masks = align_masks(wildcards)
    return ["--masks", *masks] if masks else []


def train_alignment_json(wildcards):
    """What `align.py train` reads."""
    data, net = pair("train", wildcards.dataset, wildcards.network)
    return as_json(planning_align.train_settings(config, data, net))


def align_files(wildcards):
    """The sections, and what is known of them."""
    data, _ = pair("align", wildcards.dataset, wildcards.network)
    return section_files(data)


def align_json(wildcards):
    """What `align.py stack` reads."""
    data, net = pair("align", wildcards.dataset, wildcards.network)
    return as_json(refusing(planning_align.align_settings)(config, data, net))


def align_truth_option(wildcards):
    """The store of known displacements for the command line, or nothing."""
    truth = config_alignment.truth_store(dataset(wildcards.dataset))
    return ["--truth", truth] if truth else []


def evaluate_alignment_json(wildcards):
    """What `align.py evaluate` reads."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    return as_json(refusing(planning_align.score_settings)(config, data, net))


# ---------------------------------------------------------------- crate and bundle


def crate_files(wildcards):
    """The results that a crate is about."""
    return pair_target("evaluate", wildcards.dataset, wildcards.network)


def carried_json(wildcards):
    """The configuration as it is, and what Snakemake is to be asked for."""
    name = f"{wildcards.dataset}_{wildcards.network}"
    found = {"name": name, "target": f"evaluate_{name}", "config": dict(config)}
    return as_json(found | {"dataset": wildcards.dataset})


def wheel_lock():
    """The packages of the machine that Snakemake runs on."""
    return source("envs", "host.txt")


def wheels_folder():
    """Where their wheels lie, by what they depend on: the lock, the machine, Python."""
    kind = [platform.machine(), *sys.version_info[:2]]
    return (
        f"work/wheels/{digest([ROOT.joinpath('envs', 'host.txt').read_text(), kind])}"
    )


def bundle_images(wildcards):
    """The images that the rules run in."""
    names = ["modern"]
    if config["engine"] == "legacy":
        names.append(config["legacy_image"])
    return [image(name) for name in names]


@refusing
def bundle_files(wildcards):
    """What an evaluation reads and no job makes: volumes, skeletons, published weights."""
    data, net = pair("evaluate", wildcards.dataset, wildcards.network)
    made = config_alignment.made_layer(data) if "alignment" in data else None
    config_sources.check_carried(data, config["bucket"])
    weights = [config["init"]] if config["init"] else []
    for name in (net["name"], net.get("autocontext")):
        if name and planning_train.is_published(config, name):
            weights += published(data["name"], name)
    fetched = [*data_target("fetch", data["name"]), *carried_volumes(data)]
    own = [
        path
        for path in config_sources.named_files(data)
        if path not in (*fetched, made)
    ]
    kept = [f for path in own for f in own_files(data, path)]
    return list(dict.fromkeys([*fetched, *kept, *weights]))


def carried_volumes(data):
    """Volumes that are read in the bucket block by block, as `fetch` copies them."""
    if data.get("bucket", {}).get("read") != "blocks":
        return []
    used = planning_paths.volumes_of(
        entry for split in config_splits.SPLITS for entry in data[split]
    )
    return with_manifests([f"data/{data['name']}/{volume}.zarr" for volume in used])


def carried_target(verb, dataset_name, network_name):
    """The files that `crate_DATASET_NETWORK` and `bundle_DATASET_NETWORK` want."""
    refusing(pair)("evaluate", dataset_name, network_name)
    if verb == "bundle" and not uses_containers():
        raise WorkflowError(
            "a bundle holds the container images that its rules run in; add --use-singularity"
        )
    names = {"crate": "crate.zip", "bundle": "bundle"}
    return [planning_paths.results(dataset_name, network_name, names[verb])]


# ---------------------------------------------------------------- view and targets


def shown_volume(data, network_name=None):
    """The volume of a picture: the first trained on, or the last that was predicted."""
    trained = [] if network_name else planning_paths.volumes_of(data["train"])
    return trained[0] if trained else planning_paths.predicted(data)[-1]


def data_layers(wildcards):
    """Viewer layers of a dataset's first volume."""
    data = dataset(wildcards.dataset)
    return planning_view.data_layers(data, shown_volume(data))


def result_layers(wildcards):
    """Viewer layers of data and results."""
    data, net = pair("view", wildcards.dataset, wildcards.network)
    if net["family"] == "seamless":
        return planning_align.layers(config, data, net)
    volume = shown_volume(data, wildcards.network)
    return planning_view.data_layers(data, volume) + planning_view.result_layers(
        data, net, volume
    )


def layer_files(layers):
    """The stores of viewer layers on this machine, each once."""
    paths = dict.fromkeys(layer["path"] for layer in layers)
    return [path for path in paths if not addresses.is_address(path)]


def data_layer_files(wildcards):
    """The stores a picture of the data needs."""
    return layer_files(data_layers(wildcards))


def result_layer_files(wildcards):
    """The stores a picture of the results needs."""
    return layer_files(result_layers(wildcards))


def view_data_json(wildcards):
    """What view.py reads for data."""
    return as_json(planning_view.view_settings(config, data_layers(wildcards)))


def view_json(wildcards):
    """What view.py reads for results."""
    return as_json(planning_view.view_settings(config, result_layers(wildcards)))


def data_target(verb, name):
    """The files that `verb_DATASET` wants."""
    data = dataset(name)
    refusing(config_compatibility.check_verb)(data, verb)
    if "examples" in data:
        return config_sources.example_files(data.examples)
    if verb in SECTION_VERBS:
        return section_target(verb, data)
    used = [entry for split in config_splits.SPLITS for entry in data[split]]
    volumes = planning_paths.volumes_of(used)
    if verb == "fetch":
        skeletons = [
            f for s in config_splits.SPLITS[1:] for f in skeleton_files(data, s)
        ]
        return volume_files(data, volumes) + skeletons
    if verb == "mask":
        return with_manifests(mask_stores(data, volumes))
    if verb == "compare":
        compared(name)
        refusing(config_paper.published_figures)(data)
        return [planning_paths.results(name, "comparison.json")]
    return [
        planning_paths.results(name, "serve.done" if config["serve"] else "view.png")
    ]


def pair_target(verb, dataset_name, network_name):
    """The files that `verb_DATASET_NETWORK` wants; refuses pairs that cannot work."""
    if verb in ("crate", "bundle"):
        return carried_target(verb, dataset_name, network_name)
    data, net = pair(verb, dataset_name, network_name)
    if verb == "predict" and "examples" in data:
        return [planning_paths.results(dataset_name, network_name, "predictions.h5")]
    if verb == "predict":
        volumes = planning_paths.predicted(data)
        predictions = stores(data, network_name, volumes, "prediction")
        wanted = config["output_prefix"] and net["family"] == "znn"
        names = [
            planning_paths.results(dataset_name, network_name, v, "znn_outputs.json")
            for v in (volumes if wanted else [])
        ]
        return with_manifests(predictions) + names
    if verb == "segment":
        tested = planning_paths.volumes_of(data["test"] or data["validation"])
        return with_manifests(stores(data, network_name, tested, "segmentation"))
    if verb == "export":
        return with_manifests(exported(data, network_name))
    if verb == "align":
        return with_manifests(
            [planning_paths.results(dataset_name, network_name, "aligned.zarr")]
        )
    names = {
        "train": "model.safetensors",
        "package": "package.zip",
        "evaluate": "evaluation.json",
        "view": "serve.done" if config["serve"] else "view.png",
    }
    wanted = [names[verb]]
    if verb == "train" and net["family"] == "elektronn":
        wanted += ["history.csv", "timeline.png", "history.png", "errors.png"]
    return [planning_paths.results(dataset_name, network_name, name) for name in wanted]


def target_input(verb, *names):
    """An input function, so that a pair is looked at only when it is asked for."""

    def files(wildcards):
        return (
            data_target(verb, *names)
            if verb in DATA_VERBS
            else pair_target(verb, *names)
        )

    return files


def experiments():
    """Dataset and network of what config.yaml lists."""
    pairs = {
        f"{d}_{n}": (d, n)
        for d in config_yaml_files.names("datasets")
        for n in config_yaml_files.names("networks")
    }
    try:
        return [pairs[name] for name in config["experiments"]]
    except KeyError as error:
        hint = nearest(error.args[0], pairs)
        raise WorkflowError(f"`experiments`: no {error.args[0]!r}; {hint}") from None


def experiment_targets(wildcards):
    """The evaluations that config.yaml lists."""
    return [file for names in experiments() for file in pair_target("evaluate", *names)]


# ---------------------------------------------------------------- report


def report_files(wildcards):
    """What the page shows of the experiments: scores, histories, and the stores of its pictures."""
    files = experiment_targets(wildcards)
    for dataset_name, network_name in experiments():
        data, net = pair("evaluate", dataset_name, network_name)
        volume = planning_paths.predicted(data)[-1]
        layers = planning_view.data_layers(data, volume)
        layers += planning_view.result_layers(data, net, volume)
        files += layer_files(layers)
        files.append(
            planning_paths.results(dataset_name, network_name, "training.json")
        )
    return list(dict.fromkeys(files))


def report_json(wildcards):
    """What report.py reads."""
    pairs = [pair("evaluate", *names) for names in experiments()]
    return as_json(planning_report.report_settings(config, pairs))
