"""``--cfg-options`` as the tools parse and apply it."""

import argparse
import runpy
import sys
from pathlib import Path

import pytest
import torch
from commands import TOOLS
from mmengine.registry import MODELS, DefaultScope

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.option_values import parse_value
from mmdefocus.cli.arguments import add_common_arguments, parse_arguments

HERE = Path(__file__).parent
CONFIGS = HERE.parents[1] / 'configs'
DETECTOR, CLASSIFIER = HERE / 'toy_detector.py', HERE / 'toy_classifier.py'
NANO = CONFIGS / 'dino' / 'defocus_mamba_nano_digits.py'


def typed(config, *words):
    """The config as a tool gets it from what is typed behind ``--cfg-options``."""
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    return load_config(config, parse_arguments(parser, ['--cfg-options', *words]).cfg_options)


def test_backbone_starts_from_the_classifier_that_is_named(tmp_path):
    with DefaultScope.overwrite_default_scope('mmdet'):
        classifier = MODELS.build(load_config(NANO).model.backbone)
    torch.nn.init.constant_(classifier.cls_token, 7)
    path = tmp_path / 'my classifier, best.pth'
    torch.save({f'backbone.{key}': value for key, value in classifier.state_dict().items()}, path)
    init_cfg = ('type=Pretrained', f'checkpoint="{path}"', 'prefix=backbone.')
    cfg = typed(NANO, *(f'model.backbone.init_cfg.{word}' for word in init_cfg))
    with DefaultScope.overwrite_default_scope('mmdet'):
        backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    assert (backbone.cls_token == 7).all()


@pytest.mark.parametrize('config', [NANO, DETECTOR, CLASSIFIER])
def test_dictionaries_that_the_config_does_not_have(config):
    cfg = typed(
        config,
        'default_hooks.early_stop.type=EarlyStoppingHook',
        'default_hooks.early_stop.monitor=coco/bbox_mAP',
        'default_hooks.early_stop.patience=3',
        'train_dataloader.dataset.filter_cfg.min_size=8',
        'train_dataloader.dataset.filter_cfg.filter_empty_gt=true',
        'tta_model.type=DetTTAModel',
    )
    assert cfg.default_hooks.early_stop == dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', patience=3)
    assert cfg.train_dataloader.dataset.filter_cfg.min_size == 8
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt is True
    assert cfg.tta_model.type == 'DetTTAModel'


def test_nothing_can_become_a_dictionary(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{DETECTOR}'\nmodel = dict(test_cfg=dict(nms=None, _delete_=True))\n")
    cfg = typed(config, 'model.test_cfg.nms.type=soft_nms', 'model.test_cfg.nms.iou_threshold=0.6')
    assert cfg.model.test_cfg.nms == dict(type='soft_nms', iou_threshold=0.6)
    assert typed(NANO, 'model.test_cfg.nms.type=nms').model.test_cfg.nms == dict(type='nms')


def test_arguments_of_the_class_are_no_misspellings():
    cfg = typed(NANO, 'model.data_preprocessor.rgb_to_bgr=False')
    assert (cfg.model.data_preprocessor.rgb_to_bgr, cfg.model.data_preprocessor.bgr_to_rgb) == (False, True)
    weight = 'model.bbox_head.loss_cls.class_weight=[1, 2]'
    with pytest.raises(UsageError, match="loss_cls has no 'class_weight'; did you mean loss_weight"):
        typed(DETECTOR, weight)  # a focal loss, which has no such argument
    cfg = typed(DETECTOR, weight, 'model.bbox_head.loss_cls.type=CrossEntropyLoss')
    assert cfg.model.bbox_head.loss_cls.class_weight == [1, 2]


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('modle.backbone.depth', "the config has no 'modle'; did you mean model"),
        ('model.bakbone.depth', "model has no 'bakbone'; did you mean backbone"),
        ('model.bbox_head.loss_cls.tpye', "model.bbox_head.loss_cls has no 'tpye'; did you mean type"),
        (
            'model.backbone.depth.layers',
            "model.backbone.depth has no 'layers': it is 18; set model.backbone.depth as a",
        ),
        ('model.type.name', "model.type has no 'name': it is 'RetinaNet'; set model.type as a whole"),
        ('train_cfg.max_epoch', "train_cfg has no 'max_epoch'; did you mean max_epochs"),
        ('model.test_cfg.max_per_imgs', "model.test_cfg has no 'max_per_imgs'; did you mean max_per_img"),
        ('train_dataloader.dataset.pipeline.4', "train_dataloader.dataset.pipeline has no '4' but items 0 to 3"),
        ('train_dataloader.dataset.pipeline.x.scale', "train_dataloader.dataset.pipeline has no 'x' but items 0 to 3"),
        ('custom_hooks.0.type', r"custom_hooks has no '0' and is no list; set custom_hooks=\[...\] as a whole"),
        (
            'optim_wrapper.optimizer',
            "expected a dictionary or None in place of one, got 'SGD'",
        ),
        ('zzz', "the config has no 'zzz'; its settings are .*model"),
    ],
)
def test_keys_that_cannot_be_meant(key, message):
    with pytest.raises(UsageError, match=f'--cfg-options {key}.*{message}'):
        typed(DETECTOR, f'{key}=SGD')


def test_hooks_are_set_by_their_name():
    message = r"custom_hooks has no '0' and is no list.*; hooks with a name are set by it: .*default_hooks\.checkpoint"
    with pytest.raises(UsageError, match=message):
        typed(DETECTOR, 'custom_hooks.0.interval=2')
    assert typed(DETECTOR, 'default_hooks.checkpoint.interval=2').default_hooks.checkpoint.interval == 2


def test_an_empty_list_does_not_remove_named_hooks(tmp_path):
    base = TOOLS.parent / 'configs' / 'classification' / 'defocus_mamba_base.py'
    (tmp_path / 'config.py').write_text(f'_base_ = {str(base)!r}\ncustom_hooks = []\n')
    message = r'set default_hooks\.ema=None and default_hooks\.drop_path=None, or omit custom_hooks'
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / 'config.py')
    removed = {'default_hooks.ema': None, 'default_hooks.drop_path': None}
    assert load_config(tmp_path / 'config.py', removed).custom_hooks == []


def test_values_of_all_kinds():
    cfg = typed(
        DETECTOR,
        'model.backbone.with_cp=True',
        'train_dataloader.dataset.pipeline.2.scale=(96, 96)',
        'train_dataloader.dataset.pipeline.2.keep_ratio=false',
        'model.neck.in_channels.0=5',
        'randomness={"seed": 3}',
        'custom_hooks=[{"type": "EMAHook"}]',
        'load_from=None',
        'work_dir=runs, all of 2024/mine',
    )
    assert cfg.model.backbone.with_cp is True
    assert cfg.train_dataloader.dataset.pipeline[2] == dict(type='Resize', scale=(96, 96), keep_ratio=False)
    assert cfg.val_dataloader.dataset.pipeline[1].scale != (96, 96)
    assert cfg.model.neck.in_channels == [5, 8, 16, 32]
    assert cfg.randomness.seed == 3
    assert cfg.custom_hooks[0].type == 'EMAHook'
    assert cfg.load_from is None
    assert cfg.work_dir == 'runs, all of 2024/mine'


@pytest.mark.parametrize(
    ('text', 'present', 'value'),
    [
        # The same in every place
        ('5', 'auto', 5),
        ('-1e-3', None, -1e-3),
        ('None', 'text', None),
        ('True', 'text', True),
        ('[1, 2]', None, [1, 2]),
        ('[bbox, segm]', 'bbox', ['bbox', 'segm']),
        ('(5)', None, (5,)),
        ('[(a, b c), (None, "d, e")]', None, [('a', 'b c'), (None, 'd, e')]),
        ('{"a": [1]}', None, {'a': [1]}),
        ('"5"', None, '5'),
        ("' a, b '", None, ' a, b '),
        ('2024_05', None, '2024_05'),
        # In place of a text
        ('mein ordner', 'text', 'mein ordner'),
        ('2024,05', 'text', '2024,05'),
        ('05', 'text', '05'),
        ('true', 'text', 'true'),
        ('(old) files (new)', 'text', '(old) files (new)'),
        ('[open', 'text', '[open'),
        ('', 'text', ''),
        # Elsewhere
        ('mein ordner', None, 'mein ordner'),
        ('1,2', None, [1, 2]),
        ('a b, c', [], ['a b', 'c']),
        ('a,', None, ['a']),
        ('a, b,', None, ['a', 'b']),
        ('[(a, (b, c)), d]', None, [('a', ('b', 'c')), 'd']),
        ('a, (b, (c, d))', None, ['a', ('b', ('c', 'd'))]),
        ("'a, b', c", None, ['a, b', 'c']),
        ("c, 'a, b'", None, ['c', 'a, b']),
        ("c,'a, b'", None, ['c', 'a, b']),
        ("(c,'a, b')", None, ('c', 'a, b')),
        ("x='a, b', c", None, ["x='a, b'", 'c']),
        ("rock'n, roll', c", None, ["rock'n", "roll'", 'c']),
        ('"a]", b, [c', None, '"a]", b, [c'),
        ('true', False, True),
        ('05', 1, 5),
        ('inf', 1.0, float('inf')),
        ("it's, open)", None, "it's, open)"),
        ('...', None, '...'),
    ],
)
def test_what_a_text_means(text, present, value):
    found = parse_value(text, present)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize('name', ['mein ordner', '2024,05', '2024', "mother's", 'a=b', '[raw] 1'])
@pytest.mark.parametrize('slash', ['', '/'])
def test_data_root_moves_every_path_of_the_data(name, slash):
    cfg = typed(DETECTOR, f'data_root={name}{slash}', 'val_dataloader.dataset.data_root=third place/')
    assert cfg.train_dataloader.dataset.data_root == f'{name}/'
    assert cfg.val_dataloader.dataset.data_root == 'third place/'
    assert cfg.val_evaluator.ann_file == f'{name}/annotations/instances_val.json'
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train.json'


def test_data_root_leaves_directories_alone_whose_name_begins_alike(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{DETECTOR}'\n"
        'train_dataloader = dict(dataset=dict(data_root="data/mine"))\n'
        'val_dataloader = dict(dataset=dict(data_root="data/mine/"))\n'
        'test_dataloader = dict(dataset=dict(data_root="data/mine"))\n'
        'val_evaluator = dict(ann_file="data/mine2/val.json")\n'
        'test_evaluator = dict(ann_file="data/mine/test.json")\n'
    )
    cfg = typed(config, 'data_root=other')
    assert [cfg[f'{split}_dataloader'].dataset.data_root for split in ('train', 'val', 'test')] == [
        'other',
        'other/',
        'other',
    ]
    assert cfg.val_evaluator.ann_file == 'data/mine2/val.json'
    assert cfg.test_evaluator.ann_file == 'other/test.json'


def test_data_root_that_the_data_sets_do_not_share(tmp_path):
    with pytest.raises(UsageError, match="the config has no 'data_root'"):
        typed(CLASSIFIER, 'data_root=elsewhere')
    apart = tmp_path / 'apart.py'
    apart.write_text(f"_base_ = '{DETECTOR}'\nval_dataloader = dict(dataset=dict(data_root='third/'))\n")
    with pytest.raises(UsageError, match="data_root would have no effect: 'data_root' is a helper variable"):
        typed(apart, 'data_root=elsewhere')


def test_options_without_effect_name_those_that_have_one():
    with pytest.raises(UsageError, match="'dataset_type' is a helper variable that the config file has") as info:
        typed(DETECTOR, 'dataset_type=CocoDataset')
    assert 'train_dataloader.dataset.type val_dataloader.dataset.type' in str(info.value)


@pytest.mark.parametrize('value', ['3', "'used nowhere'", "''"])
def test_options_without_effect_that_no_data_set_has(tmp_path, value):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{DETECTOR}'\nhelper = {value}\n")
    with pytest.raises(UsageError, match=r'already used; set the places where it is used$'):
        typed(config, 'helper=1')


def test_several_proposals():
    with pytest.raises(UsageError, match=r"the config has no 'val_dataloder'; did you mean val_dataloader, .*\?$"):
        typed(DETECTOR, 'val_dataloder.batch_size=1')


def test_options_of_a_program_are_taken_as_they_are():
    cfg = load_config(DETECTOR, {'model.backbone.depth': '34', 'model.backbone': dict(with_cp=True)}, 'work, all')
    assert (cfg.model.backbone.depth, cfg.model.backbone.with_cp) == ('34', True)
    assert cfg.work_dir == 'work, all'


def test_words_that_are_no_options(capsys):
    parser = argparse.ArgumentParser()
    add_common_arguments(parser)
    arguments = parse_arguments(parser, ['--cfg-options', 'a.b=[1, 2]', '--cfg-options', 'c=d=e'])
    assert arguments.cfg_options == {'a.b': '[1, 2]', 'c': 'd=e'}
    for words in (['a.b', '3'], ['=3']):
        with pytest.raises(SystemExit):
            parse_arguments(parser, ['--cfg-options', *words])
        assert f"--cfg-options takes pairs key=value without blanks, got '{words[0]}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    'tool',
    ['train', 'test', 'get_flops', 'ablate_digits', 'compare_mixers', 'compare_precision']
    + ['compare_over_focus', 'check_training_step'],
)
def test_every_tool_explains_the_values(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', [f'{tool}.py', '--help'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOLS / f'{tool}.py'), run_name='__main__')
    assert 'values in quotes or brackets are read as in Python' in ' '.join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    'word', ['optim_wrapper.clip_grad.max_norm=inf', 'model.new=[1, nan]', 'model.None=1', 'model.new={"class": 1}']
)
def test_what_a_saved_config_cannot_hold(word):
    """MMEngine would write it to the work directory and into checkpoints, and fail to read it when resuming."""
    key, _, value = word.partition('=')
    with pytest.raises(UsageError) as info:
        typed(CLASSIFIER, word)
    assert str(info.value) == (
        f'--cfg-options {key}: a saved config cannot hold {value!r}; expected keys that are no keywords of Python, '
        'finite numbers (for infinity a large one, such as 1e30) and texts without {{ }}'
    )


def test_brackets_without_end():
    with pytest.raises(UsageError, match=r'^--cfg-options model\.new: the value has too many nested brackets$'):
        typed(CLASSIFIER, f'model.new={"[" * 2000}{"]" * 2000}')


def test_braces_that_python_refuses_to_hash_are_text():
    assert parse_value('{{}}') == '{{}}'


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('work_dir=5', r'^work_dir must be a path, got 5; name a directory with --work-dir$'),
        (
            f'work_dir={"a" * 5000}',
            r"^the work directory 'a+\.\.\.a+' cannot be made: .* too long; name another directory with --work-dir$",
        ),
    ],
)
def test_work_directories_that_cannot_be_made(word, message):
    with pytest.raises(UsageError, match=message):
        typed(CLASSIFIER, word)


@pytest.mark.parametrize(
    ('words', 'value'),
    [
        (('model.new=', 'model.new.key=1'), "''"),
        (('model.new.key=1', 'model.new=5'), '5'),
        (('model.new.key=1', 'model.new=None'), 'None'),
    ],
)
def test_items_of_a_value_that_another_option_sets(words, value):
    with pytest.raises(UsageError) as info:
        typed(CLASSIFIER, *words)
    assert str(info.value) == (
        f'--cfg-options model.new.key: another option sets model.new to {value}, expected a dictionary, since only it '
        'has such items; leave one of the two out'
    )


def test_items_of_a_dictionary_that_another_option_sets():
    assert typed(CLASSIFIER, 'model.new={"a": 1}', 'model.new.key=2').model.new == dict(a=1, key=2)
    assert typed(CLASSIFIER, 'model.new=None', 'model.new.key=2').model.new == dict(key=2)
