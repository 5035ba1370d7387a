"""The settings that planning writes are those that the job's program reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from retrace.config import networks
from retrace.config.dataset_model import Dataset
from retrace.config.schema import check
from retrace.planning import compare, evaluate, predict, segment
from retrace.planning import score_settings as models
from retrace.planning.predict_settings import read_prediction_settings
from retrace.planning.segment_settings import read_segmentation_settings
from retrace.settings_model import SettingsModel, as_json
from run_config import run_config
from volume_datasets import load_volumes

CONFIG = run_config()


def received(settings: SettingsModel) -> dict[str, Any]:
    """The settings as the program receives them."""
    content: dict[str, Any] = json.loads(as_json(settings))
    return content


def settings_of(dataset: Dataset) -> list[tuple[type[SettingsModel], dict[str, Any]]]:
    """Every kind of settings for scoring a dataset, and the model that reads it."""
    (volume, *_) = dataset.volumes
    others = compare.compare_settings(dataset, {"mtlsd": "lsd"}, {"n4": "a reason"}, None)
    return [
        (
            models.CountSettings,
            received(evaluate.count_settings(dataset, volume, "test", "segments")),
        ),
        (models.ThresholdSettings, received(evaluate.choose_settings(CONFIG, dataset))),
        (models.ScoreSettings, received(evaluate.score_settings(CONFIG, dataset))),
        (models.NodeSettings, received(evaluate.nodes_settings(CONFIG, dataset, volume))),
        (models.ComparisonSettings, received(others)),
    ]


@pytest.mark.parametrize("name", ["phantom", "zfinch_paper", "fib25_paper", "vnc_nc", "isbi2012"])
def test_settings_of_scoring(name: str) -> None:
    for model, content in settings_of(load_volumes(name)):
        assert check(model, content, "settings").plain() == content


def test_settings_of_boundary_maps_and_classes() -> None:
    data = load_volumes("vnc_nc")
    content = received(evaluate.boundary_settings(CONFIG, data, networks.network_for("n4", data)))
    assert check(models.BoundaryMapSettings, content, "settings").plain() == content

    data = load_volumes("vnc_nc_classes")
    network = networks.network_for("neuro3d_doc", data)
    content = received(evaluate.class_settings(data, network))
    assert check(models.ClassMapSettings, content, "settings").plain() == content


@pytest.mark.parametrize(
    ("dataset", "network"), [("zfinch_paper", "mtlsd"), ("phantom", "long_range"), ("vnc_nc", "n4")]
)
def test_settings_of_a_segmentation(dataset: str, network: str) -> None:
    data = load_volumes(dataset)
    (volume, *_) = data.volumes
    net = networks.network_for(network, data)
    content = received(segment.segment_settings(CONFIG, data, net, volume))
    assert read_segmentation_settings(content).plain() == content


@pytest.mark.parametrize(
    ("dataset", "network"),
    [
        ("zfinch", "mtlsd"),
        ("fib25_paper", "acrlsd"),
        ("vnc_nc", "n4"),
        ("vnc_nc", "vd2d3d"),
        ("vnc_nc_classes", "neuro3d_doc"),
        ("neuro3d", "neuro3d_file"),
    ],
)
def test_settings_of_a_prediction(dataset: str, network: str) -> None:
    data = load_volumes(dataset)
    (volume, *_) = data.volumes
    net = networks.network_for(network, data)
    content = received(predict.predict_settings(CONFIG, data, net, volume))
    assert read_prediction_settings(content).plain() == content
