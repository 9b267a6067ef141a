"""Train a network for some steps on synthetic images: losses, images per second, peak memory.

    python -m gpu_report_parts.training classifier --facts facts.json
    python -m gpu_report_parts.training detector --facts facts.json

The images are noise and stay the same, so that a network that learns anything learns them, and the loss falls. The
weights are random. On a GPU, the steps run under autocast to bfloat16.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from benchmark import CONFIGS, from_config
from mmdet.structures import DetDataSample
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdefocus.apis.runs.config_file import load_config

from .facts import write_facts

CONFIG = {
    'classifier': CONFIGS / 'defocus_mamba_base.py',
    'detector': CONFIGS.parent / 'dino' / 'defocus_mamba_base_12ep.py',
}
SIDE = {'classifier': 224, 'detector': 1024}
BATCH = {'classifier': 64, 'detector': 2}
RATE = 1e-4
CLIP = {'classifier': 1.0, 'detector': 0.1}  # largest norm of the gradients
LABELS, BOXES = 10, 8
# Steps before the clock starts: kernels are compiled, and the optimiser gets its state.
WARM_UP = 10


def classifier(config: Path, batch: int, side: int, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a classifier and the function that computes its loss on a fixed batch."""
    network = from_config(str(config), side)
    network.module.to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    loss = network.loss_for(torch.randint(LABELS, (batch,), device=device))
    return network.module, lambda: loss(images)


def detector(config: Path, batch: int, side: int, device: torch.device) -> tuple[nn.Module, Callable[[], Tensor]]:
    """Return a detector and the function that computes its loss on a fixed batch."""
    cfg = load_config(config)
    cfg.model.backbone.pop('init_cfg', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model).to(device)
    images = torch.randn(batch, 3, side, side, device=device)
    samples = [sample(side, device) for _ in range(batch)]
    return model, lambda: model.parse_losses(model.loss(images, samples))[0]


def sample(side: int, device: torch.device) -> DetDataSample:
    """Make random boxes of at least an eighth of the side."""
    corner = torch.rand(BOXES, 2) * side / 2
    size = (torch.rand(BOXES, 2) * 3 + 1) * side / 8
    objects = InstanceData(bboxes=torch.cat([corner, corner + size], dim=1), labels=torch.randint(LABELS, (BOXES,)))
    shape = (side, side)
    metainfo = dict(
        img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0), img_id=0
    )
    return DetDataSample(metainfo=metainfo, gt_instances=objects).to(device)


def train(model: nn.Module, loss_of: Callable[[], Tensor], steps: int, clip: float, device: torch.device) -> dict:
    """Take optimiser steps; return the losses and the seconds per step after the first ``WARM_UP``."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=RATE)
    losses = []
    synchronize = torch.cuda.synchronize if device.type == 'cuda' else lambda: None
    warm_up = min(WARM_UP, steps - 1)
    for step in range(steps):
        if step == warm_up:
            synchronize()
            start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == 'cuda'):
            loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.detach())
        if step % 20 == 0:
            print(f'step {step}: loss {loss.item():.4g}', flush=True)
    synchronize()
    seconds = (time.perf_counter() - start) / (steps - warm_up)
    return dict(losses=[finite(loss.item()) for loss in losses], seconds_per_step=seconds)


def finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('task', choices=CONFIG)
    parser.add_argument('--config', type=Path, help='config file (default: De-focus Mamba base)')
    parser.add_argument('--steps', type=int, default=200, help='number of steps, at least 2 (default: 200)')
    parser.add_argument('--batch', type=int, help='images (default: 64; of the detector 2)')
    parser.add_argument('--side', type=int, help='side of the images in pixels (default: 224; of the detector 1024)')
    parser.add_argument('--device', type=torch.device, default='cuda', help='cuda (default) or cpu')
    parser.add_argument('--facts', type=Path, required=True, metavar='FILE.json', help='results')
    arguments = parser.parse_args()
    task, device = arguments.task, arguments.device
    if arguments.steps < 2:
        parser.error(f'--steps must be at least 2, got {arguments.steps}')
    batch, side = arguments.batch or BATCH[task], arguments.side or SIDE[task]
    config = arguments.config or CONFIG[task]
    torch.manual_seed(0)
    make = classifier if task == 'classifier' else detector
    model, loss_of = make(config, batch, side, device)
    model.init_weights()  # DINO leaves some weights uninitialised before
    facts = train(model, loss_of, arguments.steps, CLIP[task], device)
    facts |= dict(config=config.stem, batch=batch, side=side, images_per_second=batch / facts['seconds_per_step'])
    facts['peak_bytes'] = torch.cuda.max_memory_allocated(device) if device.type == 'cuda' else None
    write_facts(arguments.facts, facts)


if __name__ == '__main__':
    main()
