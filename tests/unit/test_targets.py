"""Names of targets: which can run, and the nearest one for a name that is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import targets as program
from retrace.config.command_line_values import read_config
from retrace.config.yaml_files import WORKFLOW_CONFIG, names
from retrace.errors import ConfigError
from retrace.planning.experiment import Planner
from retrace.planning.listing import answer, overview, register_verbs, runnable
from retrace.planning.targets import all_targets, reason_against
from retrace.planning.unknown_targets import nearest_targets, unknown_target

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def planner() -> Planner:
    register_verbs()
    return Planner(ROOT, read_config([WORKFLOW_CONFIG / "config.yaml"], []))


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("trian_zfinch_mtlsd", "no verb 'trian'; did you mean train_zfinch_mtlsd? (verbs: align"),
        ("zfinch_mtlsd", "name a verb too; did you mean view_zfinch_mtlsd, "),
        ("evaluate", "name a dataset and a network too; did you mean evaluate_"),
        ("mask", "name a dataset too; did you mean mask_"),
        ("train_zfinch", "name a network too; did you mean train_zfinch_"),
        ("train_zfnch_mtlsd", "no dataset 'zfnch'; did you mean train_zfinch_mtlsd?"),
        ("view_data_zfinh", "no dataset 'zfinh'; did you mean view_data_zfinch?"),
        ("train_zfinch_mltsd", "no network 'mltsd'; did you mean train_zfinch_mtlsd?"),
        ("evaluate_zfinch_mtlsd_", "single underscores; did you mean evaluate_zfinch_mtlsd?"),
        ("Train__ZFinch-MTLSD", "lower case letters and single underscores; did you mean train_z"),
        ("mask_zfinch_mtlsd", "mask takes no network; did you mean "),
        ("reprodce_zfinch", "no verb 'reprodce'; did you mean reproduce_zfinch?"),
        ("xyzzy", "xyzzy: no target, rule or file has this name"),
    ],
)
def test_unknown_targets_get_the_nearest_names(planner: Planner, word: str, message: str) -> None:
    assert message in unknown_target(planner, word)


def test_only_names_that_can_run_are_suggested(planner: Planner) -> None:
    assert reason_against(planner, "evaluate_zfinch_lsd") is not None
    close = nearest_targets(planner, "evaluate_zfinch_lsdd")

    assert close and "evaluate_zfinch_lsd" not in close
    assert all(reason_against(planner, name) is None for name in close)


def test_rules_without_wildcards_are_suggested_too(planner: Planner) -> None:
    assert nearest_targets(planner, "image_moder", {"image_modern"}) == ["image_modern"]


def test_a_target_is_runnable_exactly_if_nothing_speaks_against_it(planner: Planner) -> None:
    for dataset in ("phantom_sections", "zfinch_paper"):
        found = runnable(planner, dataset)
        able = {f"{v}_{dataset}_{n}" for v, networks in found.pairs.items() for n in networks}
        pairs = [f"{v}_{dataset}_{n}" for v in found.pairs for n in names("networks")[::7]]
        can_run = {target for target in pairs if reason_against(planner, target) is None}
        assert can_run == able & set(pairs)
    assert set(found.data) == {"compare", "fetch", "mask", "view_data"}
    assert "train_zfinch_paper_mtlsd" in all_targets() and found.pairs["train"] == []


def test_datasets_without_their_files_can_run_nothing(
    planner: Planner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = {"path": "absent.h5", "array": "raw"}
    content = {"name": "absent", "voxel_size_nm": [9, 9, 9], "volumes": {"a": {"raw": raw}}}
    (tmp_path / "config/datasets").mkdir(parents=True)
    (tmp_path / "config/datasets/absent.yaml").write_text(yaml.safe_dump(content | {"test": ["a"]}))

    here = Planner(ROOT, planner.config)
    found = runnable(here, "absent")
    assert not found.data and not any(found.pairs.values())
    needed = answer(planner, "train_phantom_cubes_neuro3d_doc")
    assert "reads files that you have to provide. Missing:\n  data/phantom_cubes/raw_0.h5" in needed


def test_the_overview_fits_on_a_screen(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = ["mnist", "phantom_sections"]
    monkeypatch.setattr(
        "retrace.planning.listing.names", lambda kind: shown if kind == "datasets" else names(kind)
    )
    lines = list(overview(planner))
    others = len(names("datasets")) - len(shown)

    assert max(map(len, lines)) <= 100 and len(lines) + 2 * others < 60
    header, counts = lines[0].split(), lines[2].split()
    assert counts[0] == "phantom_sections" and counts[1 + header[3:].index("align")] == "1"


def test_the_program_tells_targets_datasets_and_wrong_names_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program.main(["mnist", "train_zfinch_mtlsd", "evaluate_zfinch_lsd"])
    printed = capsys.readouterr().out
    assert "without a network: fetch_" in printed
    assert "crate_ evaluate_ package_ predict_ train_: autoencoder cnn_modern" in printed
    assert "train_zfinch_mtlsd: can run" in printed
    assert "\nevaluate_zfinch_lsd: network 'lsd' predicts no" in printed
    with pytest.raises(ConfigError, match="did you mean zfinch"):
        program.main(["zfnch"])
