from types import SimpleNamespace

import pytest
from torch import nn

from mmdefocus.engine import ClassCountHook
from mmdefocus.models import DefocusClsHead

STAGES = ('train', 'val', 'test')


class ImageFolder:
    def __init__(self, classes):
        self.metainfo = {} if classes is None else {'classes': [str(i) for i in range(classes)]}


def check(stage, classes, wrap=lambda model: model, **head):
    model = nn.Module()
    model.head = DefocusClsHead(num_classes=5, in_channels=2, **head)
    loader = SimpleNamespace(dataset=ImageFolder(classes))
    getattr(ClassCountHook(), f'before_{stage}')(SimpleNamespace(model=wrap(model), **{f'{stage}_dataloader': loader}))


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize('wrap', [lambda model: model, nn.DataParallel])
def test_other_number_of_classes(stage, wrap):
    check(stage, 5, wrap)
    check(stage, None, wrap)
    with pytest.raises(ValueError, match='ImageFolder has 3 classes, but num_classes of the head makes 5: set'):
        check(stage, 3, wrap)


def test_classes_of_the_prediction():
    chosen = [4, 0, 1]
    check('train', 5, predict_classes=chosen)
    for stage in ('val', 'test'):
        check(stage, 3, predict_classes=chosen)
        with pytest.raises(ValueError, match='has 5 classes, but predict_classes of the head makes 3'):
            check(stage, 5, predict_classes=chosen)
    with pytest.raises(ValueError, match='has 3 classes, but num_classes of the head makes 5'):
        check('train', 3, predict_classes=chosen)
