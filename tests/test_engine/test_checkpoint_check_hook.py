"""Checks of load_from and of class names; tests/test_tools covers them through the tools."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from mmdefocus.engine import SetupError, class_identity
from mmdefocus.engine.checkpoint_check_hook import _check_evaluated_classes, _check_initial, _keep_own_best


class Detector(BaseModel):
    """Backbone, neck and head with two tensors each (weight and bias), and a counter in the neck."""

    def __init__(self, classes=3, width=4):
        super().__init__()
        self.backbone = nn.Linear(width, width)
        self.neck = nn.BatchNorm1d(width, track_running_stats=True)
        self.bbox_head = nn.Linear(width, classes)

    def forward(self):
        raise NotImplementedError


def start(model, checkpoint):
    """The warnings of a training that starts from ``checkpoint``."""
    warnings = []
    logger, data = SimpleNamespace(warning=warnings.append), SimpleNamespace(dataset=[])
    runner = SimpleNamespace(model=model, _load_from='file.pth', logger=logger, train_dataloader=data)
    _check_initial(runner, checkpoint)
    return warnings


def weights(**changes):
    return {'state_dict': Detector(**changes).state_dict()}


def test_all_of_it_fits():
    model, checkpoint = Detector(), weights()
    assert start(model, checkpoint) == []
    assert torch.equal(model.backbone.weight, checkpoint['state_dict']['backbone.weight'])


@pytest.mark.parametrize('wrap', [nn.Identity, nn.DataParallel])
def test_what_keeps_its_initial_values_is_said(wrap):
    model = Detector(classes=5)
    (warning,) = start(model if wrap is nn.Identity else wrap(model), weights())
    assert warning.startswith('file.pth fits in part: 2 of a different shape (bbox_head.')
    assert warning.endswith('. Initial values remain in bbox_head (2 of 2 tensors)')


def test_of_a_parallel_model_and_without_a_state_dict():
    tensors = {f'module.{name}': tensor for name, tensor in weights(classes=5)['state_dict'].items()}
    assert len(start(Detector(), tensors)) == 1
    assert len(start(Detector(), {'state_dict': tensors})) == 1


def test_leftover_tensors_only():
    checkpoint = weights()
    checkpoint['state_dict']['auxiliary.weight'] = torch.zeros(1)
    (warning,) = start(Detector(), checkpoint)
    assert warning.endswith('Initial values remain in no part')


def test_counters_of_norms_may_be_missing():
    checkpoint = weights(classes=5)
    del checkpoint['state_dict']['neck.num_batches_tracked']
    (warning,) = start(Detector(), checkpoint)
    assert warning.endswith('Initial values remain in bbox_head (2 of 2 tensors)')


def test_only_the_head_of_another_network_fits():
    model = Detector(width=6)
    checkpoint = weights()
    checkpoint['state_dict']['bbox_head.weight'] = torch.zeros(3, 6)
    with pytest.raises(SetupError, match=r'no complete part of file\.pth fits the model of the config: .*neck'):
        start(model, checkpoint)


def test_nothing_fits():
    with pytest.raises(SetupError, match=r'no complete part of file\.pth fits'):
        start(Detector(), {'state_dict': {'layer.weight': torch.zeros(3)}})


def test_a_file_of_a_head_alone_is_meant():
    checkpoint = {'state_dict': {f'bbox_head.{name}': torch.ones(3, 4) for name in ('weight', 'more')}}
    (warning,) = start(Detector(), checkpoint)
    assert 'backbone (2 of 2 tensors), neck (4 of 4 tensors), bbox_head (1 of 2 tensors)' in warning


def test_half_a_part_is_not_a_fitting_part():
    """One of two tensors: another network of the same family, of which single layers have the same shape."""
    checkpoint = {'state_dict': {'backbone.weight': torch.zeros(4, 4), 'backbone.bias': torch.zeros(5)}}
    with pytest.raises(SetupError, match='no complete part'):
        start(Detector(), checkpoint)


def test_a_backbone_that_is_in_the_file_alone():
    checkpoint = {'state_dict': {'backbone.weight': torch.zeros(4, 4), 'backbone.bias': torch.zeros(4)}}
    (warning,) = start(Detector(), checkpoint)
    assert warning.endswith('Initial values remain in neck (4 of 4 tensors), bbox_head (2 of 2 tensors)')


def names(count, first='class'):
    return tuple(f'{first} {number}' for number in range(count))


def evaluate(trained, evaluated, chosen=None):
    model = Detector()
    model.head = SimpleNamespace(predict_classes=chosen)
    loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo={'classes': evaluated})))
    meta = {'dataset_meta': {'classes': trained}}
    _check_evaluated_classes(SimpleNamespace(model=model), {'meta': meta}, loop)


@pytest.mark.parametrize(
    ('trained', 'evaluated', 'chosen'),
    [
        (names(3), list(names(3)), None),
        (None, names(3), None),
        (names(3), None, None),
        (('cat',), 'cat', None),
        (names(30), names(30)[7:9], [7, 8]),
        (names(30), ('tabby', 'tench'), [7, 8]),  # (words instead of the ids of synsets)
        (names(3), names(3), [7, 8]),  # (not the names of what the head was trained on)
    ],
)
def test_the_same_classes(trained, evaluated, chosen):
    evaluate(trained, evaluated, chosen)


def test_other_classes():
    with pytest.raises(SetupError) as error:
        evaluate(names(20), names(21))
    shown = ', '.join(names(class_identity._SHOWN))
    assert str(error.value).startswith(
        f'the checkpoint and the data set have different classes: the checkpoint has 20 classes ({shown}, ...), the '
        f'data set has 21 classes ({shown}, ...); the first that differs is number 20. '
    )


def test_as_many_as_are_shown_have_no_dots():
    count = class_identity._SHOWN
    with pytest.raises(SetupError) as error:
        evaluate(names(count), names(count)[::-1])
    assert ', ...' not in str(error.value)
    assert 'the same classes in different orders' in str(error.value)
    assert 'the first that differs is number 0' in str(error.value)


def test_a_chosen_class_of_another_name():
    with pytest.raises(SetupError, match='has 2 classes'):
        evaluate(names(30), ('class 7', 'other'), [7, 8])


def test_the_best_checkpoint_of_this_directory_is_kept(tmp_path):
    (tmp_path / 'best_here.pth').touch()
    info = {'best_ckpt_bbox': '/elsewhere/best_here.pth', 'best_ckpt': '/elsewhere/best_there.pth', 'best_score': 0.5}
    _keep_own_best(tmp_path, info)
    assert info == {'best_ckpt_bbox': str(tmp_path / 'best_here.pth'), 'best_score': 0.5}
