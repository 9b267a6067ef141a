"""The pyramids FCViT and DAT: arguments, images and weights that they cannot use."""

from collections.abc import Callable
from typing import Any

import torch
from broken_inputs import Case, Workplace, each
from mmengine.registry import MODELS

from mmdefocus.models.checkpoint import mmdefocus_to_official

INTRODUCTION = (
    'The backbones `FCViT` and `DAT` in the config of a classifier, in Python, and with weights of other networks.'
)
V1 = MODELS.get('DAT').arch_zoo['v1-tiny'] | dict(
    embed_dims=(16, 16, 32, 32),
    blocks=('LS', 'L', 'LD', 'LD'),
    num_heads=(1, 2, 2, 4),
    num_groups=(1, 1, 2, 2),
)
FCVIT, DAT, DAT_V1 = dict(type='FCViT', arch='nano'), dict(type='DAT', arch='nano'), dict(type='DAT', arch=V1)
CHANNELS = {'FCViT': 96, 'DAT': 128}


def write_config(place: Workplace, backbone: dict[str, Any], **changes: Any) -> str:
    """Write the config of a classifier with another backbone, and return its name."""
    width = 32 if backbone['arch'] is V1 else CHANNELS[backbone['type']]
    loss = dict(type='CrossEntropyLoss')
    head = dict(type='LinearClsHead', num_classes=2, in_channels=width, loss=loss, _delete_=True)
    neck = dict(type='GlobalAveragePooling')
    model = dict(backbone=dict(backbone, _delete_=True, **changes), neck=neck, head=head)
    (place.root / 'pyramid.py').write_text(f"_base_ = './classifier.py'\nmodel = {model!r}\n")
    return 'pyramid.py'


def write_weights(
    place: Workplace, backbone: dict[str, Any], change: Callable[[dict], object] = lambda _: None, **changes: Any
) -> str:
    """Write an official file with the weights of a backbone, and return its name."""
    torch.manual_seed(0)
    weights = MODELS.build(dict(backbone, **changes)).state_dict()
    official = mmdefocus_to_official({f'backbone.{name}': value for name, value in weights.items()})
    change(official)
    torch.save({'model': official}, place.root / 'official.pth')
    return 'official.pth'


def config(what: str, backbone: dict[str, Any], says: str, **changes: Any) -> Case:
    """A case with these changes of the backbone in a config."""
    kind = backbone['type']
    return Case(f'{kind}: {what}', lambda place: place.train(write_config(place, dict(backbone, **changes))), says)


def images(what: str, backbone: dict[str, Any], images: torch.Tensor, says: str) -> Case:
    """A case in which a backbone gets these images in Python."""
    kind = backbone['type']
    return Case(f'{kind}: {what}', lambda place: place.refusal(MODELS.build(backbone), images), says)


def small(place: Workplace) -> str:
    return place.run('get_flops.py', write_config(place, DAT), '--shape', '31')


def initial(
    what: str,
    theirs: dict[str, Any],
    own: dict[str, Any],
    says: str,
    change: Callable[[dict], object] = lambda _: None,
    **changes: Any,
) -> Case:
    """A case in which a backbone with some changes starts from the official file of another one."""

    def attempt(place: Workplace) -> str:
        pretrained = dict(type='Pretrained', checkpoint=write_weights(place, theirs, change))
        return place.train(write_config(place, own, init_cfg=pretrained, **changes))

    return Case(f'init_cfg of {own["type"]}: {what}', attempt, says)


def of_mamba(place: Workplace) -> str:
    return place.train(write_config(place, FCVIT, init_cfg=dict(type='Pretrained', checkpoint='weights.pth')))


def cut(place: Workplace) -> str:
    path = place.root / write_weights(place, FCVIT)
    path.write_bytes(path.read_bytes()[:-200])
    return place.train(write_config(place, FCVIT, init_cfg=dict(type='Pretrained', checkpoint=path.name)))


def averaged(place: Workplace) -> str:
    name = write_weights(place, FCVIT)
    return place.run('model_converters/official_to_mmdefocus.py', name, 'ours.pth', '--weights', 'ema')


CASES = [
    config(
        'The architecture is unknown',
        FCVIT,
        "got 'b36' | arch must be one of ['nano', 'tiny', 'b12', 'b24', 'b48'] or a dict | correct it in the config",
        arch='b36',
    ),
    config(
        'The architecture is unknown',
        DAT,
        "got 'tiny-plus' | arch must be one of ['nano', 'tiny', 'small', 'base', | correct it in the config",
        arch='tiny-plus',
    ),
    config(
        'The architecture lacks keys',
        FCVIT,
        "missing ['kernel_sizes', 'mixer_ratios', 'num_heads'], unknown ['depth'] | arch must have exactly the keys | "
        'correct it in the config',
        arch=dict(embed_dims=(32, 64, 160, 320), depths=(3, 3, 5, 2), depth=13),
    ),
    config(
        'The architecture has an unknown key',
        DAT_V1,
        "unknown ['depths'] | arch must have exactly the keys ['embed_dims', 'blocks', | correct it in the config",
        arch={**V1, 'depths': (2, 2, 6, 2)},
    ),
    config(
        'The architecture has three stages',
        FCVIT,
        "got (32, 64, 160) | arch['embed_dims'] must be a list of 4 values, each a positive | correct it in the config",
        arch=dict(
            embed_dims=(32, 64, 160), depths=(1, 1, 1), mixer_ratios=(4, 4, 4), num_heads=8, kernel_sizes=(11, 11)
        ),
    ),
    config(
        'A type of block is unknown',
        DAT_V1,
        "got 'LX' | arch['blocks'] must consist of the letters N, D, L and S | correct it in the config",
        arch={**V1, 'blocks': ('LX', 'L', 'LD', 'LD')},
    ),
    config(
        'The heads do not divide the channels',
        DAT_V1,
        'got 16 | channels must be a multiple of num_heads (3) | correct it in the config',
        arch={**V1, 'num_heads': (3, 2, 2, 4)},
    ),
    config(
        'An argument is misspelt',
        FCVIT,
        "has no argument 'drop_path' | did you mean 'drop_path_rate'? | correct it in the config",
        drop_path=0.1,
    ),
    config(
        'The outputs are counted from 1',
        FCVIT,
        'got [1, 2, 3, 4] | out_indices must be some of 0, 1, 2, 3 | correct it in the config',
        out_indices=[1, 2, 3, 4],
    ),
    config(
        'The outputs descend',
        DAT,
        'got [3, 2] | out_indices must ascend | correct it in the config',
        out_indices=[3, 2],
    ),
    config(
        'The nominal size is no multiple of 32',
        DAT,
        'got 200 | img_size must be a positive multiple of 32 | correct it in the config',
        img_size=200,
    ),
    images(
        'Images are smaller than a cell of the last stage',
        FCVIT,
        torch.zeros(1, 3, 31, 64),
        'got 31 x 64 | expected images of at least one cell of the last stage (32 x 32 pixels) | resize or pad them',
    ),
    Case(
        'get_flops: --shape is smaller than a cell of the last stage',
        small,
        'got 31 x 31 | expected images of at least one cell of the last stage (32 x 32 pixels) | correct them',
    ),
    images(
        'Images have four channels',
        DAT,
        torch.zeros(1, 4, 64, 64),
        'got (1, 4, 64, 64) | expected images of shape (batch, 3, height, width) | convert them, or set in_channels',
    ),
    images(
        'Images are whole numbers',
        DAT,
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        'got torch.uint8 | expected floating-point images | normalise them first (data_preprocessor)',
    ),
    Case(
        'init_cfg of FCViT: the weights are of De-focus Mamba',
        of_mamba,
        'got weights of De-focus Mamba | expected weights of FCViT | Name a checkpoint of this network',
    ),
    initial(
        'the weights are of FCViT',
        FCVIT,
        DAT,
        'got weights of FCViT | expected weights of DAT | Name a checkpoint of this network',
    ),
    initial(
        'the weights are of a smaller network',
        FCVIT,
        FCVIT,
        "got weights of arch='nano' | expected weights of arch='tiny' | give FCViT the sizes of the checkpoint",
        arch='tiny',
    ),
    initial(
        'the weights are of DAT v1',
        DAT_V1,
        DAT,
        "blocks=['LS', 'L', 'LD', 'LD']) | expected weights of arch='nano' | give DAT the sizes of the checkpoint",
    ),
    initial(
        'the weights are of another nominal size',
        DAT_V1,
        DAT_V1,
        'got weights of another arch, img_size=224, window_size=7 | img_size=384, window_size=12 (embed | give DAT the '
        'sizes of the checkpoint',
        img_size=384,
        window_size=12,
    ),
    initial(
        'the mask of shifted windows has other values',
        DAT_V1,
        DAT_V1,
        'attn_mask the values that follow from | window_size=7 and shift=4, got others | download the file again',
        lambda official: official['stages.0.attns.1.attn_mask'].zero_(),
    ),
    Case(
        'init_cfg of FCViT: the file is cut off',
        cut,
        'File is not a zip file | expected the whole file | download or copy it again',
    ),
    Case(
        'Conversion of FCViT: the average is missing',
        averaged,
        "there is no 'state_dict_ema' | which only files of a classification | convert the plain weights ('model')",
    ),
]


@each(CASES)
def test_a_broken_pyramid_is_refused(case, check):
    check(case)
