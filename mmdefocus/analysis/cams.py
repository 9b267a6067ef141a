"""Class activation maps by grad-cam, for every network whose tokens have a place in the image.

Shapes: B batch, L tokens, C channels, R and W rows and columns of the image's token grid.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmdefocus.models.precision import at_least_float32

from .errors import AnalysisError
from .layer_taps import differentiable
from .networks import TokenNetwork, open_network
from .token_probe import TokenProbe

CLASS_METHODS = (
    'GradCAM',
    'GradCAMPlusPlus',
    'GradCAMElementWise',
    'HiResCAM',
    'LayerCAM',
    'XGradCAM',
    'EigenGradCAM',
    'ScoreCAM',
    'AblationCAM',
)
CLASSLESS_METHODS = ('EigenCAM', 'KPCA_CAM', 'FEM')
_REFUSED = {
    'FullGrad': 'it adds up the biases of all convolutions and batch norms, and has no layer',
    'FinerCAM': 'it contrasts several classes; GradCAM is its base method',
    'ShapleyCAM': 'it needs second derivatives, which operators with kernels of their own do not have',
    'RandomCAM': 'it draws the weights of the channels at random',
    'SegEigenCAM': 'it explains segmentations; EigenGradCAM is the nearest method for classes',
    'SESS': 'it combines the maps of resized crops; call cam for each crop',
    'RefineCAM': 'it multiplies the maps of several layers; call cam for each layer',
}


def cam(
    model: nn.Module | TokenNetwork,
    images: Tensor,
    method: str = 'GradCAM',
    layer: int = -1,
    classes: int | Sequence[int] | None = None,
    side: str = 'input',
) -> Tensor:
    """Compute class activation maps with the package grad-cam (https://github.com/jacobgil/pytorch-grad-cam).

    The tokens at a layer are given to grad-cam as a map (B, C, R, W) of the image, whatever their order: class tokens,
    registers and padding are left out. In a network with a class token, image tokens that leave the last layer do not
    reach the logits any more; the default therefore is the tokens that enter the last layer.

    Args:
        model: Classifier.
        images: Normalised images (B, 3, height, width).
        method: One of ``CLASS_METHODS`` or ``CLASSLESS_METHODS``, the names of grad-cam. The latter explain the
            activations and no class.
        layer: Index of the layer; negative numbers count from the last.
        classes: Index of the logit to explain, one for all images or one per image; None for the predicted class. With
            ``predict_classes`` in the head, the index of the predicted classes.
        side: ``'input'`` for the tokens that enter the layer, ``'output'`` for those that leave it.

    Returns:
        Maps (B, height, width), float32 on the CPU, in [0, 1]: 0 for the least and 1 for the most relevant cell of the
        image, bilinear between cells. Cells that reach beyond the image are cropped.

    Raises:
        AnalysisError: The model is no classifier, an argument is outside its range, grad-cam is missing, or a map is
            not finite or has the same value everywhere.
    """
    network = open_network(model)
    explainer_type = _explainer_type(method)
    if classes is not None and method in CLASSLESS_METHODS:
        raise AnalysisError(
            f'{method} explains the activations, not a class: leave classes out, or take one of '
            f'{", ".join(CLASS_METHODS)}'
        )
    classifier = _ProbedClassifier(network, TokenProbe(network, layer, side))
    with differentiable(network.model), classifier.probe.attach():
        images = images.detach().clone().requires_grad_()
        targets = _find_targets(classifier, images, classes, method)
        explainer = explainer_type(classifier, [classifier.probe.tokens])
        try:
            explainer.get_target_width_height = lambda _: classifier.probe.covered_pixels()[::-1]
            maps = torch.from_numpy(explainer(images, targets))
        finally:
            explainer.activations_and_grads.release()
    maps = maps[:, : images.shape[2], : images.shape[3]]
    _check(maps, f'{method} at {classifier.probe.place}', targets)
    return maps / maps.amax((1, 2), keepdim=True)


def draw_cam(image: np.ndarray, values: Tensor) -> np.ndarray:
    """Draw a map over its image.

    Args:
        image: (height, width, 3), RGB, uint8. Small images are enlarged to sides of at least 224 pixels.
        values: The map (height, width), in [0, 1].

    Returns:
        The picture, RGB, uint8: red where the map is 1, blue where it is 0.
    """
    import cv2
    from pytorch_grad_cam.utils.image import show_cam_on_image

    factor = max(1, -(-224 // min(image.shape[:2])))
    image = image.repeat(factor, axis=0).repeat(factor, axis=1)
    size = (image.shape[1], image.shape[0])
    heat = cv2.resize(values.numpy(), size, interpolation=cv2.INTER_LINEAR)
    return show_cam_on_image(image.astype(np.float32) / 255, heat, use_rgb=True)


class _ProbedClassifier(nn.Module):
    """A classifier as grad-cam needs it: images to logits, with a module whose output is the map of the tokens."""

    def __init__(self, network: TokenNetwork, probe: TokenProbe) -> None:
        super().__init__()
        self.model = network.model  # grad-cam reads the device of the parameters
        self.run = network.run
        self.probe = probe

    def forward(self, images: Tensor) -> Tensor:
        self.probe.image_size = (images.shape[2], images.shape[3])
        logits = self.run(images)
        if logits is None:
            raise AnalysisError(
                f'{type(self.model).__name__} gives no class logits; expected a classifier (for DINO detectors, see '
                'detection_maps)'
            )
        return at_least_float32(logits)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Do nothing: the gradients of the parameters belong to the caller, and grad-cam needs none of them."""


def _explainer_type(method: str) -> Any:
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise AnalysisError('class activation maps need the package grad-cam; install it: pip install grad-cam') from (
            error
        )
    if method in _REFUSED:
        raise AnalysisError(f'{method} does not work here: {_REFUSED[method]}')
    if method not in CLASS_METHODS + CLASSLESS_METHODS:
        raise AnalysisError(f'method must be one of {", ".join(CLASS_METHODS + CLASSLESS_METHODS)}, got {method!r}')
    return getattr(pytorch_grad_cam, method)


def _find_targets(
    classifier: _ProbedClassifier, images: Tensor, classes: int | Sequence[int] | None, method: str
) -> list[Any]:
    """Return what grad-cam explains for every image, and check that it depends on the tokens."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    seen: list[Tensor] = []
    handle = classifier.probe.tokens.register_forward_hook(lambda _, __, output: seen.append(output))
    try:
        logits = classifier(images)
    finally:
        handle.remove()
    count, number = logits.shape
    chosen = logits.argmax(dim=1).tolist() if classes is None else classes
    chosen = [chosen] * count if isinstance(chosen, int) else list(chosen)
    if len(chosen) != count or not all(0 <= index < number for index in chosen):
        raise AnalysisError(
            f'classes must be an index from 0 to {number - 1}, or one for each of the {count} images, got {classes}'
        )
    if method in CLASS_METHODS:
        explained = logits[range(count), chosen].sum()
        # Rounding errors would give methods without gradients a map of tokens that nothing reads.
        (gradient,) = torch.autograd.grad(explained, seen[0], allow_unused=True)
        for index, label in enumerate(chosen):
            if gradient is None or not gradient[index].any():
                raise AnalysisError(
                    f'{method} at {classifier.probe.place} shows nothing: the logit of class {label} of image {index} '
                    'does not depend on these tokens. A class token reads image tokens only inside the layers; take '
                    "side='input' of the last layer, or an earlier layer"
                )
    return [ClassifierOutputTarget(index) for index in chosen]


def _check(maps: Tensor, where: str, targets: list[Any]) -> None:
    for index, values in enumerate(maps):
        if not values.isfinite().all():
            raise AnalysisError(
                f'{where} is not finite for image {index}: weights, activations or gradients are infinite or NaN'
            )
        if not values.any():
            raise AnalysisError(
                f'{where} is zero for image {index}: no cell speaks more for class {targets[index].category} than the '
                'others; take another method, such as GradCAMElementWise, another layer or another class'
            )
