"""Check and time the implementations of one operator."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import torch
from benchmarking.gpu_timing import Timing
from benchmarking.machine import Machine
from benchmarking.operators import PASSES, Check, Operator, Shape, forward, forward_backward

COLUMNS = ('B, L', 'type', 'implementation', 'pass', 'ms', 'µs / token')
MORE_COLUMNS = ('MB', 'GB/s', 'of copy, exp, mm', 'error')


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measurement of one pass of one implementation.

    Attributes:
        operator: Operator under test.
        shape: Batch, tokens and channels.
        dtype: Name of the activations' type, without the prefix ``torch.``.
        implementation: Name of the implementation.
        passes: One of :data:`PASSES`.
        error: Largest error of results and gradients.
        tolerance: Largest error with which the implementation is timed.
        yardstick: Seconds of the operator's yardstick.
        timing: Time of the fastest run; None if the implementation failed the check.
        peak: Peak of allocated memory in bytes.
        moved: Bytes of arguments, results and gradients.
        roofline: Seconds of memory traffic, exponentials and matrix products at the measured rates of the machine.
    """

    operator: Operator
    shape: Shape
    dtype: str
    implementation: str
    passes: str
    error: float
    tolerance: float
    yardstick: float = float('nan')
    timing: Timing | None = None
    peak: int = 0
    moved: int = 0
    roofline: tuple[float, ...] = ()

    @property
    def label(self) -> tuple[str, ...]:
        return f'{self.shape.batch}, {self.shape.length}', self.dtype, self.implementation

    @property
    def seconds(self) -> float | None:
        """Seconds of the fastest run; None if the implementation failed the check."""
        return None if self.timing is None else self.timing.seconds

    @property
    def of_exp(self) -> float | None:
        """Time of the operator's exponentials at the measured rate, as a share of the time of the call."""
        return self.roofline[1] / self.seconds if self.seconds and self.roofline[1] else None

    @property
    def microseconds_per_token(self) -> float:
        assert self.seconds is not None
        return self.seconds * 1e6 / self.shape.batch / self.shape.length

    @property
    def wrong(self) -> bool:
        """True if an implementation of this package failed the check."""
        return self.timing is None and self.implementation not in self.operator.foreign

    def same_work(self, other: 'Measurement') -> bool:
        """Return True if ``other`` measures the same operator, shape, type and pass."""
        return self.operator is other.operator and self.label[:2] == other.label[:2] and self.passes == other.passes

    def yardstick_cells(self) -> tuple[str, ...]:
        per_token = self.yardstick * 1e6 / self.shape.batch / self.shape.length
        name, figures = f'({self.operator.yardstick[0]})', (f'{self.yardstick * 1e3:.3f}', f'{per_token:.2f}', '1.00')
        return (*self.label[:2], name, self.passes, *figures, '', '', '', '')

    def cells(self) -> tuple[str, ...]:
        if self.timing is None:
            failed = f'NOT TIMED: error above {self.tolerance:.1e}'
            return (*self.label, failed, *[''] * 6, f'{self.error:.1e}')
        return (
            *self.label,
            self.passes,
            self.timing.milliseconds,
            f'{self.microseconds_per_token:.2f}',
            f'{self.timing.seconds / self.yardstick:.2f}',
            f'{self.peak / 1e6:.1f}',
            f'{self.moved / self.timing.seconds / 1e9:.1f}',
            ', '.join(f'{bound / self.timing.seconds:.0%}' if bound else '-' for bound in self.roofline),
            f'{self.error:.1e}',
        )

    def record(self) -> dict[str, object]:
        """Return the measurement as data for a JSON file; times in seconds, sizes in bytes."""
        timing = {} if self.timing is None else asdict(self.timing)
        names = ('dtype', 'implementation', 'passes', 'error', 'tolerance', 'yardstick', 'peak', 'of_exp')
        return {'operator': self.operator.name, **self.shape._asdict(), **timing} | {n: getattr(self, n) for n in names}


# Columns of reports from a GPU, where exponentials run in registers and calls can be captured.
GPU_COLUMNS: dict[str, Callable[[Measurement], str]] = {
    'of exp': lambda measurement: f'{measurement.of_exp:.0%}' if measurement.of_exp else '',
    'graph ms': lambda measurement: measurement.timing.graph_milliseconds if measurement.timing else '',
}


def _error(check: Check, name: str) -> float:
    """Return the error of an implementation; one of another package that fails has an infinite error."""
    try:
        return check.error(check.operator.implementations[name])
    except Exception as error:
        if name not in check.operator.foreign:
            raise
        print(f'{check.operator.name} {name}: {type(error).__name__}: {error}', flush=True)
        return float('inf')


def benchmark(
    operator: Operator,
    shape: Shape,
    dtype: torch.dtype,
    names: Sequence[str] | None,
    machine: Machine,
    passes: Sequence[str] = PASSES,
) -> Iterator[Measurement]:
    """Check and time the implementations of one operator for one shape and type.

    The reference is timed only if both passes are and the check covers the whole shape.

    Args:
        operator: Operator under test.
        shape: Batch, tokens and channels.
        dtype: Type of the activations.
        names: Implementations to time; None times all that can run.
        machine: Device to measure on.
        passes: Subset of :data:`PASSES` to time.

    Yields:
        One measurement per implementation and pass, or one per implementation that fails the check.
    """
    check = Check(operator, shape, dtype, machine, passes[-1])
    tensors = operator.make(shape, dtype, machine.device)
    yardsticks = operator.yardstick[1](machine, shape, dtype)
    obstacles = operator.obstacles(shape, dtype, machine.device)
    for name, function in operator.implementations.items():
        if obstacles[name] is not None or (names is not None and name not in names):
            continue
        if name == 'reference' and (passes != PASSES or not check.whole):
            continue
        begin = partial(Measurement, operator, shape, str(dtype).removeprefix('torch.'), name)
        error, tolerance = _error(check, name), check.tolerance(name)
        if not error <= tolerance:
            yield begin('', error, tolerance)
            continue
        grad_output = torch.randn_like(tensors[operator.like])
        runs = dict(
            zip(
                PASSES,
                (partial(forward, function, tensors), partial(forward_backward, function, tensors, grad_output)),
                strict=True,
            )
        )
        for which in passes:
            exponentials, matrix_flops = operator.exponentials(shape), operator.matrix_flops(shape)
            if which != 'forward':  # the backward pass recomputes the exponentials and has two products per product
                exponentials, matrix_flops = 2 * exponentials, 3 * matrix_flops
            moved = operator.bytes_moved(tensors, which)
            yield begin(
                which,
                error,
                tolerance,
                yardsticks[which],
                machine.timing(runs[which]),
                machine.peak_bytes(runs[which]),
                moved,
                machine.roofline_seconds(moved, exponentials, matrix_flops, dtype),
            )
