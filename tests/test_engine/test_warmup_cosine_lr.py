import math

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from timm.scheduler.cosine_lr import CosineLRScheduler

from mmdefocus.engine import DefocusWarmupCosineLR


def make_optimizer(lr=2.0):
    return OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr))


def rates(scheduler, count):
    """Rates that the first steps use."""
    found = []
    for _ in range(count):
        found.append(scheduler.optimizer.param_groups[0]['lr'])
        scheduler.optimizer.step()
        scheduler.step()
    return found


def build(epochs, epoch_length, **changes):
    """As a runner builds it from a config."""
    cfg = {
        'type': 'DefocusWarmupCosineLR',
        'warmup': 2,
        'start_factor': 0.1,
        'end_factor': 0.2,
        'by_epoch': True,
        'convert_to_iter_based': True,
        'end': epochs,
    }
    return PARAM_SCHEDULERS.build(
        cfg | changes, default_args={'optimizer': make_optimizer(), 'epoch_length': epoch_length}
    )


def test_formula():
    """Warm-up of 2 · 5 steps, a cosine over the other 20, each one step late."""
    found = rates(build(epochs=6, epoch_length=5), 30)
    warmup = [2 * (0.1 + 0.9 * step / 10) for step in range(10)]
    cosine = [2 * (0.2 + 0.8 * (1 + math.cos(math.pi * step / 20)) / 2) for step in range(20)]
    assert found == pytest.approx([warmup[0], *warmup, *cosine[:-1]])


@pytest.mark.parametrize(
    ('changes', 'by_epoch'), [({}, False), ({'convert_to_iter_based': False, 'epoch_length': 5}, True)]
)
def test_a_step_is_an_iteration_after_conversion_only(changes, by_epoch):
    """MMEngine's hook steps a schedule after every epoch, or every iteration, by this flag."""
    assert build(6, **({'epoch_length': 5} | changes)).by_epoch is by_epoch


def test_defaults():
    scheduler = DefocusWarmupCosineLR(make_optimizer(), warmup=2, end=6, start_factor=0.1, end_factor=0.1)
    assert scheduler.by_epoch is True
    assert scheduler.verbose is False
    assert scheduler.last_step == 0


def test_goes_on_from_a_step_without_state():
    whole = rates(build(epochs=30, epoch_length=1), 30)
    optimizer = make_optimizer()
    optimizer.param_groups[0]['initial_lr'] = 2.0
    scheduler = DefocusWarmupCosineLR(optimizer, warmup=2, end=30, start_factor=0.1, end_factor=0.2, last_step=11)
    assert rates(scheduler, 18) == pytest.approx(whole[12:])


def test_resumed_from_its_state():
    whole = rates(build(epochs=6, epoch_length=5), 30)
    first = build(epochs=6, epoch_length=5)
    rates(first, 12)
    second = build(epochs=6, epoch_length=5)
    second.load_state_dict(first.state_dict())
    second.optimizer.param_groups[0]['lr'] = first.optimizer.param_groups[0]['lr']
    assert rates(second, 18) == pytest.approx(whole[12:])


def test_without_warmup():
    assert rates(build(epochs=4, epoch_length=1, warmup=0), 2) == [2.0, 2.0]


@pytest.mark.parametrize('warmup', [-1, 6, 7])
def test_warmup_as_long_as_the_training(warmup):
    message = rf'a warmup from 0 to less than the length of the training \(6\), got {warmup}'
    with pytest.raises(ValueError, match=message):
        DefocusWarmupCosineLR(make_optimizer(), warmup=warmup, end=6, start_factor=0.1, end_factor=0.1)


@pytest.mark.parametrize('overlap', [True, False])
def test_schedule_of_timm(overlap):
    """As timm steps it after every epoch; its warm-up is before the cosine only if it is told so."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    timm = CosineLRScheduler(
        optimizer, 30 if overlap else 25, lr_min=0.4, warmup_lr_init=0.2, warmup_t=5, warmup_prefix=not overlap
    )
    expected = [timm._get_lr(epoch)[0] for epoch in range(34)]
    scheduler = build(34, None, warmup=5, cooldown=4, overlap=overlap, delay=0, convert_to_iter_based=False)
    assert rates(scheduler, 34) == pytest.approx(expected)


def test_cooldown_is_converted_to_iterations():
    found = rates(build(epochs=6, epoch_length=5, cooldown=2), 30)
    assert found[:20] == pytest.approx(rates(build(epochs=4, epoch_length=5), 20)), 'the cosine ends after 4 epochs'
    assert found[21:] == [pytest.approx(2 * 0.2)] * 9


@pytest.mark.parametrize('changes', [{'cooldown': -1}, {'delay': -1}])
def test_negative_steps(changes):
    with pytest.raises(ValueError, match=r'a cooldown and a delay of at least 0, got (-1 and 1|0 and -1)'):
        build(epochs=6, epoch_length=1, **changes)


def test_cooldown_as_long_as_the_training():
    with pytest.raises(ValueError, match=r'less than the length of the training \(6, without the cooldown 2\), got 2'):
        build(epochs=6, epoch_length=1, cooldown=4)
