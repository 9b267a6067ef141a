"""Time whole networks: images per second and peak memory, in inference and in training.

    python tools/benchmark.py                                             # small and base networks, on the CPU
    python tools/benchmark.py --device cuda --batch 64 --out docs/benchmarks/2030-01-31-h200-networks.md
    python tools/benchmark.py --networks configs/classification/defocus_mamba_base.py timm:deit_base_patch16_224

A network is a classification config, or a timm model with the prefix `timm:`. A network is timed only if its logits,
its loss and the gradients of all parameters are finite; otherwise the exit code is 1. A training step consists of
forward pass, loss, backward pass and AdamW update, without data loading and augmentation. Run nothing else on the
machine meanwhile. docs/benchmarks/README.md explains the columns.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import timm
import torch
import torch.nn.functional as F
from benchmarking import json_lines
from benchmarking.gpu_timing import Timing
from benchmarking.machine import Machine, keep_freed_memory, return_freed_memory
from benchmarking.network_profile import PARTS, time_by_part
from benchmarking.network_steps import Network, Steps
from benchmarking.report import backends, dated_report, table
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.image_size import is_built_for_images
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.timm_networks import build_timm

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'classification'
TIMM = 'timm:'
NETWORKS = (
    *(str(CONFIGS / f'{name}.py') for name in ('defocus_mamba_small', 'defocus_vit_small')),
    f'{TIMM}deit_small_patch16_224',
    *(str(CONFIGS / f'{name}.py') for name in ('defocus_mamba_base', 'defocus_vit_base', 'defocus_retnet_base')),
    f'{TIMM}deit_base_patch16_224',
)
DEFAULTS = {'cpu': dict(batch=2, dtype='float32', seconds=5.0), 'cuda': dict(batch=64, dtype='bfloat16', seconds=3.0)}
HEADER = ('network', 'parameters', 'inference images/s', 'inference GB', 'training images/s', 'training GB')


def from_config(path: str, side: int) -> Network:
    cfg = load_config(path)
    if is_built_for_images(cfg):
        cfg.model.backbone.img_size = side
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        model = MODELS.build(cfg.model)

    def loss_for(labels: Tensor) -> Callable[[Tensor], Tensor]:
        samples = [DataSample().set_gt_label(label).to(labels.device) for label in labels.tolist()]
        return lambda images: model.parse_losses(model.loss(images, samples))[0]

    return Network(model, partial(model, mode='tensor'), loss_for)


def from_timm(name: str, side: int) -> Network:
    model = build_timm(name, checkpoint=None, random_weights=True, size=side)
    return Network(model, model, lambda labels: lambda images: F.cross_entropy(model(images), labels))


def load(name: str, side: int) -> Network:
    """Build the network that the command line names, with initial weights."""
    return from_timm(name.removeprefix(TIMM), side) if name.startswith(TIMM) else from_config(name, side)


class Result(NamedTuple):
    """Row of the table, line of the JSON file, and rows of the table of parts."""

    row: tuple[str, ...]
    record: dict[str, object]
    parts: list[tuple[str, ...]]


class Measured:
    """A network and its best times so far.

    Args:
        name: Name on the command line.
        arguments: Parsed arguments.
    """

    def __init__(self, name: str, arguments: argparse.Namespace) -> None:
        network = load(name, arguments.side)
        self.steps = Steps(network, arguments.batch, arguments.side, arguments.dtype, arguments.device)
        self.batch = arguments.batch
        self.count = sum(parameter.numel() for parameter in network.module.parameters())
        self.label = Path(name).stem
        self.defect = self.steps.defect()
        self.timings: dict[str, Timing] = {}
        self.peaks: dict[str, int] = {}

    def take_turn(self, machine: Machine) -> None:
        """Time both steps, and keep the better of this and earlier turns."""
        if self.defect is not None:
            return
        # Inference first: its memory is without a state of the optimiser.
        for phase, step in (('inference', self.steps.infer), ('training', self.steps.train)):
            timing = machine.timing(step, at_least=2)
            self.timings[phase] = min(timing, self.timings.get(phase, timing), key=lambda one: one.seconds)
            self.steps.optimizer.zero_grad()
            if phase not in self.peaks:
                self.peaks[phase] = self.steps.held_bytes() + machine.peak_bytes(step)
            return_freed_memory()

    def result(self, profile: bool) -> Result:
        """Return what the report says, with the time by parts if asked for."""
        parts = time_by_part(self.steps) if profile and self.defect is None else []
        return_freed_memory()
        return Result(self._row(), self._record(), [(self.label, *row) for row in parts])

    def _row(self) -> tuple[str, ...]:
        """Return the row of the table; a network that failed the check gets the reason instead of numbers."""
        label = (self.label, f'{self.count / 1e6:.1f}M')
        if self.defect is not None:
            return (*label, f'NOT TIMED: {self.defect}', '', '', '')
        figures = []
        for phase, timing in self.timings.items():
            rate = f'{self.batch / timing.seconds:.3g}{" (host)" if timing.host_bound else ""}'
            figures += [rate, f'{self.peaks[phase] / 1e9:.2f}']
        return (*label, *figures)

    def _record(self) -> dict[str, object]:
        """Return the line of the JSON file."""
        record: dict[str, object] = dict(network=self.label, parameters=self.count)
        if self.defect is not None:
            return record | dict(defect=self.defect)
        for phase, timing in self.timings.items():
            record[phase] = self.batch / timing.seconds
            record[f'{phase}_bytes'] = self.peaks[phase]
            record[f'{phase}_host_bound'] = timing.host_bound
        return record


def measure(names: Sequence[str], arguments: argparse.Namespace, machine: Machine) -> list[Result]:
    """Measure networks in turns, which needs memory for all of them at once."""
    networks = [Measured(name, arguments) for name in names]
    for turn in range(1, arguments.turns + 1):
        for network in networks:
            if arguments.turns > 1:
                print(f'turn {turn} of {arguments.turns}: {network.label}', flush=True)
            network.take_turn(machine)
    return [network.result(arguments.profile) for network in networks]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--networks', nargs='+', metavar='NAME', default=NETWORKS, help='config files or timm:MODEL')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:1')
    parser.add_argument('--batch', type=int, help='batch size (default: 2, on a GPU 64)')
    parser.add_argument('--side', type=int, default=224, help='side of the images in pixels (default: 224)')
    parser.add_argument(
        '--dtype', choices=('float32', 'bfloat16'), help='autocast type (default: float32, GPU bfloat16)'
    )
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='CPU threads')
    parser.add_argument('--seconds', type=float, help='time to repeat each step (default: 5, on a GPU 3)')
    parser.add_argument(
        '--turns', type=int, default=1, help='times to measure all networks in turns; the best counts (default: 1)'
    )
    parser.add_argument('--profile', action='store_true', help='also time the parts of each step; only on a CPU')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write a dated report to this file')
    parser.add_argument('--json', type=Path, metavar='FILE.jsonl', help='write each network as a line of JSON')
    arguments = parser.parse_args(argv)
    arguments.device = torch.device(arguments.device)
    kind = arguments.device.type
    if kind not in DEFAULTS:
        parser.error(f'--device must be cpu or cuda, got {arguments.device}')
    if kind == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA GPU')
    if arguments.profile and kind != 'cpu':
        parser.error('--profile is for CPUs; for GPUs, `make gpu-report` profiles a layer')
    for name, value in DEFAULTS[kind].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ('batch', 'side', 'threads', 'seconds', 'turns'):
        if not getattr(arguments, name) > 0:
            parser.error(f'--{name} must be positive, got {getattr(arguments, name)}')
    for name in arguments.networks:
        if not (timm.is_model(name.removeprefix(TIMM)) if name.startswith(TIMM) else Path(name).is_file()):
            parser.error(f'--networks: there is no {name}')
    arguments.dtype = getattr(torch, arguments.dtype)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    machine = Machine(arguments.device, arguments.seconds)
    setting = f'Batch {arguments.batch}, {arguments.side} x {arguments.side} pixels, '
    setting += 'float32' if arguments.dtype == torch.float32 else f'autocast to {arguments.dtype}'
    description = f'{machine.description()} {setting}, timm {timm.__version__}.'
    print(description, flush=True)
    if arguments.json:
        json_lines.start(arguments.json, batch=arguments.batch, side=arguments.side, dtype=str(arguments.dtype))
    # One network at a time, unless they take turns.
    groups = [arguments.networks] if arguments.turns > 1 else [[name] for name in arguments.networks]
    rows, parts = [], []
    try:
        for names in groups:
            for result in measure(names, arguments, machine):
                rows.append(result.row)
                parts += result.parts
                json_lines.append(arguments.json, result.record)
                print('  '.join(result.row), flush=True)
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    sections = [table(HEADER, rows)]
    if parts:
        sections.append(f'## Parts of a step, in ms\n{table(("network", "step", *PARTS), parts)}')
    report = dated_report('Networks', description, '\n\n'.join([*sections, backends()]))
    print('\n' + report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report, encoding='utf-8')
    return int(any('NOT TIMED' in row[2] for row in rows))


if __name__ == '__main__':
    keep_freed_memory()
    sys.exit(main())
