"""The pyramid: sizes, untrained output, reach, archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter

import tiny_seamless as tiny
from built_networks import built
from retrace.checkpoints.safetensors import load_model, save_model
from retrace.checkpoints.seamless import load_overlap
from retrace.config.any_network import of_family
from retrace.config.networks import load_network
from retrace.displacement import compose, rotate_180, rotate_field_180
from retrace.errors import DataError
from retrace.networks.builders import pyramid_of
from retrace.networks.cost_volume import local_correlation
from retrace.networks.seamless import (
    FieldOptions,
    Matcher,
    Seamless,
)


def images(side: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.rand(2, 1, 1, side, side, generator=generator)
    return first, second


@pytest.mark.parametrize(("height", "count"), [(5, 1574829), (7, 2380625), (8, 2827155)])
def test_parameter_counts_of_the_paper_era(height: int, count: int) -> None:
    module = built({**load_network("seamless").plain(), "height": height}, device="meta")

    assert sum(p.numel() for p in module.parameters()) == count


def test_aligners_of_the_paper_era() -> None:
    module = built(load_network("seamless").plain(), device="meta")

    counts = [sum(p.numel() for p in module.level_parameters(level)) for level in range(8)]
    assert counts == [265138 + 18816 * level for level in range(8)]
    assert [e[-2].out_channels for e in module.encoders] == [12, 18, 24, 30, 36, 42, 48, 54]  # type: ignore[index]
    assert module.pre_encoder is not None
    assert sum(p.numel() for p in module.pre_encoder.parameters()) == 9439


def zero_aligners(module: Seamless) -> None:
    """Makes every aligner output 0 for any input, so that the field is the identity."""
    for aligner in module.aligners:
        assert isinstance(aligner, torch.nn.Sequential)
        torch.nn.init.zeros_(aligner[-1].weight)
        torch.nn.init.zeros_(aligner[-1].bias)
        if isinstance(aligner, Matcher):
            torch.nn.init.zeros_(aligner.sharpness)


@pytest.mark.parametrize("correlation_px", [0, 3])
def test_zero_aligners_move_nothing(correlation_px: int) -> None:
    module = built(tiny.network(zero_start=False, correlation_px=correlation_px))
    source, target = images()
    assert module(source, target).field.abs().max().item() > 0

    zero_aligners(module)

    output = module(source, target)
    assert output.field.abs().max().item() < 1e-5
    assert len(output.residuals) == 2


def test_an_untrained_matcher_finds_a_shift_within_its_radius() -> None:
    network = tiny.network(height=1, encoder_maps={"first": 12, "step": 0})
    target, _ = images(48)
    source = torch.roll(target, (2, -1), (-2, -1))

    with torch.no_grad():
        field = built(network)(source, target).field[..., 8:-8, 8:-8]

    expected = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand_as(field)
    assert float((field - expected).abs().mean()) < 0.5


@pytest.mark.parametrize("composition", ["functional", "additive"])
@pytest.mark.parametrize("level", [0, 1])
def test_the_field_has_the_grid_of_the_requested_level(composition: str, level: int) -> None:
    module = built(tiny.network(composition=composition, zero_start=False))

    output = module(*images(), level)

    assert output.field.shape == (1, 2, 64 // 2**level, 64 // 2**level)
    assert len(output.residuals) == 2 - level


def test_skipped_levels_add_nothing_and_top_levels_may_be_left_out() -> None:
    whole = built(tiny.network(zero_start=False))
    fine_off = built(tiny.network(zero_start=False, skip=1))
    fine_off.load_state_dict(whole.state_dict())
    top_off = built(tiny.network(zero_start=False, topskips=1))
    top_off.load_state_dict(whole.state_dict())
    source, target = images()

    assert len(fine_off(source, target).residuals) == 1
    torch.testing.assert_close(fine_off(source, target, 1).field, whole(source, target, 1).field)
    assert len(top_off(source, target).residuals) == 1
    odd = torch.rand(1, 1, 33, 35)
    assert top_off(odd, odd).field.shape == (1, 2, 33, 35)


def test_flip_averaged_fields_turn_with_the_sections() -> None:
    module = built(tiny.network(zero_start=False))
    source, target = images()

    with torch.no_grad():
        averaged = module.field(source, target, FieldOptions(flip_average=True))
        turned = module.field(
            rotate_180(source), rotate_180(target), FieldOptions(flip_average=True)
        )

    torch.testing.assert_close(rotate_field_180(turned), averaged, atol=1e-5, rtol=1e-4)


def test_swap_averaged_fields_of_both_ways_undo_each_other() -> None:
    module = built(tiny.network(zero_start=False))
    source, target = images()

    def difference(*, swap_average: bool) -> float:
        options = FieldOptions(swap_average=swap_average)
        with torch.no_grad():
            there = module.field(source, target, options)
            back = module.field(target, source, options)
        return float(compose(there, back)[..., 8:-8, 8:-8].abs().mean())

    assert difference(swap_average=True) < 0.1 * difference(swap_average=False)


def test_smoothed_fields_are_those_of_a_gaussian_filter() -> None:
    module = built(tiny.network(zero_start=False))
    source, target = images()

    with torch.no_grad():
        field = module.field(source, target, FieldOptions())
        smoothed = module.field(source, target, FieldOptions(smoothing_px=2.5))

    assert float((smoothed - field).abs().max()) > 0.01
    expected = gaussian_filter(field, (0, 0, 2.5, 2.5), mode="mirror", truncate=3)
    torch.testing.assert_close(smoothed, torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


def test_the_cost_volume_is_highest_where_the_maps_agree() -> None:
    maps = torch.rand(1, 6, 20, 20, generator=torch.Generator().manual_seed(0))
    moved = torch.roll(maps, (2, -1), (-2, -1))  # what is at r in maps is at r + (2, -1) in moved

    correlation = local_correlation(moved, maps, 2)

    inner = correlation[0, :, 4:-4, 4:-4]
    assert (inner.argmax(0) == 4 * 5 + 1).all()  # rows -2 .. 2, columns -2 .. 2
    torch.testing.assert_close(inner[21], torch.ones_like(inner[21]))
    assert float(correlation.abs().max()) <= 1 + 1e-5
    assert not correlation[0, 0, 0].any()  # there are no rows above the first


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kernel": 5},
        {"height": 3, "correlation_px": 0},
        {"pre_encoder": True, "correlation_px": 0},
    ],
)
def test_no_pixel_beyond_the_reach_matters(changes: dict[str, Any]) -> None:
    settings = tiny.network(zero_start=False, **changes)
    module = built(settings)
    reach, middle = tiny.receptive_radius(pyramid_of(of_family(settings))), 140
    source, target = images(280)
    source.requires_grad_()
    for aligner in module.aligners:  # fields with tiny displacements
        with torch.no_grad():
            aligner[-1].weight.mul_(1e-3)  # type: ignore[index]
            aligner[-1].bias.zero_()  # type: ignore[index]
            if isinstance(aligner, Matcher):
                aligner.sharpness.fill_(1e-3)

    module(source, target).field[0, :, middle, middle].sum().backward()

    assert source.grad is not None
    there = torch.nonzero(source.grad[0, 0])
    farthest = int((there - middle).abs().max())
    assert 0.6 * reach < farthest <= reach


@pytest.mark.parametrize("side", [33, 0])
def test_sides_that_cannot_be_halved_are_refused(side: int) -> None:
    module = built(tiny.network())
    with pytest.raises(DataError, match="multiples of 2 px"):
        module(torch.zeros(1, 1, side, 32), torch.zeros(1, 1, side, 32))


def test_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (built(tiny.network(), seed=s) for s in (1, 1, 2))

    torch.testing.assert_close(first.state_dict(), again.state_dict())
    assert not torch.equal(first.encoders[0][0].weight, other.encoders[0][0].weight)  # type: ignore[index]


def test_an_archive_is_restored_and_another_height_is_refused(tmp_path: Path) -> None:
    settings = tiny.network()
    module = built(settings, seed=3)
    path = save_model(tmp_path / "a.safetensors", module, {"network": settings})
    again = built(settings)

    load_model(path, again, of_family(settings))

    torch.testing.assert_close(again.state_dict(), module.state_dict())
    with pytest.raises(DataError, match="height 2"):
        load_model(path, built(tiny.network(height=3)), of_family(tiny.network(height=3)))


def test_a_smaller_pyramid_fills_the_lower_levels_of_a_larger_one(tmp_path: Path) -> None:
    settings = tiny.network()
    module = built(settings, seed=3)
    path = save_model(tmp_path / "a.safetensors", module, {"network": settings})
    larger = built(tiny.network(height=3), seed=4)

    report = load_overlap(path, larger)

    own = larger.state_dict()
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(own[name], tensor)
    assert all(".2." in line.split()[0] for line in report)
    assert any(
        "aligners.2.0.weight" in line and "keeps its initial values" in line for line in report
    )


def test_wider_weights_take_the_common_part(tmp_path: Path) -> None:
    settings = tiny.network()
    module = built(settings, seed=3)
    path = save_model(tmp_path / "a.safetensors", module, {"network": settings})
    wider = built(tiny.network(aligner_maps=[6, 4]), seed=4)

    report = load_overlap(path, wider)

    there, here = module.aligners[0][0].weight, wider.aligners[0][0].weight  # type: ignore[index]
    torch.testing.assert_close(here[:4], there)
    assert any("common part" in line for line in report)


def old_names(module: Seamless) -> dict[str, torch.Tensor]:
    """The weights under SEAMLeSS' names, with its aliases."""
    renamed = {}
    for name, tensor in module.state_dict().items():
        part, *rest = name.split(".")
        kind = {"aligners": "mlist", "encoders": "enclist"}[part]
        layer = {"aligners": "conv", "encoders": "c"}[part] + str(int(rest[1]) // 2 + 1)
        renamed[f"pyramid.{kind}.{rest[0]}.{layer}.{rest[2]}"] = tensor
        renamed[f"pyramid.{kind}.{rest[0]}.seq.{rest[1]}.{rest[2]}"] = tensor
    return renamed


def test_an_archive_of_2018_is_read_by_its_names(tmp_path: Path) -> None:
    network = tiny.network(correlation_px=0)
    module = built(network, seed=5)
    torch.save(old_names(module), tmp_path / "old.pt")
    again = built(network, seed=6)

    report = load_overlap(tmp_path / "old.pt", again)

    assert report == []
    torch.testing.assert_close(again.state_dict(), module.state_dict())


def test_whole_modules_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    module = built(tiny.network())
    torch.save(module, tmp_path / "whole.pt")
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "foreign.pt")

    with pytest.raises(DataError, match="state_dict"):
        load_overlap(tmp_path / "whole.pt", module)
    with pytest.raises(DataError, match=r"pyramid\.mlist"):
        load_overlap(tmp_path / "foreign.pt", module)
    with pytest.raises(DataError, match="does not exist"):
        load_overlap(tmp_path / "none.pt", module)
