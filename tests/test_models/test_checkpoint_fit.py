"""Description of the tensors that do not fit a model."""

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from torch import nn

from mmdefocus.models.checkpoint.fit import load_and_describe_misfit


class Renamed(nn.Linear):
    """Has another name for its weight in checkpoints."""

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        state_dict[f'{prefix}weight'] = state_dict.pop(f'{prefix}old_weight')
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Network(BaseModel):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.head = nn.Linear(3, 4)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


class Augmented(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        raise NotImplementedError


@pytest.fixture
def model():
    return Network()


def test_what_fits_is_loaded(model):
    tensors = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    assert load_and_describe_misfit(model, tensors) is None
    assert all((value == 7).all() for value in model.state_dict().values())


@pytest.mark.parametrize('wrap', [dict, lambda tensors: dict(meta={}, state_dict=tensors)])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_prefixes_and_counters_are_no_misfit(model, wrap, prefix):
    tensors = {prefix + key: value for key, value in model.state_dict().items() if 'num_batches' not in key}
    assert load_and_describe_misfit(model, wrap(tensors)) is None
    assert load_and_describe_misfit(Augmented(module=model), wrap(tensors)) is None


def test_a_parallel_model_means_the_one_in_it(model):
    tensors = {key: torch.full_like(value, 7) for key, value in model.state_dict().items()}
    assert load_and_describe_misfit(nn.DataParallel(model), tensors) is None
    assert (model.head.weight == 7).all()


def test_no_more_is_promised_where_all_are_named(model):
    tensors = model.state_dict() | {f'neck.{index}': torch.zeros(1) for index in range(3)}
    assert load_and_describe_misfit(model, tensors) == '3 unexpected (neck.0, neck.1, neck.2)'


def test_notes_of_hooks_stand_before_the_tensors(model):
    def note(_, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        errors.extend(['the first note', 'the second note'])

    model.register_load_state_dict_pre_hook(note)
    assert load_and_describe_misfit(model, model.state_dict()) == 'the first note; the second note'


def test_every_kind_of_misfit_is_named(model):
    tensors = model.state_dict()
    del tensors['head.bias'], tensors['body.0.weight']
    tensors |= {'head.weight': torch.zeros(9, 3), **{f'neck.{index}.weight': torch.zeros(1) for index in range(5)}}
    assert load_and_describe_misfit(model, tensors) == (
        '2 missing (body.0.weight, head.bias); '
        '5 unexpected (neck.0.weight, neck.1.weight, neck.2.weight, and 2 more); '
        '1 of a different shape (head.weight: [9, 3] in the file, [4, 3] in the model)'
    )


def test_names_that_a_module_translates_fit():
    model = nn.ModuleDict(dict(head=Renamed(2, 3)))
    tensors = {'head.old_weight': torch.ones(3, 2), 'head.bias': torch.zeros(3)}
    assert load_and_describe_misfit(model, tensors) is None
    assert (model['head'].weight == 1).all()


def test_other_errors_are_passed_on(model):
    def fail(*_):
        raise RuntimeError('a hook fails')

    model.register_load_state_dict_pre_hook(fail)
    with pytest.raises(RuntimeError, match=r'^a hook fails$'):
        load_and_describe_misfit(model, model.state_dict())
