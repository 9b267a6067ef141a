"""Time the operators of mmdefocus, after checking their numbers.

Every backend is compared with the reference (forward and all gradients) at the shape that is timed, and is not timed
when it differs. Times are the best of several runs in one process, next to a yardstick that any machine has:
`torch.exp` on B·E·N·L floats into a preallocated tensor, which is the transcendental work that a selective scan cannot
avoid, without its arithmetic. Nothing else should run on the machine meanwhile.
"""

import argparse
import time
from collections.abc import Callable

import torch

from mmdefocus.ops import available_backends, selective_scan

TOLERANCE = 1e-5  # largest difference over largest value, float32, as in the tests
NAMES = ('u', 'delta', 'A', 'B', 'C')


def best_seconds(function: Callable[[], object], repeats: int) -> float:
    """The shortest of `repeats` runs; a run before them warms up, unless there is only one."""
    if repeats > 1:
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def yardstick_seconds(count: int, repeats: int) -> float:
    """The time of `torch.exp` on `count` floats."""
    values = torch.randn(count)
    out = torch.empty_like(values)
    return best_seconds(lambda: torch.exp(values, out=out), repeats)


def make_arguments(batch: int, channels: int, state: int, length: int, layout: str) -> dict[str, torch.Tensor]:
    """Inputs of the magnitudes that the scan meets in a network; `layout` is the memory order of u and delta."""

    def sequence() -> torch.Tensor:
        if layout == 'BLE':
            return torch.randn(batch, length, channels).transpose(1, 2)
        return torch.randn(batch, channels, length)

    arguments = {
        'u': sequence(),
        'delta': torch.nn.functional.softplus(sequence() - 4),
        'A': -torch.arange(1.0, state + 1).repeat(channels, 1),
        'B': torch.randn(batch, state, length),
        'C': torch.randn(batch, state, length),
    }
    return {name: tensor.requires_grad_() for name, tensor in arguments.items()}


def forward_backward(arguments: dict[str, torch.Tensor], incoming: torch.Tensor, backend: str) -> list[torch.Tensor]:
    y = selective_scan(**arguments, backend=backend)
    return [y, *torch.autograd.grad(y, [arguments[name] for name in NAMES], incoming)]


def largest_error(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    return max(((a - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, expected, strict=True))


def benchmark(shape: tuple[int, int, int, int], layout: str, repeats: int) -> list[tuple[str, ...]]:
    """Rows of the table for one shape."""
    batch, channels, state, length = shape
    arguments = make_arguments(*shape, layout)
    incoming = torch.randn_like(arguments['u'])
    exp_seconds = yardstick_seconds(batch * channels * state * length, repeats)
    label = f'{batch}, {channels}, {state}, {length}'
    rows = [(label, 'torch.exp', '', f'{exp_seconds * 1e3:.1f}', '1.00', '', '')]
    expected = forward_backward(arguments, incoming, 'reference')
    seconds: dict[tuple[str, str], float] = {}
    for backend, obstacle in available_backends().items():
        if obstacle is not None:
            rows.append((label, backend, f'cannot run: {obstacle}', '', '', '', ''))
            continue
        error = largest_error(forward_backward(arguments, incoming, backend), expected)
        if error > TOLERANCE:
            rows.append((label, backend, 'NOT TIMED: wrong numbers', '', '', '', f'{error:.1e}'))
            continue

        def forward(backend: str = backend) -> torch.Tensor:
            with torch.no_grad():
                return selective_scan(**arguments, backend=backend)

        def both(backend: str = backend) -> list[torch.Tensor]:
            return forward_backward(arguments, incoming, backend)

        for name, function in (('forward', forward), ('forward+backward', both)):
            taken = best_seconds(function, 1 if backend == 'reference' else repeats)
            seconds[backend, name] = taken
            speedup = seconds['reference', name] / taken
            rows.append(
                (
                    label,
                    backend,
                    name,
                    f'{taken * 1e3:.1f}',
                    f'{taken / exp_seconds:.2f}',
                    f'{speedup:.0f}',
                    f'{error:.1e}',
                )
            )
    return rows


def print_table(rows: list[tuple[str, ...]]) -> None:
    header = ('B, E, N, L', 'backend', 'pass', 'ms', '/ torch.exp', 'speed-up', 'error')
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, tuple('-' * width for width in widths), *rows]:
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + ' |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lengths', type=int, nargs='+', default=[197, 4705], help='tokens (default: 197 4705)')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--channels', type=int, default=1536)
    parser.add_argument('--state', type=int, default=16)
    parser.add_argument('--layout', choices=('BEL', 'BLE'), default='BLE', help='memory order (default: as the models)')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--repeats', type=int, default=10)
    args = parser.parse_args()
    for name in ('batch', 'channels', 'state', 'threads', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(f'--{name} must be at least 1, got {getattr(args, name)}')
    if min(args.lengths) < 1:
        parser.error(f'--lengths must be at least 1, got {min(args.lengths)}')

    torch.manual_seed(0)
    torch.set_num_threads(args.threads)
    instructions = '' if available_backends()['cpp'] else f', {torch.ops.mmdefocus.cpu_instruction_set()} kernels'
    print(f'torch {torch.__version__}, {args.threads} threads{instructions}, float32, layout {args.layout}\n')
    rows = []
    for length in args.lengths:
        print(f'checking and timing L = {length} …', flush=True)
        rows += benchmark((args.batch, args.channels, args.state, length), args.layout, args.repeats)
    print_table(rows)


if __name__ == '__main__':
    main()
