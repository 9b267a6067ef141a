"""Toy sizes for the programs in the documents: they keep their commands, configs and code, but finish in seconds.

* Networks of the sizes small, base and large have two layers of 64 channels; DINO has two layers and 30 queries. These
  are the sizes of ``tests/golden/det_full_official_det.pth``, so that it stands for a published detector. Mask R-CNN
  has eight regions. Pyramids are of the size nano.
* Detection images are resized to a tenth of the published sizes. A data set has its first four images, in batches of
  two, and no worker processes.
* A training runs its first and its last epoch.
* Configs are saved without line breaks: to format them takes most of the time of a toy training.
* Addresses of the release lead to the local file server, all others nowhere.
* Reports have no latency, for which a compiler runs.
* Sets of digits have eight training images, a study has one seed, benchmarks have shorter sequences and smaller
  networks and measure for a millisecond.
* Several GPUs are two processes on the CPU.

:func:`install` replaces parts of third-party packages; :func:`before` does the rest for the programs that need more.
"""

import argparse
import functools
import importlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torch.hub
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from yapf.yapflib import yapf_api

RELEASE = 'https://github.com/OpenGVLab/De-focus-Attention-Networks/releases/download/v1.0/'
GOLDEN = Path(__file__).parents[1] / 'golden'
WIDTH, LAYERS = 64, 2
ARCHS = {
    'DefocusMamba': dict(inner_dims=128, state_dims=16, conv_kernel=4, dt_rank=8, group_size=32),
    'DefocusViT': dict(num_heads=2, ffn_dims=128),
    'DefocusRetNet': dict(num_heads=2, value_dims=128, ffn_dims=128),
}
TIMM_SIZES = {
    'deit': dict(depth=1, embed_dim=48, num_heads=3),
    'swin': dict(depths=(1, 1, 1, 1), embed_dim=24, num_heads=(1, 2, 4, 8)),
    'poolformer': {},
}
PYRAMID_WIDTHS = {'FCViT': (32, 48, 64, 96), 'DAT': (32, 64, 96, 128)}  # of the size nano
PUBLISHED_WIDTHS = (384, 768, 1024)
IMAGES, BATCH = 4, 2
NANO_SIDE = 320  # of an image of the nano detectors


def has(need: str) -> bool:
    """Return True if the comment of the block names this stand-in."""
    return need in os.environ['DOCUMENTS_NEEDS'].split(',')


def install() -> None:
    """Replace the parts of third-party packages that every program may use."""
    torch.set_num_threads(1)
    yapf_api.FormatCode = lambda text, **_: (text, True)
    Config.fromfile = staticmethod(_then(Config.fromfile, shrink))
    train = Runner.train

    def train_two_epochs(self: Runner) -> Any:
        if not has('all-epochs'):
            self.register_hook(FirstAndLastEpoch(), 'LOWEST')
        return train(self)

    Runner.train = train_two_epochs
    torch.hub.urlopen = urllib.request.urlopen = _from_file_server(urllib.request.urlopen)
    argparse.ArgumentParser.parse_known_args = _parse_only(argparse.ArgumentParser.parse_known_args)


def _then(function: Callable, change: Callable) -> Callable:
    return functools.wraps(function)(lambda *args, **kwargs: change(function(*args, **kwargs)))


class FirstAndLastEpoch(Hook):
    """Continue with the last epoch after the first one, with the number and the checkpoint that it would have."""

    def after_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        loop._epoch = max(loop._epoch, loop.max_epochs - 2)


def _from_file_server(urlopen: Callable) -> Callable:
    def open_locally(request: Any, *args: Any, **kwargs: Any) -> Any:
        url = request if isinstance(request, str) else request.full_url
        if url.startswith(RELEASE) and has('download'):
            return urlopen(os.environ['DOCUMENTS_FILE_SERVER'] + url.removeprefix(RELEASE), *args, **kwargs)
        raise urllib.error.URLError(f'the block needs the comment <!-- needs: download --> for {url}')

    return open_locally


def _parse_only(parse: Callable) -> Callable:
    def parse_and_end(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> Any:
        parsed = parse(self, *args, **kwargs)
        if 'DOCUMENTS_PARSE' in os.environ:
            if parsed[1]:
                self.error(f'unrecognized arguments: {" ".join(parsed[1])}')
            sys.exit(0)
        return parsed

    return parse_and_end


def shrink(cfg: Config) -> Config:
    """Give a config toy sizes; a config that has them stays as it is."""
    if has('full-size'):
        return cfg
    model = cfg.get('model') or {}
    backbone, *others = (model.get(name) or {} for name in ('backbone', 'neck', 'head'))
    if backbone.get('type') in PYRAMID_WIDTHS:
        _shrink_pyramid(backbone, others)
    for part in (backbone, *others):
        _shrink_part(part)
    if model.get('num_queries') == 900:
        changes = torch.load(GOLDEN / 'det_full_expected.pt', weights_only=True)['dino_changes']
        cfg.merge_from_dict({f'model.{name}': value for name, value in changes.items()})
        cfg.model.neck.out_channels = WIDTH
    if model.get('roi_head'):
        stages = cfg.model.train_cfg.rcnn
        for stage in stages if isinstance(stages, list) else [stages]:
            stage.sampler.num = 8
        cfg.model.test_cfg.rpn.max_per_img = 8
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name) and not has('all-images'):
            _shrink_data(cfg[name])
    if cfg.get('tta_pipeline'):
        _shrink_images(cfg.tta_pipeline)
    return cfg


def _shrink_pyramid(backbone: dict, others: list[dict]) -> None:
    if backbone.get('arch', 'nano') == 'nano':
        return
    backbone['arch'] = 'nano'
    widths = PYRAMID_WIDTHS[backbone['type']]
    for part in others:
        if isinstance(part.get('in_channels'), list):
            part['in_channels'] = list(widths[-len(part['in_channels']) :])
        elif 'in_channels' in part and part['type'] == 'LinearClsHead':
            part['in_channels'] = widths[-1]


def _shrink_part(part: dict) -> None:
    if part.get('arch') in ('small', 'base', 'large'):
        part['arch'] = dict(embed_dims=WIDTH, num_layers=LAYERS, **ARCHS[part['type']])
        part['frozen_stages'] = min(part.get('frozen_stages', -1), LAYERS)
    for name, factor in (('in_channels', 1), ('hidden_dims', 3)):
        if part.get(name) in [factor * width for width in PUBLISHED_WIDTHS]:
            part[name] = factor * WIDTH


def _shrink_data(loader: dict) -> None:
    loader.update(batch_size=BATCH, num_workers=0, persistent_workers=False)
    loader.get('dataset', {}).update(indices=IMAGES)
    if loader['dataset']['type'].endswith('CocoDataset'):
        _shrink_images(loader['dataset'])


def _shrink_images(part: Any) -> None:
    """Divide the sizes of all transforms by ten."""
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for key, value in items:
        if key in ('scale', 'scales', 'crop_size'):
            part[key] = _tenth(value)
        else:
            _shrink_images(value)


def _tenth(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(map(_tenth, value))
    return value // 10 if isinstance(value, int) and value > NANO_SIDE else value


def before(argv: list[str]) -> list[str]:
    """Prepare the program ``argv[0]``, a file or a module, and return its arguments."""
    if has('gpus'):
        argv = [
            'cpu' if (word, option) == ('cuda', '--device') else word
            for option, word in zip(['', *argv], argv, strict=False)
        ]
    prepare = PROGRAMS.get(Path(argv[0]).name)
    return argv if prepare is None or has('full-size') else prepare(argv)


def _launcher(argv: list[str]) -> list[str]:
    (option,) = [word for word in argv if word.startswith('--nproc_per_node=')]
    if int(option.partition('=')[2]) <= BATCH:
        return argv
    if not has('gpus'):
        sys.exit(f'the block needs the comment <!-- needs: gpus --> for {option}')
    return [f'--nproc_per_node={BATCH}' if word == option else word for word in argv]


def _few_digits(argv: list[str]) -> list[str]:
    from dataclasses import replace

    from mmdefocus.datasets import digits

    make = digits.make_digits_coco
    digits.make_digits_coco = lambda out, options, *args, **kwargs: make(
        out, replace(options, train_images=2 * IMAGES, val_images=IMAGES), *args, **kwargs
    )
    return argv


def _one_seed(argv: list[str]) -> list[str]:
    return [*_few_digits(argv), *([] if '--seeds' in argv else ['--seeds', '0'])]


def _one_seed_on_any_cpu(argv: list[str]) -> list[str]:
    importlib.import_module('mmdefocus.engine.cpu_bfloat16').cpu_has_bfloat16 = lambda: True
    return _one_seed(argv)


def _two_networks(argv: list[str]) -> list[str]:
    return [*_one_seed(argv), '--variants', 'De-focus Mamba', 'Mamba, without band-pass', '--images', '2']


def _short_sequences(argv: list[str]) -> list[str]:
    operators = importlib.import_module('benchmarking.operators')
    shape = operators.Shape
    operators.Shape = lambda batch, length, channels: shape(
        batch, length // 32 if length > 128 else length, min(channels, 2 * WIDTH)
    )
    return _short_time(argv)


def _small_networks(argv: list[str]) -> list[str]:
    create = timm.create_model
    timm.create_model = lambda name, **options: create(name, **TIMM_SIZES[name.partition('_')[0]], **options)
    return _short_time(argv)


def _short_time(argv: list[str]) -> list[str]:
    machine = importlib.import_module('benchmarking.machine')
    machine.COPIED_BYTES = machine.MOST_EXPS = 2**16
    machine.MATRIX_SIDE = {'cpu': 64}
    return [*argv, '--seconds', '0.001']


def _no_latency(argv: list[str]) -> list[str]:
    return [*argv, '--no-latency'] if argv[1:2] == ['report'] and '--no-latency' not in argv else argv


def _arguments_only(argv: list[str]) -> list[str]:
    if not has('gpus'):
        sys.exit('the block needs the comment <!-- needs: gpus --> for the CUDA compiler')
    os.environ['DOCUMENTS_PARSE'] = 'yes'
    return argv


PROGRAMS = {
    'torch.distributed.run': _launcher,
    'make_digits_coco.py': _few_digits,
    'compare_mixers.py': _one_seed,
    'compare_precision.py': _one_seed_on_any_cpu,
    'ablate_digits.py': _one_seed,
    'compare_over_focus.py': _two_networks,
    'benchmark_ops.py': _short_sequences,
    'benchmark.py': _small_networks,
    'compile_cuda.py': _arguments_only,
    'mmdefocus': _no_latency,
}
