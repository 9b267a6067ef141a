"""Config files with mistakes."""

from broken_inputs import Case, Workplace, each

INTRODUCTION = 'Config files, read by `tools/train.py` and `tools/get_flops.py`.'
DATA = "dataset=dict(type='DefocusCocoDataset', ann_file='ann.json', data_prefix=dict(img='images/'))"
LOAD = "dict(type='LoadImageFromFile')"
BOXES = "dict(type='LoadAnnotations', with_bbox=True)"
RESIZE = "dict(type='Resize', scale=(64, 64))"
PACK = "dict(type='PackDetInputs')"


def file(what: str, content: str | bytes, says: str) -> Case:
    """A case with this content of a config file."""

    def attempt(place: Workplace) -> str:
        path = place.root / 'mine.py'
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return place.train('mine.py')

    return Case(what, attempt, says)


def detector(what: str, lines: str, says: str) -> Case:
    """A case with this change to the config of a detector."""
    return file(what, f"_base_ = './detector.py'\n{lines}\n", says)


def pipeline(what: str, steps: list[str], says: str) -> Case:
    """A case with these steps of the training pipeline of a detector."""
    return detector(what, f'train_dataloader = dict(dataset=dict(pipeline=[{", ".join(steps)}]))', says)


def classifier(what: str, lines: str, says: str) -> Case:
    """A case with this change to the config of a classifier."""
    return file(what, f"_base_ = './classifier.py'\n{lines}\n", says)


def missing(place: Workplace) -> str:
    return place.train('detecter.py')


def directory(place: Workplace) -> str:
    return place.train('images')


def circular(place: Workplace) -> str:
    (place.root / 'one.py').write_text("_base_ = './two.py'\n")
    (place.root / 'two.py').write_text("_base_ = './one.py'\n")
    return place.train('one.py')


def flops(what: str, lines: str, says: str) -> Case:
    def attempt(place: Workplace) -> str:
        (place.root / 'mine.py').write_text(f"_base_ = './classifier.py'\n{lines}\n")
        return place.run('get_flops.py', 'mine.py')

    return Case(what, attempt, says)


CASES = [
    Case('The file does not exist', missing, "'detecter.py' does not exist | config file | did you mean detector.py?"),
    Case(
        'The file is a directory', directory, "'images' is a directory | the config file | name the config file in it"
    ),
    file(
        'The file is empty',
        '',
        'has no train_dataloader and train_cfg | so there is nothing to train | inherit a config that has them',
    ),
    file(
        'The file is a text',
        'these are my settings',
        'SyntaxError: invalid syntax (line | expected settings in the syntax of | correct this line of the file, or',
    ),
    file(
        'The file is not in UTF-8',
        "work_dir = 'hôtel'".encode('latin-1'),
        "UnicodeDecodeError: 'utf-8' codec | expected a text in UTF-8 | name a config file, or save it in UTF-8",
    ),
    file(
        'The file is binary',
        b'\x80\x02}q\x00.' + bytes(50),
        "UnicodeDecodeError: 'utf-8' codec | expected a text in UTF-8 | name a config file, or save it in UTF-8",
    ),
    file(
        'A bracket is missing',
        "_base_ = './detector.py'\nmodel = dict(bbox_head=dict(num_classes=2)\n",
        "SyntaxError: '(' was never closed | expected settings in the syntax of | correct this line of the file, or",
    ),
    file(
        'A comma is missing',
        "_base_ = './detector.py'\nmodel = dict(bbox_head=dict() neck=dict())\n",
        'SyntaxError: invalid syntax. | expected settings in the syntax of | correct this line of the file, or of',
    ),
    file(
        'Tabs and blanks are mixed',
        "_base_ = './detector.py'\nif True:\n\ta = 1\n        b = 2\n",
        'TabError: inconsistent use of | expected settings in the syntax of | correct this line of the file, or',
    ),
    file(
        'A name is not defined',
        "_base_ = './detector.py'\nmodel = dict(bbox_head=dict(num_classes=classes))\n",
        "NameError: name 'classes' is not | expected a variable of the file | define it, or write _base_.NAME for",
    ),
    file(
        'The base does not exist',
        "_base_ = './detecter.py'\n",
        'FileNotFoundError: [Errno 2] No such file or | expected the path of an existing config | correct _base_',
    ),
    file(
        'The base is of an unknown package',
        "_base_ = 'mmdett::_base_/default_runtime.py'\n",
        "AssertionError: mmengine does not support to | expected a config of OpenMMLab's packages | correct _base_",
    ),
    file(
        'The base is not in the package',
        "_base_ = 'mmdet::_base_/default_runtimes.py'\n",
        'FileNotFoundError: file | expected the path of an existing config | correct _base_',
    ),
    Case(
        'The bases form a circle',
        circular,
        'RecursionError: maximum recursion | expected bases that do not lead back | remove the circle from _base_',
    ),
    file(
        'Two bases have the same setting',
        "_base_ = ['./detector.py', './classifier.py']\n",
        'KeyError: "Duplicate key is not allowed | expected a config of MMEngine | correct the file, or its _base_',
    ),
    file(
        'A setting of the base is a dictionary and here a number',
        "_base_ = './detector.py'\nmodel = 3\n",
        'got 3 | the config needs model=dict(type=..., ...) | inherit a config that has a model',
    ),
    file(
        'A module cannot be imported',
        "_base_ = './detector.py'\ncustom_imports = dict(imports=['my_modules'], allow_failed_imports=False)\n",
        'ModuleNotFoundError: No module named | expected a module of this | install it, or add its folder to',
    ),
    detector(
        'There is no model',
        'model = None',
        'got None | the config needs model=dict(type=..., ...) | inherit a config that has a model',
    ),
    detector(
        'The scope is unknown',
        "default_scope = 'mmdett'",
        "got 'DetLocalVisualizer' | visualizer: type must be a registered visualizer | Correct the name",
    ),
    detector(
        'There is no data loader for training',
        'train_dataloader = None',
        'has no train_dataloader and train_cfg | so there is nothing to train | inherit a config that has them',
    ),
    detector(
        'There is no optimiser',
        'optim_wrapper = None',
        'the config has train_dataloader and train_cfg, but no | they belong together | set optim_wrapper',
    ),
    detector(
        'There is no data loader for validation',
        'val_dataloader = None',
        'the config has val_cfg and val_evaluator, but no | they belong together | set val_dataloader',
    ),
    detector(
        'The type of the model is unknown',
        "model = dict(type='RetinaNett')",
        "got 'RetinaNett' | model: type must be a registered model | Correct the name",
    ),
    detector(
        'The type of the backbone is unknown',
        "model = dict(backbone=dict(type='DefocusMambo'))",
        "got 'DefocusMambo' | model.backbone: type must be a registered model | Correct the name",
    ),
    detector(
        'The type of the optimiser is unknown',
        "optim_wrapper = dict(optimizer=dict(type='AdmaW'))",
        "got 'AdmaW' | optim_wrapper.optimizer: type must be a registered optimizer | Correct the name",
    ),
    detector(
        'The type of a schedule is unknown',
        "param_scheduler = [dict(type='CosineLR', T_max=3)]",
        "got 'CosineLR' | param_scheduler.0: type must be a registered parameter scheduler | Correct the name",
    ),
    detector(
        'The type of a hook is unknown',
        "custom_hooks = [dict(type='EarlyStopHook')]",
        "got 'EarlyStopHook' | custom_hooks.0: type must be a registered hook | Correct the name",
    ),
    detector(
        'The type of a transform is unknown',
        "train_dataloader = dict(dataset=dict(pipeline=[dict(type='RandomFlipp')]))",
        "got 'RandomFlipp' | train_dataloader.dataset.pipeline.0: type must be a registered | Correct the name",
    ),
    detector(
        'The type of the data set is unknown',
        "train_dataloader = dict(dataset=dict(type='CocoDatset'))",
        "got 'CocoDatset' | train_dataloader.dataset: type must be a registered dataset | Correct the name",
    ),
    detector(
        'The type of the metric is unknown',
        "val_evaluator = dict(type='CocoMetrics')",
        "got 'CocoMetrics' | val_evaluator: type must be a registered metric | Correct the name",
    ),
    detector(
        'A type is missing',
        'model = dict(neck=dict(_delete_=True, out_channels=8))',
        "got {'out_channels': 8} | must be a dictionary with a type | write dict",
    ),
    detector(
        'An argument of the head is unknown',
        'model = dict(bbox_head=dict(num_class=2))',
        "has no argument 'num_class' | did you mean num_classes | did you mean num_classes",
    ),
    detector(
        'An argument of the optimiser is unknown',
        'optim_wrapper = dict(optimizer=dict(learning_rate=0.1))',
        "has no argument 'learning_rate' | its arguments are | its arguments are",
    ),
    detector(
        'An argument of the data set is unknown',
        "train_dataloader = dict(dataset=dict(anno_file='ann.json'))",
        "has no argument 'anno_file' | did you mean ann_file | did you mean ann_file",
    ),
    detector(
        'An argument of a hook is unknown',
        'default_hooks = dict(checkpoint=dict(save_every=2))',
        'TypeError: Runner.save_checkpoint() got an | default_hooks.checkpoint (CheckpointHook) | correct them',
    ),
    detector(
        'An argument of a schedule is missing',
        "param_scheduler = [dict(type='MultiStepLR')]",
        "got end=1 | needs 'milestones' | set what is missing",
    ),
    detector(
        'A required argument is missing',
        "model = dict(bbox_head=dict(_delete_=True, type='RetinaHead', num_classes=2))",
        "got num_classes=2 | needs 'in_channels' | set what is missing",
    ),
    detector(
        'The head has fewer classes than the data',
        'model = dict(bbox_head=dict(num_classes=1))',
        'the model has 1 | has 2 classes | set model.bbox_head.num_classes to',
    ),
    detector(
        'The head has more classes than the data',
        'model = dict(bbox_head=dict(num_classes=80))',
        'the model has 80 | has 2 classes | set model.bbox_head.num_classes to',
    ),
    detector(
        'The head has no classes',
        'model = dict(bbox_head=dict(num_classes=0))',
        'num_classes=0 is too small. Its settings are | model.bbox_head (RetinaHead) | correct it in the config',
    ),
    detector(
        'The number of classes is a text',
        "model = dict(bbox_head=dict(num_classes='2'))",
        "got '2' | num_classes must be int | correct it in the config",
    ),
    detector(
        'The classes are a text',
        "train_dataloader = dict(dataset=dict(metainfo=dict(classes='cat')))",
        "got 'cat' | classes must be a tuple of names | for a single class write",
    ),
    detector(
        'max_epochs is 0',
        'train_cfg = dict(max_epochs=0)',
        'got 0 | train_cfg.max_epochs must be a whole number of | correct it in the config, or with --cfg-options',
    ),
    detector(
        'max_epochs is negative',
        'train_cfg = dict(max_epochs=-3)',
        'got -3 | train_cfg.max_epochs must be a whole number of | correct it in the config, or with --cfg-options',
    ),
    detector(
        'max_epochs is a fraction',
        'train_cfg = dict(max_epochs=1.5)',
        'got 1.5 | train_cfg.max_epochs must be a whole number of | correct it in the config, or with --cfg-options',
    ),
    detector(
        'max_epochs is a text',
        "train_cfg = dict(max_epochs='12')",
        "got '12' | train_cfg.max_epochs must be a whole number of | correct it in the config, or with",
    ),
    detector(
        'There are both max_epochs and max_iters',
        'train_cfg = dict(max_iters=100)',
        'got max_epochs=1 and max_iters=100 | needs either max_epochs or max_iters | remove one',
    ),
    detector(
        'The loop is chosen twice',
        'train_cfg = dict(by_epoch=True)',
        "got type='EpochBasedTrainLoop' and by_epoch=True | needs either type or by_epoch | dict(_delete_=True, ...)",
    ),
    detector(
        'The loop is not chosen',
        'train_cfg = dict(_delete_=True, max_epochs=1)',
        'got neither | needs either type or by_epoch | set by_epoch=True to count epochs',
    ),
    detector(
        'The type of the loop is unknown',
        "train_cfg = dict(type='EpochTrainLoop')",
        "got 'EpochTrainLoop' | train_cfg: type must be a registered loop | Correct the name",
    ),
    detector(
        'val_interval is 0',
        'train_cfg = dict(val_interval=0)',
        'got 0 | train_cfg.val_interval must be a whole number of | correct it in the config, or with --cfg-options',
    ),
    detector(
        'The batch size is 0',
        'train_dataloader = dict(batch_size=0)',
        'got 0 | train_dataloader.batch_size must be a whole | correct it in the config, or with --cfg-options',
    ),
    detector(
        'The batch size is negative',
        'train_dataloader = dict(batch_size=-1)',
        'got -1 | train_dataloader.batch_size must be a whole | correct it in the config, or with --cfg-options',
    ),
    detector(
        'The batch size is a fraction',
        'train_dataloader = dict(batch_size=1.5)',
        'got 1.5 | train_dataloader.batch_size must be a whole | correct it in the config, or with --cfg-options',
    ),
    detector(
        'The number of workers is negative',
        'train_dataloader = dict(num_workers=-1)',
        'got -1 | train_dataloader.num_workers must be a whole | correct it in the config, or with --cfg-options',
    ),
    detector(
        'Workers are persistent, but there are none',
        'train_dataloader = dict(persistent_workers=True)',
        'num_workers=0 | persistent_workers=True | set persistent_workers=False',
    ),
    detector(
        'The learning rate is negative',
        'optim_wrapper = dict(optimizer=dict(lr=-0.1))',
        'Invalid learning rate: -0.1. Its settings are | optim_wrapper.optimizer (SGD) | correct it in the config',
    ),
    detector(
        'The learning rate is a text',
        "optim_wrapper = dict(optimizer=dict(lr='1e-4'))",
        "got '1e-4' | lr must be float or Tensor | correct it in the config",
    ),
    detector(
        'accumulative_counts is 0',
        'optim_wrapper = dict(accumulative_counts=0)',
        'got 0 | optim_wrapper.accumulative_counts must be a | correct it in the config, or with --cfg-options',
    ),
    detector(
        'A schedule ends before it begins',
        "param_scheduler = [dict(type='LinearLR', start_factor=0.1, begin=5, end=2)]",
        'end should be larger than begin, but got begin=5 | param_scheduler.0 (LinearLR) | correct it in the config',
    ),
    detector(
        'The sampler is missing',
        f'train_dataloader = dict(_delete_=True, batch_size=1, {DATA})',
        'has no sampler | which chooses the order of the images | set',
    ),
    pipeline(
        'A scale of the images is a text',
        [LOAD, BOXES, "dict(type='Resize', scale='64x64')", PACK],
        'error: OpenCV(4.12.0) :-1: error | the pipeline failed in Resize | correct the steps of the pipeline',
    ),
    pipeline(
        'The pipeline loads no annotations',
        [LOAD, RESIZE, PACK],
        "AttributeError: 'InstanceData' object has no | model.bbox_head (RetinaHead) failed | correct them",
    ),
    pipeline(
        'The pipeline loads no images',
        [RESIZE, PACK],
        "KeyError: 'scale_factor' | the pipeline failed in Resize | correct the steps of the pipeline",
    ),
    pipeline(
        'The pipeline is empty',
        [],
        "KeyError: 'inputs' | model.data_preprocessor (DetDataPreprocessor) failed | correct them",
    ),
    detector(
        'The pipeline is a dictionary',
        f'train_dataloader = dict(dataset=dict(pipeline=dict({LOAD[5:]}))',
        "TypeError: pipeline={'type' | expected a config of MMEngine | correct the file, or its _base_",
    ),
    detector(
        'filter_cfg leaves no image',
        'train_dataloader = dict(dataset=dict(filter_cfg=dict(min_size=1000)))',
        "{'filter_empty_gt': True, 'min_size': 1000} | must leave at least one | relax it",
    ),
    detector(
        'The neck does not fit the backbone',
        'model = dict(neck=dict(in_channels=[8, 16, 32, 64]))',
        'RuntimeError: Given groups=1, weight of size | model.neck.lateral_convs.0.conv (Conv2d) | correct them',
    ),
    detector(
        'The channels of the mean are not those of the images',
        'model = dict(data_preprocessor=dict(mean=[0.5] * 4, std=[1.0] * 4))',
        'AssertionError: `mean` should have 1 or 3 | model.data_preprocessor | correct it in the config',
    ),
    detector(
        'The evaluator is for another task',
        "val_evaluator = dict(_delete_=True, type='mmpretrain.Accuracy')",
        "KeyError: 'pred_label' | val_evaluator (Accuracy) failed | correct them",
    ),
    detector(
        'The metric is unknown',
        "val_evaluator = dict(metric='mAP')",
        "KeyError: \"metric should be one of 'bbox' | val_evaluator (DefocusCocoMetric) | correct it in the config",
    ),
    detector(
        'The checkpoint to keep is chosen by an unknown metric',
        "default_hooks = dict(checkpoint=dict(save_best='mAP'))",
        "KeyError: 'mAP' | default_hooks.checkpoint (CheckpointHook) failed | correct them",
    ),
    detector(
        'load_from does not exist',
        "load_from = 'nowhere.pth'",
        'nowhere.pth | expected the path or the URL of a checkpoint | correct it',
    ),
    detector(
        'The initial weights do not exist',
        "model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth')))",
        'nowhere.pth | expected the path or the URL of a checkpoint | correct it',
    ),
    detector(
        'The initial weights are not published',
        "model = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='http://127.0.0.1:9/w.pth')))",
        'URLError: <urlopen error [Errno 111] | could not be downloaded | give the path of the file instead of the',
    ),
    classifier(
        'The architecture is unknown',
        "model = dict(backbone=dict(arch='tiny', _delete_=True, type='DefocusMamba'))",
        "got 'tiny' | arch must be one of ['nano', 'small', 'base', 'large'] or a dict | correct it in the config",
    ),
    classifier(
        'An argument of the backbone is misspelt',
        'model = dict(backbone=dict(patchsize=4))',
        "has no argument 'patchsize' | did you mean 'patch_size'? | correct it in the config",
    ),
    classifier(
        'The image size is smaller than a patch',
        'model = dict(backbone=dict(img_size=3))',
        'got 3 | img_size must be a side or (height, width) of at least one patch (4 | correct it in the config',
    ),
    classifier(
        'The image size has three sides',
        'model = dict(backbone=dict(img_size=(32, 32, 3)))',
        'got (32, 32, 3) | img_size must be a side or (height, width) of at least one | correct it in the config',
    ),
    classifier(
        'The image size is a text',
        "model = dict(backbone=dict(img_size='224'))",
        "got '224' | img_size must be a side or (height, width) in whole pixels | correct it in the config",
    ),
    classifier(
        'The patch size is 0',
        'model = dict(backbone=dict(patch_size=0))',
        'got 0 | patch_size must be a whole number of pixels, at least 1 | correct it in the config',
    ),
    classifier(
        'The patch size is a pair',
        'model = dict(backbone=dict(patch_size=(4, 4)))',
        'got (4, 4) | patch_size must be a whole number of pixels, at least 1 | correct it in the config',
    ),
    classifier(
        'Images are smaller than a patch',
        'model = dict(backbone=dict(img_size=64, patch_size=64))',
        'expected images of at least one patch (64 x 64 | model.backbone (DefocusMamba) failed | correct them',
    ),
    classifier(
        'drop_path_rate is above 1',
        'model = dict(backbone=dict(drop_path_rate=2))',
        'got 2 | drop_path_rate must be in [0, 1) | correct it in the config',
    ),
    classifier(
        'frozen_stages is beyond the layers',
        'model = dict(backbone=dict(frozen_stages=99))',
        'got 99 | frozen_stages must be from -1 to num_layers (2) | correct it in the config',
    ),
    classifier(
        'out_type is unknown',
        "model = dict(backbone=dict(out_type='features'))",
        "got 'features' | out_type must be one of ['raw', 'cls_token', 'featmap'] | correct it in the config",
    ),
    classifier(
        'out_indices are beyond the layers',
        'model = dict(backbone=dict(out_indices=[9]))',
        "has no argument 'out_indices' | its arguments are | its arguments are",
    ),
    classifier(
        'The architecture lacks a size',
        'model = dict(backbone=dict(arch=dict(_delete_=True, embed_dims=16)))',
        "arch must have exactly the keys ['embed_dims' | model.backbone (DefocusMamba) | correct it in the config",
    ),
    classifier(
        'The widths of head and backbone differ',
        'model = dict(head=dict(in_channels=96))',
        'expected features (batch, tokens, 96) or (batch, 96) | model.head (DefocusClsHead) failed | correct them',
    ),
    classifier(
        'The weight of the auxiliary loss is above 1',
        'model = dict(head=dict(aux_weight=2))',
        'got 2 | aux_weight must be from 0 to 1 | correct it in the config',
    ),
    classifier(
        'The number of classes is not that of the folders',
        'model = dict(head=dict(num_classes=10))',
        'the model has 10 | has 2 classes | set model.head.num_classes to',
    ),
    classifier(
        'The head predicts classes that it does not have',
        'model = dict(head=dict(predict_classes=[0, 7]))',
        'got indices from 0 to 7 | predict_classes must be from 0 to num_classes - 1 = 1 | correct it in the config',
    ),
    classifier(
        'The warm-up is as long as the training',
        'train_cfg = dict(max_epochs=1)',
        'expected a warmup from 0 to less than | param_scheduler (DefocusWarmupCosineLR) | correct it in the config',
    ),
    classifier(
        'A hook is in custom_hooks=[] to remove it',
        "custom_hooks = []\ndefault_hooks = dict(ema=dict(type='EMAHook'))",
        'custom_hooks=[] | does not remove the hooks of the recipe | set default_hooks.ema=None',
    ),
    flops(
        'get_flops: an argument of the backbone is misspelt',
        'model = dict(backbone=dict(patchsize=4))',
        "has no argument 'patchsize' | did you mean 'patch_size'? | correct it in the config",
    ),
    flops(
        'get_flops: the type of the head is unknown',
        "model = dict(head=dict(type='ClsHed'))",
        "got 'ClsHed' | model.head: type must be a registered model | Correct the name",
    ),
    flops(
        'get_flops: there is no model',
        'model = None',
        'got None | the config needs model=dict(type=..., ...) | inherit a config that has a model',
    ),
    flops(
        'get_flops: the image size is a text',
        "model = dict(backbone=dict(img_size='32'))",
        "got '32' | img_size must be a side or (height, width) in whole pixels | correct it in the config",
    ),
]


@each(CASES)
def test_broken_configs(case, check):
    check(case)
