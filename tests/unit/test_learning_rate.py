"""Learning rates that change, weight decay and dropout in trainings of the family lsd."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tiny_training as tiny
import train
from retrace.config.compatibility import check_legacy_recipe
from retrace.config.lsd_network import AdamSettings, LsdNetworkSettings
from retrace.config.schema import check
from retrace.errors import ConfigError
from retrace.networks.unet import build_unet
from retrace.planning.train_settings import read_train_settings
from retrace.training import build
from retrace.training.adam import make_optimizer, scheduled_rate
from retrace.training.state import state_files
from retrace.training.task import WeightFiles

pytestmark = pytest.mark.usefixtures("tiny_threads")

ADAM: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny.write_volume(tmp_path / "cube.zarr")


def rates(iterations: int, **changes: Any) -> list[float]:
    rate = scheduled_rate(AdamSettings(lr=0.1, **changes), iterations)
    assert rate is not None
    return [rate(iteration) for iteration in range(1, iterations + 1)]


def with_adam(**changes: Any) -> dict[str, Any]:
    return tiny.network(optimizer=tiny.network()["optimizer"] | changes)


def trained(folder: Path, store: Path, iterations: int, network: dict[str, Any]) -> bytes:
    train.main(tiny.arguments(folder, tiny.settings(store, iterations, network=network)))
    return (folder / "model.safetensors").read_bytes()


def test_rates_rise_linearly_and_fall_along_their_curve() -> None:
    assert rates(4, warmup=2) == pytest.approx([0.05, 0.1, 0.1, 0.1])
    line = rates(6, warmup=2, decay={"kind": "linear", "final": 0.1})
    assert line == pytest.approx([0.05, 0.1, 0.1, 0.07, 0.04, 0.01])
    cosine = rates(101, decay={"kind": "cosine"})
    half = [0.001 + 0.099 * (1 + math.cos(math.pi * k / 100)) / 2 for k in range(101)]
    assert cosine == pytest.approx(half)
    assert rates(1, decay={"kind": "cosine"}) == pytest.approx([0.1])
    assert max(rates(3, warmup=9, decay={"kind": "linear"})) == pytest.approx(0.1 * 3 / 9)
    assert scheduled_rate(AdamSettings(lr=0.1), 5) is None


def test_each_step_has_the_rate_of_its_iteration(store: Path, tmp_path: Path) -> None:
    """The first step of Adam moves each weight by the rate, whatever its gradient."""
    adam = {"lr": 0.01, "warmup": 4, "average": None, "decay": {"kind": "linear"}}
    settings = read_train_settings(tiny.settings(store, 1, network=with_adam(**adam)))
    trainer = build.build_trainer(settings, {}, tmp_path / "work")
    before = [parameter.detach().clone() for parameter in trainer.module.parameters()]
    trainer.run()
    steps = [
        (after - start).abs().max()
        for after, start in zip(trainer.module.parameters(), before, strict=True)
    ]
    assert torch.stack(steps).max().item() == pytest.approx(0.01 / 4, rel=1e-3)


def test_a_rate_that_falls_to_itself_changes_no_byte(store: Path, tmp_path: Path) -> None:
    def weights(name: str, **adam: Any) -> list[torch.Tensor]:
        settings = read_train_settings(tiny.settings(store, 3, network=with_adam(**adam)))
        trainer = build.build_trainer(settings, {}, tmp_path / name)
        trainer.run()
        return list(trainer.result.parameters())

    constant = weights("constant")
    same = weights("same", warmup=1, decay={"kind": "cosine", "final": 1})
    other = weights("other", warmup=2)
    assert all(map(torch.equal, constant, same))
    assert not all(map(torch.equal, constant, other))


def test_an_interrupted_training_continues_at_its_rate(store: Path, tmp_path: Path) -> None:
    network = with_adam(warmup=2, decay={"kind": "cosine"}, weight_decay=0.1)
    network["dropout"] = 0.4
    whole = trained(tmp_path, store, 7, network)
    states = state_files(next((tmp_path / "work").iterdir()))
    assert [path.name for path in states] == ["state_000000004.pt", "state_000000007.pt"]
    states[-1].unlink()
    assert trained(tmp_path, store, 7, network) == whole


def test_a_longer_training_continues_only_without_a_fall(store: Path) -> None:
    def digest(iterations: int, **adam: Any) -> str:
        settings = tiny.settings(store, iterations, network=with_adam(**adam))
        return build.training_digest(read_train_settings(settings), WeightFiles())

    falling = {"decay": {"kind": "linear"}}
    assert digest(4, warmup=2) == digest(9, warmup=2)
    assert digest(4, **falling) != digest(9, **falling)
    assert digest(4, **falling) == digest(4, **falling)
    assert len({digest(4, **one) for one in ({}, falling, {"warmup": 2})}) == 3


def test_weights_decay_towards_0_and_biases_do_not() -> None:
    """Without gradients only the decay moves a weight: by 1 - rate * decay."""
    module = torch.nn.Conv3d(1, 2, 3)
    optimizer = make_optimizer(module, **ADAM, weight_decay=0.5)
    for group in optimizer.param_groups:
        group["lr"] = 0.02
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(module.weight, weight * (1 - 0.02 * 0.5))
    assert torch.equal(module.bias, bias)


def test_the_legacy_engine_refuses_what_it_lacks() -> None:
    check_legacy_recipe(check(LsdNetworkSettings, tiny.network(), "tiny"))
    for name, content in (
        ("optimizer.weight_decay", with_adam(weight_decay=0.1)),
        ("dropout", tiny.network(dropout=0.1)),
    ):
        network = check(LsdNetworkSettings, content, "tiny")
        with pytest.raises(ConfigError, match=rf"`{name}` is set.*use `engine: modern`"):
            check_legacy_recipe(network)


def test_the_methods_section_states_the_rates() -> None:
    changes = {"lr": 1e-3, "warmup": 50, "decay": {"kind": "cosine"}, "weight_decay": 0.01}
    network = check(LsdNetworkSettings, with_adam(**changes), "tiny")
    assert network.optimizer_in_words == (
        "AdamW at a learning rate of 0.001 that rises over the first 50 iterations and falls "
        "along a cosine to 0.01 of it in the last iteration, and a weight decay of 0.01"
    )


def test_dropout_drops_whole_maps_while_the_network_trains_and_none_after() -> None:
    module = build_unet(
        input_channels=1, fmaps=4, fmap_factor=2, downsample=[[2, 2, 2]], heads={"affs": 3}
    )
    raw = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    bottom: list[torch.Tensor] = []
    module.up[0].register_forward_pre_hook(lambda _, inputs: bottom.append(inputs[0]))

    def passed(seed: int, rate: float) -> torch.Tensor:
        torch.manual_seed(seed)
        module.dropout = rate
        return module(raw)["affs"].detach()

    whole = passed(0, 0.0)
    assert torch.equal(passed(0, 0.5), passed(0, 0.5))
    assert not torch.equal(passed(0, 0.5), passed(1, 0.5))
    shares = torch.cat([one[0].flatten(1) / bottom[0][0].flatten(1) for one in bottom[1:]])
    kept = shares.nan_to_num().amax(1)
    assert torch.allclose(kept, kept.round())
    assert set(kept.round().tolist()) == {0, 2}
    module.eval()
    assert torch.equal(passed(0, 0.5), whole)


def test_descriptors_are_still_trained_when_malis_begins(store: Path, tmp_path: Path) -> None:
    network = tiny.network(loss={"kind": "malis", "start_iteration": 1})
    train.main(tiny.arguments(tmp_path, tiny.settings(store, 3, network=network)))
    rows = json.loads((tmp_path / "training.json").read_text())["history"]
    assert {"lsds", "affs"} <= set(rows[-1])
    assert all(row["lsds"] > 0 for row in rows)
