"""Jobs that compare networks on one dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from retrace.config import paper
from retrace.config.compatibility import check_verb
from retrace.config.dataset_model import Dataset, ShownFigures
from retrace.config.datasets import is_planar
from retrace.config.networks import labels_voxels, predicts_boundaries
from retrace.config.splits import scorable
from retrace.config.yaml_files import check_names, names
from retrace.errors import ConfigError, RetraceError
from retrace.formats.source import Source
from retrace.job import Files, Job
from retrace.planning.evaluate import scored_dataset
from retrace.planning.experiment import Planner
from retrace.planning.paths import manifest, mask_stores, results, volume_files, volumes_of
from retrace.planning.program_files import PAGE_TEMPLATE
from retrace.planning.score_settings import ComparisonSettings
from retrace.planning.targets import data_target


def compare_settings(
    dataset: Dataset,
    families: Mapping[str, str],
    refused: Mapping[str, str],
    published: ShownFigures | None,
) -> ComparisonSettings:
    """What `compare.py` reads; `published`: which figures of others are shown, None for none."""
    scored = scored_dataset(dataset, ["test"], ["labels"])
    others: dict[str, dict[str, Source]] = {}
    for volume in scored.volumes:
        for name, source in dataset.volumes[volume].segmentations.items():
            others.setdefault(name, {})[volume] = source
    return ComparisonSettings(
        dataset=scored,
        planar=is_planar(dataset),
        families=dict(families),
        refused=dict(refused),
        segmentations=others,
        published=published,
    )


@cache
def compared(planner: Planner, dataset: str) -> tuple[list[str], dict[str, str]]:
    """Names of the networks that are compared, and by name why the others cannot be."""
    requested = planner.config.compare.networks
    check_names("networks", requested or [], "`compare: networks`")
    planar = is_planar(planner.dataset(dataset))
    verbs = ("predict", "evaluate") if planar else ("evaluate", "segment")
    able, refused = [], {}
    for name in requested or names("networks"):
        try:
            for verb in verbs:
                planner.experiment(verb, dataset, name)
            able.append(name)
        except RetraceError as error:
            refused[name] = str(error)
    if not able:
        raise ConfigError(f"compare_{dataset}: {'; '.join(dict.fromkeys(refused.values()))}")
    return able, refused


def _scores_file(network: str, planar: bool) -> str:
    """The scores of segments, or of boundaries where objects end with a section."""
    if labels_voxels(network):
        return "boundaries.json" if planar else "objects.json"
    has_both = predicts_boundaries(network) and not planar
    return "objects.json" if has_both else "evaluation.json"


def compare_job(planner: Planner, dataset: str) -> Job:
    """Compares all networks that can run on a dataset."""
    data = planner.dataset(dataset)
    able, refused = compared(planner, dataset)
    families = {name: planner.network(dataset, name).family for name in able}
    figures = paper.published_figures(data)
    settings = compare_settings(data, families, refused, figures[1] if figures else None)
    volumes = volumes_of(scorable(data, "test"))
    shown = volumes_of(data.test)[0]
    planar = is_planar(data)
    inputs: dict[str, Files] = {
        "evaluation": {n: results(dataset, n, _scores_file(n, planar)) for n in able},
        "model": {n: results(dataset, n, "model.safetensors") for n in able},
        "history": {n: results(dataset, n, "training.json") for n in able},
        "prediction": {n: manifest(results(dataset, n, shown, "prediction")) for n in able},
        "masks": mask_stores(data, volumes),
    }
    if figures:
        inputs["published"] = os.path.relpath(figures[0])
    return Job(settings, inputs, volume_files(data, volumes, ["labels", "segmentations"]))


def comparison_page_job(_planner: Planner, dataset: str) -> Job:
    """Writes a comparison as a page."""
    template = os.path.relpath(PAGE_TEMPLATE)
    return Job(inputs={"comparison": results(dataset, "comparison.json"), "template": template})


@data_target("compare")
def comparison(planner: Planner, dataset: str) -> list[str]:
    """The table of all networks, and its page."""
    data = planner.dataset(dataset)
    check_verb(data, "compare")
    compared(planner, dataset)
    paper.published_figures(data)
    return [results(dataset, name) for name in ("comparison.json", "comparison_page.html")]
