import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmdefocus.engine import ScheduledDropPathHook
from mmdefocus.models import DefocusMamba

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


class Recorder(ScheduledDropPathHook):
    """Keeps what the blocks have while an epoch runs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = {}

    def before_train_iter(self, runner, *args, **kwargs):
        logged = runner.message_hub.get_scalar('train/drop_path_rate').current()
        self.seen[runner.epoch] = ([block.drop_path.drop_prob for block in runner.model.backbone.layers], logged)


def train(work_dir, hook, max_epochs, load_from=None, model=None, by_epoch=True):
    hooks = {'checkpoint': {'type': 'CheckpointHook', 'interval': 150}}
    runner = Runner(
        model=model or Model(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader([torch.ones(1)], collate_fn=lambda x: {'inputs': torch.stack(x)}),
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs} if by_epoch else {'by_epoch': False, 'max_iters': 2},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}},
        default_hooks={'logger': None, 'sampler_seed': None} | hooks,
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
