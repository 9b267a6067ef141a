"""Make what a block needs and a checkout does not have: ``python make_stand_in.py ITEM``, an item of CONTRIBUTING.md.

It runs like the programs of the documents, with the networks of ``toy_sizes``.
"""

import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from PIL import Image

GOLDEN = Path(__file__).parents[1] / 'golden'
COCO_IDS = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
# Published files without an address in model-index.yml.
CONFIGS = {
    'fcvit_b12.pth.tar': 'fcvit_b12',
    'dat_pp_tiny_in1k_224.pth': 'dat_pp_tiny',
    'dat_pp_base_in1k_224.pth': 'dat_pp_base',
}
SIZE = (96, 64)  # width and height of an image
random = np.random.default_rng(0)


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)).save(path)


def write_coco(annotations: Path, images: Path, count: int, categories: dict[int, str]) -> None:
    """Write images with two boxes each, and their annotations in COCO format."""
    ids = sorted(categories)
    truth: dict[str, list] = {
        'images': [],
        'annotations': [],
        'categories': [{'id': number, 'name': categories[number]} for number in ids],
    }
    for image in range(1, count + 1):
        name = f'{annotations.stem}_{image}.jpg'
        write_image(images / name)
        truth['images'].append({'id': image, 'file_name': name, 'width': SIZE[0], 'height': SIZE[1]})
        for x, y, width, height in ((8, 8, 40, 30), (50, 20, 40, 40)):
            number = len(truth['annotations'])
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            truth['annotations'].append(
                {
                    'id': number + 1,
                    'image_id': image,
                    'category_id': ids[number % len(ids)],
                    'bbox': [x, y, width, height],
                    'area': width * height,
                    'iscrowd': 0,
                    'segmentation': [corners],
                }
            )
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(truth))


def make_coco(folder: str) -> None:
    from mmdet.datasets import CocoDataset

    categories = dict(zip(COCO_IDS, CocoDataset.METAINFO['classes'], strict=True))
    for split, count in (('train2017', 4), ('val2017', 2)):
        write_coco(Path(folder, 'annotations', f'instances_{split}.json'), Path(folder, split), count, categories)


def make_boxes(folder: str) -> None:
    for split in ('train', 'val'):
        write_coco(Path(folder, f'{split}.json'), Path(folder, 'images'), 2, {1: 'screw', 2: 'nut'})


def make_yolo(folder: str) -> None:
    for split, count in (('train', 8), ('val', 4)):
        for number in range(count):
            write_image(Path(folder, 'images', split, f'{number}.jpg'))
            label = Path(folder, 'labels', split, f'{number}.txt')
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text('0 0.3 0.4 0.4 0.5\n1 0.7 0.6 0.4 0.6\n')
    Path(folder, 'data.yaml').write_text('train: images/train\nval: images/val\nnames: [screw, nut]\n')


def make_folders(folder: str, names: list[str], splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Write one folder per class in every split, with eight images in each if there are few classes."""
    for split in splits:
        first = Path(folder, split, names[0], '0.jpg')
        write_image(first)
        for name in names:
            Path(folder, split, name).mkdir(exist_ok=True)
            for number in range(8 if len(names) < 10 else 1):
                path = Path(folder, split, name, f'{number}.jpg')
                if path != first:
                    os.link(first, path)


def make_digit_images(folder: str) -> None:
    """Write the folder of docs/finetune.md."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = Path(folder, 'train' if number < 1397 else 'val', f'digit{label}', f'{number}.png')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15.9).astype('uint8')).save(path)


def make_photo(path: str) -> None:
    from sklearn.datasets import load_sample_image

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(load_sample_image('china.jpg')).save(path)


def build(config: str) -> tuple[Config, torch.nn.Module]:
    """Build the model of a config with initial weights."""
    import mmdefocus.models  # noqa: F401 - registers the networks

    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    for part in model.modules():
        if hasattr(part, 'init_cfg'):
            part.init_cfg = None
    model.init_weights()
    return cfg, model


def make_checkpoint(path: str, config: str) -> None:
    _, model = build(config)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, path)


def as_yacs(content: object) -> object:
    """Turn dictionaries into objects of a class with the name of yacs' one, which the official files contain."""
    module = sys.modules.setdefault('yacs.config', types.ModuleType('yacs.config'))
    if not hasattr(module, 'CfgNode'):
        sys.modules['yacs'] = types.ModuleType('yacs')
        module.CfgNode = type('CfgNode', (dict,), {'__module__': 'yacs.config'})
    return (
        module.CfgNode({key: as_yacs(value) for key, value in content.items()})
        if isinstance(content, dict)
        else content
    )


def make_official(path: str) -> None:
    """Write a toy network in the layout of the release; the config of the published network gives its parts."""
    from modelindex import load_model_index

    from mmdefocus.apis.model_index import ROOT
    from mmdefocus.models.checkpoint.conversion import convert_to_official

    name = Path(path).name
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    models = load_model_index.load(str(ROOT / 'model-index.yml')).models
    configs = [ROOT / model.config for model in models if (model.weights or '').endswith('/' + name)]
    if name in CONFIGS:
        configs.append(ROOT / 'configs' / 'classification' / f'{CONFIGS[name]}.py')
    if not configs:
        sys.exit(f'{name} is none of the published files in model-index.yml and CONFIGS')
    if '_det_' in name:
        shutil.copy(GOLDEN / 'det_full_official_det.pth', path)
        return
    _, model = build(str(configs[0]))
    content = convert_to_official({'state_dict': model.state_dict()})
    if name.startswith('fcvit'):
        torch.save({'epoch': 309, 'arch': name.partition('.')[0], 'state_dict': content['state_dict']}, path)
        return
    average = {key: value / 2 for key, value in content['model'].items()}
    config = as_yacs(content.get('config', {'MODEL': {'TYPE': 'dat'}}))
    torch.save({**content, 'model_ema': average, 'config': config, 'epoch': 299}, path)


def make(item: str) -> None:
    word, _, value = item.partition(' ')
    match word:
        case 'coco':
            make_coco(value)
        case 'imagenet':
            make_folders(value, [f'n{number:08}' for number in range(1000)])
        case 'imagenet21k':
            make_folders(value, [f'n{number:08}' for number in range(21841)], ('train',))
        case 'images':
            make_folders(value, ['daisy', 'rose'])
        case 'digit-images':
            make_digit_images(value)
        case 'boxes':
            make_boxes(value)
        case 'yolo':
            make_yolo(value)
        case 'photo':
            make_photo(value)
        case 'official':
            make_official(value)
        case 'checkpoint':
            make_checkpoint(*value.split(' of '))


if __name__ == '__main__':
    make(sys.argv[1])
