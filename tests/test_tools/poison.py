"""Faults that make a training step not finite, for configs: pixels, weights and layers."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS, MODELS, TRANSFORMS
from torch import nn


@TRANSFORMS.register_module()
class PoisonPixels(BaseTransform):
    """Set one pixel of the images whose file name contains a word."""

    def __init__(self, value, word='bad'):
        self.value, self.word = value, word

    def transform(self, results):
        if self.word in results['img_path']:
            results['img'] = results['img'].astype(np.float32)
            results['img'][3, 3] = self.value
        return results


def logarithm(x):
    return (x * 0).log()


def exponential(x):
    return (x * 0 + 100).exp()


def root(x):
    """Finite, with an infinite derivative."""
    return x + (x * 0).sqrt()


def half(x):
    return (x * 0 + 300).half().square().float()


class Rounding(nn.Module):
    """Divide by log(1.001), which is 0 in bfloat16."""

    def __init__(self):
        super().__init__()
        self.sum = nn.Linear(1, 1, bias=False)
        self.sum.weight.data.fill_(1.001)

    def forward(self, x):
        return x + self.sum(torch.ones_like(x[..., :1])).log().reciprocal()


@MODELS.register_module()
class PoisonNeck(nn.Module):
    """Apply a faulty function once `is_faulty` is set, else nothing."""

    def __init__(self, fault):
        super().__init__()
        self.is_faulty = False
        self.inner = Rounding() if fault == 'rounding' else nn.Identity()
        self.function = dict(log=logarithm, exp=exponential, root=root, half=half).get(fault, self.inner)

    def forward(self, inputs):
        return tuple(self.function(x) if self.is_faulty and torch.is_tensor(x) else x for x in inputs)


@HOOKS.register_module()
class PoisonHook(Hook):
    """Break a PoisonNeck, or else a weight, from an iteration on."""

    def __init__(self, iteration, weight=None, value=float('inf'), rank=0):
        self.iteration, self.weight, self.value, self.rank = iteration, weight, value, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if runner.iter < self.iteration or get_rank() != self.rank:
            return
        if self.weight is None:
            model.neck.is_faulty = True
        else:
            model.get_parameter(self.weight).data.view(-1)[0] = self.value
