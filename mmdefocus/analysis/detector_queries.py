"""The image tokens on which the detections of DINO depend.

Shapes: N detections, Q queries, K classes, C channels, R and W rows and columns of the map of the image.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone

from .errors import AnalysisError
from .layer_taps import differentiable
from .networks import TokenNetwork
from .token_probe import TokenProbe

TARGETS = ('score', 'box')
SCORE_TOLERANCE = 1e-4
BOX_TOLERANCE = 1e-3  # of the longer side of the image


@dataclass(frozen=True)
class DetectionMaps:
    """Detections in an image, in descending order of their scores, and what they depend on. All tensors on the CPU.

    Attributes:
        boxes: x1, y1, x2, y2 in pixels of the original image, (N, 4).
        scores: (N).
        labels: Indices of the classes, (N).
        queries: Indices of the queries that gave the detections, (N).
        maps: Norms of the gradients for every cell, not negative, (N, R, W). The cells cover the image from its upper
            left corner, without the padding of the batch, and may reach beyond its right and lower sides.
        cell: Height and width of a cell in pixels of the original image.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    queries: Tensor
    maps: Tensor
    cell: tuple[float, float]


def detection_maps(
    detector: nn.Module,
    images: Tensor,
    sample: Any,
    top: int = 4,
    score_threshold: float = 0.0,
    of: str = 'score',
    at: str | int = 'features',
) -> DetectionMaps:
    """Compute the gradients of detections with respect to the tokens of the image.

    The value of a cell is the Euclidean norm over channels of ∂s/∂t, where s is the class logit of the query that gave
    the detection and t the token. The derivative is complete: it includes the reference points that the encoder
    proposes and every layer of the decoder passes on, which a training treats as constants.

    Args:
        detector: DINO of MMDetection, with any backbone.
        images: One image as ``data_preprocessor`` returns it, (1, 3, height, width).
        sample: Its data sample (MMDetection's ``DetDataSample``), also from ``data_preprocessor``.
        top: Largest number of detections.
        score_threshold: Smallest score of a detection.
        of: ``'score'``; or ``'box'``: s is the box, and the norm is over its four coordinates in pixels of the original
            image as well.
        at: ``'features'``: the last feature map that the backbone gives to the neck. A number: the tokens that enter
            this layer of the backbone. ``'image'``: the pixels; the norm is over all pixels of a cell of the last
            feature map.

    Returns:
        Detections and maps.

    Raises:
        AnalysisError: The model is no such detector, no detection reaches the threshold, an argument is outside its
            range, the image was flipped, or the detections are not those of the detector's own ``predict``.
    """
    _check_arguments(detector, images, sample, top, of)
    leaf = _Leaf()
    with differentiable(detector):
        found = _predict(detector, images, sample, top, score_threshold)
        with _place(leaf, detector, images, at):
            logits, boxes = _forward(detector, leaf(images) if at == 'image' else images, sample)
        queries = [_match(detection, logits, boxes, sample) for detection in found]
        maps = []
        for detection, query in zip(found, queries, strict=True):
            values = logits[query, detection.labels] if of == 'score' else boxes[query]
            gradients = [torch.autograd.grad(value, leaf.values, retain_graph=True)[0] for value in values]
            maps.append(torch.cat(gradients).square().sum((0, 1)))  # (R, W) or (height, width)
    cells, cell = _cells(torch.stack(maps), detector, images, leaf.grid, at)
    return _in_original_image(found, queries, cells.sqrt(), cell, sample)


class _Leaf(nn.Module):
    """Cuts the graph: later values depend on its output, which is a leaf."""

    values: Tensor
    grid: tuple[int, int]  # rows and columns of the backbone's last feature map

    def forward(self, x: Tensor) -> Tensor:
        self.values = x.detach().requires_grad_()
        return self.values


class _KeepGraph(TorchFunctionMode):
    """Lets gradients through ``Tensor.detach``, which DINO calls for its reference points."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return args[0] if func is Tensor.detach else func(*args, **(kwargs or {}))


def _check_arguments(detector: Any, images: Tensor, sample: Any, top: int, of: str) -> None:
    if not all(hasattr(detector, name) for name in ('backbone', 'forward_transformer', 'bbox_head')):
        raise AnalysisError(
            f'expected DINO, a detector with queries, got {type(detector).__name__}'
            + ('; for class activation maps of classifiers, see cam' if hasattr(detector, 'head') else '')
        )
    if not getattr(detector.bbox_head.loss_cls, 'use_sigmoid', False):
        raise AnalysisError(f'{type(detector).__name__} has softmax scores; expected DINO, with sigmoid scores')
    if images.dim() != 4 or images.shape[0] != 1:
        raise AnalysisError(f'expected one image (1, 3, height, width), got the shape {tuple(images.shape)}')
    for name in ('img_shape', 'scale_factor'):
        if name not in sample.metainfo:
            raise AnalysisError(f"the data sample has no {name}; add '{name}' to meta_keys of PackDetInputs")
    if sample.metainfo.get('flip'):
        raise AnalysisError('the image was flipped, and so would be its map; use a pipeline without flips')
    if top < 1:
        raise AnalysisError(f'top must be at least 1, the number of detections to show, got {top}')
    if of not in TARGETS:
        raise AnalysisError(f"of must be 'score' or 'box', got {of!r}")


@contextmanager
def _place(leaf: _Leaf, detector: nn.Module, images: Tensor, at: str | int) -> Iterator[None]:
    """Make ``leaf`` see the tokens at a place of the backbone while the block runs."""

    def see_features(_: nn.Module, __: tuple, output: Any) -> Any:
        leaf.grid = tuple(output[-1].shape[2:])
        return (*output[:-1], leaf(output[-1])) if at == 'features' else output

    handle = detector.get_submodule('backbone').register_forward_hook(see_features)
    try:
        if isinstance(at, str):
            if at not in ('features', 'image'):
                raise AnalysisError(f"at must be 'features', 'image' or the number of a layer, got {at!r}")
            yield
        else:
            probe = TokenProbe(TokenNetwork(detector), at, 'input')
            probe.tokens, probe.image_size = leaf, (images.shape[2], images.shape[3])
            with probe.attach():
                yield
    finally:
        handle.remove()


@torch.no_grad()
def _predict(detector: Any, images: Tensor, sample: Any, top: int, score_threshold: float) -> list[Any]:
    """Return the best detections of the detector's own prediction, each as instance data of length 1."""
    (predicted,) = detector.predict(images, [deepcopy(sample)], rescale=True)
    instances = predicted.pred_instances
    instances = instances[instances.scores.argsort(descending=True, stable=True)]
    chosen = instances[instances.scores >= score_threshold][:top]
    if not len(chosen):
        best = f'the best has {instances.scores[0].item():.3f}' if len(instances) else 'there are none'
        raise AnalysisError(
            f'no detection has a score of at least {score_threshold:g} ({best}); lower the threshold, or check that '
            'the weights are those of a trained detector'
        )
    return [chosen[index] for index in range(len(chosen))]


def _forward(detector: Any, images: Tensor, sample: Any) -> tuple[Tensor, Tensor]:
    """Return class logits (Q, K) and boxes in pixels of the original image (Q, 4), as parts of the graph."""
    features = detector.extract_feat(images)
    with _KeepGraph():
        outputs = detector.forward_transformer(features, [sample])
        logits, boxes = (values[-1][0] for values in detector.bbox_head(**outputs))  # the last layer of the decoder
    centre, size = boxes.split(2, dim=-1)
    return logits, torch.cat((centre - size / 2, centre + size / 2), dim=-1) * _limits(boxes, sample)


def _limits(boxes: Tensor, sample: Any) -> Tensor:
    """Return width, height, width, height of the original image, as the scale of the resizing has them."""
    (height, width), scale = sample.metainfo['img_shape'][:2], sample.metainfo['scale_factor']
    return boxes.new_tensor([width / scale[0], height / scale[1]]).repeat(2)


def _match(detection: Any, logits: Tensor, boxes: Tensor, sample: Any) -> int:
    """Return the query that gave a detection.

    Raises:
        AnalysisError: None did.
    """
    limits = _limits(boxes, sample)
    shift = (boxes.clamp(min=0).minimum(limits) - detection.bboxes).abs().amax(dim=1) / limits.max()
    change = (logits.sigmoid()[:, detection.labels[0]] - detection.scores).abs()
    difference = torch.maximum(shift / BOX_TOLERANCE, change / SCORE_TOLERANCE)
    query = int(difference.argmin())
    if not difference[query] <= 1:
        raise AnalysisError(
            'the detections of the forward pass with gradients are not those of predict: the nearest box is '
            f'{shift[query].item():.1e} of the longer side away, and its score differs by {change[query].item():.1e}; '
            'the head of this detector computes its predictions in another way than that of DINO'
        )
    return query


def _cells(
    squares: Tensor, detector: nn.Module, images: Tensor, grid: tuple[int, int], at: str | int
) -> tuple[Tensor, tuple[int, int]]:
    """Return squared norms (N, R, W), and height and width of a cell in pixels of the network's input."""
    backbone = detector.get_submodule('backbone')
    size = images.shape[2:]
    rows, columns = grid if at == 'image' else squares.shape[1:]
    if isinstance(backbone, DefocusBackbone):
        height = width = backbone.patch_size
    else:
        height, width = _stride(size[0], rows), _stride(size[1], columns)
    if at == 'image':
        squares = F.pad(squares, (0, columns * width - size[1], 0, rows * height - size[0]))
        squares = squares.unflatten(2, (columns, width)).unflatten(1, (rows, height)).sum((2, 4))
    return squares, (height, width)


def _stride(pixels: int, cells: int) -> int:
    """Return the side of a cell; a map with a last cell beyond the image comes from strides of powers of two."""
    return pixels // cells if pixels % cells == 0 else 2 ** math.ceil(math.log2(pixels / cells))


def _in_original_image(
    found: list[Any], queries: list[int], maps: Tensor, cell: tuple[int, int], sample: Any
) -> DetectionMaps:
    height, width = sample.metainfo['img_shape'][:2]  # without padding
    scale = sample.metainfo['scale_factor']
    maps = maps[:, : -(-height // cell[0]), : -(-width // cell[1])].float().cpu()
    if not maps.isfinite().all():
        raise AnalysisError('a gradient is infinite or NaN; check the weights of the detector')
    for index, values in enumerate(maps):
        if not values.any():
            raise AnalysisError(
                f'detection {index} does not depend on the image: all gradients are 0, as those of the boxes of a '
                'detector that has not been trained'
            )
    boxes, scores, labels = (torch.cat([item[name] for item in found]).cpu() for name in ('bboxes', 'scores', 'labels'))
    return DetectionMaps(boxes, scores, labels, torch.tensor(queries), maps, (cell[0] / scale[1], cell[1] / scale[0]))
