"""Settings: one declaration each, from which schemas, pages, defaults and messages come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from retrace.config import datasets
from retrace.config.command_line_values import read_config, read_typed
from retrace.config.dataset_model import DatasetFile
from retrace.config.examples_model import ExamplesFile
from retrace.config.json_schemas import MODELS, schema_text
from retrace.config.schema import check
from retrace.config.words import groups_in, words
from retrace.config.workflow import WorkflowConfig
from retrace.config.yaml_files import WORKFLOW_CONFIG, names, read_yaml, yaml_file
from retrace.errors import ConfigError
from retrace.files import digest
from retrace.settings_model import SettingsModel, as_json
from volume_datasets import load_volumes

CONFIG_FILE = WORKFLOW_CONFIG / "config.yaml"
MINE: dict[str, Any] = {
    "name": "mine",
    "voxel_size_nm": [10, 10, 10],
    "volumes": {"a": {"raw": {"path": "a.zarr", "array": "raw"}}},
}


def typed(*words: str) -> WorkflowConfig:
    """The settings of a run with these words after --config."""
    return read_config([CONFIG_FILE], words)


def message(model: type[SettingsModel], content: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check(model, content, "here")
    return str(error.value)


def groups(model: type[SettingsModel]) -> Iterator[type[SettingsModel]]:
    """A group of settings and all groups inside it."""
    yield model
    for info in model.model_fields.values():
        for _, group in groups_in(info.annotation):
            yield from groups(group)


# ---------------------------------------------------------------- one declaration


@pytest.mark.parametrize("kind", MODELS)
def test_schemas_are_those_of_the_models(kind: str) -> None:
    file = WORKFLOW_CONFIG / "schemas" / f"{kind}.schema.yaml"
    assert file.read_text() == schema_text(kind), "run `make schemas`"


@pytest.mark.parametrize("kind", MODELS)
def test_every_setting_has_a_description(kind: str) -> None:
    for group in groups(MODELS[kind][0]):
        assert group.__doc__, group
        for name, info in group.model_fields.items():
            assert (info.description or "").endswith((".", ")")), f"{group.__name__}.{name}"


def test_the_shipped_configuration_holds_the_defaults() -> None:
    shipped = read_yaml(CONFIG_FILE)
    defaults = WorkflowConfig().complete(deep=True).plain()
    assert shipped == defaults
    assert as_json(shipped) == as_json(defaults), "1 and 1.0 are different digests"


@pytest.mark.parametrize("name", names("datasets"))
def test_files_round_trip_through_their_models(name: str) -> None:
    content = read_yaml(yaml_file("datasets", name))
    model = ExamplesFile if "examples" in content else DatasetFile
    assert as_json(check(model, content, name)) == as_json(content)


@pytest.mark.parametrize("name", sorted(set(names("datasets")) - {"basil"}))
def test_resolved_datasets_are_what_their_models_allow(name: str) -> None:
    data = datasets.load_dataset(name)
    assert type(data).model_validate(data.plain()) == data


def test_settings_have_the_digest_of_what_is_written() -> None:
    config = WorkflowConfig(seed=3)
    assert digest({"config": config}) == digest({"config": {"seed": 3}})


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (
            "iterations=many",
            "config: iterations: 'many' is not allowed; give a whole number of at least 1, null, "
            "or one number per network ({mtlsd: 1000})",
        ),
        (
            "iterations={mtlsd: 0}",
            "config: iterations.mtlsd: '0' is not allowed; give a whole number of at least 1",
        ),
        (
            "device=cudaa",
            "config: device: 'cudaa' is not allowed; give auto, cpu, or cuda (did you mean "
            "'cuda'?)",
        ),
        ("unsigned=maybe", "config: unsigned: 'maybe' is not allowed; give true or false"),
        ("compile=2", "config: compile: '2' is not allowed; give auto, true, or false"),
        (
            "view={port: 70000}",
            "config: view.port: '70000' is not allowed; give a whole number from 0 to 65535",
        ),
        (
            "segment={thresholds: [0, 2, 1]}",
            "config: segment.thresholds[1]: '2' is not allowed; give a number from 0 to 1",
        ),
        (
            "segment={thresholds: [0, 1]}",
            "config: segment.thresholds: [0, 1] is not allowed; give three numbers from 0 to "
            "1: first, a higher end (excluded), and a step above 0 ([0, 1, 0.02])",
        ),
        (
            "segment={thresholds: [0, 1, 0]}",
            "config: segment.thresholds: [0, 1, 0] is not allowed; give three numbers from 0 to "
            "1: first, a higher end (excluded), and a step above 0 ([0, 1, 0.02])",
        ),
        (
            "tile=[8, 8]",
            "config: tile: [8, 8] is not allowed; give auto or a list of 3 whole numbers of "
            "at least 1",
        ),
        (
            "train_seconds=0",
            "config: train_seconds: '0' is not allowed; give a number above 0 or null",
        ),
        (
            "run=a/b",
            "config: run: 'a/b' is not allowed; give a name of letters, digits, _, . and -, or "
            "null",
        ),
        (
            "export={layers: [raw, raw]}",
            "config: export.layers: ['raw', 'raw'] is not allowed; give a list of segments, "
            "fragments, affinities, raw, nodes, meshes and skeletons, each once",
        ),
        (
            "export={layers: [meshes], formats: [ome_zarr]}",
            "config: export: meshes and skeletons are part of a precomputed layer; add "
            "`precomputed` to `formats`, or leave out meshes and skeletons",
        ),
        (
            "export={layers: [meshes], segments: [3], files: [swc]}",
            "config: export: `files: [swc]` needs `skeletons` among `layers`; add it",
        ),
        (
            "export={layers: [meshes], files: [obj]}",
            "config: export: `files` needs `segments`, the ids of the segments that get files "
            "([17, 4])",
        ),
        (
            "export={segments: [a]}",
            "config: export.segments[0]: 'a' is not allowed; give a whole number from "
            "-9223372036854775808 to 18446744073709551615",
        ),
        (
            "blocks=all",
            "config: blocks: 'all' is not allowed; give a mapping with the keys cache "
            "and cache_gib",
        ),
        ("bundle=/disk", "config: `bundle` is called `mirror` now; rename it"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(word: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        typed(word)
    assert str(error.value) == expected


def test_iterations_of_an_unknown_network_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterations: no network 'mtlds'; did you mean 'mtlsd'"):
        typed("iterations={mtlds: 1000}")


def test_an_unknown_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="unknown key 'seeed', did you mean 'seed'"):
        typed("seeed=3")
    with pytest.raises(ConfigError, match="export: unknown key 'format', did you mean 'formats'"):
        typed("export={format: [ome_zarr]}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "my-data"}, "name: 'my-data' is not allowed; give a name of letters, digits"),
        ({"voxel_size_nm": [10, 10]}, "give a list of 3 numbers above 0"),
        ({"voxel_size_nm": [10, 10, -4.6]}, "voxel_size_nm[2]: -4.6 is not allowed; give a number"),
        ({"volumes": {"a": {"raw": {"paht": "x"}}}}, "unknown key 'paht', did you mean 'path'"),
        ({"volumes": {"a": {"raw": {"array": "x"}}}}, "volumes.a.raw: `path` is missing; add text"),
        ({"volumes": {"a b": {}}}, "volumes: 'a b' is not allowed as a name; give a name of"),
        ({"volumes": {}}, "`volumes` is missing"),
        (
            {"volumes": {"a": {"raw": {"path": "x", "axes": "zyz"}}}},
            "axes: 'zyz' is not allowed; give the letters z, y, x",
        ),
        (
            {"volumes": {"a": {"raw": {"path": "x", "objects": "id"}}}},
            "objects: 'id' is not allowed; give ids, cells, membranes, classes, or null (did you "
            "mean 'ids'?)",
        ),
        ({"volumes": {"a": {"lazy_labels": {}}}}, "volumes.a.lazy_labels: is empty; give"),
        ({"train": "a"}, "train: 'a' is not allowed; give a list of volumes' names"),
        ({"train": [{"roi_nm": {}}]}, "train[0]: `volume` is missing"),
        (
            {"test": [{"volume": "a", "roi_nm": {"offset": [0, 0, 0]}}]},
            "test[0].roi_nm: `shape` is missing",
        ),
    ],
)
def test_a_wrong_dataset_file_says_what_is_allowed(changes: dict[str, Any], expected: str) -> None:
    check(DatasetFile, MINE, "here")
    assert expected in message(DatasetFile, MINE | changes)


@pytest.mark.parametrize(
    ("examples", "expected"),
    [
        ({"classes": 1}, "examples.classes: 1 is not allowed; give a whole number of at least 2"),
        ({"classes": 3}, "examples: give either `archive`, or `train` (and `test`)"),
        (
            {"classes": 3, "fetch": {"url": "ftp://a", "sha256": {}}},
            "examples.fetch.url: 'ftp://a' is not allowed; give an address that begins with https",
        ),
    ],
)
def test_wrong_examples_say_what_is_allowed(examples: dict[str, Any], expected: str) -> None:
    assert expected in message(ExamplesFile, {"name": "mine", "examples": examples})


@given(
    key=st.sampled_from(sorted(WorkflowConfig.model_fields)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_every_message_is_one_plain_sentence_about_its_setting(key: str, value: Any) -> None:
    """No message contains the validator's own wording."""
    try:
        check(WorkflowConfig, {key: value}, "config")
    except ConfigError as error:
        text = str(error)
        assert text.startswith(f"config: {key}"), text
        assert "pydantic" not in text
        assert any(phrase in text for phrase in ("; give ", "unknown key", "missing")), text


def test_every_type_of_setting_has_a_description_in_words() -> None:
    for model, _ in MODELS.values():
        for group in groups(model):
            for info in group.model_fields.values():
                assert "another value" not in words(info.annotation), info


# ---------------------------------------------------------------- text stays text


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("run=2024_01", "run", "2024_01"),
        ("run=007", "run", "007"),
        ("run=1e3", "run", "1e3"),
        ("run='2024_01'", "run", "2024_01"),
        ("run=null", "run", None),
        ("run=", "run", None),
        ("volumes=20190101", "volumes", "20190101"),
        ("volumes=[20190101, 2019_02]", "volumes", ("20190101", "2019_02")),
        ("volumes={mine: 20190101}", "volumes", {"mine": "20190101"}),
        ("init=0x10", "init", "0x10"),
        ("iterations=1000", "iterations", 1000),
        ("iterations=1e6", "iterations", 1000000),
        ("iterations={mtlsd: 1_000}", "iterations", {"mtlsd": 1000}),
        ("train_seconds=0.5", "train_seconds", 0.5),
        ("compile=true", "compile", True),
        ("device=auto", "device", "auto"),
        ("tile=[8, 16, 16]", "tile", (8, 16, 16)),
        ("experiments=[phantom_mtlsd]", "experiments", ("phantom_mtlsd",)),
    ],
)
def test_a_word_is_parsed_by_the_type_of_its_setting(word: str, key: str, value: Any) -> None:
    assert getattr(typed(word), key) == value


def test_a_configuration_file_keeps_text_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: 2024_01\nvolumes: {mine: [20190101]}\nsegment: {epsilon: 0.5}\n")
    config = read_config([CONFIG_FILE, file], ["seed=4", "segment={method: mean}"])

    assert config.run == "2024_01"
    assert config.volumes == {"mine": ("20190101",)}
    assert (config.seed, config.segment.epsilon, config.segment.method) == (4, 0.5, "mean")


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("run: 1.50", "run", "1.50"),
        ("run: 1e5", "run", "1e5"),
        ("run: 1e5_2", "run", "1e5_2"),
        ("run: 0x10", "run", "0x10"),
        ("run: 007", "run", "007"),
        ("run: 2020-01-01", "run", "2020-01-01"),
        ("run: 'on'", "run", "on"),
        ("volumes: [1.0, 1e5, 2024_01]", "volumes", ("1.0", "1e5", "2024_01")),
        ("iterations: 1e5", "iterations", 100000),
        ("iterations: 010", "iterations", 10),
        ("iterations: {mtlsd: 1_000}", "iterations", {"mtlsd": 1000}),
        ("train_seconds: 1e-3", "train_seconds", 0.001),
        ("train_seconds: 1.50", "train_seconds", 1.5),
    ],
)
def test_a_line_of_a_file_is_read_as_its_setting_says(
    tmp_path: Path, line: str, key: str, value: Any
) -> None:
    """Numbers are decimal, as in Python: YAML alone reads 1e-3 as text and 010 as 8."""
    file = tmp_path / "mine.yaml"
    file.write_text(line)
    read = getattr(read_config([CONFIG_FILE, file], []), key)
    assert read == value
    assert type(read) is type(value), "the memory of how a number was written stays in the reader"
    assert getattr(typed(line.replace(": ", "=", 1)), key) == value, "as on the command line"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2\n", "line 2, column 1: the key 'seed' occurs twice; keep one of them"),
        ("segment: {method: mean, method: mutex}\n", "the key 'method' occurs twice"),
        ("", "mine.yaml is empty; write `key: value` lines"),
        ("# seed: 3\n", "mine.yaml is empty"),
        ("- seed\n", "must hold `key: value` lines, not a list"),
        ("seed\n", "must hold `key: value` lines, not a single value"),
        ("seed: [1\n", "mine.yaml cannot be read: line 2, column 1: did not find expected"),
        ("? [a]\n: 3\n", "line 1, column 3: a key is a list or mapping"),
        (
            "iterations: '5'\n",
            "'5' is not allowed; give a whole number of at least 1, null, or one ",
        ),
        ("seed: '5'\n", "; write it without quotes"),
        ("run: on\n", "; put quotes around text that YAML reads as true, false or null"),
        ("train_seconds: .inf\n", "train_seconds: .inf is not allowed; give a number above 0"),
        ("iterations: 1:30\n", "iterations: '1:30' is not allowed"),
        ("seed: 018446744073709551616\n", "018446744073709551616 is not allowed"),
    ],
)
def test_a_wrong_file_says_what_to_do(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config([CONFIG_FILE, file], [])
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_several_unknown_keys_share_one_list_of_the_allowed_ones() -> None:
    text = message(WorkflowConfig, {"seeed": 1, "devise": "cpu", "x": 1})
    assert "unknown key 'seeed', did you mean 'seed'; unknown key 'devise', did you" in text
    assert text.count("allowed: ") == 1


def test_a_volume_may_have_a_number_as_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    part = "{volume: 2019_02, roi_nm: {offset: [0, 0, 0], shape: [10, 10, 10]}}"
    file.write_text(
        "name: mine\nvoxel_size_nm: [10, 10, 10]\n"
        "volumes:\n"
        "  20190101: {raw: {path: a.zarr}, labels: {path: a.zarr}}\n"
        "  2019_02: {raw: {path: b.zarr}, labels: {path: b.zarr}}\n"
        "  2019-03-01: {raw: {path: c.zarr}}\n"
        f"train: [20190101]\nvalidation: [{part}]\ntest: [2019-03-01]\n"
        "sampling: {probabilities: {20190101: 2}}\n"
    )
    data = load_volumes(file, typed("volumes=20190101").volumes)

    assert list(data.volumes) == ["20190101", "2019_02", "2019-03-01"]
    assert [e.volume for e in data.train] == ["20190101"]
    assert [e.volume for e in data.validation] == ["2019_02"]
    assert [e.volume for e in data.test] == ["2019-03-01"]


@given(st.recursive(st.integers() | st.booleans() | st.none(), st.lists))
def test_values_other_than_text_are_unchanged(value: Any) -> None:
    assert read_typed(WorkflowConfig, {"iterations": value}) == {"iterations": value}
    assert read_typed(WorkflowConfig, {"volumes": {"a": value}}) == {"volumes": {"a": value}}


def test_values_within_a_command_line_mapping_become_numbers() -> None:
    words_ = {"thresholds": ["0", "1", "0.1"], "method": "mean", "block_shape": "null"}
    expected = {"thresholds": [0, 1, 0.1], "method": "mean", "block_shape": None}
    assert read_typed(WorkflowConfig, {"segment": words_}) == {"segment": expected}


def test_yaml_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"iterations: '\[1' cannot be read; close every bracket"):
        typed("iterations=[1")
    file = tmp_path / "broken.yaml"
    file.write_text(yaml.safe_dump([1, 2]))
    with pytest.raises(ConfigError, match="must hold `key: value` lines"):
        read_config([file], [])
