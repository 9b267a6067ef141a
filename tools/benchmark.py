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
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from benchmarking import json_lines
from benchmarking.machine import Machine, keep_freed_memory, size_in_bytes
from benchmarking.report import backends, dated_report, table
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.structures import DataSample
from torch import Tensor, nn

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


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier.

    Attributes:
        module: Module that holds the parameters.
        logits: Function from images (B, 3, side, side) to logits.
        loss_for: Function from labels (B,) to a function from images to the scalar loss.
    """

    module: nn.Module
    logits: Callable[[Tensor], Tensor]
    loss_for: Callable[[Tensor], Callable[[Tensor], Tensor]]


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


class Steps:
    """Training and inference steps of one network on one batch of noise."""

    def __init__(self, network: Network, batch: int, side: int, dtype: torch.dtype, device: torch.device) -> None:
        self.network = network
        network.module.to(device)
        self.optimizer = torch.optim.AdamW(network.module.parameters())
        self.images = torch.randn(batch, 3, side, side, device=device)
        self.loss = network.loss_for(torch.randint(10, (batch,), device=device))
        self.autocast = partial(torch.autocast, device.type, dtype, enabled=dtype != torch.float32)

    def differentiate(self) -> Tensor:
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.loss(self.images)
        loss.backward()
        return loss.detach()

    def train(self) -> None:
        self.network.module.train()
        self.differentiate()
        self.optimizer.step()

    def infer(self) -> Tensor:
        self.network.module.eval()
        with torch.inference_mode(), self.autocast():
            return self.network.logits(self.images)

    def defect(self) -> str | None:
        """Return a description of the first missing or non-finite value, or None."""
        if not self.infer().isfinite().all():
            return 'logits that are not finite'
        self.network.module.train()
        if not self.differentiate().isfinite():
            return 'a loss that is not finite'
        for name, parameter in self.network.module.named_parameters():
            if parameter.requires_grad and parameter.grad is None:
                return f'no gradient of {name}'
            if parameter.grad is not None and not parameter.grad.isfinite().all():
                return f'a gradient of {name} that is not finite'
        return None

    def held_bytes(self) -> int:
        """Return the bytes of parameters, buffers and optimiser state, without gradients."""
        state = [x for values in self.optimizer.state.values() for x in values.values()]
        module = self.network.module
        return sum(map(size_in_bytes, [*module.parameters(), *module.buffers(), *state]))


def measure(name: str, arguments: argparse.Namespace, machine: Machine) -> tuple[str, ...]:
    """Return the table row of a network; a network that fails the check gets the reason instead of numbers."""
    steps = Steps(load(name, arguments.side), arguments.batch, arguments.side, arguments.dtype, arguments.device)
    count = sum(parameter.numel() for parameter in steps.network.module.parameters())
    label = (Path(name).stem, f'{count / 1e6:.1f}M')
    defect = steps.defect()
    if defect is not None:
        json_lines.append(arguments.json, dict(network=label[0], parameters=count, defect=defect))
        return (*label, f'NOT TIMED: {defect}', '', '', '')
    figures = []
    record: dict[str, object] = dict(network=label[0], parameters=count)
    for phase, step in (('inference', steps.infer), ('training', steps.train)):  # before the optimiser has a state
        timing = machine.timing(step, at_least=2)
        rate = arguments.batch / timing.seconds
        steps.optimizer.zero_grad()
        peak = steps.held_bytes() + machine.peak_bytes(step)
        figures += [f'{rate:.3g}{" (host)" if timing.host_bound else ""}', f'{peak / 1e9:.2f}']
        record |= {phase: rate, f'{phase}_bytes': peak, f'{phase}_host_bound': timing.host_bound}
    json_lines.append(arguments.json, record)
    return (*label, *figures)


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
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write a dated report to this file')
    parser.add_argument('--json', type=Path, metavar='FILE.jsonl', help='write each network as a line of JSON')
    arguments = parser.parse_args(argv)
    arguments.device = torch.device(arguments.device)
    kind = arguments.device.type
    if kind not in DEFAULTS:
        parser.error(f'--device must be cpu or cuda, got {arguments.device}')
    if kind == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA GPU')
    for name, value in DEFAULTS[kind].items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in ('batch', 'side', 'threads', 'seconds'):
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
    rows = []
    for name in arguments.networks:
        try:
            rows.append(measure(name, arguments, machine))
        except UsageError as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        print('  '.join(rows[-1]), flush=True)
    report = dated_report('Networks', description, f'{table(HEADER, rows)}\n\n{backends()}')
    print('\n' + report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report, encoding='utf-8')
    return int(any('NOT TIMED' in row[2] for row in rows))


if __name__ == '__main__':
    keep_freed_memory()
    sys.exit(main())
