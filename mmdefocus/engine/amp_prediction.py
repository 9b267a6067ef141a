"""Mixed precision in prediction and evaluation."""

import logging
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

from .cpu_bfloat16 import NO_BFLOAT16, cpu_has_bfloat16
from .float32_predictions import keep_predictions_in_float32


def predict_in_mixed_precision(model: nn.Module) -> None:
    """Make ``model.test_step`` and ``model.val_step`` compute under autocast, in bfloat16 where the device has it.

    A GPU without bfloat16 computes in float16, a CPU without it in float32, with a warning. Parameters keep their type,
    and predictions are float32.

    Args:
        model: A model of MMEngine, on its device.
    """
    device = next(model.parameters()).device.type
    if device == 'cpu' and not cpu_has_bfloat16():
        print_log(NO_BFLOAT16, logger='current', level=logging.WARNING)
        return
    has_bfloat16 = device == 'cpu' or torch.cuda.is_bf16_supported()
    dtype = torch.bfloat16 if has_bfloat16 else torch.float16
    print_log(f'Mixed precision: {str(dtype).removeprefix("torch.")} on {device}', logger='current')
    keep_predictions_in_float32(model)
    for name in ('test_step', 'val_step'):
        setattr(model, name, _under_autocast(getattr(model, name), device, dtype))


def _under_autocast(step: Any, device: str, dtype: torch.dtype) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype):
            return step(*args, **kwargs)

    return call
