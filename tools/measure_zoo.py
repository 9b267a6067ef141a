"""Measure the memory of the models of the zoo on the CPU: the peak of the process in inference and in training.

Each number comes from a process of its own: inference of one image, and two training steps of two images, with AdamW
and random weights. It prints rows for the table `MEMORY` of mmdefocus/apis/zoo_table.py.
"""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdefocus.apis.zoo import ZooModel, list_zoo
from mmdefocus.openmmlab import import_quietly

CLASSES = 1000  # of the classifiers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', choices=['detection', 'classification'], help='leave out the other task')
    parser.add_argument('--models', nargs='+', metavar='NAME', help='names in the zoo; all if omitted')
    parser.add_argument('--inference-only', action='store_true', help='do not train')
    args = parser.parse_args()
    for model in list_zoo(args.task):
        if args.models and model.name not in args.models:
            continue
        inference = peak(model, training=False)
        training = None if args.inference_only else peak(model, training=True)
        print(f"    ('{model.task}', '{model.name}'): ({inference}, {training}),", flush=True)


def peak(model: ZooModel, training: bool) -> int | None:
    """Return the peak memory in MiB, or None if the system ended the process for lack of memory."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(measure, model, training).result()
        except BrokenProcessPool:
            return None


def measure(model: ZooModel, training: bool) -> int:
    """Run a network of random weights in this process, and return the peak memory of the process in MiB."""
    import_quietly('mmdet.datasets', 'mmpretrain.datasets')
    network = build(model)
    if training:
        train(network, model)
    else:
        with torch.no_grad():
            network.eval()(torch.rand(1, 3, *model.image_size), samples(model, 1), mode='predict')
    status = Path('/proc/self/status').read_text()
    return int(status.partition('VmHWM:')[2].split()[0]) // 1024


def build(model: ZooModel) -> nn.Module:
    cfg = Config.fromfile(model.config_file)
    cfg.model.backbone.pop('init_cfg', None)
    if model.task == 'classification':
        cfg.model.head.num_classes = CLASSES
        cfg.model.train_cfg = None  # mixes images, which takes no memory
        cfg.model.data_preprocessor = dict(cfg.data_preprocessor, type='ClsDataPreprocessor', num_classes=CLASSES)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


def train(network: nn.Module, model: ZooModel) -> None:
    optimizer = torch.optim.AdamW(network.train().parameters())
    for _ in range(2):
        losses: dict[str, Tensor] = network(torch.rand(2, 3, *model.image_size), samples(model, 2), mode='loss')
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()


def samples(model: ZooModel, count: int) -> list:
    if model.task == 'classification':
        from mmpretrain.structures import DataSample

        return [DataSample().set_gt_label(1) for _ in range(count)]
    from mmdet.structures import DetDataSample

    size = model.image_size
    metainfo = dict(
        img_shape=size, ori_shape=size, batch_input_shape=size, pad_shape=size, scale_factor=(1.0, 1.0), img_id=0
    )
    boxes = torch.tensor([[10.0, 10, 60, 70], [40, 50, 100, 90], [5, 90, 80, 150], [20, 20, 40, 40], [100, 9, 130, 80]])
    objects = InstanceData(bboxes=boxes, labels=torch.ones(len(boxes), dtype=torch.long))
    return [DetDataSample(metainfo=metainfo, gt_instances=objects) for _ in range(count)]


if __name__ == '__main__':
    main()
