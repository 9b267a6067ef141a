import logging
from types import SimpleNamespace

import pytest
from torch import nn

from mmdefocus.engine import DefocusClassCountHook
from mmdefocus.models import DefocusClsHead

STAGES = ('train', 'val', 'test')


class ImageFolder:
    def __init__(self, classes):
        self.metainfo = {} if classes is None else {'classes': [str(i) for i in range(classes)]}


def call(stage, model, **classes):
    """Call the hook before a stage with data sets of so many classes."""
    loaders = {f'{split}_dataloader': SimpleNamespace(dataset=ImageFolder(count)) for split, count in classes.items()}
    logger = logging.getLogger('class_count')
    runner = SimpleNamespace(model=model, val_loop='val' if 'val' in classes else None, logger=logger, **loaders)
    getattr(DefocusClassCountHook(), f'before_{stage}')(runner)


def check(stage, classes, wrap=lambda model: model, **head):
    model = nn.Module()
    model.head = DefocusClsHead(num_classes=5, in_channels=2, **head)
    call(stage, wrap(model), **{stage: classes})


def detector(*names):
    """Has modules of these names, each with five classes."""
    model = nn.Module()
    for name in names:
        parent, _, child = name.rpartition('.')
        module = nn.ModuleList()
        module.num_classes = 5
        model.get_submodule(parent).add_module(child, module)
    return model


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_other_number_of_classes(stage, wrap):
    check(stage, 5, wrap)
    check(stage, None, wrap)
    with pytest.raises(
        ValueError,
        match=r'ImageFolder has 3 classes, but the model has 5 \(model.head.num_classes\): set model.head.num_classes',
    ):
        check(stage, 3, wrap)


def test_classes_of_the_prediction():
    chosen = [4, 0, 1]
    check('train', 5, predict_classes=chosen)
    for stage in ('val', 'test'):
        check(stage, 3, predict_classes=chosen)
        with pytest.raises(ValueError, match=r'has 5 classes, but the model has 3 \(model.head.predict_classes\)'):
            check(stage, 5, predict_classes=chosen)
    with pytest.raises(ValueError, match=r'has 3 classes, but the model has 5 \(model.head.num_classes\)'):
        check('train', 3, predict_classes=chosen)


@pytest.mark.parametrize(
    ('names', 'wrong'),
    [
        (['bbox_head', 'dn_query_generator'], 'bbox_head'),
        (['rpn_head', 'roi_head', 'roi_head.bbox_head'], 'roi_head.bbox_head'),
        (['roi_head', 'roi_head.bbox_head', 'roi_head.bbox_head.0'], 'roi_head.bbox_head'),
        (['mask_head'], 'mask_head'),
    ],
)
@pytest.mark.parametrize('stage', STAGES)
def test_heads_of_detectors(stage, names, wrong):
    call(stage, detector(*names), **{stage: 5})
    with pytest.raises(
        ValueError, match=rf'has 2 classes, but the model has 5 \(model.{wrong}.num_classes\): set model.{wrong}.num_c'
    ):
        call(stage, detector(*names), **{stage: 2})


def test_members_of_a_cascade():
    model = detector('roi_head', 'roi_head.bbox_head', 'roi_head.bbox_head.0', 'roi_head.bbox_head.1')
    model.roi_head.bbox_head[1].num_classes = 80
    with pytest.raises(
        ValueError, match=r'has 5 classes, but the model has 80 \(model.roi_head.bbox_head.1.num_classes\)'
    ):
        call('train', model, train=5)


def test_head_of_an_rpn_has_one_class():
    model = detector('rpn_head', 'bbox_head')
    model.rpn_head.num_classes = 1
    call('train', model, train=5)


def test_validation_set_is_compared_before_the_training():
    call('train', detector('bbox_head'), train=5, val=5)
    with pytest.raises(ValueError, match=r'has 2 classes, but the model has 5 \(model.bbox_head.num_classes\)'):
        call('train', detector('bbox_head'), train=5, val=2)


def test_model_without_such_a_head(caplog):
    call('train', detector('neck'), train=5)
    assert 'DefocusClassCountHook finds no head with num_classes in Module and checks nothing' in caplog.text
