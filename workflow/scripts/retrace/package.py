"""A trained network as a package that runs without this workflow: bioimage.io, and ten lines.

Format: github.com/bioimage-io/spec-bioimage-io, model 0.5. The weights are there twice: as
weights.pt for programs that read bioimage.io, as model.safetensors with the same tensors, which
runs no code when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

from retrace import __version__
from retrace.checkpoints.native import load_model
from retrace.errors import ConfigError, nearest
from retrace.manifest import atomic_write
from retrace.networks import build_network
from retrace.single_file import single_file

FORMAT_VERSION = "0.5.12"
"""Of the model description."""
TEST_OUTPUT = (2, 8, 8)
"""Voxels that the test tensors give at least."""
SEED = 0
"""Of the test input."""
SHORTEST_BLUR = 2
"""Voxels that the test input is smoothed over, so that it looks less like noise."""
TOLERANCE = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4}
"""How far another machine's outputs may lie from the test outputs."""

FAMILIES: dict[str, dict[str, Any]] = {
    "lsd": {
        "module": "retrace.networks.unet",
        "builder": "build_unet",
        "settings": ["name", "family", "input_channels", "fmaps", "fmap_factor", "fmaps_out"]
        + ["downsample", "heads"],
        "cite": {
            "text": "Sheridan et al., Local shape descriptors for neuron segmentation, Nature "
            "Methods 20, 2023",
            "doi": "10.1038/s41592-022-01711-z",
        },
    },
    "znn": {
        "module": "retrace.networks.znn",
        "builder": "build_znn",
        "settings": ["name", "family", "graph", "inits", "unseeded", "heads", "cost_fn"],
        "cite": {
            "text": "Zlateski, Lee, Seung, ZNN: a fast and scalable algorithm for training 3D "
            "convolutional networks on multi-core and many-core shared memory machines, IPDPS 2016",
            "doi": "10.1109/IPDPS.2016.119",
        },
    },
    "elektronn": {
        "module": "retrace.networks.elektronn",
        "builder": "build_elektronn",
        "settings": ["name", "family", "architecture", "input_shape", "dropout_rates"]
        + ["shared_dropout_mask", "target", "autoencoder"],
        "cite": {
            "text": "The ELEKTRONN developers, ELEKTRONN: neural networks for image data",
            "url": "https://github.com/ELEKTRONN/ELEKTRONN",
        },
    },
}
"""Per family the module and function that build its networks, and the settings they read."""

ENTRY = '''

# ---------------- what a package is opened with


def build(network):
    """The network of `network` of config.json, in evaluation mode; {{head: (N, C, Z, Y, X)}}."""
    return {builder}(network).eval()


def bioimageio_model(**network):
    """The same with a tuple of the heads in their order, as bioimage.io wants it."""
    module = build(network)
    module.register_forward_hook(lambda _, inputs, outputs: tuple(outputs.values()))
    return module
'''

TEN_LINES = """\
import json, sys
import numpy as np, torch
from safetensors.torch import load_file
from network import build

network = build(json.load(open("config.json"))["network"])
network.load_state_dict(load_file("model.safetensors"))
raw = torch.from_numpy(np.load(sys.argv[1])).float(){scaling}
with torch.inference_mode():
    np.savez(sys.argv[2], **{{head: y.numpy() for head, y in network(raw).items()}})
"""

README = """\
# {title}

{description}

Input (N, {channels}, Z, Y, X), {read}. Voxels are {voxel} nm (z, y, x).
Convolutions are valid: the output is {context} voxels (z, y, x) smaller than the input and lies in
its middle. The smallest input is {least}; every axis may grow in steps of {step}.

| output | channels | values |
|---|---|---|
{outputs}

## Without any workflow

Beside `network.py`, `config.json` and `model.safetensors`, with `torch` and `safetensors` alone
(`python load.py test_input.npy outputs.npz`):

```python
{code}```

## Validation

`bioimageio test {zip}` (bioimageio.core) compares the outputs of `test_input.npy` with the
`test_output_*.npy` that lie here, which the network gave when it was packaged.
"""


def package_files(
    model: Path,
    network: Mapping[str, Any],
    dataset: Mapping[str, Any],
    authors: Sequence[str],
    licence: str,
) -> dict[str, bytes]:
    """The files of a package, by name: the same bytes for the same weights.

    `dataset`: name and voxel_size_nm (z, y, x). ConfigError for a family without a package form,
    DataError where `model` does not fit `network`.
    """
    family = _family(network)
    module = build_network(network)
    metadata = load_model(model, module, network)
    module.eval()
    tested = _test_tensors(module, network)
    files = {
        "network.py": _network_py(family, network).encode(),
        "config.json": _json(_config(network, dataset, metadata)),
        "model.safetensors": model.read_bytes(),
        "weights.pt": _state_dict(module),
        "load.py": load_py(network).encode(),
        **{name: _npy(values) for name, values in tested.items()},
    }
    about = _About(network, dataset, authors, licence, metadata, module)
    files["README.md"] = about.readme().encode()
    files["rdf.yaml"] = about.rdf(files, family).encode()
    return files


def write_package(files: Mapping[str, bytes], folder: Path, archive: Path) -> None:
    """The files into `folder`, and as one zip, whose bytes depend on the files alone."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in sorted(files.items()):
            (folder / name).write_bytes(content)
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    atomic_write(archive, buffer.getvalue())


def load_py(network: Mapping[str, Any]) -> str:
    """The ten lines that run a packaged network."""
    return TEN_LINES.format(scaling=" / 255 * 2 - 1" if is_scaled(network) else "")


def is_scaled(network: Mapping[str, Any]) -> bool:
    """Whether a network reads raw alone, uint8, which it wants in [-1, 1]."""
    return network["family"] == "lsd" and network["input_channels"] == 1


def _family(network: Mapping[str, Any]) -> dict[str, Any]:
    if network["family"] not in FAMILIES:
        raise ConfigError(
            f"network {network['name']!r}: no package form of the family {network['family']!r}; "
            f"{nearest(network['family'], FAMILIES)}"
        )
    return FAMILIES[network["family"]]


def _network_py(family: Mapping[str, Any], network: Mapping[str, Any]) -> str:
    title = (
        f"The network {network['name']} of retrace {__version__} with all it needs beside torch."
    )
    entry = ENTRY.format(builder=family["builder"])
    return single_file(family["module"], title) + entry


def _config(
    network: Mapping[str, Any], dataset: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    known = {key: metadata[key] for key in ("iteration", "source") if key in metadata}
    return {"network": network, "dataset": dataset, **known, "retrace": __version__}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _state_dict(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, buffer)
    return buffer.getvalue()


def _test_tensors(module: Any, network: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Input (1, C, Z, Y, X) and the output of each head, by file name; the same at every call."""
    shape = module.valid_shape(TEST_OUTPUT)
    values = _smooth_noise((network["input_channels"], *shape))[None]
    scaled = is_scaled(network)
    stored = (np.round(values * 255) if scaled else values).astype(np.float32)
    read = torch.from_numpy(stored)
    with torch.inference_mode():
        outputs = module(read / 255 * 2 - 1 if scaled else read)
    tested = {f"test_output_{head}.npy": y.float().numpy() for head, y in outputs.items()}
    return {"test_input.npy": stored, **tested}


def _smooth_noise(shape: Sequence[int]) -> np.ndarray:
    """Noise (C, Z, Y, X) smoothed along z, y, x, stretched to [0, 1]."""
    values = np.random.default_rng(SEED).random(tuple(shape))
    for axis in range(1, values.ndim):
        for _ in range(min(SHORTEST_BLUR, values.shape[axis] - 1)):
            values = (values + np.roll(values, 1, axis)) / 2
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low))


class _About:
    """What a package says about itself."""

    def __init__(
        self,
        network: Mapping[str, Any],
        dataset: Mapping[str, Any],
        authors: Sequence[str],
        licence: str,
        metadata: Mapping[str, Any],
        module: Any,
    ) -> None:
        self.network, self.dataset, self.module = network, dataset, module
        self.authors, self.licence = authors, licence
        self.title = f"{dataset['name']} {network['name']}"
        iteration = metadata.get("iteration")
        made = "" if iteration is None else f", iteration {iteration}"
        self.description = (
            f"Network {network['name']} (family {network['family']}) trained on "
            f"{dataset['name']}{made}: electron microscopy to "
            f"{' and '.join(head['name'] for head in network['heads'])}."
        )

    def readme(self) -> str:
        """README.md: what is read and given, and how to run it."""
        module, rows = self.module, []
        for head in self.network["heads"]:
            rows.append(f"| `{head['name']}` | {head['channels']} | float32 |")
        return README.format(
            title=self.title,
            description=self.description,
            channels=self.network["input_channels"],
            read=self._read(),
            voxel=list(self.dataset["voxel_size_nm"]),
            context=list(module.context),
            least=list(module.valid_shape(TEST_OUTPUT)),
            step=list(module.stride),
            outputs="\n".join(rows),
            code=load_py(self.network),
            zip="package.zip",
        )

    def _read(self) -> str:
        if is_scaled(self.network):
            return "float32: grey values of raw, 0 to 255, which are read as 2 v / 255 - 1"
        if self.network["family"] == "lsd":
            return (
                "float32: raw in [-1, 1] (where there is raw), then predicted descriptors in [0, 1]"
            )
        if self.network["family"] == "elektronn":
            return "float32, grey values of raw divided by 255"
        return "float32, on the scale that `preprocess` of the data set gave in training"

    def rdf(self, files: Mapping[str, bytes], family: Mapping[str, Any]) -> str:
        """rdf.yaml; `files`: all others."""
        content = {
            "format_version": FORMAT_VERSION,
            "type": "model",
            "name": self.title,
            "description": self.description,
            "authors": [{"name": name} for name in self.authors],
            "cite": [family["cite"]],
            "license": self.licence,
            "documentation": _file("README.md", files),
            "attachments": [
                _file(name, files) for name in ("config.json", "load.py", "model.safetensors")
            ],
            "tags": ["electron-microscopy", "connectomics", "3d", "segmentation", "pytorch"],
            "inputs": [self._input(files)],
            "outputs": [self._output(head, files) for head in self.network["heads"]],
            "weights": {"pytorch_state_dict": self._weights(files, family)},
            "config": {"bioimageio": {"reproducibility_tolerance": [TOLERANCE]}},
        }
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def _weights(self, files: Mapping[str, bytes], family: Mapping[str, Any]) -> dict[str, Any]:
        needed = {key: self.network[key] for key in family["settings"] if key in self.network}
        plain = json.loads(json.dumps(needed))
        return {
            **_file("weights.pt", files),
            "pytorch_version": torch.__version__.split("+")[0],
            "architecture": {
                **_file("network.py", files),
                "callable": "bioimageio_model",
                "kwargs": plain,
            },
        }

    def _input(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        scaled, least = is_scaled(self.network), self.module.valid_shape(TEST_OUTPUT)
        sizes = [
            {"min": int(size), "step": int(step)}
            for size, step in zip(least, self.module.stride, strict=True)
        ]
        scaling = {"id": "scale_linear", "kwargs": {"gain": 2 / 255, "offset": -1.0}}
        return {
            "id": "raw",
            "description": self._read(),
            "axes": self._axes(self.network["input_channels"], "raw", sizes),
            "data": {"type": "float32"},  # also of grey values: programs cast back to this
            "preprocessing": [scaling] if scaled else [],
            "test_tensor": _file("test_input.npy", files),
        }

    def _output(self, head: Mapping[str, Any], files: Mapping[str, bytes]) -> dict[str, Any]:
        sizes = [
            {"tensor_id": "raw", "axis_id": axis, "offset": -int(lost)}
            for axis, lost in zip("zyx", self.module.context, strict=True)
        ]
        return {
            "id": head["name"],
            "description": f"{head['name']}, {head['channels']} channels",
            "axes": self._axes(head["channels"], head["name"], sizes),
            "data": {"type": "float32"},
            "test_tensor": _file(f"test_output_{head['name']}.npy", files),
        }

    def _axes(
        self, channels: int, name: str, sizes: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        named = [f"{name}{index}" for index in range(channels)]
        space = [
            {"type": "space", "id": axis, "unit": "nanometer", "scale": float(edge), "size": size}
            for axis, edge, size in zip("zyx", self.dataset["voxel_size_nm"], sizes, strict=True)
        ]
        return [{"type": "batch"}, {"type": "channel", "channel_names": named}, *space]


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}
