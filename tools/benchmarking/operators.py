"""What an operator is to the benchmark: arguments, implementations, the work that they are, and the check of them.

Legend: B batch, L tokens, E channels, N state, H heads of d channels, V channels of a value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from benchmarking.machine import Machine, size_in_bytes
from torch import Tensor

PASSES = ('forward', 'forward + backward')
# The largest error over the largest value, as in the tests of the operators. In half types it is one rounding of the
# result.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
STAND_IN_TOLERANCE = 1e-9
# What is rounded to a half type between operators has an error that later ones, such as norms, amplify: that of the
# reference, where it rounds at the same places, says how much.
ROUNDED_BETWEEN = 8

Function = Callable[..., Tensor]


class Shape(NamedTuple):
    """B, L and E; attention has the width of a network whose Mamba would have E channels, E / 2."""

    batch: int
    length: int
    channels: int


@dataclass(frozen=True, eq=False)
class Operator:
    """One operator.

    Attributes:
        name: Its name.
        meaning: What the report says of it.
        make: Tensors by name, for a shape, a type of the activations and a device.
        like: Name of the tensor whose shape and type the result has.
        implementations: Functions of these tensors by name, from the fastest to the slowest. 'reference' is one.
        rounding: Names of those that round to half types on their way.
        comparable: The largest part of a shape whose reference, with gradients, fits into memory in float64.
        exponentials: How many a forward pass takes.
        matrix_flops: How many FLOPs of matrix products a forward pass takes at least.
        yardstick: A name, and the seconds of each pass for a machine, a shape and a type.
        stand_in: Name of the implementation that, in float64, takes the place of the reference where only a part of the
            shape is comparable, once it equals the reference on that part. None: the part stands for the whole.
    """

    name: str
    meaning: str
    make: Callable[[Shape, torch.dtype, torch.device], dict[str, Tensor]]
    like: str
    implementations: dict[str, Function]
    comparable: Callable[[Shape], Shape]
    exponentials: Callable[[Shape], int]
    yardstick: tuple[str, Callable[[Machine, Shape, torch.dtype], dict[str, float]]]
    matrix_flops: Callable[[Shape], int] = lambda shape: 0
    rounding: tuple[str, ...] = ()
    stand_in: str | None = None

    def runnable(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, Function]:
        """The implementations that can run here, tried on one token."""
        tensors = self.make(shape._replace(batch=1, length=1), dtype, device)
        return {name: function for name, function in self.implementations.items() if runs(function, tensors)}

    def bytes_moved(self, tensors: dict[str, Tensor], passes: str) -> int:
        """Bytes of arguments and results, once per pass; with the backward pass also gradients."""
        arguments, results = sum(map(size_in_bytes, tensors.values())), size_in_bytes(tensors[self.like])
        return arguments + results if passes == 'forward' else 3 * arguments + 2 * results


def runs(function: Function, tensors: dict[str, Tensor]) -> bool:
    """Whether the backend of a function can be had; other errors pass."""
    try:
        forward(function, tensors)
    except RuntimeError as error:
        if str(error).startswith('backend '):
            return False
        raise
    return True


def forward(function: Function, tensors: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return function(**tensors)


def forward_backward(function: Function, tensors: dict[str, Tensor], incoming: Tensor) -> list[Tensor]:
    """The result and the gradients of all arguments that have one."""
    y = function(**tensors)
    return [y.detach(), *torch.autograd.grad(y, [x for x in tensors.values() if x.requires_grad], incoming)]


def largest_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference over the largest value, the worst of all tensors; NaN counts as infinite."""
    errors = [((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, expected, strict=True)]
    return max(float('inf') if error != error else error for error in errors)


class Check:
    """Compares implementations with the reference in float64, on the numbers that are timed or on a part of them.

    Args:
        passes: 'forward' compares results alone, else gradients of all arguments too.
    """

    def __init__(self, operator: Operator, shape: Shape, dtype: torch.dtype, machine: Machine, passes: str) -> None:
        self.operator, self.dtype, self.passes = operator, dtype, passes
        # Measuring the machine draws random numbers for a time, so that others would follow in every run; and a norm
        # amplifies errors the more the smaller what it divides by.
        torch.manual_seed(0)
        part = operator.comparable(shape)
        self.whole = part == shape
        self._expect('reference', operator.make(part, dtype, machine.device))
        if not self.whole and operator.stand_in is not None:
            stand_in = self._exact(operator.implementations[operator.stand_in])
            if largest_error(stand_in, self.expected) <= STAND_IN_TOLERANCE:
                self._expect(operator.stand_in, operator.make(shape, dtype, machine.device))

    def _expect(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.incoming = torch.randn_like(tensors[self.operator.like])
        self.expected = self._exact(self.operator.implementations[name])

    def error(self, function: Function) -> float:
        return largest_error(self._run(function, self.tensors, self.incoming), self.expected)

    def allowed(self, name: str) -> float:
        """The largest error that the implementation may have."""
        if name not in self.operator.rounding or self.dtype == torch.float32:
            return TOLERANCES[self.dtype]
        return max(ROUNDED_BETWEEN * TOLERANCES[self.dtype], 2 * self._error_of_reference)

    @cached_property
    def _error_of_reference(self) -> float:
        return self.error(self.operator.implementations['reference'])

    def _exact(self, function: Function) -> list[Tensor]:
        tensors = {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in self.tensors.items()}
        return self._run(function, tensors, self.incoming.double())

    def _run(self, function: Function, tensors: dict[str, Tensor], incoming: Tensor) -> list[Tensor]:
        if self.passes == 'forward':
            return [forward(function, tensors)]
        return forward_backward(function, tensors, incoming)
