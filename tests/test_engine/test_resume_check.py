"""Comparisons before a training is resumed; tests/test_tools/test_resume.py covers them through the tool."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, LinearLR, MultiStepLR, OptimWrapper, OptimWrapperDict

from mmdefocus.engine.resume_check import missing_for_resuming, optimizer_differences, scheduler_differences


def adamw(sizes=(2, 1), kind=torch.optim.AdamW, **settings):
    """An optimiser with groups of so many parameters."""
    groups = [{'params': [torch.nn.Parameter(torch.zeros(1)) for _ in range(size)]} for size in sizes]
    return OptimWrapper(kind(groups, **({'lr': 0.5} | settings)))


def changed(wrapper, saved):
    return optimizer_differences(SimpleNamespace(optim_wrapper=wrapper), {'optimizer': saved})


def rescheduled(own, saved):
    return scheduler_differences(SimpleNamespace(param_schedulers=own), {'param_schedulers': saved})


COMPLETE = {'meta': {'epoch': 1, 'iter': 2}, 'state_dict': {}, 'message_hub': {}, 'optimizer': {}}


@pytest.mark.parametrize(
    ('checkpoint', 'missing'),
    [
        (COMPLETE, []),
        ({}, ['meta', 'state_dict', 'message_hub', 'optimizer']),
        ([1], ['meta', 'state_dict', 'message_hub', 'optimizer']),
        (COMPLETE | {'optimizer': None}, ['optimizer']),
        (COMPLETE | {'meta': {'epoch': 1}}, ['meta']),
        (COMPLETE | {'meta': {'iter': 1}}, ['meta']),
        (COMPLETE | {'meta': {'epoch': 'one', 'iter': 1}}, ['meta']),
    ],
)
def test_what_a_checkpoint_lacks(checkpoint, missing):
    assert missing_for_resuming(checkpoint) == missing


def test_equal_optimisers():
    assert changed(adamw(), adamw().state_dict()) == []
    assert changed(OptimWrapperDict(a=adamw()), {'a': adamw().state_dict()}) == []


@pytest.mark.parametrize('name', ['foreach', 'fused', 'capturable', 'differentiable'])
def test_another_implementation_of_the_same_step_is_no_difference(name):
    saved = adamw().state_dict()
    saved['param_groups'][0][name] = 'other'
    assert changed(adamw(), saved) == []


def test_another_number_of_parameters():
    message = 'the optimiser has 3 parameters in 2 groups in the config and 4 parameters in 1 groups in the checkpoint'
    assert changed(adamw(), adamw([4]).state_dict()) == [message]
    assert changed(OptimWrapperDict(a=adamw([1])), {}) == [
        'the optimiser has 1 parameters in 1 groups in the config and 0 parameters in 0 groups in the checkpoint'
    ]
    assert len(changed(OptimWrapperDict(a=adamw([1])), {'a': {}})) == 1


def test_another_optimiser():
    (message,) = changed(adamw(), adamw(kind=torch.optim.SGD).state_dict())
    assert message == (
        'the optimiser of the config has amsgrad, betas, decoupled_weight_decay, eps, that of the checkpoint has '
        'dampening, momentum, nesterov instead'
    )


def test_a_setting_that_only_a_newer_torch_has():
    saved = adamw().state_dict()
    for group in saved['param_groups']:
        del group['eps']
    assert changed(adamw(), saved) == []
    assert changed(adamw(eps=3), saved) == []


def test_settings_of_all_and_of_some_groups():
    saved = adamw(weight_decay=0.25).state_dict()
    saved['param_groups'][1]['lr'] = 7
    assert changed(adamw(weight_decay=0.125), saved) == [
        'lr of the optimiser is 0.5 in the config and 7 in the checkpoint in 1 of 2 parameter groups',
        'weight_decay of the optimiser is 0.125 in the config and 0.25 in the checkpoint',
    ]


def test_rates_and_momentum_are_compared_as_before_the_schedule():
    saved = adamw().state_dict()
    for group in saved['param_groups']:
        group.update(initial_lr=0.5, lr=0.001, initial_momentum=0.9, betas=(0.1, 0.999))
    assert changed(adamw(), saved) == []
    assert changed(adamw(betas=(0.9, 0.99)), saved) == [
        'betas of the optimiser is (0.9, 0.99) in the config and (0.9, 0.999) in the checkpoint'
    ]
    assert changed(adamw(lr=0.25), saved) == ['lr of the optimiser is 0.25 in the config and 0.5 in the checkpoint']


def test_momentum_of_sgd_is_a_setting():
    saved = adamw(kind=torch.optim.SGD, momentum=0.5).state_dict()
    assert changed(adamw(kind=torch.optim.SGD, momentum=0.75), saved) == [
        'momentum of the optimiser is 0.75 in the config and 0.5 in the checkpoint'
    ]


def schedules(optimizer=None, **settings):
    optimizer = optimizer or adamw()
    return [LinearLR(optimizer, 0.1, end=5), CosineAnnealingLR(optimizer, **({'T_max': 9, 'end': 9} | settings))]


def states(schedulers):
    return [scheduler.state_dict() for scheduler in schedulers]


def test_equal_schedules():
    saved = states(schedules())
    saved[0]['last_step'] = saved[0]['_global_step'] = 3
    saved[0]['verbose'] = True
    assert rescheduled(schedules(), saved) == []
    assert rescheduled({'b': schedules()[:1], 'a': schedules()[1:]}, {'a': saved[1:], 'b': saved[:1]}) == []
    assert rescheduled(None, None) == []


def test_fewer_schedules():
    message = 'param_scheduler has 1 schedules in the config and 2 in the checkpoint'
    assert rescheduled(schedules()[:1], states(schedules())) == [message]


def test_a_schedule_of_another_type():
    own = [MultiStepLR(adamw(), [3])]
    assert rescheduled(own, states(schedules()[:1])) == [
        'param_scheduler.0 is of the type MultiStepLR in the config and of a different one in the checkpoint'
    ]


def test_other_settings_of_a_schedule():
    assert rescheduled(schedules(eta_min=0.25, end=12), states(schedules())) == [
        'param_scheduler.1.end is 12 in the config and 9 in the checkpoint; to train longer with the schedule as it '
        'was, give param_scheduler.1 its former end',
        'param_scheduler.1.eta_min is 0.25 in the config and 0.0 in the checkpoint',
    ]


def test_milestones_are_shown_as_a_list():
    saved = states([MultiStepLR(adamw(), [3, 4])])
    (message,) = rescheduled([MultiStepLR(adamw(), [3, 5])], copy.deepcopy(saved))
    assert message == 'param_scheduler.0.milestones is [3, 5] in the config and [3, 4] in the checkpoint'
