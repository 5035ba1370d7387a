"""README.md and rdf.yaml of a package."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from retrace.formats.normalize import as_setting
from retrace.packaging.family import FamilyPackage
from retrace.packaging.interface import PackageInterface, PackageTensor
from retrace.planning.package_settings import PackagedDataset, PackageSettings
from retrace.settings_model import plain_value

FORMAT_VERSION = "0.5.12"
"""Version of bioimage.io's model description."""
TOLERANCE = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4}
"""How much outputs of another machine may differ from the test outputs."""

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

## Run it without retrace

These lines are in `load.py`. They need only torch, safetensors and numpy, and the files
`network.py`, `config.json` and `model.safetensors` of this folder
(`python load.py {tests} outputs.npz`):

```python
{code}```

## Validation

`bioimageio test package.zip` (bioimageio.core) compares the outputs for {inputs} with the
`test_output_*.npy` in this folder, which the network computed when it was packaged.
"""


def _normalized(dataset: PackagedDataset) -> str:
    """How the images of the training became grey values; other images need the like."""
    settings = [as_setting(n.range, n.invert, n.percentiles) for n in dataset.normalize]
    if not settings:
        return ""
    return (
        f"\n\nThe images of the training became grey values v by {', '.join(settings)}: v = 255 "
        "(stored - low) / (high - low), cut to 0 and 255 and rounded, then 255 - v with `invert`. "
        "Convert other images alike before the network reads them."
    )


def load_py(interface: PackageInterface) -> str:
    """The ten lines that run a packaged network."""
    return TEN_LINES.format(scaling=interface.scaling.code() if interface.scaling else "")


@dataclass(frozen=True)
class PackageDescription:
    """Texts about a package. `arguments`: of the network, as in config.json."""

    settings: PackageSettings
    family: FamilyPackage
    interface: PackageInterface
    arguments: Mapping[str, Any]
    iteration: int | None

    @property
    def title(self) -> str:
        """Dataset and network."""
        return f"{self.settings.dataset.name} {self.settings.network.name}"

    @property
    def sentence(self) -> str:
        """The network, its training data and what it does."""
        network = self.settings.network
        iteration = "" if self.iteration is None else f", iteration {self.iteration}"
        return (
            f"Network {network.name} (family {network.family}) trained on "
            f"{self.settings.dataset.name}{iteration}: {self.interface.summary}."
        )

    def readme(self) -> str:
        """README.md: inputs, outputs, and how to run the network."""
        interface = self.interface
        tests = [interface.file(tensor) for tensor in interface.inputs]
        rows = [f"| `{t.name}` | {t.test.shape[1]} | {t.test.dtype} |" for t in interface.outputs]
        return README.format(
            title=self.title,
            description=self.sentence,
            reading=f"{interface.reading}{_normalized(self.settings.dataset)}",
            outputs="\n".join(rows),
            tests=" ".join(tests),
            inputs=" and ".join(f"`{name}`" for name in tests),
            code=load_py(interface),
        )

    def rdf(self, files: Mapping[str, bytes]) -> str:
        """rdf.yaml; `files`: all other files of the package."""
        interface, settings = self.interface, self.settings
        content = {
            "format_version": FORMAT_VERSION,
            "type": "model",
            "name": self.title,
            "description": self.sentence,
            "authors": [{"name": name} for name in settings.authors],
            "cite": [dict(self.family.citation)],
            "license": settings.license,
            "documentation": _file("README.md", files),
            "attachments": [
                _file(name, files) for name in ("config.json", "load.py", "model.safetensors")
            ],
            "tags": [*interface.tags, "pytorch"],
            "inputs": [{**self._tensor(t, files), **self._scaled()} for t in interface.inputs],
            "outputs": [self._tensor(tensor, files) for tensor in interface.outputs],
            "weights": {"pytorch_state_dict": self._weights(files)},
            "config": {"bioimageio": {"reproducibility_tolerance": [TOLERANCE]}},
        }
        unshared = json.loads(json.dumps(content))  # otherwise YAML writes references
        return yaml.safe_dump(unshared, sort_keys=False, allow_unicode=True)

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

    def _tensor(self, tensor: PackageTensor, files: Mapping[str, bytes]) -> dict[str, Any]:
        return {
            "id": tensor.name,
            "description": tensor.description,
            "axes": tensor.axes,
            "data": {"type": "float32"},  # also for grey values: programs convert back to this
            "test_tensor": _file(self.interface.file(tensor), files),
        }

    def _scaled(self) -> dict[str, Any]:
        scaling = self.interface.scaling
        return {"preprocessing": [scaling.step()] if scaling else []}


def _file(name: str, files: Mapping[str, bytes]) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}
