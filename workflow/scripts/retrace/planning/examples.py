"""Jobs on single examples, such as MNIST's digits, and the curves of ELEKTRONN's trainings."""

from __future__ import annotations

from retrace.config.sources import example_files
from retrace.job import Job
from retrace.planning.choices import is_published, trained_network
from retrace.planning.examples_settings import ExamplesSettings, ScoredExamples
from retrace.planning.experiment import Experiment, Planner
from retrace.planning.paths import results
from retrace.planning.weights import model_file


def examples_settings(experiment: Experiment) -> ExamplesSettings:
    """What examples.py reads to predict and to score."""
    config, data = experiment.config, experiment.dataset
    return ExamplesSettings(
        dataset=ScoredExamples(name=data.name, examples=data.examples),
        network=trained_network(config, experiment.network),
        seed=config.seed,
        device=config.device,
    )


def _scored_files(experiment: Experiment) -> list[str]:
    """The files of the test split, or of the split that it is held out of."""
    data = experiment.dataset
    return example_files(data.examples, "test" if data.examples.test else "train")


def predict_examples_job(planner: Planner, dataset: str, network: str) -> Job:
    """Predicts the classes of each test example, or its reconstruction."""
    experiment = planner.experiment("predict", dataset, network)
    inputs = {"model": model_file(planner, dataset, network)}
    files = _scored_files(experiment)
    if is_published(planner.config, network):
        # A .param has no mean of the training examples; it is computed.
        files += example_files(experiment.dataset.examples, "train")
    settings = examples_settings(experiment).with_(precision=planner.config.precision)
    return Job(settings, inputs, list(dict.fromkeys(files)))


def evaluate_examples_job(planner: Planner, dataset: str, network: str) -> Job:
    """Scores the predictions of the test examples."""
    experiment = planner.experiment("predict", dataset, network)
    inputs = {"predictions": results(dataset, network, "predictions.h5")}
    return Job(examples_settings(experiment), inputs, _scored_files(experiment))


def curves_job(planner: Planner, dataset: str, network: str) -> Job:
    """Draws the curves of a training."""
    return Job({}, {"history": results(dataset, network, "training.json")})
