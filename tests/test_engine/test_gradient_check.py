"""The check of gradients, in trainings of a model with three parameters."""

import math

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from mmdefocus.engine import DefocusFiniteLossHook
from mmdefocus.engine.gradient_check import GradientCheck


class Model(BaseModel):
    """The gradient of the weight is that of the batch: `slope`, which may be infinite."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode):
        loss = self.linear(inputs['x']).square().sum()
        return {'loss': loss + Slope.apply(loss, inputs['slope'])}


class Slope(torch.autograd.Function):
    """Zero, with a given gradient."""

    @staticmethod
    def forward(ctx, x, slope):
        ctx.slope = slope
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.slope, None


class ScalingWrapper(OptimWrapper):
    """Loss scaling on a CPU, where AmpOptimWrapper cannot be built."""

    def __init__(self, init_scale, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        if self.clip_grad_kwargs:
            self.loss_scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.loss_scaler.step(self.optimizer, **kwargs)
        self.loss_scaler.update()


def train(tmp_path, slopes, wrapper):
    batches = [{'x': torch.ones(1, 2), 'slope': torch.tensor(slope)} for slope in slopes]
    runner = Runner(
        model=Model(),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(batches, collate_fn=lambda batch: {'inputs': batch[0]}),
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1e-3}},
        default_hooks={'sampler_seed': None, 'checkpoint': None},
        custom_hooks=[DefocusFiniteLossHook()],
        log_level='ERROR',
        experiment_name=str(tmp_path),
    )
    runner.optim_wrapper = wrapper(optimizer=SGD(runner.model.parameters(), lr=1e-3))
    runner.train()
    return runner.model


def wrapper(cls=OptimWrapper, **settings):
    return lambda optimizer: cls(
        optimizer=optimizer, **{k: dict(v) if k == 'clip_grad' else v for k, v in settings.items()}
    )


CLIPPING = [{}, {'clip_grad': {'max_norm': 1.0}}, {'clip_grad': {'clip_value': 1.0, 'type': 'value'}}]


@pytest.mark.parametrize('clipping', CLIPPING)
@pytest.mark.parametrize('value', [math.inf, math.nan])
def test_first_gradient_that_is_not_finite(tmp_path, clipping, value):
    with pytest.raises(
        RuntimeError, match=r'^the gradient of iteration 2 is not finite \(loss=.*The micro-batch holds '
    ):
        train(tmp_path, [0.0, 1.0, value, value], wrapper(**clipping))


@pytest.mark.parametrize('clipping', CLIPPING)
@pytest.mark.parametrize('position', [3, 4, 5])
def test_micro_batch_of_accumulated_gradients(tmp_path, clipping, position):
    slopes = [math.nan if index == position else 1.0 for index in range(9)]
    with pytest.raises(RuntimeError, match=rf'^the gradient of iteration {position} is not finite'):
        train(tmp_path, slopes, wrapper(accumulative_counts=3, **clipping))


def test_setting_of_clipping_for_such_gradients(tmp_path):
    """PyTorch's own error names no layer."""
    clip = {'max_norm': 1.0, 'error_if_nonfinite': True}
    with pytest.raises(RuntimeError, match=r'^the gradient of iteration 0 is not finite'):
        train(tmp_path, [math.inf], wrapper(clip_grad=clip))


def test_large_gradients_whose_norm_overflows(tmp_path):
    """Clipping makes them zero; MMEngine goes on."""
    model = train(tmp_path, [1e30], wrapper(clip_grad={'max_norm': 1.0}))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize('clipping', CLIPPING[:2])
def test_overflow_of_scaled_gradients_is_no_error(tmp_path, clipping):
    """GradScaler skips the step and lowers the scale."""
    model = train(tmp_path, [1.0, math.inf, 1.0, math.inf], wrapper(ScalingWrapper, init_scale=2.0**16, **clipping))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize('clipping', CLIPPING[:2])
@pytest.mark.parametrize(('init_scale', 'iteration'), [(4.0, 2), (1.0, 0)])
def test_gradients_that_no_loss_scale_makes_finite(tmp_path, clipping, init_scale, iteration):
    """The scale is halved down to 1; our configs for bfloat16 fix it at 1."""
    with pytest.raises(RuntimeError, match=rf'^the gradient of iteration {iteration} is not finite'):
        train(tmp_path, [math.inf] * 6, wrapper(ScalingWrapper, init_scale=init_scale, **clipping))


def test_methods_of_the_wrapper_are_restored(tmp_path):
    for settings in CLIPPING:
        model = Model()
        wrapped = wrapper(**settings)(SGD(model.parameters(), lr=0.1))
        before = dict(vars(wrapped))
        check = GradientCheck(wrapped, stop=lambda: None)
        assert vars(wrapped) != before
        check.remove()
        assert vars(wrapped) == before


def test_several_optimisers():
    models = [Model(), Model()]
    wrappers = OptimWrapperDict(
        **{f'part{i}': wrapper()(SGD(model.parameters(), lr=0.1)) for i, model in enumerate(models)}
    )
    stopped = []
    for name, part in wrappers.items():
        GradientCheck(part, stop=lambda name=name: stopped.append(name))
    for (_, part), value in zip(wrappers.items(), (1.0, math.nan), strict=True):
        part.update_params(sum(x.sum() for group in part.optimizer.param_groups for x in group['params']) * value)
    assert stopped == ['part1']


class HostReads(TorchDispatchMode):
    """Counts the values that the host waits for."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(('clipping', 'additional'), [(CLIPPING[0], 1), (CLIPPING[1], 0), (CLIPPING[2], 1)])
def test_the_host_waits_once_per_step_and_not_at_all_with_the_norm_of_clipping(clipping, additional):
    counts = []
    for is_checked in (False, True):
        model = Model()
        wrapped = wrapper(**clipping)(SGD(model.parameters(), lr=0.1, foreach=False))
        if is_checked:
            GradientCheck(wrapped, stop=lambda: pytest.fail('finite'))
        loss = model(dict(x=torch.ones(1, 2), slope=torch.tensor(0.0)), mode='loss')['loss']
        with HostReads() as reads:
            wrapped.update_params(loss)
        counts.append(reads.count)
    assert counts[1] - counts[0] == additional
