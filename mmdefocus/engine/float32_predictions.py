"""Boxes and scores of MMDetection's detectors, and logits of MMPreTrain's heads, in float32 under autocast.

A coordinate in bfloat16 has 8 bits: in an image of 1333 pixels, it is off by up to 4. MMDetection adds offsets in place
and rounds regions to the type of the features, so that boxes would have these bits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmdefocus.models.precision import at_least_float32

# Classes of these packages by name: importing them takes seconds.
_PACKAGES = ('mmdet.', 'mmpretrain.')
_PREDICT = {'BaseDenseHead', 'DETRHead', 'BBoxHead', 'FCNMaskHead', 'ClsHead'}
_TAKE_REGIONS = {'BaseRoIExtractor'}
# Layers of DETR's descendants, which head, encoder and decoder share.
_BRANCHES = ('cls_branches', 'reg_branches')


def keep_predictions_in_float32(model: nn.Module) -> None:
    """Make heads return at least float32, and regions be cut out of such features, from now on.

    Losses, matching and decoding, which follow, compute in this type then. On CPUs, mmcv's operators for regions and
    for the suppression of boxes have no other. Models in float32 without autocast stay as they are.

    Args:
        model: A detector of MMDetection, a classifier of MMPreTrain, or any other model, which does not change.
    """
    for module in model.modules():
        bases = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith(_PACKAGES)}
        if bases & _PREDICT:
            _hook_output(module)
            for name in _BRANCHES:
                for branch in getattr(module, name, None) or ():
                    _hook_output(branch)
        elif bases & _TAKE_REGIONS and _promote_inputs not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_promote_inputs)


def _hook_output(module: nn.Module) -> None:
    if _promote_output not in module._forward_hooks.values():
        module.register_forward_hook(_promote_output)


def _promote_inputs(module: nn.Module, args: tuple) -> Any:
    return _promote(args)


def _promote_output(module: nn.Module, args: tuple, output: Any) -> Any:
    return _promote(output)


def _promote(value: Any) -> Any:
    if isinstance(value, Tensor):
        return at_least_float32(value) if torch.is_floating_point(value) else value
    return type(value)(map(_promote, value)) if isinstance(value, list | tuple) else value
