"""Profile forward and backward pass of one layer of De-focus Mamba base with torch's profiler.

Without the OpenMMLab packages, it is the part of the mixer between ``in_proj`` and ``out_proj``.

Shapes: B batch, L tokens, C channels of a token, E inner channels.
"""

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from benchmarking.operators import Shape
from benchmarking.scans import MIXER
from torch.profiler import ProfilerActivity, profile

from .facts import write_facts

SHAPE = Shape(64, 197, 1536)
RUNS = 10
MOST_ROWS = 25


def whole_layer(shape: Shape, device: torch.device) -> Callable[[], None]:
    """Return a function that runs the second layer of De-focus Mamba base under autocast to bfloat16."""
    from mmdefocus.models import DefocusMamba

    backbone = DefocusMamba('base').to(device).train()
    layer = backbone.layers[1]
    tokens = torch.randn(shape.batch, shape.length, backbone.embed_dims, device=device, requires_grad=True)
    positions = torch.arange(float(shape.length), device=device)

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            y = layer(tokens, positions, 1.0)
        y.float().sum().backward()

    return run


def mixer_core(shape: Shape, device: torch.device) -> Callable[[], None]:
    """Return a function that runs the mixer between its outer projections in bfloat16."""
    tensors = MIXER.make(shape, torch.bfloat16, device)
    obstacles = MIXER.obstacles(shape, torch.bfloat16, device)
    name = next(name for name in MIXER.implementations if obstacles[name] is None)
    return lambda: MIXER.implementations[name](**tensors).float().sum().backward()


def profile_runs(run: Callable[[], None], device: torch.device, trace: Path) -> list[dict[str, object]]:
    """Run a function a few times; return calls and microseconds per run of each kernel, and save the trace."""
    for _ in range(3):
        run()
    on_gpu = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as profiler:
        for _ in range(RUNS):
            run()
        if on_gpu:
            torch.cuda.synchronize()
    profiler.export_chrome_trace(str(trace))
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == kind]
    rows = [
        dict(
            kernel=event.key,
            calls=event.count / RUNS,
            microseconds=(event.self_device_time_total if on_gpu else event.self_cpu_time_total) / RUNS,
        )
        for event in events
    ]
    return sorted(rows, key=lambda row: -row['microseconds'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', type=torch.device, default='cuda', help='cuda (default) or cpu')
    parser.add_argument('--batch', type=int, default=SHAPE.batch, help=f'B (default: {SHAPE.batch})')
    parser.add_argument('--facts', type=Path, required=True, metavar='FILE.json', help='results')
    parser.add_argument('--trace', type=Path, required=True, metavar='FILE.json.gz', help='trace for chrome://tracing')
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = SHAPE._replace(batch=arguments.batch)
    whole = importlib.util.find_spec('mmengine') is not None
    run = (whole_layer if whole else mixer_core)(shape, arguments.device)
    rows = profile_runs(run, arguments.device, arguments.trace)
    what = 'layer 1 of De-focus Mamba base' if whole else 'the mixer between its outer projections'
    total = sum(row['microseconds'] for row in rows)
    size = f'batch {shape.batch}, {shape.length} tokens'
    summary = f'{what}, forward and backward, {size}: {total / 1e3:.3g} ms in kernels'
    write_facts(arguments.facts, dict(summary=summary, total=total, rows=rows[:MOST_ROWS]))


if __name__ == '__main__':
    main()
