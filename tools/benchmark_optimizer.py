"""Time the optimiser step with one parameter group per parameter and with merged groups.

The networks of the configs have random weights and gradients; there are no forward and backward passes. Before timing,
three steps with both groupings must give the same weights to the bit. docs/benchmarks/README.md explains the columns.
"""

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from benchmarking.machine import Machine, keep_freed_memory
from benchmarking.report import dated_report, table
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from torch import nn
from torch.optim import Optimizer

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.engine.merged_groups_constructor import MergedGroupsMixin

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NETWORKS = (CONFIGS / 'classification' / 'defocus_mamba_base.py', CONFIGS / 'dino' / 'defocus_mamba_base_12ep.py')
IMPLEMENTATIONS = {
    'for-loop': dict(foreach=False, fused=False),
    'foreach': dict(foreach=True, fused=False),
    'fused': dict(foreach=False, fused=True),
}
HEADER = ('network', 'AdamW', 'groups', 'ms', 'merged groups', 'merged ms', 'ratio')
CHECKED_STEPS = 3


class Network:
    """The parameters of the model of a config, and the two ways to group them."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self.cfg = load_config(path)
        with DefaultScope.overwrite_default_scope(self.cfg.get('default_scope')):
            with torch.device('meta'):
                self.model: nn.Module = MODELS.build(self.cfg.model)
            settings = self.cfg.get('optim_wrapper') or {}
            self.merged = OPTIM_WRAPPER_CONSTRUCTORS.get(settings.get('constructor', 'DefaultOptimWrapperConstructor'))
        if not (isinstance(self.merged, type) and issubclass(self.merged, MergedGroupsMixin)):
            raise UsageError(f"the optim_wrapper of '{path}' has no constructor that merges parameter groups")
        self.stock = self.merged.__mro__[2]  # the class itself, the mixin, what the mixin precedes
        self.model.to_empty(device=device)

    def optimizer(self, constructor: type, implementation: dict[str, bool]) -> Optimizer:
        """Reset weights and gradients, and build the optimiser."""
        torch.manual_seed(0)
        for parameter in self.model.parameters():
            parameter.data.normal_()
            parameter.grad = torch.randn_like(parameter)
        settings = self.cfg.optim_wrapper
        cfg = dict(
            optimizer=dict(settings.optimizer, **implementation),
            constructor=constructor,
            paramwise_cfg=settings.get('paramwise_cfg'),
        )
        return build_optim_wrapper(self.model, cfg).optimizer

    def digest(self) -> str:
        """Return a hash of all weights."""
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(parameter.detach().cpu().numpy())
        return digest.hexdigest()


def measure(network: Network, name: str, machine: Machine) -> tuple[str, ...]:
    """Return the table row of an implementation, without times if the two groupings differ."""
    results = [
        _steps(network, constructor, IMPLEMENTATIONS[name], machine.best_seconds)
        for constructor in (network.stock, network.merged)
    ]
    (count, before, seconds), (merged_count, after, merged_seconds) = results
    label = (Path(network.cfg.filename).stem, name, str(count))
    if before != after:
        return (*label, 'NOT TIMED: the weights differ', str(merged_count), '', '')
    figures = (f'{seconds * 1e3:.2f}', str(merged_count), f'{merged_seconds * 1e3:.2f}')
    return (*label, *figures, f'{seconds / merged_seconds:.2f}')


def _steps(
    network: Network, constructor: type, implementation: dict[str, bool], best_seconds: Callable[..., float]
) -> tuple[int, str, float]:
    optimizer = network.optimizer(constructor, implementation)
    for _ in range(CHECKED_STEPS):
        optimizer.step()
    return len(optimizer.param_groups), network.digest(), best_seconds(optimizer.step, at_least=3)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--networks', nargs='+', type=Path, metavar='CONFIG', default=NETWORKS, help='config files')
    parser.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:1')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='CPU threads')
    parser.add_argument('--seconds', type=float, default=5.0, help='time to repeat each step (default: 5)')
    parser.add_argument('--out', type=Path, metavar='FILE.md', help='write a dated report to this file')
    arguments = parser.parse_args(argv)
    arguments.device = torch.device(arguments.device)
    if arguments.device.type == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: torch finds no CUDA GPU')
    for name in ('threads', 'seconds'):
        if not getattr(arguments, name) > 0:
            parser.error(f'--{name} must be positive, got {getattr(arguments, name)}')
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # MMEngine logs every parameter
    machine = Machine(arguments.device, arguments.seconds)
    print(machine.description(), flush=True)
    rows = []
    try:
        for path in arguments.networks:
            network = Network(path, arguments.device)
            for name in IMPLEMENTATIONS:
                rows.append(measure(network, name, machine))
                print('  '.join(rows[-1]), flush=True)
    except UsageError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    report = dated_report('Optimiser steps', machine.description(), f'{table(HEADER, rows)}\n')
    print('\n' + report)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(report, encoding='utf-8')
    return int(any('NOT TIMED' in row[3] for row in rows))


if __name__ == '__main__':
    keep_freed_memory()
    sys.exit(main())
