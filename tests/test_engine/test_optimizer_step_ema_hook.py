import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import DataLoader

MOMENTUM = 0.25


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode):
        return {'loss': (self.weight - inputs).square().sum()}


class Recorder(Hook):
    """Weights after every iteration."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, *args, **kwargs):
        self.weights.append(runner.model.weight.item())


def train(work_dir, counts, max_epochs, resume_from=None, custom_hooks=()):
    """Epochs of ten iterations: weights after each, and the average at the end of the last."""
    recorder = Recorder()
    runner = Runner(
        model=Model(),
        work_dir=str(work_dir),
        train_dataloader=DataLoader(torch.arange(10.0), collate_fn=lambda x: {'inputs': torch.stack(x)}),
        train_cfg={'by_epoch': True, 'max_epochs': max_epochs},
        optim_wrapper={'optimizer': {'type': 'SGD', 'lr': 0.1}, 'accumulative_counts': counts},
        default_hooks={'sampler_seed': None, 'ema': {'type': 'DefocusOptimizerStepEMAHook', 'momentum': MOMENTUM}},
        custom_hooks=[recorder, *custom_hooks],
        load_from=resume_from,
        resume=resume_from is not None,
        log_level='ERROR',
        experiment_name=str(work_dir),
    )
    runner.train()
    checkpoint = torch.load(work_dir / f'epoch_{max_epochs}.pth', weights_only=False)
    assert checkpoint['ema_state_dict']['module.weight'].item() == recorder.weights[-1]
    return recorder.weights, checkpoint['state_dict']['weight'].item(), checkpoint['ema_state_dict']['steps'].item()


@pytest.mark.parametrize(
    ('counts', 'steps'),
    [(1, [*range(10)]), (4, [3, 7, 9])],  # the rest at the end is a step of its own
)
def test_one_update_per_step(tmp_path, counts, steps):
    weights, average, updates = train(tmp_path, counts, max_epochs=1)
    first, *others = [weights[iteration] for iteration in steps]
    expected = first
    for weight in others:
        expected = (1 - MOMENTUM) * expected + MOMENTUM * weight
    assert average == pytest.approx(expected, rel=1e-6)
    assert updates == len(steps)


def test_resumed_between_two_epochs(tmp_path):
    whole = train(tmp_path / 'whole', counts=5, max_epochs=2)
    resumed = train(tmp_path / 'resumed', counts=5, max_epochs=2, resume_from=str(tmp_path / 'whole' / 'epoch_1.pth'))
    assert resumed[1:] == whole[1:]
    assert whole[2] == 4


def test_a_second_average_is_an_error(tmp_path):
    second = {'type': 'EMAHook', 'momentum': MOMENTUM}
    with pytest.raises(ValueError, match=r'it has DefocusOptimizerStepEMAHook and EMAHook: change default_hooks\.ema'):
        train(tmp_path, counts=1, max_epochs=1, custom_hooks=[second])
