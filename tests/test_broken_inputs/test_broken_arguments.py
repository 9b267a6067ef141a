"""Arguments of the command-line tools that cannot be meant."""

from broken_inputs import Case, each

INTRODUCTION = 'Arguments of the tools. Where the list of arguments itself is wrong, a tool also prints its usage.'


def words(what: str, tool: str, given: tuple[str, ...], says: str) -> Case:
    return Case(what, lambda place: place.run(tool, *given), says)


def option(what: str, given: str, says: str, config: str = 'detector.py') -> Case:
    """A case with these words behind ``--cfg-options`` of a training."""
    return Case(what, lambda place: place.train(config, '--cfg-options', *given.split(' ')), says)


def train(what: str, says: str, *given: str) -> Case:
    return Case(what, lambda place: place.train('classifier.py', *given), says)


def evaluation(what: str, says: str, *given: str) -> Case:
    return Case(what, lambda place: place.test('classifier.py', 'weights.pth', *given), says)


def demo(what: str, says: str, *given: str) -> Case:
    return Case(what, lambda place: place.demo('images', *given), says)


CASES = [
    words(
        'There is no config',
        'train.py',
        (),
        'required: config | the following arguments are required | "train.py --help" explains the arguments',
    ),
    words(
        'An option is unknown',
        'train.py',
        ('classifier.py', '--epochs', '3'),
        '--epochs 3 | unrecognized arguments | "train.py --help" explains the arguments',
    ),
    words(
        'The launcher is unknown',
        'train.py',
        ('classifier.py', '--launcher', 'torchrun'),
        "'torchrun' | choose from 'none', 'pytorch', 'slurm' | \"train.py --help\" explains the arguments",
    ),
    train(
        'The launcher did not start the tool',
        'RANK is not set | expects to be started by tools/dist_train.sh or torchrun | use that command',
        '--launcher',
        'pytorch',
    ),
    train(
        'The learning rate cannot be scaled',
        '--auto-scale-lr | needs the batch size that the learning rate | write auto_scale_lr =',
        '--auto-scale-lr',
        '--cfg-options',
        'auto_scale_lr=None',
    ),
    train(
        'The work directory is a file',
        "'weights.pth' is a file | the work directory | name another directory with --work-dir",
        '--work-dir',
        'weights.pth',
    ),
    train(
        'The work directory is below a file',
        "'weights.pth' is a file | the work directory | name another directory with --work-dir",
        '--work-dir',
        'weights.pth/runs',
    ),
    train(
        'The work directory cannot be written to',
        "got '/proc/runs' (No such file or directory) | needs a directory that can be written to | name another one",
        '--work-dir',
        '/proc/runs',
    ),
    train(
        'The checkpoint to resume does not exist',
        'epoch_2.pth | expected the path or the URL of a checkpoint | correct it',
        '--resume',
        'epoch_2.pth',
    ),
    train(
        'The checkpoint to resume has a similar name',
        "'weight.pth' does not exist | checkpoint | did you mean weights.pth?",
        '--resume',
        'weight.pth',
    ),
    train(
        'The checkpoint to resume is a directory',
        'images is a directory | the checkpoint file | name the checkpoint file in it',
        '--resume',
        'images',
    ),
    train(
        'The checkpoint to resume has weights only',
        'has no message_hub and optimizer and meta | cannot be resumed | to start a new training from its weights',
        '--resume',
        'weights.pth',
    ),
    train(
        'The checkpoint to resume is a number',
        '3 | expected the path or the URL of a checkpoint | correct it',
        '--resume',
        '3',
    ),
    option(
        "--cfg-options without '='",
        'train_cfg.max_epochs 3',
        'got \'train_cfg.max_epochs\' | --cfg-options takes pairs key=value | "train.py --help" explains the',
    ),
    option(
        '--cfg-options with blanks around =',
        'train_cfg.max_epochs = 3',
        'got \'train_cfg.max_epochs\' | --cfg-options takes pairs key=value | "train.py --help" explains the',
    ),
    option(
        '--cfg-options without a key',
        '=3',
        'got \'=3\' | --cfg-options takes pairs key=value without blanks | "train.py --help" explains the arguments',
    ),
    option(
        '--cfg-options with dashes',
        '--train_cfg.max_epochs=3',
        '--cfg-options | expected at least one argument | "train.py --help" explains the arguments',
    ),
    option(
        'A misspelt top-level key',
        'trian_cfg.max_epochs=3',
        "the config has no 'trian_cfg' | the config has no | did you mean train_cfg, val_cfg, env_cfg?",
    ),
    option(
        'A misspelt key',
        'train_cfg.max_epoch=3',
        "train_cfg has no 'max_epoch' | did you mean max_epochs | did you mean max_epochs",
    ),
    option(
        'An unknown key at the top level',
        'epochs=3',
        "the config has no 'epochs' | the config has no | its settings are model, train_dataloader, val_dataloader",
    ),
    option(
        'A variable that the config has used already',
        'load=3',
        "'load' is a helper variable | would have no effect | set the places where it is used",
    ),
    option(
        'A key below a number',
        'train_cfg.max_epochs.value=3',
        "has no 'value' | it is 1 | set train_cfg.max_epochs as a whole",
    ),
    option(
        'An item that a list does not have',
        'param_scheduler.4.end=3',
        "has no '4' | items 0 to 0 | set the list as a whole",
    ),
    option(
        'A list is addressed with brackets',
        'param_scheduler[0].end=3',
        "the config has no 'param_scheduler[0]' | the config has no | did you mean param_scheduler?; write the",
    ),
    option(
        'A text in place of a dictionary',
        'optim_wrapper.optimizer=AdamW',
        "got 'AdamW' | expected a dictionary or None in place of one | set its items",
    ),
    option(
        'A number in place of a dictionary',
        'model=3',
        'got 3 | the config needs model=dict(type=..., ...) | inherit a config that has a model',
    ),
    option(
        'A dictionary in place of a number',
        "train_cfg.max_epochs={'a':1}",
        "got {'a': 1} | train_cfg.max_epochs must be a whole number of | correct it in the config, or with",
    ),
    option(
        'A text in place of a number',
        'train_dataloader.batch_size=many',
        "got 'many' | train_dataloader.batch_size must be a whole | correct it in the config, or with --cfg-options",
    ),
    option(
        'A decimal comma',
        'optim_wrapper.optimizer.lr=0,01',
        "TypeError: '<' not supported between instances | optim_wrapper.optimizer (SGD) | correct it in the config",
    ),
    option(
        'An unclosed bracket',
        'model.neck.in_channels=[4,8',
        'got \'model.neck.in_channels=[4,8\' | --cfg-options takes values with | "train.py --help" explains the',
    ),
    option(
        'A data root that does not exist',
        'data_root=/data/coco',
        "data_root='/data/coco' | annotation file | make or download the data, or set data_root and ann_file",
    ),
    option(
        'An empty value',
        'train_cfg.max_epochs=',
        "got '' | train_cfg.max_epochs must be a whole number of | correct it in the config, or with --cfg-options",
    ),
    words(
        'There is no checkpoint to test',
        'test.py',
        ('classifier.py',),
        'required: checkpoint | the following arguments are required | "test.py --help" explains the arguments',
    ),
    Case(
        'The checkpoint to test does not exist',
        lambda place: place.test('classifier.py', 'weights.pht'),
        "'weights.pht' does not exist | checkpoint | did you mean weights.pth?",
    ),
    evaluation(
        '--out has an unknown extension',
        "got 'predictions.json' | --out takes a file that ends in .pkl or .pickle | rename it",
        '--out',
        'predictions.json',
    ),
    evaluation(
        '--out is a directory',
        "got 'images' | --out takes a file that ends in .pkl or .pickle | rename it",
        '--out',
        'images',
    ),
    evaluation(
        '--show-dir is a file',
        "got 'weights.pth' (File exists) | needs a directory that can be written to | name another one",
        '--show-dir',
        'weights.pth',
    ),
    evaluation(
        '--show-dir cannot be written to',
        "got '/proc/pictures' (No such file or | needs a directory that can be written to | name another one",
        '--show-dir',
        '/proc/pictures',
    ),
    evaluation('--show without a display', 'this machine has none | --show needs a display | --show-dir', '--show'),
    evaluation(
        '--show-dir and --tta together',
        '--tta and --show-dir | draws no pictures of augmented images | in two runs',
        '--show-dir',
        'pictures',
        '--tta',
    ),
    evaluation(
        '--wait-time is a text',
        '\'long\' | invalid float value | "test.py --help" explains the arguments',
        '--wait-time',
        'long',
    ),
    evaluation('--wait-time is negative', 'got -1.0 | must be at least 0 seconds | correct it', '--wait-time', '-1'),
    words(
        'Demo: the name of the model is unknown',
        'image_demo.py',
        ('images', 'defocus-mamba-bas_3rdparty_in1k'),
        "got 'defocus-mamba-bas_3rdparty_in1k' | expected one of the models | did you mean",
    ),
    words(
        'Demo: the weights of the model are not published',
        'image_demo.py',
        ('images', 'classifier.py'),
        'classifier.py | has no published weights | name a checkpoint',
    ),
    Case(
        'Demo: the folder has no images',
        lambda place: place.demo('train'),
        "got none | expected images in folder 'train' (.jpg, .jpeg | name a file, or a folder with images directly",
    ),
    Case(
        'Demo: the input is empty',
        lambda place: place.demo(''),
        "got none | expected images in folder '' (.jpg, .jpeg, .png | name a file, or a folder with images directly",
    ),
    Case(
        'Demo: the config is a detector of nothing',
        lambda place: place.demo('images', config='detectors.py'),
        "'detectors.py' does not exist | config file | did you mean detector.py?",
    ),
    demo(
        'Demo: --batch-size is 0',
        'got 0 | --batch-size must be at least 1 | give the images at a time',
        '--batch-size',
        '0',
    ),
    demo(
        'Demo: --batch-size is a fraction',
        '\'1.5\' | invalid int value | "image_demo.py --help" explains the arguments',
        '--batch-size',
        '1.5',
    ),
    demo(
        'Demo: --topk is 0',
        'got 0 | topk must be positive | give the number of classes to show, such as 5',
        '--topk',
        '0',
    ),
    demo(
        'Demo: --score-thr is a text',
        '\'high\' | invalid float value | "image_demo.py --help" explains the arguments',
        '--score-thr',
        'high',
    ),
    demo(
        'Demo: --device is unknown',
        "got 'gpu' | device must be 'cpu', or 'cuda' where PyTorch | use 'cpu'",
        '--device',
        'gpu',
    ),
    demo(
        'Demo: there is no such GPU',
        "got 'cuda:99' | device must be 'cpu', or 'cuda' where PyTorch | use 'cpu'",
        '--device',
        'cuda:99',
    ),
    demo(
        'Demo: --out-dir is a file',
        "got 'weights.pth' (File exists) | needs a directory that can be written to | name another one",
        '--out-dir',
        'weights.pth',
    ),
    demo(
        'Demo: --out-dir cannot be written to',
        "got '/proc/pictures' (No such file or | needs a directory that can be written to | name another one",
        '--out-dir',
        '/proc/pictures',
    ),
    words(
        'get_flops: --shape has three sides',
        'get_flops.py',
        ('classifier.py', '--shape', '3', '32', '32'),
        'got 3 32 32 | --shape takes a side, or a height and a width | "get_flops.py --help" explains the arguments',
    ),
    words(
        'get_flops: --shape is 0',
        'get_flops.py',
        ('classifier.py', '--shape', '0'),
        'got 0 | --shape takes a side, or a height and a width, in | "get_flops.py --help" explains the arguments',
    ),
    words(
        'get_flops: --shape is smaller than a patch',
        'get_flops.py',
        ('classifier.py', '--shape', '2'),
        'expected images of at least one patch (4 x 4 pixels) | model.backbone (DefocusMamba) failed | correct them',
    ),
    words(
        'get_flops: the config does not exist',
        'get_flops.py',
        ('classifer.py',),
        "'classifer.py' does not exist | config file | did you mean classifier.py?",
    ),
    words(
        'Conversion: the file to write has another extension',
        'model_converters/mmdefocus_to_official.py',
        ('weights.pth', 'official.pt'),
        "got 'official.pt' | expected a file name that ends in .pth | rename it",
    ),
    words(
        'Conversion: the file to write is a directory',
        'model_converters/mmdefocus_to_official.py',
        ('weights.pth', 'images'),
        "got 'images' | expected a file name that ends in .pth | rename it",
    ),
    words(
        'Conversion: an import does not exist',
        'model_converters/mmdefocus_to_official.py',
        ('weights.pth', 'official.pth', '--custom-imports', 'toy_famly'),
        "got 'toy_famly' (No module named | --custom-imports must name modules | install it, or add its folder to",
    ),
    words(
        'Conversion: --to is unknown',
        'model_converters/official_to_mmdefocus.py',
        ('weights.pth', 'ours.pth', '--to', 'detector'),
        "'detector' | choose from 'cls', 'det' | \"official_to_mmdefocus.py --help\" explains the arguments",
    ),
]


@each(CASES)
def test_broken_arguments(case, check):
    check(case)
