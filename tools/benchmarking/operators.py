"""Describe operators to the benchmark: arguments, implementations, workload, and the check against the reference.

Shapes: B batch, L tokens, E channels, N state, H heads of d channels, V channels of a value.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from benchmarking.machine import Machine, size_in_bytes
from torch import Tensor

PASSES = ('forward', 'forward + backward')
# Largest error relative to the largest value, as in the operator tests. For half types, one rounding of the result.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-11}
PROXY_TOLERANCE = 1e-9
# Factor for implementations that round intermediate results to a half type: later operators, such as norms, amplify
# the error. If the reference, which then rounds at the same places, has a larger error, twice that error is allowed.
INTERMEDIATE_ROUNDING = 8

Function = Callable[..., Tensor]


class Shape(NamedTuple):
    """B, L and E. E is the inner width of Mamba; attention in a network of the same width has E / 2 channels."""

    batch: int
    length: int
    channels: int


@dataclass(frozen=True, eq=False)
class Operator:
    """An operator with its implementations and its workload.

    Attributes:
        name: Name of the operator.
        description: Paragraph above the table in the report.
        make: Function from a shape, the type of the activations and a device to named tensors.
        like: Name of the tensor that has the shape and type of the result.
        implementations: Functions of these tensors by name, fastest first; contains 'reference'.
        rounding: Implementations that round intermediate results to half types.
        foreign: Implementations of other packages, whose errors are reported and are no errors of ours.
        comparable: Function from a shape to its largest part on which the reference, with gradients in float64, fits
            into memory.
        exponentials: Number of exponentials in a forward pass.
        matrix_flops: Lower bound of the FLOPs of matrix products in a forward pass.
        yardstick: Name, and a function from a machine, a shape and a type to the seconds of each pass.
        proxy: Implementation that, in float64, replaces the reference beyond the comparable part, provided that the
            two agree on that part. None checks the comparable part only.
    """

    name: str
    description: str
    make: Callable[[Shape, torch.dtype, torch.device], dict[str, Tensor]]
    like: str
    implementations: dict[str, Function]
    comparable: Callable[[Shape], Shape]
    exponentials: Callable[[Shape], int]
    yardstick: tuple[str, Callable[[Machine, Shape, torch.dtype], dict[str, float]]]
    matrix_flops: Callable[[Shape], int] = lambda shape: 0
    rounding: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    proxy: str | None = None

    def obstacles(self, shape: Shape, dtype: torch.dtype, device: torch.device) -> dict[str, str | None]:
        """Return for each implementation None if it runs on this device, else the reason; it is tried on one token."""
        tensors = self.make(shape._replace(batch=1, length=1), dtype, device)
        return {name: obstacle(function, tensors) for name, function in self.implementations.items()}

    def bytes_moved(self, tensors: dict[str, Tensor], passes: str) -> int:
        """Return the bytes of arguments and results, each once per pass; the backward pass adds gradients."""
        arguments, results = sum(map(size_in_bytes, tensors.values())), size_in_bytes(tensors[self.like])
        return arguments + results if passes == 'forward' else 3 * arguments + 2 * results


def obstacle(function: Function, tensors: dict[str, Tensor]) -> str | None:
    """Return the reason if the backend is unavailable, None if it runs; other errors propagate."""
    try:
        forward(function, tensors)
    except RuntimeError as error:
        if str(error).startswith('backend '):
            return str(error)
        raise
    return None


def forward(function: Function, tensors: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return function(**tensors)


def forward_backward(function: Function, tensors: dict[str, Tensor], grad_output: Tensor) -> list[Tensor]:
    """Return the result and the gradients of all arguments that require one."""
    y = function(**tensors)
    return [y.detach(), *torch.autograd.grad(y, [x for x in tensors.values() if x.requires_grad], grad_output)]


def largest_error(actual: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest error of all tensors, relative to the largest expected value; NaN counts as infinite."""
    errors = [((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, expected, strict=True)]
    return max(float('inf') if error != error else error for error in errors)


class Check:
    """Compare implementations with the reference in float64, on the timed shape or on a part of it.

    Args:
        operator: Operator under test.
        shape: Batch, tokens and channels.
        dtype: Type of the activations.
        machine: Device to run on.
        passes: 'forward' compares results; any other value also compares the gradients of all arguments.
    """

    def __init__(self, operator: Operator, shape: Shape, dtype: torch.dtype, machine: Machine, passes: str) -> None:
        self.operator, self.dtype, self.passes = operator, dtype, passes
        # Timing the machine draws a varying number of random values. A fixed seed makes the check reproducible: the
        # error depends on the data, because norms amplify errors when they divide by small values.
        torch.manual_seed(0)
        part = operator.comparable(shape)
        self.whole = part == shape
        self._expect('reference', operator.make(part, dtype, machine.device))
        if not self.whole and operator.proxy is not None:
            proxy = self._exact(operator.implementations[operator.proxy])
            if largest_error(proxy, self.expected) <= PROXY_TOLERANCE:
                self._expect(operator.proxy, operator.make(shape, dtype, machine.device))

    def _expect(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.grad_output = torch.randn_like(tensors[self.operator.like])
        self.expected = self._exact(self.operator.implementations[name])

    def error(self, function: Function) -> float:
        return largest_error(self._run(function, self.tensors, self.grad_output), self.expected)

    def tolerance(self, name: str) -> float:
        """Return the largest error with which the implementation passes."""
        if name not in self.operator.rounding or self.dtype == torch.float32:
            return TOLERANCES[self.dtype]
        return max(INTERMEDIATE_ROUNDING * TOLERANCES[self.dtype], 2 * self._error_of_reference)

    @cached_property
    def _error_of_reference(self) -> float:
        return self.error(self.operator.implementations['reference'])

    def _exact(self, function: Function) -> list[Tensor]:
        tensors = {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in self.tensors.items()}
        return self._run(function, tensors, self.grad_output.double())

    def _run(self, function: Function, tensors: dict[str, Tensor], grad_output: Tensor) -> list[Tensor]:
        if self.passes == 'forward':
            return [forward(function, tensors)]
        return forward_backward(function, tensors, grad_output)
