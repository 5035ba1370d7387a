"""The U-Net against the numbers of the paper: parameters, shapes, cost, tiling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from built_networks import is_valid_shape
from retrace.cropping import centre_crop
from retrace.errors import DataError
from retrace.networks import unet
from retrace.networks.unet import UNet, build_unet

ZFINCH = {"fmaps": 12, "fmap_factor": 5, "downsample": [[1, 3, 3], [1, 3, 3], [3, 3, 3]]}
FIB25 = {"fmaps": 12, "fmap_factor": 6, "downsample": [[2, 2, 2], [2, 2, 2], [3, 3, 3]]}
AFFS, LONG, LSDS = {"affs": 3}, {"affs": 12}, {"lsds": 10}


def network(
    dataset: dict[str, Any], heads: dict[str, int], channels: int = 1, out: int = 12
) -> dict[str, Any]:
    return {"input_channels": channels, "fmaps_out": out, "heads": heads, **dataset}


def tflop_per_um3(
    unet: UNet, input_shape: tuple[int, int, int], voxel_size_nm: tuple[int, int, int]
) -> float:
    """Forward cost in TFLOP per cubic micrometre of output (as Sheridan et al. 2023)."""
    volume_um3 = math.prod(unet.output_shape(input_shape)) * math.prod(voxel_size_nm) * 1e-9
    return unet.flop(input_shape) * 1e-12 / volume_um3


def tiny(downsample: list[list[int]], seed: int = 0) -> UNet:
    settings_ = {"fmaps": 2, "fmap_factor": 2, "downsample": downsample}
    return build_unet(**network(settings_, AFFS, out=3), seed=seed).double()


@pytest.mark.parametrize(
    ("dataset", "heads", "channels", "out", "expected"),
    [
        (ZFINCH, AFFS, 1, 12, 95_853_495),
        (ZFINCH, LONG, 1, 12, 95_853_612),
        (ZFINCH, LSDS | AFFS, 1, 14, 95_856_355),
        (ZFINCH, LSDS, 1, 12, 95_853_586),
        (ZFINCH, AFFS, 10, 12, 95_856_411),
        (ZFINCH, AFFS, 11, 12, 95_856_735),
        (FIB25, AFFS, 1, 12, 263_722_527),
        (FIB25, LONG, 1, 12, 263_722_644),
        (FIB25, LSDS | AFFS, 1, 14, 263_725_387),
        (FIB25, LSDS, 1, 12, 263_722_618),
        (FIB25, AFFS, 10, 12, 263_725_443),
        (FIB25, AFFS, 11, 12, 263_725_767),
    ],
)
def test_02_parameter_counts(
    dataset: dict[str, Any], heads: dict[str, int], channels: int, out: int, expected: int
) -> None:
    unet = build_unet(**network(dataset, heads, channels, out), device="meta")

    assert expected == sum(parameter.numel() for parameter in unet.parameters())
    assert 34 + 2 * len(heads) == len(list(unet.parameters()))


@pytest.mark.parametrize(
    ("dataset", "input_shape", "expected"),
    [
        (ZFINCH, (84, 268, 268), (48, 56, 56)),
        (ZFINCH, (96, 484, 484), (60, 272, 272)),
        (ZFINCH, (120, 484, 484), (84, 272, 272)),
        (FIB25, (196,) * 3, (92,) * 3),
        (FIB25, (268,) * 3, (164,) * 3),
        (FIB25, (304,) * 3, (200,) * 3),
        (FIB25, (352,) * 3, (248,) * 3),
        (FIB25, (364,) * 3, (260,) * 3),
        (FIB25, (164,) * 3, (56,) * 3),  # 34 is not a multiple of 3: pooling drops a voxel
    ],
)
def test_01_published_shapes(
    dataset: dict[str, Any], input_shape: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    unet = build_unet(**network(dataset, AFFS), device="meta")

    assert expected == unet.output_shape(input_shape)
    assert is_valid_shape(unet, input_shape) == (input_shape[0] != 164)
    with torch.device("meta"):
        forward = unet(torch.empty(1, 1, *input_shape))["affs"]
    assert (1, 3, *expected) == tuple(forward.shape)


def test_stride_and_context() -> None:
    zfinch, fib25 = (build_unet(**network(d, AFFS), device="meta") for d in (ZFINCH, FIB25))

    assert (zfinch.stride, zfinch.context) == ((3, 27, 27), (36, 212, 212))
    assert (fib25.stride, fib25.context) == ((12, 12, 12), (104, 104, 104))


def test_layers_of_the_training_shape() -> None:
    unet = build_unet(**network(ZFINCH, AFFS), device="meta")
    shapes = [shape for _, shape in unet._trace((84, 268, 268))]

    last_of_passes = [shapes[i] for i in (1, 3, 5, 7, 8, 10, 11, 13, 14, 16)]
    expected = [
        (80, 264, 264), (76, 84, 84), (72, 24, 24), (20, 4, 4), (60, 12, 12),
        (56, 8, 8), (56, 24, 24), (52, 20, 20), (52, 60, 60), (48, 56, 56),
    ]  # fmt: skip
    assert expected == last_of_passes


@pytest.mark.parametrize(
    ("dataset", "heads", "out", "shape", "voxel_nm", "expected"),
    [
        (ZFINCH, AFFS, 12, (96, 484, 484), (20, 9, 9), 0.5637),
        (ZFINCH, LSDS | AFFS, 14, (96, 484, 484), (20, 9, 9), 0.5673),
        (FIB25, AFFS, 12, (268,) * 3, (8, 8, 8), 3.99),
        (FIB25, AFFS, 12, (352,) * 3, (8, 8, 8), 3.26),
    ],
)
def test_04_cost_in_tflop_per_um3(
    dataset: dict[str, Any],
    heads: dict[str, int],
    out: int,
    shape: tuple[int, int, int],
    voxel_nm: tuple[int, int, int],
    expected: float,
) -> None:
    unet = build_unet(**network(dataset, heads, out=out), device="meta")

    assert tflop_per_um3(unet, shape, voxel_nm) == pytest.approx(expected, rel=2e-3)


def test_training_forward_costs_583_gflop() -> None:
    unet = build_unet(**network(ZFINCH, AFFS), device="meta")

    assert unet.flop((84, 268, 268)) == pytest.approx(0.583e12, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 4)] * 3), max_size=3),
    st.tuples(*[st.integers(1, 60)] * 3),
)
def test_valid_shape_is_the_smallest_that_covers(
    downsample: list[tuple[int, int, int]], smallest_output: tuple[int, int, int]
) -> None:
    with torch.device("meta"):
        unet = UNet(1, 1, 1, downsample, {"affs": 1})
    shape = unet.valid_shape(smallest_output)
    output = unet.output_shape(shape)

    assert is_valid_shape(unet, shape)
    assert tuple(s - c for s, c in zip(shape, unet.context, strict=True)) == output
    for axis in range(3):
        assert smallest_output[axis] <= output[axis]
        below = shape[axis] - unet.stride[axis]
        if below - unet.context[axis] >= 1:  # one stride less no longer covers
            assert below - unet.context[axis] < smallest_output[axis]


@pytest.mark.parametrize("downsample", [[], [[2, 2, 2]], [[1, 2, 2], [2, 2, 3]]])
def test_any_tile_grid_on_the_stride_equals_one_pass(downsample: list[list[int]]) -> None:
    unet = tiny(downsample)
    stride, context = unet.stride, unet.context
    whole_shape = unet.valid_shape([3 * s + 1 for s in stride])
    raw = torch.rand(1, 1, *whole_shape, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        whole = unet(raw)["affs"]
    tile = [2 * s for s in stride]

    for start in ([0, 0, 0], list(stride), [0, stride[1], 0]):
        size = [min(t, o - b) for t, o, b in zip(tile, whole.shape[2:], start, strict=True)]
        read = unet.valid_shape(size)
        padded = functional.pad(raw, [n for s in stride[::-1] for n in (0, 3 * s)])
        window = padded[(..., *(slice(b, b + r) for b, r in zip(start, read, strict=True)))]
        with torch.no_grad():
            part = unet(window)["affs"]
        box = tuple(slice(b, b + n) for b, n in zip(start, size, strict=True))
        crop = tuple(slice(0, n) for n in size)
        torch.testing.assert_close(part[(..., *crop)], whole[(..., *box)], rtol=0, atol=1e-12)
    assert all(c > 0 for c in context)


def test_a_shift_off_the_stride_changes_the_output() -> None:
    unet = tiny([[2, 2, 2]])
    raw = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        on, off = unet(raw[..., 2:])["affs"], unet(raw[..., 1:])["affs"]
        whole = unet(raw)["affs"]

    torch.testing.assert_close(on, whole[..., 2:], rtol=0, atol=1e-12)
    assert not torch.allclose(
        off[..., : whole.shape[-1] - 1], whole[..., 1 : 1 + off.shape[-1]], atol=1e-6
    )


def test_order_of_skip_and_up_and_relu_after_up() -> None:
    unet = tiny([[2, 2, 2]])
    raw = torch.rand(1, 1, *unet.valid_shape(), generator=torch.Generator().manual_seed(2)).double()
    weights = dict(unet.named_parameters())

    def conv(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.conv3d(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    left = conv("left.0.1", conv("left.0.0", raw).relu()).relu()
    below = conv("left.1.1", conv("left.1.0", functional.max_pool3d(left, 2)).relu()).relu()
    up = functional.conv_transpose3d(below, weights["up.0.weight"], weights["up.0.bias"], 2).relu()
    margin = (left.shape[-1] - up.shape[-1]) // 2
    crop = left[(..., *[slice(margin, margin + up.shape[-1])] * 3)]
    top = conv("right.0.1", conv("right.0.0", torch.cat([crop, up], 1)).relu()).relu()

    torch.testing.assert_close(unet(raw)["affs"], conv("heads.affs", top).sigmoid())


def test_initialisation_is_glorot_and_seeded() -> None:
    one, same, other = (
        build_unet(**network(ZFINCH | {"fmap_factor": 2}, AFFS), seed=s) for s in (1, 1, 2)
    )
    weight = one.left[1][1].weight
    limit = math.sqrt(6 / (27 * 24 + 27 * 24))

    assert torch.equal(weight, same.left[1][1].weight)
    assert not torch.equal(weight, other.left[1][1].weight)
    assert limit * 0.98 < weight.abs().max().item() <= limit
    assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert all(not p.any() for name, p in one.named_parameters() if name.endswith("bias"))


def test_channels_last_gives_the_same_numbers_and_layout() -> None:
    unet = tiny([[1, 2, 2]])
    raw = torch.rand(1, 1, *unet.valid_shape((3, 4, 5))).double()
    expected = unet(raw)["affs"]
    fast = unet.to(memory_format=torch.channels_last_3d)

    torch.testing.assert_close(
        fast(raw.contiguous(memory_format=torch.channels_last_3d))["affs"], expected
    )


def test_gradients_reach_every_parameter() -> None:
    unet = tiny([[1, 2, 2]])
    unet(torch.rand(1, 1, *unet.valid_shape((4, 4, 4))).double())["affs"].sum().backward()

    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in unet.parameters())


def test_an_input_below_the_field_of_view_is_refused_with_numbers() -> None:
    unet = build_unet(**network(ZFINCH, AFFS), device="meta")

    with pytest.raises(
        DataError, match=r"smaller than the field of view.*84, 200, 268.*39, 214, 214"
    ):
        unet.output_shape((84, 200, 268))
    assert min(unet.output_shape(unet.valid_shape())) >= 1


class PlainPoolAndCrop:
    """Pooling and cropping with torch's own gradients."""

    @staticmethod
    def apply(x: Tensor, factor: list[int], shape: list[int]) -> tuple[Tensor, Tensor]:
        return functional.max_pool3d(x, factor, factor), centre_crop(x, shape)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_one_gradient_of_pooling_and_crop_has_torchs_bits(
    bf16: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = [[2, 2, 2], [1, 3, 3]]
    net = build_unet(input_channels=1, fmaps=4, fmap_factor=2, downsample=factors, heads={"a": 3})
    net = net.to(memory_format=layout)  # type: ignore[call-overload]
    raw = torch.rand(1, 1, *net.valid_shape((7, 9, 11)))
    gradients = []
    for _ in range(2):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            output = net(raw)["a"]
        (output * torch.arange(output.numel()).view(output.shape).cos()).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
        monkeypatch.setattr(unet, "_PoolAndCrop", PlainPoolAndCrop)
    assert all(map(torch.equal, *gradients))
    assert all(gradient.any() for gradient in gradients[0])
