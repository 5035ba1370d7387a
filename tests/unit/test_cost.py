"""What jobs are estimated to take, what they request, and how `make cost` adds it up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cost
from retrace.planning.earlier_jobs import EarlierJob, earlier_jobs
from retrace.planning.estimate import (
    LEAST_MB,
    LEAST_MINUTES,
    TIME_MARGIN,
    estimate,
    requested_mb,
    requested_minutes,
)
from retrace.planning.planned_jobs import PlannedJob
from retrace.planning.rates import measured_rates
from retrace.planning.work import ITERATION, MVOXEL, Work, alike, steps_of

ROOT = Path(__file__).resolve().parents[2]
REGION_MVOXEL = 5300 * 9300 * 9700 / 1e6
"""The zebra finch's benchmark region of docs/scale.md."""
ZFINCH: dict[str, Any] = {"network": "mtlsd", "input_shape": (84, 268, 268)}


def training(iterations: float, **more: Any) -> Work:
    return Work(("train",), ITERATION, iterations, "same", computes=True, **ZFINCH, **more)


def job(
    amount: float = 10, seconds: float = 40, start_s: float = 5, gpu: str | None = None
) -> EarlierJob:
    return EarlierJob("same", amount, seconds, start_s, 800, gpu, "results/a/b/model.record.json")


# ---------------------------------------------------------------- rates


def test_every_rate_is_a_number_of_its_page() -> None:
    for rate in measured_rates():
        page = (ROOT / rate.page).read_text()
        assert f"{rate.value:g}" in page, rate
        assert rate.peak_gb is None or f"{rate.peak_gb:g} GB" in page, rate


def test_the_large_region_takes_what_the_page_says() -> None:
    predict = Work(
        ("predict",), MVOXEL, REGION_MVOXEL, "", True, voxel_size_nm=(20, 9, 9), **ZFINCH
    )
    known = estimate(predict, "gpu", [])
    assert known.seconds is not None and round(known.seconds / 3600) == 153 and known.on_gpu
    fragments = estimate(Work(("fragments",), MVOXEL, REGION_MVOXEL, ""), "any", [])
    assert fragments.seconds is not None and round(2 * fragments.seconds / 3600) == 258


def test_a_rule_without_shards_takes_the_time_of_both_steps() -> None:
    assert steps_of("fragments", is_shard=False) == ("fragments", "edges")
    assert steps_of("segment", is_shard=False) == ("join", "apply")
    assert steps_of("segment", is_shard=True) == ("apply",)
    both = estimate(Work(("fragments", "edges"), MVOXEL, 100, ""), "cpu", [])
    assert both.seconds == pytest.approx(97.2 + 48.1)


def test_one_core_takes_twice_as_long_as_the_two_that_were_measured() -> None:
    two, one, eight = (estimate(training(39), "cpu", [], threads=n) for n in (2, 1, 8))
    assert two.seconds == pytest.approx(1000) and one.seconds == pytest.approx(2000)
    assert eight.seconds == two.seconds


def test_what_was_not_measured_is_unknown_and_says_why() -> None:
    known = estimate(training(39), "gpu", [])
    assert (known.seconds, known.peak_mb) == (None, None)
    assert "not measured with this network on a GPU" in known.source
    assert "until its input is here" in estimate(training(None), "cpu", []).source  # type: ignore[arg-type]


# ---------------------------------------------------------------- earlier jobs


def test_earlier_jobs_count_before_rates() -> None:
    known = estimate(training(100), "cpu", [job(), job(amount=30, seconds=40, start_s=1)])
    assert known.seconds == pytest.approx(5 + 80 / 40 * 100)
    assert known.peak_mb == 800 and "2 earlier jobs here" in known.source


def test_only_jobs_on_the_same_kind_of_device_count() -> None:
    on_gpu = job(seconds=1, start_s=0, gpu="H200")
    for device, seconds in (("gpu", 10.0), ("cpu", 405.0), ("any", 10.0)):
        known = estimate(training(100), device, [on_gpu, job()])  # type: ignore[arg-type]
        assert known.seconds == pytest.approx(seconds)


def test_a_larger_volume_needs_more_memory_and_a_longer_training_does_not() -> None:
    larger = Work(("join",), MVOXEL, 30, "same")
    assert estimate(larger, "cpu", [job()]).peak_mb == 2400
    assert estimate(training(30), "cpu", [job()]).peak_mb == 800


def test_a_time_limit_of_the_settings_ends_the_estimate() -> None:
    known = estimate(training(1e6, longest_s=600), "gpu", [])
    assert known.seconds == 600 and known.is_bound
    assert estimate(training(10, longest_s=600), "cpu", [job()]).seconds == pytest.approx(45)


@given(
    st.integers(1, 10**7),
    st.integers(0, 10**7),
    st.lists(st.builds(job, st.integers(1, 1000), st.floats(0.1, 1e5), st.floats(0, 100))),
)
def test_more_iterations_never_cost_less(
    iterations: int, more: int, earlier: list[EarlierJob]
) -> None:
    short, long = (
        estimate(training(n), "cpu", earlier, threads=2) for n in (iterations, iterations + more)
    )
    assert short.seconds is not None and long.seconds is not None
    assert short.seconds <= long.seconds
    for attempt in (1, 2, 4):
        requests = [
            requested_minutes(s, 10000, attempt, 10000) for s in (short.seconds, long.seconds)
        ]
        assert requests == sorted(requests)


def test_names_and_learning_rates_do_not_matter_and_the_batch_does() -> None:
    network = {"name": "a", "fmaps": 12, "optimizer": {"lr": 1}, "batch_size": 1}
    same = {**network, "name": "b", "optimizer": {"lr": 2}}
    one = alike(["train"], {"network": network, "seed": 0})
    assert one == alike(["train"], {"network": same, "seed": 1})
    assert one != alike(["train"], {"network": {**network, "batch_size": 2}, "seed": 0})
    assert one != alike(["train"], {"network": network, "seed": 0}, gpus=2)


def test_a_classifier_among_the_inputs_makes_a_job_another_one() -> None:
    learned = ["results/d/n/edge_classifier.safetensors", "results/d/n/threshold.json"]
    assert alike(["apply"], {}, inputs=learned[1:]) == alike(["apply"], {})
    assert alike(["apply"], {}, inputs=learned) != alike(["apply"], {})


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_jobs_are_read_from_records_and_manifests(tmp_path: Path) -> None:
    folder, settings = tmp_path / "results/d/n", {"network": {"fmaps": 2}, "precision": "auto"}
    write(folder / "model.record.json", {"identity": {"settings": settings}})
    history = {"iterations_this_run": 20, "iterations_per_second": 2.0, "seconds": 13.0}
    write(folder / "training.json", {**history, "peak_memory_mb": 50, "processes": 2, "gpu": None})
    array = {"affs": {"shape": [3, 10, 100, 1000], "voxel_size_nm": [1, 1, 1]}}
    store = {"identity": {"settings": settings}, "seconds": 8, "peak_memory_mb": 9, "arrays": array}
    write(folder / "v/prediction.manifest.json", {**store, "settings": {}})
    shard = {**store, "settings": {}, "shard": "2-of-4", "seconds": 3}
    write(folder / "v/shards/prediction_2-of-4.manifest.json", shard)
    (folder / "v/fragments.manifest.json").write_text("{")
    found = {one.file.split("/")[-1]: one for one in earlier_jobs(tmp_path)}
    assert len(found) == 3
    trained = found["model.record.json"]
    assert (trained.amount, trained.seconds, trained.start_s) == (20, 10, 3)
    assert trained.peak_mb == 100 and trained.alike == alike(["train"], settings, gpus=2)
    whole, part = found["prediction.manifest.json"], found["prediction_2-of-4.manifest.json"]
    assert (whole.amount, whole.seconds, part.amount) == (1, 8, 0.25)
    assert whole.alike == part.alike == alike(["predict"], settings)


# ---------------------------------------------------------------- requests


def test_an_unknown_time_requests_what_the_rule_states() -> None:
    assert [requested_minutes(None, 600, n) for n in (1, 3)] == [600, 1800]
    assert [requested_minutes(None, 10000, n, 10000) for n in (1, 3)] == [10000, 10000]
    assert requested_minutes(None, 10000, 1, 1440) == 1440


def test_a_known_time_requests_a_multiple_of_it() -> None:
    assert requested_minutes(3600, 600, 1) == 60 * TIME_MARGIN
    assert requested_minutes(3600, 600, 2) == 120 * TIME_MARGIN
    assert requested_minutes(1, 600, 1) == LEAST_MINUTES and requested_minutes(1, 10, 1) == 10
    assert requested_minutes(1e9, 10000, 1, 10000) == 10000


def test_memory_is_requested_with_a_margin() -> None:
    assert requested_mb(None, 8000, 2) == 16000 and requested_mb(None, 8000, 2, grows=False) == 8000
    assert requested_mb(5000, 8000, 2) == 20000 and requested_mb(10, 8000, 1) == LEAST_MB
    assert requested_mb(10, 2000, 1) == 2000, "a floor never exceeds what the rule states"


# ---------------------------------------------------------------- the command


def planned(rule: str, output: str, *inputs: str, threads: int = 2, gpus: int = 0) -> PlannedJob:
    return PlannedJob(rule, (output,), (), (), {}, 4000, 60, threads, gpus, inputs)


COSTS = [
    cost.JobCost(planned("fetch", "a"), False, None),
    cost.JobCost(planned("train", "m", "a", gpus=2), False, 7200, on_gpu=True, source="here"),
    cost.JobCost(planned("mask", "b", "a"), False, 360),
    cost.JobCost(planned("predict", "p", "m", "b", gpus=1), False, 3600, on_gpu=False),
    cost.JobCost(planned("evaluate", "e", "p", "old"), False, 30),
    cost.JobCost(planned("view", "old"), True, written_bytes=2e6, written_files=3),
]


def test_the_longest_chain_follows_the_inputs() -> None:
    chain = cost.longest_chain(COSTS)
    assert [one.job.rule for one in chain] == ["fetch", "train", "predict", "evaluate"]
    line = next(cost.chain_lines(COSTS))
    assert line.endswith("longer than 3.0 h: fetch (unknown) → train → predict → evaluate")


def test_the_report_adds_up_and_shows_what_is_unknown() -> None:
    lines = list(cost.report("evaluate_d_n", COSTS))
    assert lines[0] == "evaluate_d_n: 6 jobs, 5 to do"
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:9]}
    assert rows["fetch"][:3] == ["1", "0", "unknown"]
    assert rows["train"][:5] == ["1", "4.0", "4.0", "2.0", "h"]
    assert rows["predict"][:3] == ["1", "0", "2.0"], "its time is that of a CPU"
    # 2 GPUs for 2 h; 2 cores for 2 h + 6 min + 1 h + 30 s.
    assert rows["together"] == ["5", "4.0", ">", "6.2"]
    assert "there already: 1 job of" in "\n".join(lines) and "2.0 MB in 3 files" in "\n".join(lines)
    assert "  train: here" in lines


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2.0 min"), (7199, "120 min"), (86400 * 40, "40 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert cost.duration(seconds) == text


def test_the_files_on_disk_are_counted_with_the_stores_of_manifests(tmp_path: Path) -> None:
    write(tmp_path / "a.manifest.json", {"store": "a.zarr"})
    write(tmp_path / "a.zarr/x/0.0", "1234")
    names = [str(tmp_path / "a.manifest.json")]
    count, total = cost.on_disk(names)
    assert count == 2 and total == sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    assert math.isclose(total, 6 + len('{"store": "a.zarr"}'))
