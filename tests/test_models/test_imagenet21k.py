import sys
from itertools import pairwise

import pytest
from timm.data import ImageNetInfo

from mmdefocus.models.imagenet21k import imagenet1k_indices


def test_indices_are_distinct_and_sorted():
    indices = imagenet1k_indices()
    assert len(indices) == len(set(indices)) == 1000
    del indices[850]
    assert all(first < second for first, second in pairwise(indices)), 'both lists are sorted by synset'


def test_positions_are_the_published_ones():
    """Spot checks against the published conversion: its first, its last and two in the middle.

    The last two distinguish the list of 21,841 classes from that of 21,843, where they are one and two higher.
    """
    indices = imagenet1k_indices()
    assert (indices[0], indices[717], indices[849], indices[999]) == (359, 9204, 11136, 21815)


def test_tench_is_counted_by_hand():
    """Its index is the number of smaller synsets, independent of the library's order."""
    assert ImageNetInfo('imagenet-1k').index_to_label_name(0) == 'n01440764'
    smaller = sum(synset < 'n01440764' for synset in ImageNetInfo('imagenet-22k').label_names())
    assert imagenet1k_indices()[0] == smaller


def test_every_position_has_the_synset_of_its_class():
    classes_1k, classes_21k = ImageNetInfo('imagenet-1k'), ImageNetInfo('imagenet-22k')
    pairs = [
        (classes_1k.index_to_label_name(label), classes_21k.index_to_label_name(index))
        for label, index in enumerate(imagenet1k_indices())
    ]
    assert [pair for pair in pairs if pair[0] != pair[1]] == [('n04399382', 'n04461879')]
    assert classes_1k.label_name_to_description('n04399382') == 'teddy, teddy bear'
    assert classes_21k.label_name_to_description('n04461879') == 'toy'


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm.data', None)
    with pytest.raises(ImportError, match=r'taken from timm, which cannot be imported .*run "pip install timm"'):
        imagenet1k_indices()


def test_other_tables_are_an_error(monkeypatch):
    class Shorter(ImageNetInfo):
        def label_names(self):
            return super().label_names()[:-100]

    monkeypatch.setattr('timm.data.ImageNetInfo', Shorter)
    with pytest.raises(RuntimeError, match=r'expected 1000 ImageNet-1k synsets.* got 900 with .*; install timm 1\.0'):
        imagenet1k_indices()
