"""A module's forward pass on a CPU by OpenVINO, which is faster than torch's.

OpenVINO keeps feature maps in the layout of its convolutions from layer to layer, computes ReLU in
the same pass as the convolution before it, and in bf16 keeps maps in bf16. Models are compiled for
one input shape, whose buffers are planned before the start.
"""

from __future__ import annotations

import importlib
import math
import platform
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from retrace.device import cpu_multiplies_bf16, use_huge_pages
from retrace.networks.value_bounds import largest_sum

Shapes = tuple[tuple[int, ...], ...]
LARGEST_SUM = 1e35
"""Sums in a network stay below it: float32 and bfloat16 end at 3e38, and several sums are added."""
OUT_OF_MEMORY = ("allocate", "bad_alloc")
"""Words in OpenVINO's errors when memory is short."""
Outputs = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


def obstacle(module: nn.Module, *, bf16: bool = False) -> str | None:
    """Why OpenVINO does not compute this module on this machine as torch would; None if it does."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"OpenVINO has not been measured on {platform.machine()}"
    if (missing := _import_error()) is not None:
        return missing
    if any(values.dtype == torch.float64 for values in module.parameters()):
        return "OpenVINO has no float64"
    if any(getattr(part, "mode", "direct") != "direct" for part in module.modules()):
        return "convolutions by Fourier transforms are torch's"
    if bf16 and not cpu_multiplies_bf16():
        return "this processor has no bf16 products"
    return None


def engine_version() -> str:
    """Name and version of the engine, for manifests: "openvino 2026.4.1"."""
    return "openvino " + importlib.import_module("openvino").__version__.split("-")[0]


@cache
def _import_error() -> str | None:
    try:
        importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    except (ImportError, OSError) as error:
        return f"OpenVINO cannot be imported ({error})"
    return None


class EngineError(Exception):
    """OpenVINO does not compute a module."""


class CpuEngine:
    """Computes what `module(*inputs)` returns in evaluation: a tensor, a tuple, or a dict of them.

    It agrees with torch to the rounding of sums (1e-6 in float32 in [0, 1], 1e-3 in bf16), and its
    values depend on the input and its shape alone, not on the number of threads (torch's).

    OpenVINO's max(NaN, 0) is 0, so values that overflow inside a network would look like others in
    its output. Inputs with which that may happen are therefore refused.
    """

    def __init__(
        self,
        module: nn.Module,
        smallest: Sequence[Sequence[int]],
        *,
        bf16: bool = False,
        kept: int = 1,
    ) -> None:
        """`smallest`: shapes of inputs of which one pass of torch records the operations.

        `bf16`: round factors of products to bfloat16. `kept`: how many input shapes stay compiled,
        each with its buffers and a copy of the weights. EngineError if OpenVINO lacks an operation,
        or if the module computes sizes in Python, so that the recorded ones hold for `smallest`
        alone, or if values may overflow even with inputs from -1 to 1.
        """
        self._bf16, self._kept = bf16, kept
        self._module, self._smallest, self._largest = module.eval(), smallest, 0.0
        self._check_range(1.0)
        self._flat = _Flat(module)
        self._graph = _graph(self._flat, tuple(_varied(shape) for shape in smallest))
        self._compiled: dict[Shapes, Any] = {}

    def __call__(self, *inputs: Tensor) -> Outputs:
        """The outputs, float32, in new memory; errors as of `in_place`."""
        return self._flat.structured([output.clone() for output in self._outputs(*inputs)])

    def in_place(self, *inputs: Tensor) -> Outputs:
        """The outputs in OpenVINO's own memory: the next pass overwrites them.

        MemoryError if there is too little memory; EngineError if values may overflow, or if
        OpenVINO has no implementation of an operation for this processor.
        """
        return self._flat.structured(self._outputs(*inputs))

    def _outputs(self, *inputs: Tensor) -> list[Tensor]:
        try:
            return self._computed(*inputs)
        except RuntimeError as error:
            if any(words in str(error) for words in OUT_OF_MEMORY):
                raise MemoryError(_last_line(error)) from error
            raise EngineError(f"OpenVINO fails ({_last_line(error)})") from error

    def _computed(self, *inputs: Tensor) -> list[Tensor]:
        request = self._request(tuple(tuple(value.shape) for value in inputs))
        arrays = [value.detach().float().contiguous().numpy() for value in inputs]
        self._check_range(max(float(max(-array.min(), array.max())) for array in arrays))
        for place, array in enumerate(arrays):
            request.set_input_tensor(place, _shared(array))
        request.infer()
        return [torch.from_numpy(output.data) for output in request.output_tensors]

    def _check_range(self, largest: float) -> None:
        """EngineError unless inputs of this magnitude can make no value overflow."""
        if largest <= self._largest:
            return
        bound = largest_sum(self._module, self._smallest, largest)
        if not bound < LARGEST_SUM:
            raise EngineError(
                f"values may overflow with inputs up to {largest:.3g}, which OpenVINO would hide"
            )
        self._largest = largest

    def _request(self, shapes: Shapes) -> Any:
        """The compiled model for inputs of these shapes; the least recently used one is dropped."""
        request = self._compiled.pop(shapes, None)
        if request is None:
            while len(self._compiled) >= self._kept:
                self._compiled.pop(next(iter(self._compiled)))
            request = self._compile(shapes).create_infer_request()
            use_huge_pages()  # of the maps that are planned now and used in the first pass
        self._compiled[shapes] = request
        return request

    def _compile(self, shapes: Shapes) -> Any:
        model = self._graph.clone()
        model.reshape(dict(enumerate(map(list, shapes))))
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self._bf16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Several jobs of a machine would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        return _core().compile_model(model, "CPU", options)


class _Flat(nn.Module):
    """A module whose outputs are a tuple; `structured` gives them their names again."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._names: list[str] | None = None
        self._single = False

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.module(*inputs)
        self._single = isinstance(outputs, Tensor)
        self._names = list(outputs) if isinstance(outputs, Mapping) else None
        values = outputs.values() if isinstance(outputs, Mapping) else outputs
        return (outputs,) if self._single else tuple(values)

    def structured(self, outputs: Sequence[Tensor]) -> Outputs:
        """`outputs` as the module returns them."""
        if self._names is not None:
            return dict(zip(self._names, outputs, strict=True))
        return outputs[0] if self._single else tuple(outputs)


def _openvino() -> Any:
    return importlib.import_module("openvino")


@cache
def _core() -> Any:
    return _openvino().Core()


def _shared(array: np.ndarray) -> Any:
    """An OpenVINO tensor in the memory of `array`."""
    return _openvino().Tensor(array, shared_memory=True)


def _varied(shape: Sequence[int]) -> Tensor:
    """Values from -1 to 1, so that a pass meets what happens with images."""
    return torch.linspace(-1, 1, math.prod(shape)).reshape(*shape)


def _graph(flat: _Flat, inputs: tuple[Tensor, ...]) -> Any:
    """OpenVINO's graph of a module, from one pass with `inputs`; EngineError if there is none."""
    with warnings.catch_warnings(record=True) as caught, torch.no_grad():
        warnings.simplefilter("always")
        traced = torch.jit.trace(flat, inputs, strict=False, check_trace=False)
    for warning in caught:
        if issubclass(warning.category, torch.jit.TracerWarning):
            raise EngineError("sizes in this network are computed in Python, not recorded")
    return _converted(traced, inputs)


def _converted(traced: Any, inputs: tuple[Tensor, ...]) -> Any:
    """By OpenVINO's frontend, not `openvino.convert_model`, which first imports for three seconds
    what is not needed here."""
    frontends = importlib.import_module("openvino.frontend")
    decoders = importlib.import_module("openvino.frontend.pytorch.ts_decoder")
    decoder = decoders.TorchScriptPythonDecoder(traced, example_input=inputs)
    frontend = frontends.FrontEndManager().load_by_framework("pytorch")
    try:
        return frontend.convert(frontend.load(decoder))
    except (RuntimeError, frontends.OpConversionFailure) as error:
        raise EngineError(f"OpenVINO lacks an operation ({_last_line(error)})") from error


def _last_line(error: Exception) -> str:
    """What an error of OpenVINO says after the places in its code."""
    return str(error).strip().splitlines()[-1].lstrip(" -")
