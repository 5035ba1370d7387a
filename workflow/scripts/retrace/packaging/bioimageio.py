"""Packs a trained network to run without retrace: as a bioimage.io model, and in ten lines.

Format: github.com/bioimage-io/spec-bioimage-io, model 0.5. The weights are stored twice: as
weights.pt for programs that read bioimage.io, and as model.safetensors with the same tensors, which
executes no code when it is loaded.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from retrace import __version__
from retrace.checkpoints.safetensors import load_model
from retrace.config.families import family_named
from retrace.config.network_settings import NetworkSettings
from retrace.files import atomic_write
from retrace.packaging.description import PackageDescription, load_py
from retrace.packaging.family import FamilyPackage
from retrace.packaging.single_file import single_file
from retrace.planning.package_settings import PackageSettings
from retrace.settings_model import as_plain

ENTRY = '''

# ---------------- how a package is opened


def build({parsed}**arguments):
    """The network in evaluation mode, with output {{head: tensor}}.

    Takes the `arguments` in config.json.
    """
    return {call}.eval()


def bioimageio_model(**arguments):
    """The same with a tuple of the outputs, as bioimage.io expects."""
    module = build(**arguments)
    module.register_forward_hook(lambda _, inputs, outputs: tuple(outputs.values()))
    return module
'''


def package_files(model: Path, settings: PackageSettings) -> dict[str, bytes]:
    """The files of a package by name; equal weights and settings give equal bytes.

    `model`: model.safetensors. DataError if it does not fit the network.
    """
    network: Any = settings.network
    family = family_package(network)
    arguments = family.builder.arguments(network)
    module = family.builder.build(**arguments)
    metadata = load_model(model, module, network)
    interface = family.interface(module.eval(), network, settings.dataset, metadata)
    files = {
        "network.py": _network_py(family, network.name).encode(),
        "config.json": _json(_config(settings, arguments, metadata)),
        "model.safetensors": model.read_bytes(),
        "weights.pt": _state_dict(module),
        "load.py": load_py(interface).encode(),
    }
    for tensor in (*interface.inputs, *interface.outputs):
        files[interface.file(tensor)] = _npy(tensor.test)
    iteration = metadata.get("iteration")
    description = PackageDescription(settings, family, interface, arguments, iteration)
    files["README.md"] = description.readme().encode()
    files["rdf.yaml"] = description.rdf(files).encode()
    return files


def family_package(network: NetworkSettings) -> FamilyPackage:
    """How networks of this family are packaged."""
    family = family_named(network.family, f"network {network.name!r}")
    package: FamilyPackage = family.load("package")
    return package


def write_package(files: Mapping[str, bytes], folder: Path, archive: Path) -> None:
    """Writes the files to `folder` and to a zip, whose bytes depend only on the files."""
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in sorted(files.items()):
            (folder / name).write_bytes(content)
            packed.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    atomic_write(archive, buffer.getvalue())


def _network_py(family: FamilyPackage, network: str) -> str:
    title = f"The network {network} of retrace {__version__} in one file that needs only torch."
    parsed = "".join(f"{name}, " for name in family.parsed)
    return single_file(family.module, title) + ENTRY.format(parsed=parsed, call=family.call)


def _config(
    settings: PackageSettings, arguments: Mapping[str, Any], metadata: Mapping[str, Any]
) -> dict[str, Any]:
    origin = {key: metadata[key] for key in ("iteration", "source") if key in metadata}
    content = {"arguments": arguments, "network": settings.network, "dataset": settings.dataset}
    return {**content, **origin, "retrace": __version__}


def _json(content: Mapping[str, Any]) -> bytes:
    """Keys keep their order: that of the heads is that of the outputs."""
    return (json.dumps(content, indent=1, default=as_plain) + "\n").encode()


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _state_dict(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, buffer)
    return buffer.getvalue()
