"""Arguments that the commands ``train`` and ``config`` share, and the model that they name."""

import argparse
from typing import TYPE_CHECKING, Any

from .arguments import add_config_options

if TYPE_CHECKING:
    from mmdefocus.apis.vision_model import VisionModel


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``MODEL``, ``--task``, ``--weights``, ``--device`` and ``--cfg-options``."""
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='model of the zoo (mmdefocus models lists them), config (.py) or checkpoint of a training (.pth)',
    )
    parser.add_argument(
        '--task',
        choices=['detection', 'classification'],
        help='task of a model of the zoo; default: that of the data, and detection without data',
    )
    parser.add_argument('--weights', metavar='CHECKPOINT', help='checkpoint to start from: file or address')
    parser.add_argument('--device', help='such as cpu or cuda:1; default: a GPU if there is one')
    add_config_options(parser)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the data and the options of a training."""
    parser.add_argument(
        '--data', metavar='DATA', help='folder or file: COCO, YOLO, Pascal VOC, or a folder of images per class'
    )
    parser.add_argument('--epochs', type=int, metavar='N', help='passes over the training images')
    parser.add_argument(
        '--batch-size', type=_batch_size, metavar='N', help="images per step and process, or 'auto' for the memory"
    )
    parser.add_argument('--lr', type=float, metavar='X', help='learning rate; default: scaled by the batch size')
    parser.add_argument('--image-size', type=int, metavar='N', help='longest side of the images in pixels')
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        metavar='F',
        help='part of the training images for validation, if there is no split for it; default: 0.2',
    )
    parser.add_argument('--seed', type=int, metavar='N', help='seed of split and training; default: 0 for own data')
    parser.add_argument(
        '--work-dir', metavar='DIR', help='folder for config, checkpoints and logs; default: work_dirs/MODEL_DATA'
    )
    parser.add_argument('--workers', type=int, metavar='N', help='processes that load images')


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a training as arguments of :meth:`mmdefocus.apis.vision_model.VisionModel.config`."""
    names = ('epochs', 'batch_size', 'lr', 'image_size', 'val_fraction', 'seed', 'work_dir', 'workers')
    return {name: getattr(args, name) for name in names}


def named_model(args: argparse.Namespace) -> 'VisionModel':
    """Return the model that the arguments name.

    A model of the zoo has the task of ``--task``, or else that of the data.
    """
    from mmdefocus.apis.classifier import Classifier
    from mmdefocus.apis.detector import Detector
    from mmdefocus.apis.named_model import find_named_model

    kinds = dict(detection=Detector, classification=Classifier)
    task = args.task
    if task is None and not args.model.endswith(('.py', '.pth')) and args.data is not None:
        from mmdefocus.datasets.prepared import read_data

        task = read_data(args.data).task
    if task is None:
        task = find_named_model(args.model, None, args.cfg_options).task
    return kinds[task](args.model, args.weights, device=args.device, cfg_options=args.cfg_options)


def _batch_size(text: str) -> int | str:
    if text == 'auto':
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a whole number or auto, got '{text}'") from None
