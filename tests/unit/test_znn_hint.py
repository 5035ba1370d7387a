"""With train_conv_mode or forward_conv_mode fft, a line says if direct convolution is faster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tiny_znn as tiny
from built_networks import built
from retrace.networks.tuning import large_layers, layer_inputs, set_convolution_modes
from retrace.networks.znn import build_znn
from znn_case import sample_graph

pytestmark = pytest.mark.usefixtures("tiny_threads")


def hint_of(folder: Path, capsys: pytest.CaptureFixture[str], training: bool) -> str:
    """What is printed about a network whose layers are all computed by FFT."""
    module, device = built(tiny.network(tiny.dataset(folder))), torch.device("cpu")
    shape = module.valid_shape((1, 12, 12))
    set_convolution_modes(
        module, "fft", shape, device, training=training, cache=folder / "conv_modes.json"
    )
    assert {layer.mode for layer in module.convolutions.values()} == {"fft"}
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        ([(1.0, 7.0), (1.0, 6.0)], "take 6.5 times as long as direct ones on this machine; set"),
        ([(8.0, 1.0), (1.0, 8.0)], "take 4.5 times as long as the faster of both for each layer"),
        ([(1.0, 1.0), (1.0, 1.1)], ""),
        ([(3.0, 1.0), (3.0, 1.0)], ""),
    ],
)
@pytest.mark.parametrize("verb", ["train", "forward"])
def test_a_line_says_when_direct_convolution_is_faster_than_fft(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
    seconds: list[tuple[float, float]],
    words: str,
) -> None:
    """Layers are measured once: the second time, what the file holds counts."""
    hint_of(folder, capsys, verb == "train")
    file = folder / "conv_seconds.json"
    measured = json.loads(file.read_text())
    assert len(measured) == 2 and all(key.startswith(f"{verb} ") for key in measured)
    known = {
        key: dict(zip(("direct", "fft"), pair, strict=True))
        for key, pair in zip(sorted(measured), seconds, strict=True)
    }
    file.write_text(json.dumps(known))
    lines = hint_of(folder, capsys, verb == "train").splitlines()

    assert json.loads(file.read_text()) == known
    assert len(lines) == bool(words)
    for line in lines:
        assert words in line and f"set `{verb}_conv_mode` to " in line
    assert ("to direct" in "".join(lines)) == ("direct ones" in words)


def test_what_optimize_measured_decides_the_hint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module, device = built(tiny.network(tiny.dataset(folder))), torch.device("cpu")
    shape, cache = module.valid_shape((1, 12, 12)), folder / "conv_modes.json"
    set_convolution_modes(module, "optimize", shape, device, training=False, cache=cache)
    measured = json.loads((folder / "conv_seconds.json").read_text())
    modes = json.loads(cache.read_text())

    assert {key: min(times, key=times.get) for key, times in measured.items()} == modes
    hint_of(folder, capsys, training=False)
    assert json.loads((folder / "conv_seconds.json").read_text()) == measured


@pytest.mark.parametrize("name", ["n4", "vd2d3d", "znn_40p"])
def test_large_layers_are_measured_on_a_part(name: str) -> None:
    """A hint costs a small part of an iteration."""
    graph = sample_graph(name)
    module = build_znn(graph, {"output": graph.outputs[0]}, device="meta")
    layers = [layer for _, layer in large_layers(module, module.valid_shape((20, 100, 100)))]
    whole = sum(layer.multiplications() for layer in layers)

    assert sum(layer.part().multiplications() for layer in layers) < 0.1 * whole
    assert all(layer.part().shape[1] == layer.shape[1] for layer in layers)


@pytest.mark.parametrize("name", ["n4", "vd2d3d", "hd3d"])
def test_sizes_of_layers_are_those_of_a_pass(name: str) -> None:
    graph = sample_graph(name)
    module = build_znn(graph, {"output": graph.outputs[0]}, device="meta")
    shapes: dict[str, list[int]] = {}
    for edge, layer in module.convolutions.items():
        layer.register_forward_hook(
            lambda _, inputs, output, edge=edge: shapes.update({edge: list(inputs[0].shape)})
        )
    size = module.valid_shape((2, 7, 9))
    module(torch.empty((1, module.input_channels, *size), device="meta"))

    assert {edge: list(shape) for edge, shape in layer_inputs(module, size).items()} == shapes
