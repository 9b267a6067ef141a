"""Run the CUDA and Triton kernels of every operator on small shapes, forward and backward, for compute-sanitizer.

The results must be finite; whether they are right is the business of the tests.
"""

import argparse
import sys
from pathlib import Path

import torch
from benchmark_ops import OPERATORS
from benchmarking.operators import Operator, Shape, forward_backward

from .facts import write_facts

# Triton compiles for every type, which takes long in float32.
DTYPES = {'cuda': (torch.bfloat16, torch.float32), 'triton': (torch.bfloat16,)}
# A remainder in every tile, and a sequence that is cut into segments.
SHAPES = (Shape(2, 33, 128), Shape(1, 577, 64))
DOES_NOT_HAVE = 'does not have this operator'


def run(operator: Operator, backend: str, shape: Shape, dtype: torch.dtype, device: torch.device) -> bool:
    """Run one implementation once; return whether all results and gradients are finite."""
    torch.manual_seed(0)
    tensors = operator.make(shape, dtype, device)
    results = forward_backward(operator.implementations[backend], tensors, torch.randn_like(tensors[operator.like]))
    return all(bool(result.isfinite().all()) for result in results)


def run_all(device: torch.device) -> dict[str, list[str]]:
    """Run everything; return what ran, what was not finite, and what cannot run, with reasons."""
    facts: dict[str, list[str]] = dict(ran=[], not_finite=[], obstacles=[])
    for operator in OPERATORS.values():
        obstacles = operator.obstacles(SHAPES[0], torch.float32, device)
        for backend in (name for name in DTYPES if name in operator.implementations):
            reason = obstacles[backend]
            if reason is not None:
                facts['obstacles'] += [f'{operator.name}: {reason}'] if DOES_NOT_HAVE not in reason else []
                continue
            for shape in SHAPES:
                for dtype in DTYPES[backend]:
                    label = f'{operator.name} {backend} ({shape.batch}, {shape.length}) {dtype}'
                    print(label, flush=True)
                    finite = run(operator, backend, shape, dtype, device)
                    facts['ran' if finite else 'not_finite'].append(label)
    return facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda', help='default: cuda')
    parser.add_argument('--facts', type=Path, required=True, metavar='FILE.json', help='results')
    arguments = parser.parse_args()
    facts = run_all(torch.device(arguments.device))
    torch.cuda.synchronize()
    write_facts(arguments.facts, facts)
    return int(bool(facts['not_finite'] or facts['obstacles']))


if __name__ == '__main__':
    sys.exit(main())
