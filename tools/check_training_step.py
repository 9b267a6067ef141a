"""Run one training iteration of a config and report its losses, gradients, time and peak memory.

Ends with status 1 if a loss or a gradient is not finite, or if a trainable parameter has no gradient. The report lists
parameters with a gradient of exactly zero: a new DINO has some, because the layers after them start at zero, and so do
blocks that drop path skips (set `model.backbone.drop_path_rate=0`, or `default_hooks.drop_path` to rates of 0).
"""

import argparse
import math
import resource
import sys
import time

import torch
from mmengine.hooks import Hook
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import build_runner
from mmdefocus.cli.arguments import add_common_arguments, parse_arguments
from mmdefocus.cli.run_tool import run_tool

WIDTH = 100


@LOOPS.register_module()
class OneStepLoop(EpochBasedTrainLoop):
    """Run the first iteration of the first of ``max_epochs`` epochs, without a change to the schedules."""

    def run(self) -> torch.nn.Module:
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.run_iter(0, next(iter(self.dataloader)))
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model


class StepReport(Hook):
    """Collect losses, gradients, inputs and time of one iteration."""

    # Run after the hooks that wrap modules, before those that log or save.
    priority = 'LOW'

    def __init__(self) -> None:
        self.gradients: dict[str, float] = {}  # sum of absolute values
        self.losses: dict[str, float] = {}
        self.inputs: list[tuple[int, ...]] = []
        self.seconds = 0.0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        # The optimiser wrapper clears the gradients before any later hook.
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda p, name=name: self.gradients.__setitem__(name, p.grad.abs().sum().item())
                )
        self.inputs = [tuple(image.shape) for image in (data_batch or {}).get('inputs', [])]
        self.started = time.perf_counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        self.seconds = time.perf_counter() - self.started
        self.losses = {name: torch.as_tensor(value).detach().item() for name, value in (outputs or {}).items()}


def listing(title: str, names: list[str]) -> None:
    if names:
        print(f'\n{title} ({len(names)}):')
        for name in names:
            print(f'  {name}'[:WIDTH])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    args = parse_arguments(parser)
    run_tool(parser, lambda: check(args))


def check(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    apply_train_options(cfg)
    cfg.train_cfg = dict(type='OneStepLoop', max_epochs=cfg.train_cfg.get('max_epochs', 1))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    # The hook would stop before there are gradients; the report checks the losses itself.
    (cfg.get('default_hooks') or {}).pop('finite_loss', None)
    runner = build_runner(cfg)
    report = StepReport()
    runner.register_hook(report)
    runner.train()

    print('\ninputs: ' + ', '.join(' x '.join(map(str, shape)) for shape in report.inputs))
    print('losses: ' + ', '.join(f'{name} {value:.4g}' for name, value in report.losses.items()))
    trained = [name for name, parameter in runner.model.named_parameters() if parameter.requires_grad]
    missing = [name for name in trained if name not in report.gradients]
    broken = [name for name, total in report.gradients.items() if not math.isfinite(total)]
    listing('parameters without gradient', missing)
    listing('parameters with a gradient that is not finite', broken)
    listing('parameters with a gradient of zero', [name for name, total in report.gradients.items() if total == 0])
    finite_losses = all(map(math.isfinite, report.losses.values()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'\n{len(report.gradients)} of {len(trained)} trainable parameters have a gradient')
    print(f'iteration: {report.seconds:.1f} s on {torch.get_num_threads()} threads, peak memory {peak:.2f} GiB')
    if missing or broken or not finite_losses:
        sys.exit(1)


if __name__ == '__main__':
    main()
