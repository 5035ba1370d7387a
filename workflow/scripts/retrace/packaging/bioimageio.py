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
from retrace.checkpoints.safetensors import load_model
from retrace.config.families import FAMILIES
from retrace.config.networks import as_settings
from retrace.files import atomic_write
from retrace.packaging.package_forms import PackageForm
from retrace.packaging.single_file import single_file
from retrace.packaging.tensors import Form, Port, form_of
from retrace.settings_model import as_plain, plain_value

FORMAT_VERSION = "0.5.12"
"""Of the model description."""
TOLERANCE = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4}
"""How far another machine's outputs may lie from the test outputs."""

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

TEN_LINES = """\
import json, sys
import numpy as np, torch
from safetensors.torch import load_file
from network import build

network = build(**json.load(open("config.json"))["arguments"])
network.load_state_dict(load_file("model.safetensors"))
inputs = [torch.from_numpy(np.load(path)).float(){scaling} for path in sys.argv[1:-1]]
with torch.inference_mode():
    np.savez(sys.argv[-1], **{{head: y.numpy() for head, y in network(*inputs).items()}})
"""

README = """\
# {title}

{description}

{reading}

| output | channels | values |
|---|---|---|
{outputs}

## Without any workflow

Next to `network.py`, `config.json` and `model.safetensors`, with only `torch`, `numpy` and
`safetensors` (`python load.py {tests} outputs.npz`):

```python
{code}```

## Validation

`bioimageio test {zip}` (bioimageio.core) compares the outputs of {inputs} with the
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

    `dataset`: name, and where it has voxels voxel_size_nm (z, y, x). ConfigError for an unknown
    family, DataError where `model` does not fit `network`.
    """
    network = as_settings(network)
    package: PackageForm = FAMILIES[network.family].load("package")
    arguments = package.builder.arguments(network)
    module = package.builder.build(**arguments)
    metadata = load_model(model, module, network)
    form = form_of(module.eval(), network, dataset, metadata)
    files = {
        "network.py": _network_py(package, network).encode(),
        "config.json": _json(_config(network, arguments, dataset, metadata)),
        "model.safetensors": model.read_bytes(),
        "weights.pt": _state_dict(module),
        "load.py": load_py(form).encode(),
        **{tensor_file(form, port): _npy(port.test) for port in (*form.inputs, *form.outputs)},
    }
    about = _About(network, arguments, dataset, authors, licence, metadata, form)
    files["README.md"] = about.readme().encode()
    files["rdf.yaml"] = about.rdf(files, package).encode()
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


def load_py(form: Form) -> str:
    """The ten lines that run a packaged network."""
    return TEN_LINES.format(scaling=form.scaling.code() if form.scaling else "")


def tensor_file(form: Form, port: Port) -> str:
    """The file of a tensor's test values."""
    if port in form.outputs:
        return f"test_output_{port.name}.npy"
    return "test_input.npy" if len(form.inputs) == 1 else f"test_input_{port.name}.npy"


def _network_py(package: PackageForm, network: Mapping[str, Any]) -> str:
    title = (
        f"The network {network['name']} of retrace {__version__} with all it needs beside torch."
    )
    parsed = "".join(f"{name}, " for name in package.parsed)
    entry = ENTRY.format(parsed=parsed, call=package.call)
    return single_file(package.module, title) + entry


def _config(
    network: Mapping[str, Any],
    arguments: Mapping[str, Any],
    dataset: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> dict[str, Any]:
    known = {key: metadata[key] for key in ("iteration", "source") if key in metadata}
    content = {"arguments": arguments, "network": network, "dataset": dataset}
    return {**content, **known, "retrace": __version__}


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


class _About:
    """What a package says about itself."""

    def __init__(
        self,
        network: Mapping[str, Any],
        arguments: Mapping[str, Any],
        dataset: Mapping[str, Any],
        authors: Sequence[str],
        licence: str,
        metadata: Mapping[str, Any],
        form: Form,
    ) -> None:
        self.arguments, self.form = arguments, form
        self.authors, self.licence = authors, licence
        self.title = f"{dataset['name']} {network['name']}"
        iteration = metadata.get("iteration")
        made = "" if iteration is None else f", iteration {iteration}"
        self.description = (
            f"Network {network['name']} (family {network['family']}) trained on "
            f"{dataset['name']}{made}: {form.becomes}."
        )

    def readme(self) -> str:
        """README.md: what is read and given, and how to run it."""
        form = self.form
        tests = [tensor_file(form, port) for port in form.inputs]
        rows = [f"| `{p.name}` | {p.test.shape[1]} | {p.test.dtype} |" for p in form.outputs]
        return README.format(
            title=self.title,
            description=self.description,
            reading=form.reading,
            outputs="\n".join(rows),
            tests=" ".join(tests),
            inputs=" and ".join(f"`{name}`" for name in tests),
            code=load_py(form),
            zip="package.zip",
        )

    def rdf(self, files: Mapping[str, bytes], package: PackageForm) -> str:
        """rdf.yaml; `files`: all others."""
        content = {
            "format_version": FORMAT_VERSION,
            "type": "model",
            "name": self.title,
            "description": self.description,
            "authors": [{"name": name} for name in self.authors],
            "cite": [dict(package.citation)],
            "license": self.licence,
            "documentation": _file("README.md", files),
            "attachments": [
                _file(name, files) for name in ("config.json", "load.py", "model.safetensors")
            ],
            "tags": [*self.form.tags, "pytorch"],
            "inputs": [{**self._port(p, files), **self._scaled()} for p in self.form.inputs],
            "outputs": [self._port(port, files) for port in self.form.outputs],
            "weights": {"pytorch_state_dict": self._weights(files)},
            "config": {"bioimageio": {"reproducibility_tolerance": [TOLERANCE]}},
        }
        alone = json.loads(json.dumps(content))  # else YAML refers from one place to another
        return yaml.safe_dump(alone, sort_keys=False, allow_unicode=True)

    def _weights(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            **_file("weights.pt", files),
            "pytorch_version": torch.__version__.split("+")[0],
            "architecture": {
                **_file("network.py", files),
                "callable": "bioimageio_model",
                "kwargs": plain_value(self.arguments),
            },
        }

    def _port(self, port: Port, files: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            "id": port.name,
            "description": port.description,
            "axes": port.axes,
            "data": {"type": "float32"},  # also of grey values: programs cast back to this
            "test_tensor": _file(tensor_file(self.form, port), files),
        }

    def _scaled(self) -> dict[str, Any]:
        scaling = self.form.scaling
        return {"preprocessing": [scaling.step()] if scaling else []}


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}
