"""How large the values inside a network can become, for any image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

CONVOLUTIONS = (functional.conv2d, functional.conv3d)


@torch.no_grad()
def largest_sum(module: nn.Module, shapes: Sequence[Sequence[int]], largest: float) -> float:
    """A bound of the magnitude of all sums that layers of `module` compute in a pass.

    It holds for all inputs of up to `largest` in magnitude; NaN or infinity if there is no bound.
    `shapes`: of valid inputs (1, C, ...), for each the smallest one will do. One pass is made with
    constant maps of both signs and the magnitudes of all weights. A convolution is then as large as
    it can be, and so are sums, maxima and monotonic functions of its output at one of both signs.
    """
    bound = 0.0

    def bounded(_: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        nonlocal bound
        if not isinstance(output, Tensor):
            return None
        others = [axis for axis in range(output.ndim) if axis != 1]
        magnitude = output.abs().amax(others, keepdim=True)
        bound = float(torch.stack([magnitude.amax(), torch.tensor(bound)]).amax())  # NaN stays
        # The batch is (plus, minus), or these two for each phase in turn.
        return (magnitude * _signs(output)).expand_as(output).clone()

    parts = [part for name, part in module.named_modules() if name] or [module]
    hooks = [part.register_forward_hook(bounded) for part in parts]
    magnitudes = {name: values.abs() for name, values in module.state_dict().items()}
    inputs = [torch.full((2, *shape[1:]), largest) for shape in shapes]
    try:
        with _ConstantMaps():
            torch.func.functional_call(module, magnitudes, tuple(x * _signs(x) for x in inputs))
    finally:
        for hook in hooks:
            hook.remove()
    return bound


def _signs(x: Tensor) -> Tensor:
    """1 and -1 in turn for the batch of `x` (N, C, ...)."""
    return (1.0 - 2.0 * (torch.arange(len(x)) % 2)).reshape(-1, *[1] * (x.ndim - 1))


class _ConstantMaps(TorchFunctionMode):
    """Computes convolutions of constant maps from the sums of their filters, in little time."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func not in CONVOLUTIONS:
            return func(*args, **(kwargs or {}))
        x, weight, bias, *rest = args
        shape = func(x[:, :1], weight[:1, :1], None, *rest).shape[2:]
        sums = weight.flatten(2).sum(2) @ x.abs().transpose(0, 1).flatten(1).amax(1)
        sums = sums if bias is None else sums + bias
        return sums.reshape(1, -1, *[1] * len(shape)).expand(len(x), -1, *shape).clone()
