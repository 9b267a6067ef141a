"""Arguments of what a config names."""

import pytest
from mmengine.registry import MODELS

from mmdefocus.apis.runs.registered import arguments_of
from mmdefocus.models import DefocusMamba


class Parent:
    def __init__(self, given, passed):
        pass


class Middle(Parent):
    def __init__(self, own, **kwargs):
        super().__init__(**kwargs)


class Closed(Middle):
    def __init__(self, only):
        super().__init__(only)


class Inheriting(Middle):
    pass


def function(first, second=None):
    pass


@pytest.mark.parametrize(
    ('kind', 'names'),
    [
        (Parent, {'self', 'given', 'passed'}),
        (Middle, {'self', 'own', 'kwargs', 'given', 'passed'}),
        (Inheriting, {'self', 'own', 'kwargs', 'given', 'passed'}),
        (Closed, {'self', 'only'}),
        (function, {'first', 'second'}),
        (None, set()),
        ('NothingOfThisName', set()),
    ],
)
@pytest.mark.parametrize('scope', [None, 'mmdet', 'mmpretrain'])
def test_classes_and_functions(kind, names, scope):
    assert arguments_of(kind, scope) == names


@pytest.mark.parametrize(
    ('kind', 'scope', 'name'),
    [
        ('DefocusMamba', 'mmdet', 'token_order'),
        ('mmdet.DINO', 'mmpretrain', 'num_queries'),
        ('DINO', 'mmdet', 'num_queries'),
        ('CocoMetric', 'mmdet', 'classwise'),
        ('EarlyStoppingHook', 'mmdet', 'patience'),
    ],
)
def test_names_in_registries(kind, scope, name):
    assert name in arguments_of(kind, scope)


def test_a_class_and_its_name_have_the_same_arguments():
    assert MODELS.get('DefocusMamba') is DefocusMamba
    assert arguments_of(DefocusMamba, 'mmdet') == arguments_of('DefocusMamba', 'mmdet')
