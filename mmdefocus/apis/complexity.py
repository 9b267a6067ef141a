"""Parameters and FLOPs of a config's network."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from mmdefocus.ops.backends import choose_backend

from .image_size import image_size

DETECTION_SHAPE = (800, 1333)
MASKS = 100


@dataclass(frozen=True)
class Complexity:
    """Cost of inference for one image.

    Attributes:
        shape: Height and width of the image in pixels.
        parameters: Number of parameters, including those of auxiliary heads.
        multiply_adds: Number of multiply-adds, called FLOPs in the tables of MMPreTrain and MMDetection; torch's
            counter gives twice as many. See :mod:`mmdefocus.ops.flops` for the operations that count.
        scan_multiply_adds: Multiply-adds of the scans.
    """

    shape: tuple[int, int]
    parameters: int
    multiply_adds: int
    scan_multiply_adds: int


def count_complexity(cfg: Config, shape: tuple[int, int] | None = None) -> Complexity:
    """Count the parameters and the FLOPs of ``cfg.model``.

    The network runs on the meta device, which computes shapes only and needs neither memory nor time. A detector of
    regions counts as many as its test may propose, usually 1000, and the masks of 100, as in published tables.

    Args:
        cfg: Config of a classifier of MMPreTrain or a detector of MMDetection.
        shape: Height and width of the image in pixels. By default that of :func:`~mmdefocus.apis.image_size.image_size`
            for a classifier, and 800 × 1333 for a detector, the largest test image of the usual recipes.

    Returns:
        The counts.

    Raises:
        RuntimeError: The scan would run as a Python loop, which no counter can see.
    """
    meta = torch.device('meta')
    if choose_backend(None, meta) == 'reference':
        raise RuntimeError(
            'the plain-PyTorch scan cannot be counted: build the compiled operators ("make setup") and unset '
            'MMDEFOCUS_BACKEND'
        )
    detect = cfg.get('default_scope') == 'mmdet'
    shape = shape or (DETECTION_SHAPE if detect else image_size(cfg))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')), meta, torch.no_grad():
        # Only without gradients does torch's counter accept modules that return a view of a parameter (positions).
        model = MODELS.build(copy.deepcopy(cfg.model)).eval().requires_grad_(False)
        if hasattr(model, 'roi_head'):
            _fix_regions(model)
        arguments = [torch.empty(1, 3, *shape)] + ([[_detection_sample(shape)]] if detect else [])
        with FlopCounterMode(display=False) as counter, _SizesOnCpu():
            model(*arguments, mode='tensor')
    counts = {str(op): count // 2 for op, count in counter.get_flop_counts()['Global'].items()}
    scans = sum(count for op, count in counts.items() if op.startswith('mmdefocus.') and op.endswith('scan'))
    return Complexity(shape, sum(p.numel() for p in model.parameters()), sum(counts.values()), scans)


class _SizesOnCpu(TorchDispatchMode):
    """Keep integer tensors on the CPU: DETR's heads read the sizes of feature maps from them."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and not args[0].is_meta and not args[0].is_floating_point():
            return args[0].clone()
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        if len(devices) > 1:
            args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to('meta'), (args, kwargs))
        return function(*args, **kwargs)


def _fix_regions(model: Any) -> None:
    """Give a detector of regions as many regions as its test may propose.

    Which ones it proposes depends on values, which the meta device does not have.
    """
    boxes = model.test_cfg.rpn.max_per_img
    counts = dict(bbox=boxes, mask=min(boxes, MASKS))

    def run_heads(*_: Any) -> None:
        for kind in [kind for kind in counts if getattr(model.roi_head, f'with_{kind}')]:
            extractors, heads = (getattr(model.roi_head, f'{kind}_{part}') for part in ('roi_extractor', 'head'))
            # A cascade has several.
            several = isinstance(heads, nn.ModuleList)
            for extractor, head in zip(extractors, heads, strict=True) if several else [(extractors, heads)]:
                head(torch.empty(counts[kind], extractor.out_channels, *extractor.roi_layers[0].output_size))

    model.rpn_head.predict = lambda features, *_, **__: model.rpn_head(features)
    model.roi_head.forward = run_heads


def _detection_sample(shape: tuple[int, int]) -> Any:
    from mmdet.structures import DetDataSample

    return DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape))
