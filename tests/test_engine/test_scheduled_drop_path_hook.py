import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmdefocus.engine import DefocusScheduledDropPathHook
from mmdefocus.models import DAT, DefocusMamba, FCViT

DEPTH = 24  # of the base model
ARCH = {
    'embed_dims': 4,
    'num_layers': DEPTH,
    'inner_dims': 4,
    'state_dims': 2,
    'conv_kernel': 2,
    'dt_rank': 1,
    'group_size': 4,
}


class Model(BaseModel):
    """Has the blocks of the base model, and a loss that takes no time."""

    def __init__(self):
        super().__init__()
        self.backbone = DefocusMamba(ARCH)

    def forward(self, inputs, mode):
        return {'loss': self.backbone.cls_token.sum() * inputs.sum()}


class Recorder(DefocusScheduledDropPathHook):
    """Keeps what the blocks have while an epoch runs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = {}

    def before_train_iter(self, runner, *args, **kwargs):
        logged = runner.message_hub.get_scalar('train/drop_path_rate').current()
        self.seen[runner.epoch] = ([block.drop_path.drop_prob for block in runner.model.backbone.layers], logged)


def train(work_dir, hook, max_epochs, load_from=None, model=None, by_epoch=True):
    hooks = {'checkpoint': {'type': 'CheckpointHook', 'interval': 150}, 'logger': {'type': 'LoggerHook', 'interval': 1}}
    runner = Runner(
        model=model or Model(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader([torch.ones(1)], collate_fn=lambda x: {'inputs': torch.stack(x)}),
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs} if by_epoch else {'by_epoch': False, 'max_iters': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={'sampler_seed': None} | hooks,
        custom_hooks=[hook],
        load_from=load_from,
        resume=load_from is not None,
        log_level='ERROR',
        experiment_name=str(work_dir),
    )
    runner.train()


@pytest.mark.parametrize('resume', [False, True])
def test_published_schedule_of_the_base_model(tmp_path, resume):
    hook = Recorder(min_rate=0.1, max_rate=0.75)
    train(tmp_path / 'whole', hook, 300)
    if resume:
        hook = Recorder(min_rate=0.1, max_rate=0.75)
        train(tmp_path / 'resumed', hook, 300, load_from=str(tmp_path / 'whole' / 'epoch_150.pth'))
    assert list(hook.seen) == list(range(150 if resume else 0, 300))
    for epoch in (150, 299) if resume else (0, 150, 299):
        rates, logged = hook.seen[epoch]
        rate = 0.1 + 0.65 * epoch / 299
        assert rates == pytest.approx([rate * i / 23 for i in range(DEPTH)])
        assert logged == pytest.approx(rate)
    assert hook.seen[299][0][-1] == pytest.approx(0.75)


def test_constant_mode(tmp_path):
    hook = Recorder(max_rate=0.4, mode='constant')
    train(tmp_path, hook, 2)
    for rates, logged in hook.seen.values():
        assert rates == pytest.approx([0.4 * i / 23 for i in range(DEPTH)])
        assert logged == 0.4
    (visualised,) = tmp_path.glob('*/vis_data/scalars.json')
    assert [json.loads(line)['drop_path_rate'] for line in visualised.read_text().splitlines()] == [0.4, 0.4]


@pytest.mark.parametrize(('backbone', 'depths'), [(FCViT('nano'), (1, 1, 2, 1)), (DAT('nano'), (2, 2, 2, 2))])
def test_the_rate_grows_over_the_stages_of_a_pyramid(backbone, depths):
    model = Model()
    model.backbone = backbone
    runner = SimpleNamespace(
        model=model, epoch=1, max_epochs=2, message_hub=MessageHub.get_instance('drop_path'), train_loop=None
    )
    hook = DefocusScheduledDropPathHook(max_rate=0.5)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    rates = [[block.drop_path.drop_prob for block in stage] for stage in backbone.stages]
    assert tuple(map(len, rates)) == depths
    count = sum(depths)
    assert [rate for stage in rates for rate in stage] == pytest.approx([0.5 * i / (count - 1) for i in range(count)])


def test_distributed_model():
    model = Model()
    hub = MessageHub.get_instance('drop_path')
    runner = SimpleNamespace(model=torch.nn.DataParallel(model), epoch=1, max_epochs=2, message_hub=hub)
    DefocusScheduledDropPathHook(max_rate=0.5).before_train_epoch(runner)
    assert model.backbone.layers[-1].drop_path.drop_prob == 0.5


def test_one_epoch_has_the_first_rate(tmp_path):
    hook = Recorder(min_rate=0.1, max_rate=0.75)
    train(tmp_path, hook, 1)
    assert hook.seen[0][1] == pytest.approx(0.1)


def test_equal_rates_are_a_schedule(tmp_path):
    hook = Recorder(min_rate=0.5, max_rate=0.5)
    train(tmp_path, hook, 2)
    assert [logged for _, logged in hook.seen.values()] == [0.5, 0.5]


def test_two_blocks(tmp_path):
    model = Model()
    model.backbone = DefocusMamba(ARCH | {'num_layers': 2})
    hook = Recorder(max_rate=0.4, mode='constant')
    train(tmp_path, hook, 1, model=model)
    assert hook.seen[0][0] == [0.0, 0.4]


def test_one_block(tmp_path):
    model = Model()
    model.backbone = DefocusMamba(ARCH | {'num_layers': 1})
    hook = Recorder(min_rate=0.1, max_rate=0.75)
    train(tmp_path, hook, 2, model=model)
    assert [rates for rates, _ in hook.seen.values()] == [[0.0], [0.0]]


def test_training_by_iterations(tmp_path):
    message = r"counts epochs, but IterBasedTrainLoop counts iterations; set train_cfg.type='EpochBasedTrainLoop'"
    with pytest.raises(RuntimeError, match=message):
        train(tmp_path, DefocusScheduledDropPathHook(max_rate=0.5), None, by_epoch=False)


@pytest.mark.parametrize(
    'backbone',
    [torch.nn.Linear(1, 1), torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(4, 1, batch_first=True), 1)],
)
def test_backbone_without_drop_path(tmp_path, backbone):
    model = Model()
    model.backbone = backbone
    with pytest.raises(ValueError, match=rf'such as DefocusMamba; the backbone is {type(backbone).__name__}'):
        train(tmp_path, DefocusScheduledDropPathHook(max_rate=0.5), 1, model=model)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'max_rate': 1.0}, 'max_rate < 1, got min_rate=0.0 and max_rate=1.0'),
        ({'max_rate': 0.1, 'min_rate': 0.2}, 'min_rate <= max_rate < 1, got min_rate=0.2 and max_rate=0.1'),
        ({'max_rate': 0.1, 'mode': 'cosine'}, r"mode must be one of \['linear', 'constant'\], got 'cosine'"),
    ],
)
def test_arguments_outside_their_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        DefocusScheduledDropPathHook(**arguments)
