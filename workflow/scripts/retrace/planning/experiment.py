"""Datasets, networks and their combinations, as one run of the workflow is configured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from retrace.config import alignment, compatibility, datasets, networks, paper, sources, yaml_files
from retrace.config.dataset_model import Dataset
from retrace.config.examples_model import ExamplesDataset
from retrace.config.families import family_of
from retrace.config.network_settings import NetworkSettings, VoxelNetworkSettings
from retrace.config.workflow import WorkflowConfig
from retrace.errors import ConfigError, DataError, nearest
from retrace.planning import (
    container_images,
    finished_training,
    given_networks,
    initial_weights,
    local_device,
    missing_files,
    output_folders,
    split_checks,
    validation_checks,
    volume_checks,
)
from retrace.planning.choices import gpus_for, is_published, iterations_for, trained_network
from retrace.planning.paths import folders_to_fetch, results

IMAGES = Path("containers/images")
"""The folder of container images, below the working directory."""
SHOWING = ("view", "view_batch", "crate", "bundle", "package")
"""Verbs that compute nothing with a network themselves."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """A dataset and a network that work together, and the configuration of the run."""

    config: WorkflowConfig
    dataset: Any
    network: Any


@dataclass(frozen=True, eq=False)
class Planner:
    """The configuration and the workflow's folder, for planning.

    Datasets and networks are read once. Every method raises ConfigError or DataError for a name,
    or a combination, that cannot work.
    """

    root: Path
    config: WorkflowConfig
    uses_containers: bool = False
    runs_here: Callable[[], bool] = bool
    """Whether jobs run on this machine, not on the nodes of a cluster; known once jobs are planned.
    By default it is false."""
    init_is_for: tuple[str, ...] = ()
    """The networks that a single file of `init` may be for, where they are several."""
    _read: list[str] = field(default_factory=list)
    """Names of the datasets that were read."""
    _read_networks: dict[str, Any] = field(default_factory=dict)
    """The networks that were read, by name."""

    @cache  # noqa: B019  a run has one planner, which lives as long as the process
    def dataset(self, name: str, *, trained: bool | None = True) -> Any:
        """A dataset with everything filled in.

        `trained`: whether something is trained on it; otherwise labels to train on may be missing.
        None: unknown yet; then files of samples may be missing, too.
        """
        data = datasets.load_dataset(name, self.config.volumes, trained=trained)
        if isinstance(data, Dataset) and data.paper is not None:
            data = paper.choose_regions(data, self.config.reproduce.regions)
        # Checked here and not where a job names its files: Snakemake ignores an error of an input
        # function if the output exists, and would use the files of another layer.
        data = sources.located(data, self.config)
        self._read.append(name)
        sources.check_layers(data)
        if data.alignment is not None:
            alignment.check_sections(data)
        return data

    @cache  # noqa: B019
    def network(self, dataset: str, name: str) -> Any:
        """A network as it is trained on a dataset."""
        network = networks.network_for(name, self.dataset(dataset, trained=None))
        self._read_networks[name] = network
        return network

    @cache  # noqa: B019
    def experiment(self, verb: str, dataset: str, network: str) -> Experiment:
        """Dataset and network; ConfigError with the reason if they cannot work for this verb."""
        trained = verb == "train" or self.trains(dataset, network)
        data = self.dataset(dataset, trained=trained)
        compatibility.check_verb(data, verb)
        net = self.network(dataset, network)
        compatibility.check_pair(data, net, verb, trained=trained)
        if verb != "train":
            given_networks.check(self.config, dataset, network, self.init_of(dataset, network))
        has_own_scores = compatibility.is_scored_as_it_is(net) or isinstance(data, ExamplesDataset)
        has_own_scores |= not networks.head_names(net)
        needs_segments = verb in ("segment", "evaluate", "export") and not has_own_scores
        if needs_segments:
            compatibility.check_segmentation(self.config.segment, self.config.shards, net)
        if needs_segments or verb == "segment":
            validation_checks.check_learned(self.config.segment, data)
        if self.config.engine == "legacy":
            self._check_legacy(verb, net)
        if verb == "train":
            self._check_batch(net)
        self._check_files(verb, data, net)
        given_networks.report(network, verb, self.given_network(dataset, network))
        return Experiment(self.config, data, net)

    def trains(self, dataset: str, network: str) -> bool:
        """Whether predictions need a training, or use a network as it was published or given."""
        is_own = self.dataset(dataset, trained=None).weights_of is None
        is_given = self.given_network(dataset, network) is not None
        return is_own and not is_published(self.config, network) and not is_given

    def given_network(self, dataset: str, network: str) -> str | None:
        """The network file that the .cfg of a network, or a run of ZNN, predicts with; None else.

        With `weights: published` it is `init`.
        """
        init = self.init_of(dataset, network)
        return given_networks.given_network(self.config, network, init)

    def init_of(self, dataset: str, network: str) -> str | None:
        """The file of `init` that a network starts from, or its own; None for none."""
        init = initial_weights.init_of(self.config, dataset, network, self.init_is_for)
        own = self.network(dataset, network).initial_file
        if init and own and init != own:
            raise ConfigError(
                f"network {network!r} starts from its `state_archive: {own}`, and `init` names "
                f"{init}; keep one"
            )
        return init or own

    def init_is_own_result(self, dataset: str, network: str) -> bool:
        """Whether `init` of a network is a result of itself, or of a network that reads it."""
        init = self.init_of(dataset, network)
        if not init or not init.startswith(("results/", "./results/", str(Path.cwd()))):
            return False
        readers = {
            name: {n.name for n in self.with_upstream(dataset, self.network(dataset, name))}
            for name in initial_weights.networks_in(init)
        }
        return initial_weights.depends_on_itself(init, dataset, network, readers)

    @cache  # noqa: B019
    def check_data(self, dataset: str, *, trained: bool = True) -> None:
        """Refuses volumes whose local files cannot work (DataError)."""
        output_folders.check_writable(results(dataset), "work", "logs")
        data = self.dataset(dataset, trained=trained)
        if isinstance(data, Dataset):
            output_folders.check_writable(*folders_to_fetch(data))
            volume_checks.check_volumes(data)

    def missing_file(self, path: str) -> DataError:
        """The refusal of a run that reads a file which is not there and which no rule writes."""
        if path in initial_weights.init_files(self.config):
            return DataError(f"`init: {path}` does not exist; correct the path, or leave it out")
        if path in networks.initial_files():
            return DataError(
                f"`state_archive: {path}` of a network does not exist; correct the path, or leave "
                "it out"
            )
        return missing_files.missing_file(self._read_datasets(), path)

    def check_download(self, path: str) -> None:
        """DataError for a download of a dataset that lacks files which a user has to provide."""
        datasets = self._read_datasets()
        if any(missing_files.is_useless_alone(data, path) for data in datasets):
            raise self.missing_file(path)

    def _read_datasets(self) -> list[Any]:
        return [self.dataset(name, trained=None) for name in dict.fromkeys(self._read)]

    def check_named_files(self, words: Iterable[str]) -> None:
        """Refuses what the files rule out for results that a command line names as files.

        Snakemake ignores the refusal of a job whose output exists; of targets it ignores none.
        """
        words = list(words)
        for dataset in initial_weights.datasets_in_paths(words):
            self.check_data(dataset, trained=False)
        for dataset, network in initial_weights.pairs_in_paths(words):
            data = self.dataset(dataset, trained=self.trains(dataset, network))
            self._check_files(SHOWING[0], data, self.network(dataset, network))

    def _check_files(self, verb: str, data: Any, network: NetworkSettings) -> None:
        """Refuses what the files on this machine rule out, before any job touches one."""
        name = data.name
        upstream = self.with_upstream(name, network)
        trained = [n for n in upstream if self.trains(name, n.name)]
        if verb == "train" and network not in trained:
            trained.append(network)
        self.check_data(name, trained=bool(trained))
        output_folders.check_writable(results(name, network.name))
        if verb == "view_batch":
            return  # what a training left is shown whatever the others are, and nothing is trained
        if verb not in SHOWING:
            local_device.check_device(self.config.device, runs_here=self.runs_here())
        if any(n.name == network.name for n in trained):
            split_checks.check_apart(data)
        for one in trained:
            self.init_is_own_result(name, one.name)
            finished_training.check_length(self.config, name, one)
            validation_checks.check_validation(self.config, data, one)

    def with_upstream(self, dataset: str, network: NetworkSettings) -> list[NetworkSettings]:
        """A network, and those whose weights or predictions it reads."""
        below = [self.network(dataset, name) for name in networks.upstream_names(network)]
        return [network, *(n for one in below for n in self.with_upstream(dataset, one))]

    def _check_batch(self, network: NetworkSettings) -> None:
        """Refuses a batch that cannot be divided among the GPUs of a training."""
        gpus = gpus_for(self.config, "train")
        most = family_of(network).max_training_gpus
        if most is not None and gpus > most:
            raise ConfigError(
                f"network {network.name!r}: networks of the family {network.family} train on "
                f"{most} GPU, and `gpus` asks for {gpus}; set "
                f"`gpus: {{train: {most}, predict: {gpus}}}`"
            )
        trained = trained_network(self.config, network)
        batch = trained.batch_size if isinstance(trained, VoxelNetworkSettings) else 1
        compatibility.check_division(network.name, batch, gpus)

    def _check_legacy(self, verb: str, network: Any) -> None:
        """Refuses what the legacy engine cannot do."""
        if not family_of(network).legacy_engine:
            raise ConfigError(
                "`engine: legacy` trains the LSD family only, and network "
                f"{network.name!r} belongs to the family {network.family!r}; use `engine: "
                "modern`"
            )
        if not self.uses_containers:
            raise ConfigError(
                "`engine: legacy` runs TensorFlow 1 in a container image, here "
                f"{self.image(self.config.legacy_image)}; add --use-singularity, or use "
                "`engine: modern`"
            )
        if self.config.shards > 1:
            raise ConfigError(
                "`engine: legacy` predicts a volume in one job; set `shards: 1`, or use `engine: "
                "modern`"
            )
        if verb == "train":
            iterations = iterations_for(self.config, network.name) or network.iterations
            compatibility.check_legacy_loss(network, iterations)
            compatibility.check_legacy_recipe(network)
            trained: Any = trained_network(self.config, network)
            compatibility.check_legacy_batch(trained, gpus_for(self.config, "train"))

    def image(self, name: str) -> str:
        """The container image of that name: built, with a digest in its name, or as published."""
        if name in container_images.published_images(self.root):
            return str(container_images.published_path(IMAGES, name))
        return str(container_images.image_path(self.root, IMAGES, name))

    @cache  # noqa: B019
    def experiments(self) -> list[tuple[str, str]]:
        """Dataset and network of each experiment that config.yaml lists."""
        pairs = {
            f"{d}_{n}": (d, n)
            for d in yaml_files.names("datasets")
            for n in yaml_files.names("networks")
        }
        for name in self.config.experiments:
            if name not in pairs:
                raise ConfigError(f"`experiments`: no {name!r}; {nearest(name, pairs)}")
        return [pairs[name] for name in self.config.experiments]

    def outside_files(self) -> list[str]:
        """Every file that the configuration and the datasets and networks in use name."""
        mirror = self.config.mirror
        files = [str(Path(mirror) / "any")] if mirror else []
        files += initial_weights.init_files(self.config)
        files += [self.config.output_prefix] if self.config.output_prefix else []
        for data in self._read_datasets():
            files += sources.named_files(data)
        used = dict(self._read_networks)
        files += [n.initial_file for n in used.values() if n.initial_file]
        return files + networks.outside_paths(used)
