"""Say in words what a replay has found."""

import math

import torch

from mmdefocus.engine.magnitudes import Magnitudes
from mmdefocus.engine.non_finite_origin import Origin

from .replay import Replay, Run

WITHIN_MODEL = '(between the modules)'


def place(origin: Origin) -> str:
    """Return where the first non-finite value arises: its module, pass and operator."""
    module = origin.module or WITHIN_MODEL
    step = f'backward pass ({origin.node})' if origin.node else 'forward pass'
    operator = f'{module}, {step}, operator {origin.operator or "unknown"}'
    if origin.kind == 'weights':
        return f'{origin.tensor}, which was not finite before the step; first read by {operator}'
    if origin.kind == 'data':
        return f'the micro-batch, which was not finite before the step; first read by {operator}'
    if origin.kind == 'outside':
        return f'code that does not run as an operator of PyTorch; first read by {operator}'
    return operator


def cause(replay: Replay, origin: Origin) -> str:
    """Return the reason for the first non-finite value, as far as the repetitions tell."""
    if origin.kind == 'weights':
        return 'weights: an earlier step, or the checkpoint that was loaded, has made them so'
    if origin.kind == 'data':
        return 'data: see the images above, and their annotations'
    if origin.kind == 'constant':
        return 'the model writes an infinity here, and does not mask it out'
    if origin.kind == 'outside' or origin.output is None:
        return 'unknown: look at the code of the module before this operator'
    others = [run for run in replay.runs[1:] if run.operator is not None]
    finite = next((run for run in others if run.operator is not None and run.operator[1].finite), None)
    if finite is not None:
        return _too_narrow(origin, origin.output, finite)
    zeros = [str(number) for number, values in origin.inputs if values.smallest == 0]
    hint = f'; input {" and ".join(zeros)} contains zeros' if zeros else ''
    if not others:
        return f'unknown: this operator does not run in another type{hint}'
    types = ' and '.join(run.name for run in others)
    return f'data or weights: not finite in {types} either, so that a wider type does not help{hint}'


def _too_narrow(origin: Origin, output: Magnitudes, wide: Run) -> str:
    assert wide.operator is not None
    inputs, result = wide.operator
    narrow = output.dtype
    limit = torch.finfo(getattr(torch, narrow)).max
    if result.largest > limit:
        return f'overflow of {narrow}: {wide.name} gives {result.largest:.3g}, the largest {narrow} is {limit:.3g}'
    for (number, values), (_, wide_values) in zip(origin.inputs, inputs, strict=False):
        if not math.isfinite(wide_values.largest):
            continue
        if wide_values.largest > limit:
            return f'overflow of {narrow} in input {number}, which is {wide_values.largest:.3g} in {wide.name}'
        if values.smallest == 0 < wide_values.smallest:
            return f'underflow of {narrow}: input {number} has zeros where {wide.name} has {wide_values.smallest:.3g}'
    return f'range or rounding of {narrow} inside the operator, which is finite in {wide.name}'
