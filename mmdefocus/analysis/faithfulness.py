"""Faithfulness of saliency maps: insertion and deletion curves.

Shapes: B images, R and W rows and columns of the map, S steps.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mmdefocus.models.backbones.defocus_backbone import DefocusBackbone

from .errors import AnalysisError
from .eval_mode import eval_mode
from .networks import TokenNetwork, open_network

DEFAULT_STEPS = 16
# The blur of the published code of RISE.
BLUR_KERNEL, BLUR_SIGMA = 11, 5.0


@dataclass(frozen=True)
class Faithfulness:
    """Probability of a class while the cells of an image appear or disappear. All tensors are float32 on the CPU.

    Attributes:
        classes: The classes (B), int64.
        fractions: Share of the cells that are replaced, from 0 to 1, (S + 1).
        insertion: Probability while cells appear in the baseline, the most important first, (B, S + 1).
        deletion: Probability while they disappear from the image, (B, S + 1).
        random_insertion, random_deletion: The same for cells in random order: the reference without information.
    """

    classes: Tensor
    fractions: Tensor
    insertion: Tensor
    deletion: Tensor
    random_insertion: Tensor
    random_deletion: Tensor

    def area(self, curve: Tensor) -> Tensor:
        """Return the area under a curve, (B), from 0 to 1 by the trapezoidal rule.

        High for insertion and low for deletion mean a faithful map.
        """
        return torch.trapezoid(curve, self.fractions)


@torch.no_grad()
def insertion_deletion(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    maps: Tensor,
    classes: Tensor | None = None,
    steps: int | None = None,
    baseline: Literal['blur', 'mean'] = 'blur',
    seed: int = 0,
) -> Faithfulness:
    """Measure whether a saliency map finds the parts of an image that a classification depends on.

    Insertion and deletion of Petsiuk et al. (RISE, arXiv 1806.07421, section 4.3), with cells of the map in place of
    pixels: cells of the image are replaced in the order of the map, and the probability of a class is computed after
    every step. The curves of a random order, from the same call, say what the numbers would be without information.

    The network runs 4 (S + 1) times. An image with replaced cells is not a natural image: the curves measure the
    network's answer to it, too.

    Args:
        model: Classifier.
        images: Normalised images (B, 3, height, width).
        maps: Saliency of the cells (B, R, W), such as from ``TokenLayout.to_grid``; equal ones follow in raster order.
        classes: Class per image (B); None for the predicted ones.
        steps: S; None for 16, or the number of cells if there are fewer.
        baseline: What replaces cells. ``'blur'``: the image under a Gaussian of 5 pixels, as in RISE for insertion.
            ``'mean'``: the mean colour of the image.
        seed: Of the random order.

    Returns:
        The curves.

    Raises:
        AnalysisError: The maps do not fit the images or are not finite, ``steps``, ``baseline`` or a class is out of
            range, or the model has no class logits.
    """
    network = open_network(model)
    count = maps.shape[1:].numel()
    steps = min(DEFAULT_STEPS, count) if steps is None else steps
    _check(images, maps, steps, baseline)
    sides = _cell_sides(network, maps, images)
    replaced = torch.linspace(0, count, steps + 1, dtype=torch.float64).round().long()  # cells after every step
    empty = _baseline(images, baseline)
    random = torch.rand(maps.shape, generator=torch.Generator().manual_seed(seed))
    with eval_mode(network.model):
        full = _probabilities(network, images)
        classes = full.argmax(1) if classes is None else _check_classes(classes, full)
        curves = []
        for order in (_ranks(maps), _ranks(random)):
            for target, start in ((images, empty), (empty, images)):
                curve = []
                for number in replaced.tolist():
                    mixed = torch.where(_enlarge(order < number, sides, images), target, start)
                    curve.append(_probabilities(network, mixed).gather(1, classes[:, None]))
                curves.append(torch.cat(curve, dim=1).float().cpu())
    return Faithfulness(classes.cpu(), (replaced / count).float(), *curves)


def _ranks(maps: Tensor) -> Tensor:
    """Return the rank of every cell of maps (B, R, W), 0 for the largest value."""
    return maps.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(maps.shape)


def _enlarge(cells: Tensor, sides: tuple[int, int], images: Tensor) -> Tensor:
    """Enlarge cells (B, R, W) to the pixels of the images, (B, 1, height, width)."""
    height, width = images.shape[-2:]
    pixels = cells.repeat_interleave(sides[0], 1).repeat_interleave(sides[1], 2)
    return pixels[:, None, :height, :width].to(images.device)


def _cell_sides(network: TokenNetwork, maps: Tensor, images: Tensor) -> tuple[int, int]:
    """Return height and width of a cell in pixels."""
    grid, size = maps.shape[1:], images.shape[-2:]
    backbone = network.backbone
    if isinstance(backbone, DefocusBackbone) and grid == tuple(-(-side // backbone.patch_size) for side in size):
        return backbone.patch_size, backbone.patch_size  # the last patches may be partly padding
    height, width = (-(-side // cells) for side, cells in zip(size, grid, strict=True))
    if height * (grid[0] - 1) >= size[0] or width * (grid[1] - 1) >= size[1]:
        raise AnalysisError(
            f'{grid[0]} x {grid[1]} cells do not divide images of {size[0]} x {size[1]} pixels; expected the token grid'
        )
    return height, width


def _baseline(images: Tensor, kind: str) -> Tensor:
    if kind == 'mean':
        return images.mean((2, 3), keepdim=True).expand_as(images)
    from torchvision.transforms.functional import gaussian_blur

    return gaussian_blur(images, [BLUR_KERNEL, BLUR_KERNEL], [BLUR_SIGMA, BLUR_SIGMA])


def _probabilities(network: TokenNetwork, images: Tensor) -> Tensor:
    logits = network.run(images)
    if logits is None:
        raise AnalysisError(f'{type(network.model).__name__} gives no class logits; expected a classifier')
    return logits.softmax(dim=1)


def _check(images: Tensor, maps: Tensor, steps: int, baseline: str) -> None:
    if maps.dim() != 3 or len(maps) != len(images) or not maps.numel() or not maps.isfinite().all():
        raise AnalysisError(
            f'expected finite maps (images, rows, columns) for {len(images)} images, got the shape {tuple(maps.shape)}'
            + ('' if maps.isfinite().all() else ' with values that are not finite')
        )
    if not 1 <= steps <= maps[0].numel():
        raise AnalysisError(f'expected steps from 1 to {maps[0].numel()}, the number of cells, got {steps}')
    if baseline not in ('blur', 'mean'):
        raise AnalysisError(f"expected baseline to be 'blur' or 'mean', got {baseline!r}")


def _check_classes(classes: Tensor, probabilities: Tensor) -> Tensor:
    images, count = probabilities.shape
    if classes.shape != (images,) or classes.is_floating_point() or not 0 <= classes.min() <= classes.max() < count:
        raise AnalysisError(f'expected {images} classes from 0 to {count - 1}, one per image, got {classes.tolist()}')
    return classes.to(probabilities.device)
