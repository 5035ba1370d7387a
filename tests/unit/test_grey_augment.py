"""Steps of the augmentation that change grey values only: gamma, noise, blur, defects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

import tiny_training as tiny
from retrace.augment.warp import change_grey_values
from retrace.config.lsd_network import AugmentStep, LsdNetworkSettings
from retrace.config.schema import check
from retrace.errors import ConfigError
from retrace.planning.identity import setting_differences

RAW = torch.rand(12, 17, 15, generator=torch.Generator().manual_seed(0))
STEPS: dict[str, dict[str, Any]] = {
    "gamma": {"exponent": [0.5, 2]},
    "noise": {"sd": [0.02, 0.1]},
    "blur": {"max_sigma": [0.5, 1.5, 1.5]},
    "defects": {"missing": 0.2, "low_contrast": 0.2, "missing_area": 0.4},
}
NEVER: dict[str, dict[str, Any]] = {
    **{kind: settings | {"probability": 0} for kind, settings in STEPS.items()},
    "defects": {"contrast": 0.5},
}


def changed(seed: int = 0, raw: torch.Tensor = RAW, **steps: Any) -> torch.Tensor:
    chosen = [AugmentStep.model_validate({kind: settings}) for kind, settings in steps.items()]
    return change_grey_values(raw, np.random.default_rng(seed), chosen)


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_follows_from_its_draws_and_keeps_the_range(kind: str) -> None:
    before = RAW.clone()
    one, same, other = (changed(seed, **{kind: STEPS[kind]}) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(RAW, before)
    assert one.shape == RAW.shape
    assert 0 <= one.min() <= one.max() <= 1
    assert not torch.equal(one, RAW)


@pytest.mark.parametrize("kind", NEVER)
def test_a_step_of_probability_0_changes_nothing(kind: str) -> None:
    assert all(torch.equal(changed(seed, **{kind: NEVER[kind]}), RAW) for seed in range(20))


def test_gamma_is_a_power_of_the_block_or_of_each_section() -> None:
    assert torch.allclose(changed(gamma={"exponent": [2, 2]}), RAW**2, atol=1e-6)
    for per_section in (False, True):
        got = changed(gamma={"exponent": [0.5, 2], "per_section": per_section})
        exponents = (got.log() / RAW.log()).flatten(1)
        of_sections = exponents.median(1).values
        assert torch.allclose(exponents, of_sections[:, None], atol=1e-2)
        assert 0.5 <= of_sections.min() <= of_sections.max() <= 2
        assert (of_sections.std() > 0.1) == per_section
    half = changed(gamma={"exponent": [2, 2], "per_section": True, "probability": 0.5})
    squared = [torch.allclose(a, b**2, atol=1e-6) for a, b in zip(half, RAW, strict=True)]
    assert 1 < sum(squared) < 11


def test_noise_is_white_and_has_the_deviation_that_is_drawn() -> None:
    grey = torch.full((30, 30, 30), 0.5)
    noise = changed(raw=grey, noise={"sd": [0.05, 0.05]}) - 0.5
    assert noise.std() == pytest.approx(0.05, rel=0.03)
    assert abs(float(noise.mean())) < 2e-3
    neighbours = noise[:, :, 1:] * noise[:, :, :-1]
    assert abs(float(neighbours.mean())) < 0.05 * 0.05**2 * 3
    spread = [float(changed(s, grey, noise={"sd": [0, 0.1]}).std()) for s in range(40)]
    assert min(spread) < 0.02
    assert max(spread) > 0.08


def test_blur_is_scipys_inside_and_keeps_one_grey_at_the_border() -> None:
    factor = np.random.default_rng(3)
    factor.random()  # whether the block is changed
    drawn = factor.random()
    raw = torch.rand(40, 44, 48, generator=torch.Generator().manual_seed(1))
    got = changed(3, raw, blur={"max_sigma": [0, 1, 2]})
    expected = raw.double().numpy()
    for axis, sigma in ((1, drawn), (2, 2 * drawn)):
        expected = gaussian_filter1d(expected, sigma, axis, truncate=8)
    inner = (slice(None), slice(16, -16), slice(16, -16))
    assert np.allclose(got.numpy()[inner], expected[inner], atol=1e-5)
    grey = torch.full((9, 9, 9), 0.3)
    assert torch.allclose(changed(3, grey, blur={"max_sigma": [2, 2, 2]}), grey)


def test_defects_of_sections_are_gunpowders() -> None:
    assert float(changed(defects={"missing": 1}).abs().max()) == 0
    mean = RAW.mean((1, 2), keepdim=True)
    flat = changed(defects={"low_contrast": 1, "contrast": 0.25})
    assert torch.allclose(flat, mean + (RAW - mean) * 0.25, atol=1e-6)
    settings = {"missing": 0.1, "low_contrast": 0.2, "missing_area": 0.3}
    sections = torch.rand(4000, 8, 8, generator=torch.Generator().manual_seed(2))
    got = changed(raw=sections, defects=settings)
    same = (got == sections).flatten(1)
    black = (got == 0).flatten(1).all(1)
    low = (got.flatten(1).std(1) < 0.5 * sections.flatten(1).std(1)) & ~same.any(1) & ~black
    assert black.float().mean() == pytest.approx(0.1, abs=0.02)
    assert low.float().mean() == pytest.approx(0.2, abs=0.02)
    assert same.all(1).float().mean() >= 0.4 - 0.03


def test_a_missing_area_has_one_grey_and_leaves_the_rest() -> None:
    section = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(4))
    got = changed(5, section, defects={"missing_area": 1})
    area = got != section
    assert 10 < int(area.sum()) < 64 * 64 / 4
    assert len(got[area].unique()) == 1


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"gamma": {"exponent": [2, 0.5]}}, r"exponent: \[2, 0\.5\].*lowest and the highest"),
        ({"gamma": {"exponent": [0, 1]}}, r"gamma\.exponent\[0\]: 0.*above 0"),
        ({"noise": {"sd": [-0.1, 1]}}, r"noise\.sd\[0\]: -0\.1.*at least 0"),
        ({"defects": {"missing": 0.7, "low_contrast": 0.7}}, r"sum to 1\.4.*at most 1"),
    ],
)
def test_settings_of_no_sense_are_refused(step: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(LsdNetworkSettings, tiny.network(augment=[step]), "tiny")


def test_a_new_kind_of_step_leaves_earlier_results_current() -> None:
    """Records hold every kind that there was, those without settings as null."""
    before = {"augment": [{"simple": {"mirror": [0]}, "noise": None}, {"blur": {"sigma": 1}}]}
    after = {"augment": [{"simple": {"mirror": [0]}}, {"blur": {"sigma": 2}, "new": None}]}
    reasons = list(setting_differences(before, after, {}))
    assert reasons == ["augment[1].blur.sigma changed from 1 to 2"]
    fewer = list(setting_differences(before, {"augment": []}, {}))
    assert len(fewer) == 1
    assert fewer[0].startswith("augment changed from [{'simple'")
