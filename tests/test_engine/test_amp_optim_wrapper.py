"""Mixed precision on a CPU, in trainings of a model with one layer; on a GPU that is a stand-in."""

import platform

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from torch import nn

from mmdefocus.engine import DefocusAmpOptimWrapper, amp_optim_wrapper, cpu_bfloat16
from mmdefocus.engine.amp_optim_wrapper import choose_precision, describe_precision
from mmdefocus.engine.amp_prediction import predict_in_mixed_precision


class Model(BaseModel):
    """Remembers the types that autocast gives to its layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.types = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        y = self.linear(inputs)
        self.types.append(y.dtype)
        return {'loss': y.float().square().sum()} if mode == 'loss' else [y]


def batch():
    return dict(inputs=torch.randn(2, 3), data_samples=None)


def make(**settings):
    torch.manual_seed(0)
    model = Model()
    wrapper = dict(type='DefocusAmpOptimWrapper', optimizer=dict(type='AdamW', lr=0.1), **settings)
    return model, build_optim_wrapper(model, wrapper)


def test_the_forward_pass_is_in_bfloat16_and_everything_that_is_kept_in_float32():
    model, wrapper = make()
    model.linear.weight.register_hook(lambda gradient: model.types.append(gradient.dtype))
    model.train_step(batch(), wrapper)
    assert model.types == [torch.bfloat16, torch.float32]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    state = wrapper.state_dict()
    assert {value.dtype for one in state['state'].values() for value in one.values()} == {torch.float32}
    assert not torch.is_autocast_enabled('cpu')


def test_the_loss_is_not_scaled():
    model, wrapper = make(loss_scale=1024.0)
    assert not wrapper.loss_scaler.is_enabled()
    images = batch()
    with wrapper.optim_context(model):
        loss = model(**images)['loss']
    wrapper.backward(loss)
    (expected,) = torch.autograd.grad(model(**images)['loss'], model.linear.bias)
    torch.testing.assert_close(model.linear.bias.grad, expected, rtol=0.02, atol=0.02)


def test_accumulated_and_clipped_gradients():
    model, wrapper = make(accumulative_counts=2, clip_grad=dict(max_norm=1e-3))
    before = model.linear.weight.clone()
    model.train_step(batch(), wrapper)
    assert torch.equal(model.linear.weight, before)
    first = model.linear.weight.grad.norm()
    norms = []
    wrapper.optimizer.step = lambda: norms.append(
        torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    )
    model.train_step(batch(), wrapper)
    assert first > 1e-3
    torch.testing.assert_close(norms, [torch.tensor(1e-3)], rtol=1e-3, atol=0)


@pytest.mark.parametrize('kinds', [(DefocusAmpOptimWrapper, OptimWrapper), (OptimWrapper, DefocusAmpOptimWrapper)])
def test_the_state_of_one_precision_is_loaded_by_the_other(kinds):
    wrappers = []
    for kind in kinds:
        model = Model()
        wrappers.append(kind(optimizer=torch.optim.AdamW(model.parameters())))
        model.train_step(batch(), wrappers[-1])
    state = wrappers[0].state_dict()
    assert 'loss_scaler' not in state
    wrappers[1].load_state_dict(state)
    moments = [wrapper.optimizer.state_dict()['state'][0]['exp_avg'] for wrapper in wrappers]
    assert torch.equal(*moments)


def test_other_types_are_refused_on_a_cpu():
    with pytest.raises(ValueError, match="on a CPU computes in bfloat16, got dtype='float16'; leave dtype out"):
        make(dtype='float16')


def test_on_a_gpu_it_is_the_wrapper_of_mmengine(monkeypatch):
    given = []
    monkeypatch.setattr(amp_optim_wrapper, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(AmpOptimWrapper, '__init__', lambda self, *words, **rest: given.append((words, rest)))
    DefocusAmpOptimWrapper('dynamic', 'float16', optimizer='AdamW')
    assert given == [(('dynamic', 'float16', False), dict(optimizer='AdamW'))]


MIXED = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic', use_fsdp=True, accumulative_counts=2)


@pytest.mark.parametrize('kind', ['DefocusAmpOptimWrapper', DefocusAmpOptimWrapper])
def test_a_cpu_trains_in_bfloat16(monkeypatch, kind):
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: True)
    settings = dict(MIXED, type=kind)
    assert choose_precision(settings) is None
    assert settings == dict(MIXED, type=kind, dtype='bfloat16')
    assert describe_precision(settings) == 'bfloat16 (mixed precision)'


@pytest.mark.parametrize(
    ('kind', 'has', 'reason'),
    [
        ('DefocusAmpOptimWrapper', False, 'no bfloat16 instructions'),
        ('AmpOptimWrapper', False, 'Without a GPU'),
        ('mmengine.AmpOptimWrapper', True, 'Without a GPU'),
        (AmpOptimWrapper, True, '--amp trains in bfloat16'),
    ],
)
def test_a_cpu_trains_in_float32_and_says_why(monkeypatch, kind, has, reason):
    monkeypatch.setattr(amp_optim_wrapper, 'cpu_has_bfloat16', lambda: has)
    settings = dict(MIXED, type=kind)
    assert reason in choose_precision(settings)
    assert settings == dict(type='OptimWrapper', accumulative_counts=2)
    assert describe_precision(settings) == 'float32'


def test_a_gpu_keeps_its_type(monkeypatch):
    monkeypatch.setattr(amp_optim_wrapper, 'get_device', lambda: 'cuda')
    settings = dict(MIXED)
    assert choose_precision(settings) is None
    assert settings == MIXED
    assert describe_precision(dict(type='AmpOptimWrapper')) == 'float16 (mixed precision)'


@pytest.mark.parametrize('settings', [{}, dict(type='OptimWrapper', clip_grad=None), dict(generator=dict(type='x'))])
def test_other_wrappers_stay(settings):
    given = dict(settings)
    assert choose_precision(given) is None
    assert given == settings
    assert describe_precision(given) == 'float32'


@pytest.mark.parametrize('has', [True, False])
def test_predictions(monkeypatch, has):
    said = []
    monkeypatch.setattr('mmdefocus.engine.amp_prediction.cpu_has_bfloat16', lambda: has)
    monkeypatch.setattr('mmdefocus.engine.amp_prediction.print_log', lambda text, **_: said.append(text))
    model = Model()
    predict_in_mixed_precision(model)
    model.test_step(batch())
    model.val_step(batch())
    assert model.types == [torch.bfloat16 if has else torch.float32] * 2
    assert said == ['Mixed precision: bfloat16 on cpu' if has else cpu_bfloat16.NO_BFLOAT16]


@pytest.mark.parametrize(
    ('machine', 'avx512', 'amx', 'arm', 'expected'),
    [
        ('x86_64', True, False, False, True),
        ('AMD64', False, True, False, True),
        ('x86_64', False, False, True, False),
        ('aarch64', False, False, True, True),
        ('arm64', True, True, False, False),
    ],
)
def test_instructions(monkeypatch, machine, avx512, amx, arm, expected):
    monkeypatch.setattr(platform, 'machine', lambda: machine)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: avx512)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: amx)
    monkeypatch.setattr(torch.ops.mkldnn, '_is_mkldnn_bf16_supported', lambda: arm, raising=False)
    assert cpu_bfloat16.cpu_has_bfloat16() == expected
