"""One measurement of an operator, and how it is made."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Check, Operator, Shape, forward, forward_backward

COLUMNS = ('B, L', 'type', 'implementation', 'pass', 'ms', 'µs / token')
MORE_COLUMNS = ('MB', 'GB/s', 'of copy, exp, mm', 'error')


@dataclass(frozen=True, eq=False)
class Measurement:
    """One pass of one implementation.

    Attributes:
        passes: One of :data:`PASSES`.
        error: The largest one of results and gradients.
        allowed: The largest error that is.
        yardstick: Seconds that the operator's yardstick takes.
        seconds: None where the implementation was refused.
        peak: Bytes that were allocated at a time.
        moved: Bytes of arguments, results and gradients.
        least: Seconds that the machine needs to copy these bytes, for the exponentials, and for the matrix products.
    """

    operator: Operator
    shape: Shape
    dtype: str
    implementation: str
    passes: str
    error: float
    allowed: float
    yardstick: float = float('nan')
    seconds: float | None = None
    peak: int = 0
    moved: int = 0
    least: tuple[float, ...] = ()

    @property
    def label(self) -> tuple[str, ...]:
        return f'{self.shape.batch}, {self.shape.length}', self.dtype, self.implementation

    @property
    def microseconds_per_token(self) -> float:
        assert self.seconds is not None
        return self.seconds * 1e6 / self.shape.batch / self.shape.length

    def same_work(self, other: 'Measurement') -> bool:
        """Whether another implementation did the same."""
        return self.operator is other.operator and self.label[:2] == other.label[:2] and self.passes == other.passes

    def yardstick_cells(self) -> tuple[str, ...]:
        per_token = self.yardstick * 1e6 / self.shape.batch / self.shape.length
        name, figures = f'({self.operator.yardstick[0]})', (f'{self.yardstick * 1e3:.3f}', f'{per_token:.2f}', '1.00')
        return (*self.label[:2], name, self.passes, *figures, '', '', '', '')

    def cells(self) -> tuple[str, ...]:
        if self.seconds is None:
            refused = f'NOT TIMED: error above {self.allowed:.1e}'
            return (*self.label, refused, *[''] * 6, f'{self.error:.1e}')
        return (
            *self.label,
            self.passes,
            f'{self.seconds * 1e3:.3f}',
            f'{self.microseconds_per_token:.2f}',
            f'{self.seconds / self.yardstick:.2f}',
            f'{self.peak / 1e6:.1f}',
            f'{self.moved / self.seconds / 1e9:.1f}',
            ', '.join(f'{least / self.seconds:.0%}' if least else '-' for least in self.least),
            f'{self.error:.1e}',
        )


def benchmark(
    operator: Operator,
    shape: Shape,
    dtype: torch.dtype,
    names: Sequence[str] | None,
    machine: Machine,
    passes: Sequence[str] = PASSES,
) -> Iterator[Measurement]:
    """Check and time the implementations of one operator for one shape and type.

    Args:
        names: Which of them; None for all. The reference is timed only where all of the shape is compared with it.
        passes: Which of :data:`PASSES`. For results alone the reference is not timed either.
    """
    check = Check(operator, shape, dtype, machine, passes[-1])
    tensors = operator.make(shape, dtype, machine.device)
    yardsticks = operator.yardstick[1](machine, shape, dtype)
    for name, function in operator.runnable(shape, dtype, machine.device).items():
        if names is not None and name not in names:
            continue
        if name == 'reference' and (passes != PASSES or not check.whole):
            continue
        begin = partial(Measurement, operator, shape, str(dtype).removeprefix('torch.'), name)
        error, allowed = check.error(function), check.allowed(name)
        if not error <= allowed:
            yield begin('', error, allowed)
            continue
        incoming = torch.randn_like(tensors[operator.like])
        runs = dict(
            zip(
                PASSES,
                (partial(forward, function, tensors), partial(forward_backward, function, tensors, incoming)),
                strict=True,
            )
        )
        for which in passes:
            exponentials, matrix_flops = operator.exponentials(shape), operator.matrix_flops(shape)
            if which != 'forward':  # which computes the exponentials again, and two products for each
                exponentials, matrix_flops = 2 * exponentials, 3 * matrix_flops
            moved = operator.bytes_moved(tensors, which)
            yield begin(
                which,
                error,
                allowed,
                yardsticks[which],
                machine.best_seconds(runs[which]),
                machine.peak_bytes(runs[which]),
                moved,
                machine.least_seconds(moved, exponentials, matrix_flops, dtype),
            )
