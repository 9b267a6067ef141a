import pytest
from mmengine.config import Config

import mmdefocus.datasets  # noqa: F401 (registers the data set)
from mmdefocus.apis.num_classes import resolve_num_classes


def config(dataset: dict, num_classes: int | str = 'auto', **model) -> Config:
    return Config(
        dict(
            default_scope='mmpretrain',
            model=dict(head=dict(num_classes=num_classes), **model),
            data_preprocessor=dict(num_classes=num_classes),
            train_dataloader=dict(dataset=dataset),
            val_dataloader=dict(dataset=dict(type='CustomDataset')),
        )
    )


@pytest.fixture
def root(tmp_path):
    for name in ('bee', 'ant'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '0.png').touch()
    return str(tmp_path)


def test_folders_of_the_training_set_are_counted(root):
    cfg = config(dict(type='DefocusImageFolder', data_root=root), train_cfg=dict(losses=[dict(num_classes='auto')]))
    assert resolve_num_classes(cfg) == ('ant', 'bee')
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 2
    assert cfg.model.train_cfg.losses[0].num_classes == 2
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert loader.dataset.metainfo.classes == ['ant', 'bee']


def test_numbers_are_left_alone(root):
    cfg = config(dict(type='DefocusImageFolder', data_root='nowhere'), num_classes=7)
    before = cfg.to_dict()
    assert resolve_num_classes(cfg) is None
    assert cfg.to_dict() == before


@pytest.mark.parametrize('names', [dict(classes=['bee', 'ant']), dict(metainfo=dict(classes=['bee', 'ant']))])
def test_classes_of_the_config_keep_their_order(root, names):
    cfg = config(dict(type='DefocusImageFolder', data_root=root, **names))
    cfg.val_dataloader.dataset.metainfo = dict(palette='random')
    assert resolve_num_classes(cfg) == ('bee', 'ant')
    assert cfg.val_dataloader.dataset.metainfo.to_dict() == dict(classes=['bee', 'ant'], palette='random')


def test_wrapped_data_sets(root):
    inner = dict(type='DefocusImageFolder', data_root=root)
    cfg = config(dict(type='RepeatDataset', times=3, dataset=inner))
    assert len(resolve_num_classes(cfg)) == 2
    assert cfg.train_dataloader.dataset.dataset.metainfo.classes == ['ant', 'bee']


def test_data_sets_that_do_not_know_their_classes(root, tmp_path):
    (tmp_path / 'list.txt').write_text('ant/0.png 0\n')
    with pytest.raises(ValueError, match=r'with class names, which CustomDataset does not have; set classes=\[\.\.\.'):
        resolve_num_classes(config(dict(type='CustomDataset', data_root=root, ann_file='list.txt')))
    cfg = config({})
    cfg.pop('train_dataloader')
    with pytest.raises(ValueError, match='counts the classes of train_dataloader, which the config does not have'):
        resolve_num_classes(cfg)


def test_concatenated_data_sets(root):
    inner = dict(type='DefocusImageFolder', data_root=root)
    cfg = config(dict(type='ConcatDataset', datasets=[inner, dict(inner)]))
    assert resolve_num_classes(cfg) == ('ant', 'bee')
    assert [part.metainfo.classes for part in cfg.train_dataloader.dataset.datasets] == [['ant', 'bee']] * 2
