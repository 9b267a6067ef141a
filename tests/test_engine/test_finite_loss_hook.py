from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from mmdefocus.engine import DefocusFiniteLossHook
from mmdefocus.engine.non_finite_modules import first_non_finite_output
from mmdefocus.models import DefocusClsHead, DefocusMamba

BAD_IMAGE = 3
ARCH = {
    'embed_dims': 16,
    'num_layers': 2,
    'inner_dims': 32,
    'state_dims': 4,
    'conv_kernel': 4,
    'dt_rank': 2,
    'group_size': 16,
}


class Block(nn.Module):
    """Divides between its modules, where no module has a name for it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, *, divisor):
        return self.second(self.first(x) / divisor)


class Model(BaseModel):
    def __init__(self, fault):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.dropout = nn.Dropout(0.5)
        self.fault = fault

    def forward(self, inputs, mode):
        x, bad = inputs['x'], inputs['index'].item() == BAD_IMAGE
        for number, block in enumerate(self.blocks):
            if self.fault == 'mode' and mode == 'tensor' and number == 2:
                raise TypeError('no such mode')
            x = block(x, divisor=0.0 if bad and self.fault == 'function' and number == 1 else 1.0)
        if self.fault == 'chance':
            x = self.dropout(x) / (self.dropout(torch.ones(1)) if bad else 1.0)
        if self.fault == 'error' and (bad or not x.isfinite().all()):
            raise ValueError('refused')
        return {'loss': x.square().sum() / (0.0 if bad and self.fault == 'loss' else 1.0)} if mode == 'loss' else x


def make_batches(fault):
    batches = [{'x': torch.ones(1, 4), 'index': torch.tensor(index)} for index in range(6)]
    if fault == 'image':
        batches[BAD_IMAGE]['x'][0, 0] = torch.inf
    return batches


def train(tmp_path, fault, model=None, seed=None, **settings):
    runner = Runner(
        model=model or Model(fault),
        work_dir=str(tmp_path),
        train_dataloader=DataLoader(make_batches(fault), collate_fn=lambda batch: {'inputs': batch[0]}),
        train_cfg={'by_epoch': True, 'max_epochs': 1},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 1e-3}},
        default_hooks={'sampler_seed': None, 'checkpoint': None},
        custom_hooks=[DefocusFiniteLossHook(**settings)],
        randomness={'seed': seed},
        log_level='ERROR',
        experiment_name=str(tmp_path),
    )
    runner.train()
    return runner


def message_of(tmp_path, fault, model=None, **settings):
    with pytest.raises(RuntimeError) as error:
        train(tmp_path, fault, model, **settings)
    return str(error.value)


def test_normal_training(tmp_path):
    runner = train(tmp_path, fault=None)
    assert 'forward' not in vars(runner.model), 'restored'


def test_operation_between_modules(tmp_path):
    """The modules behind it have such outputs too, but were given such inputs."""
    message = message_of(tmp_path, 'function')
    assert message.startswith('the loss of iteration 3 is not finite (loss=')
    assert 'The first module with finite inputs and an output that is not is blocks.1 (Block).' in message
    for remedy in ('learning rate', 'clip gradients (optim_wrapper.clip_grad)', 'float32', 'images and labels'):
        assert remedy in message


def test_weights_are_still_those_of_the_step_before(tmp_path):
    model = Model('function')
    message_of(tmp_path, 'function', model)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_module_with_lost_weights(tmp_path):
    model = Model(fault=None)
    model.blocks[2].second.weight.data[1, 1] = torch.nan
    message = message_of(tmp_path, None, model)
    assert 'the loss of iteration 0 is not finite (loss=nan)' in message
    assert 'is blocks.2.second (Linear); 1 parameters are not finite since an earlier step' in message
    assert 'among them blocks.2.second.weight' in message


def test_images(tmp_path):
    assert 'The images of the batch are not finite.' in message_of(tmp_path, 'image')


def test_labels():
    model = Model(fault=None)
    model.forward = lambda inputs, data_samples, mode: {'loss': data_samples[0].gt_score.sum()}
    found, message = first_non_finite_output(
        model, (torch.ones(1, 3, 4, 4), [DataSample().set_gt_score(torch.tensor([torch.nan, 0]))]), {'mode': 'loss'}
    )
    assert found
    assert message == 'The annotations of the batch are not finite'


def test_loss_itself(tmp_path):
    assert '. Its origin is between the modules of Model, or in the loss itself. Lower' in message_of(tmp_path, 'loss')


@pytest.fixture
def two_processes(monkeypatch):
    """The losses of another process would be waited for, so that the second look leaves them out."""
    monkeypatch.setattr('mmdefocus.engine.finite_loss_hook.get_world_size', lambda: 2)


@pytest.mark.usefixtures('two_processes')
def test_loss_itself_in_one_of_two_processes(tmp_path):
    assert 'The outputs of all modules are finite, the loss itself is not.' in message_of(tmp_path, 'loss')


@pytest.mark.usefixtures('two_processes')
def test_model_that_fails_when_it_is_looked_at(tmp_path):
    """As detectors whose mode 'tensor' is not complete: what was seen before counts."""
    model = Model('mode')
    model.blocks[2].second.weight.data[1, 1] = torch.nan
    message = message_of(tmp_path, 'mode', model)
    assert 'the loss of iteration 0 is not finite (loss=nan)' in message
    assert 'Its origin is unknown: the second run of the model failed (TypeError: no such mode)' in message
    assert 'among them blocks.2.second.weight' in message
    model = Model('mode')
    model.blocks[1].second.weight.data[1, 1] = torch.nan
    assert 'is blocks.1.second (Linear)' in message_of(tmp_path / 'second', 'mode', model)


def test_loss_that_cannot_be_computed(tmp_path):
    model = Model('error')
    model.blocks[1].second.weight.data[1, 1] = torch.nan
    message = message_of(tmp_path, 'error', model)
    assert message.startswith('the loss of iteration 0 cannot be computed (ValueError: refused). The first module')
    assert 'is blocks.1.second (Linear); 1 parameters are not finite since an earlier step' in message
    assert 'Lower the learning rate' in message


def test_error_with_another_cause(tmp_path):
    with pytest.raises(ValueError, match=r'^refused$') as error:
        train(tmp_path, 'error')
    assert error.value.__cause__ is None


def test_forward_of_another_hook_is_kept():
    model = Model(fault=None)
    own = model.forward = lambda *args, **kwargs: None
    hook = DefocusFiniteLossHook()
    runner = SimpleNamespace(model=model, optim_wrapper=OptimWrapper(SGD(model.parameters(), 0.1)))
    hook.before_train(runner)
    assert model.forward is not own
    hook.after_train(runner)
    assert model.forward is own


def test_chance_is_repeated(tmp_path):
    """The report repeats the random choices of the failed iteration, such as those of drop path."""
    messages = []
    for seed in range(8):
        try:
            train(tmp_path / str(seed), 'chance', seed=seed)
        except RuntimeError as error:
            messages.append(str(error))
    assert 2 <= len(messages) <= 7
    assert all('Its origin is between the modules of Model' in message for message in messages)


@pytest.mark.parametrize(
    ('broken', 'message'),
    [
        ('backbone.layers.1.mixer.A_log', r'is backbone.layers.1.mixer \(MambaMixer\); 1 parameters'),
        ('backbone.norm.bias', r'is backbone.norm \(LayerNorm\); 1 parameters'),
        ('head.aux_fc.bias', r'is head.aux_fc \(Linear\); 1 parameters'),
    ],
)
def test_classifier(tmp_path, broken, message):
    head = DefocusClsHead(num_classes=3, in_channels=16)
    backbone = DefocusMamba(ARCH, out_type='raw', drop_path_rate=0.5)
    model = MODELS.build({'type': 'ImageClassifier', '_scope_': 'mmpretrain', 'backbone': backbone, 'head': head})
    model.get_parameter(broken).data.view(-1)[0] = torch.nan
    wrapper = OptimWrapper(SGD(model.parameters(), 0.1))
    facts = dict(iter=7, epoch=0, work_dir=str(tmp_path), cfg=Config())
    DefocusFiniteLossHook().before_train(SimpleNamespace(model=model, optim_wrapper=wrapper, **facts))
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    with pytest.raises(
        RuntimeError, match=rf'iteration 7 is not finite.*{message} are not finite.*among them {broken}'
    ):
        model(torch.randn(2, 3, 32, 32), samples, mode='loss')
