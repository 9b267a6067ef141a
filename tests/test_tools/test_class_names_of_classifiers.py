"""Names of a classifier's classes from the folders to results, pictures and converted files."""

import pickle
import re
import runpy
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from class_layouts import CLASSIFIER, config_file, tool, write_folders, wrong
from commands import TOOLS, error_of
from mmpretrain.visualization import UniversalVisualizer

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.inference import ClassificationInferencer
from mmdefocus.models.checkpoint import read_checkpoint

SORTED, REORDERED = ('blue', 'green', 'red'), ('red', 'blue', 'green')
GOLDEN = TOOLS.parent / 'tests' / 'golden'


@pytest.fixture(scope='module', params=[None, REORDERED], ids=['sorted', 'reordered'])
def root(request, tmp_path_factory) -> Path:
    """Folders of three colours, and a classifier trained on them with its classes in either order."""
    root = tmp_path_factory.mktemp('folders')
    write_folders(root)
    given = {} if request.param is None else {'dataset': {'classes': request.param}}
    loaders = {f'{split}_dataloader': dict(given) for split in ('train', 'val', 'test')}
    config_file(root / 'config.py', CLASSIFIER, **loaders)
    tool(root, 'train.py', 'config.py', '--work-dir', 'work')
    return root


@pytest.fixture
def checkpoint(root) -> Path:
    return root / 'work' / 'epoch_1.pth'


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """Run a tool in a folder, expect the exit status 2, and return the message."""
    return partial(error_of, capsys, tool)


def predicted(inferencer: ClassificationInferencer, root: Path) -> list[tuple[str, str]]:
    """Pairs of an image's colour and the predicted name."""
    images = sorted((root / 'val').glob('*/image.png'))
    return [(path.parent.name, inferencer(str(path))[0]['pred_class']) for path in images]


def test_no_name_is_wrong(root, checkpoint, monkeypatch, capsys):
    classes = read_checkpoint(checkpoint)['meta']['dataset_meta']['classes']
    assert tuple(classes) in (SORTED, REORDERED)
    drawn = []

    def draw(self, image, data_sample, classes=None, **options):
        names = classes or self.dataset_meta['classes']
        drawn.append((Path(data_sample.img_path).parent.name, names[int(data_sample.pred_label[0])]))

    with monkeypatch.context() as patch:
        patch.setattr(UniversalVisualizer, 'visualize_cls', draw)
        tool(root, 'test.py', 'config.py', checkpoint, '--show-dir', 'pictures', '--out', 'out.pkl')
    assert wrong(drawn, 3) == []
    dumped = pickle.loads((root / 'out.pkl').read_bytes())
    assert wrong([(Path(sample['img_path']).parent.name, sample['pred_class']) for sample in dumped], 3) == []
    assert wrong(predicted(ClassificationInferencer(str(root / 'config.py'), str(checkpoint)), root), 3) == []
    capsys.readouterr()
    words = ('config.py', '--checkpoint', checkpoint, '--device', 'cpu', '--topk', 1)
    for name in SORTED:
        tool(root, 'image_demo.py', f'val/{name}/image.png', *words)
        assert re.search(rf'^  1\.0000  \d  {name}$', capsys.readouterr().out, re.MULTILINE)


def test_a_head_that_chooses_classes_has_their_names(root, checkpoint):
    """Labels are positions among the chosen classes, not among those of the training."""
    classes = read_checkpoint(checkpoint)['meta']['dataset_meta']['classes']
    chosen = [2, 0, 1]
    dataset = {'classes': [classes[index] for index in chosen]}
    model = {'predict_classes': chosen}
    config = config_file(root / 'choosing.py', CLASSIFIER, model=model, test_dataloader={'dataset': dataset})
    assert wrong(predicted(ClassificationInferencer(str(config), str(checkpoint)), root), 3) == []


def without_names(checkpoint: Path) -> Path:
    content = read_checkpoint(checkpoint)
    del content['meta']['dataset_meta']
    copy = checkpoint.with_name('unnamed.pth_')
    torch.save(content, copy)
    return copy


def test_a_checkpoint_without_names_has_those_of_the_config(root, checkpoint):
    classes = read_checkpoint(checkpoint)['meta']['dataset_meta']['classes']
    config = config_file(root / 'named.py', CLASSIFIER, test_dataloader={'dataset': {'classes': classes}})
    assert wrong(predicted(ClassificationInferencer(str(config), str(without_names(checkpoint))), root), 3) == []
    unnamed = ClassificationInferencer(str(CLASSIFIER), str(without_names(checkpoint)))
    assert unnamed.classes is None, 'no name is better than a wrong one'


@pytest.mark.parametrize(
    ('dataset', 'named', 'expected'),
    [
        (
            {'type': 'ImageNet'},
            False,
            'the data set of the config names 1000 classes, but the model predicts 3 (model.h',
        ),
        ({'classes': ('blue', 'red')}, False, 'the data set of the config names 2 classes, but the model predicts 3'),
        (
            {'classes': ('blue', 'red', 'pink')},
            True,
            'the checkpoint and the data set of the config have different cla',
        ),
        ({'classes': ('green', 'red', 'blue')}, True, 'have the same classes in different orders'),
    ],
)
def test_names_that_contradict_each_other(root, checkpoint, refused, dataset, named, expected):
    config = config_file(root / 'other.py', CLASSIFIER, test_dataloader={'dataset': dataset})
    file = checkpoint if named else without_names(checkpoint)
    assert expected in refused(root, 'image_demo.py', 'val/red', config, '--checkpoint', file, '--device', 'cpu')


def test_the_default_names_of_a_data_set_do_not_matter_beside_those_of_the_checkpoint(root, checkpoint):
    config = config_file(root / 'imagenet.py', CLASSIFIER, test_dataloader={'dataset': {'type': 'ImageNet'}})
    assert wrong(predicted(ClassificationInferencer(str(config), str(checkpoint)), root), 3) == []


def test_names_that_are_given(root, checkpoint):
    translated = ClassificationInferencer(str(root / 'config.py'), str(checkpoint), classes=('rouge', 'bleu', 'vert'))
    assert {name for _, name in predicted(translated, root)} == {'rouge', 'bleu', 'vert'}
    message = r'the argument classes names 2 classes, but the model predicts 3 \(model\.head\.num_classes\)'
    with pytest.raises(UsageError, match=message):
        ClassificationInferencer(str(root / 'config.py'), str(checkpoint), classes=('rouge', 'bleu'))


def test_a_class_that_is_listed_twice(root, refused):
    dataset = {'classes': ('blue', 'green', 'red', 'red')}
    config = config_file(root / 'twice.py', CLASSIFIER, train_dataloader={'dataset': dataset})
    message = refused(root, 'train.py', config, '--work-dir', 'twice')
    assert 'classes must be distinct names, got more than once: red; list each class once' in message


def test_heads_of_another_number_of_classes(root, refused, checkpoint):
    """Of any config: none of these lists the check of the number."""
    config = config_file(root / 'four.py', CLASSIFIER, model={'num_classes': 4})
    assert 'DefocusImageFolder has 3 classes, but the model has 4 (model.head.num_classes)' in refused(
        root, 'train.py', config, '--work-dir', 'four'
    )


def test_two_folders_with_other_classes(root, refused):
    write_folders(root, ('white',), ('more',)) if not (root / 'more').exists() else None
    parts = [f"dict(type='DefocusImageFolder', data_prefix={split!r}, pipeline=[])" for split in ('train', 'more')]
    dataset = f"dict(_delete_=True, type='ConcatDataset', datasets=[{', '.join(parts)}])"
    config = root / 'joined.py'
    config.write_text(f'_base_ = {str(CLASSIFIER)!r}\ntrain_dataloader = dict(dataset={dataset})\n')
    assert "'more' has only one folder, 'white'" in refused(root, 'train.py', config, '--work-dir', 'joined')


# Conversion


@pytest.fixture
def convert(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Run a converter; return the file that it wrote."""

    def convert(name: str, source: Path, *options: str) -> Path:
        folder = tmp_path / f'{len(list(tmp_path.iterdir()))}'
        arguments = [name, str(source), str(folder / 'out.pth'), *options]
        monkeypatch.setattr(sys, 'argv', arguments)
        runpy.run_path(str(TOOLS / 'model_converters' / name), run_name='__main__')
        (written,) = folder.iterdir()
        return written

    return convert


@pytest.fixture
def named(tmp_path, convert) -> Path:
    """A converted official classifier of ten classes, with names."""
    path = convert('official_to_mmdefocus.py', GOLDEN / 'cls_rope_official_cls.pth')
    content = read_checkpoint(path)
    content['meta']['dataset_meta'] = {'classes': tuple(f'class {number}' for number in range(10))}
    torch.save(content, path)
    return path


def test_conversions_keep_the_names(named, convert):
    expected = read_checkpoint(named)['meta']['dataset_meta']
    official = convert('mmdefocus_to_official.py', named)
    assert torch.load(official, weights_only=True)['dataset_meta'] == expected
    again = read_checkpoint(convert('official_to_mmdefocus.py', official))
    assert again['meta']['dataset_meta'] == expected
    for options in (('--to', 'det'), ('--head', 'drop')):
        backbone = read_checkpoint(convert('official_to_mmdefocus.py', official, *options))
        assert 'dataset_meta' not in backbone['meta'], 'without heads there are no classes'


@pytest.mark.parametrize('name', ['mmdefocus_to_official.py', 'official_to_mmdefocus.py'])
def test_conversions_compare_names_and_heads(named, convert, capsys, name):
    content = read_checkpoint(named)
    source = named if name == 'mmdefocus_to_official.py' else convert('mmdefocus_to_official.py', named)
    content = torch.load(source, weights_only=True)
    content.get('meta', content)['dataset_meta']['classes'] = ('one', 'two')
    torch.save(content, source)
    message = error_of(capsys, convert, name, source)
    assert re.search(r'expected a name for each of the 10 classes of head\.\S+, got 2 in meta\.dataset_meta', message)
