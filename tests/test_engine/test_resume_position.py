"""Positions in the data on several processes; tests/test_tools/test_resume_middle.py covers them through the tool."""

from types import SimpleNamespace

import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, Hook
from torch.utils.data import BatchSampler, DataLoader

from mmdefocus.engine import resume_position
from mmdefocus.engine.resume_position import checkpoints_within_steps, position_differences


@pytest.fixture
def runner_of(monkeypatch):
    """A run of several processes, with 12 images by default."""

    def build(processes, batch_size=2, images=12, sampler=DefaultSampler, batches=BatchSampler, counts=1, hooks=()):
        monkeypatch.setattr(resume_position, 'get_world_size', lambda: processes)
        dataset = [*range(images)]
        loader = DataLoader(dataset, batch_sampler=batches(sampler(dataset, seed=0), batch_size, False))
        return SimpleNamespace(
            train_dataloader=loader,
            train_loop=None,
            optim_wrapper=SimpleNamespace(_accumulative_counts=counts),
            hooks=hooks,
        )

    return build


def resumed(runner, processes, batch_size, **changes):
    """The differences of a run to a checkpoint of two batches of an epoch."""
    position = {
        'loop': 'epochs',
        'processes': processes,
        'batch_size': batch_size,
        'images': len(runner.train_dataloader.dataset),
        'sampler': type(runner.train_dataloader.batch_sampler.sampler).__name__,
        'accumulative_counts': 1,
        'first_batch': 2,
        'accumulated': 0,
        **changes,
    }
    return position_differences(runner, {'meta': {'iter': 2, 'position': position}})


class Grouping(BatchSampler):
    """Stands for samplers that build batches within a process."""


@pytest.mark.parametrize('sampler', [DefaultSampler, InfiniteSampler])
def test_the_same_steps_on_fewer_processes(runner_of, sampler):
    assert resumed(runner_of(1, 4, sampler=sampler), 2, 2) == []
    assert resumed(runner_of(3, 2, sampler=sampler), 2, 3) == []


def test_other_steps(runner_of):
    assert resumed(runner_of(1, 2), 2, 2) == [
        'this run has 1 processes with batches of 2, the checkpoint is from the middle of an epoch of 2 processes with '
        'batches of 2, and the steps of the remaining epoch would consist of other images'
    ]
    assert resumed(runner_of(1, 2), 2, 2, first_batch=0) == []


def test_images_that_fill_the_last_step_differ(runner_of):
    assert len(resumed(runner_of(1, 4, images=11), 2, 2)) == 1
    assert resumed(runner_of(2, 2, images=11), 4, 1) == []


def test_a_sampler_that_groups_images_within_a_process(runner_of):
    assert len(resumed(runner_of(1, 4, batches=Grouping), 2, 2)) == 1
    assert resumed(runner_of(2, 2, batches=Grouping), 2, 2) == []


def test_several_processes_do_not_save_gradients(runner_of):
    hooks = [
        Hook(),
        CheckpointHook(interval=1),
        CheckpointHook(interval=4, by_epoch=False),
        CheckpointHook(interval=-1),
    ]
    (warning,) = checkpoints_within_steps(runner_of(2, images=12, counts=4, hooks=hooks))
    assert warning == (
        'Checkpoints are 6 iterations apart, no multiple of optim_wrapper.accumulative_counts=4: only one in 2 can be '
        'resumed, as the gradients of several processes are not saved'
    )
    assert checkpoints_within_steps(runner_of(2, images=12, counts=3, hooks=hooks[:2])) == []
    assert checkpoints_within_steps(runner_of(1, images=12, counts=4, hooks=hooks)) == []
