"""Networks to analyse, with their weights, and images as they see them."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from PIL import Image, ImageOps
from torch import Tensor, nn

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.networks import TokenNetwork
from mmdefocus.analysis.prepared_image import PreparedImage, picture_of, prepare_image
from mmdefocus.models.backbones.pretrained import split_pretrained
from mmdefocus.models.backbones.vision_backbone import VisionBackbone
from mmdefocus.models.checkpoint.fit import load_and_describe_misfit

from .analysis_words import TIMM, ModelWord, model_names
from .class_names import find_dataset_meta
from .errors import UsageError
from .images import read_image
from .inferencer_checks import check_device
from .num_classes import resolve_num_classes


@dataclass(frozen=True)
class AnalysedNetwork:
    """A network with weights, in eval mode, and its preprocessing.

    Attributes:
        label: Its name in the report.
        description: Where config and weights come from, in one line.
        network: Layers and tokens of the network.
        prepare: Function that reads an image, a path or a URL, as the network's evaluation does.
        classes: Names of the predicted classes; None if they are unknown.
    """

    label: str
    description: str
    network: TokenNetwork
    prepare: Callable[[str], PreparedImage]
    classes: list[str] | None


def load_network(
    word: ModelWord,
    random_weights: bool = False,
    size: int | None = None,
    device: str = 'cpu',
    seed: int = 0,
    read_config: Callable[[str], Config] = Config.fromfile,
) -> AnalysedNetwork:
    """Build a network and load its weights strictly: they must have all tensors of the network, and no others.

    Args:
        word: Config file, name or timm's name, and checkpoint. Without a checkpoint, a named model and a network of
            timm get their published weights, which are downloaded once.
        random_weights: Give random initial weights to a network without a named checkpoint, whether or not there are
            published ones.
        size: Side in pixels of the central square of an image that the network sees; by default the preprocessing is
            that of the config's test pipeline, or of timm's evaluation.
        device: Device of the network.
        seed: Seed of random weights.
        read_config: Function that reads a config file.

    Returns:
        The network.

    Raises:
        UsageError: There is no such model, it has no weights, they do not fit, or it cannot take images of this size.
        AnalysisError: The network has no layers that give tokens.
        FileNotFoundError: A file does not exist.
        CheckpointError: A checkpoint cannot be read.
    """
    check_device(device)
    if size is not None and size < 1:
        raise UsageError(f'expected a side of the input in pixels, at least 1, got {size}')
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        load = _load_timm if word.source.startswith(TIMM) else _load_openmmlab
        with naming(word.label):
            return load(word, f'random weights (seed {seed})' if random_weights else '', size, device, read_config)


@contextmanager
def naming(label: str) -> Iterator[None]:
    """Name the network in the errors of an analysis that arise inside the block."""
    try:
        yield
    except AnalysisError as error:
        raise AnalysisError(f"'{label}': {error}") from error


def _load_timm(
    word: ModelWord, random: str, size: int | None, device: str, read_config: Callable[[str], Config]
) -> AnalysedNetwork:
    from .timm_networks import build_timm, timm_classes, timm_preprocessing

    name = word.source.removeprefix(TIMM)
    model = build_timm(name, word.checkpoint, bool(random), size).to(device).eval()
    transform, mean, std = timm_preprocessing(model, size)

    def prepare(image: str) -> PreparedImage:
        inputs = transform(read_image(image))[None].to(device)
        return PreparedImage(_name(image), inputs, picture_of(inputs[0], 255 * mean, 255 * std))

    weights = word.checkpoint or random or 'pretrained weights of timm'
    classes = None if weights == random else timm_classes(model)
    return AnalysedNetwork(word.label, f'{word.source}, {weights}', TokenNetwork(model), prepare, classes)


def _load_openmmlab(
    word: ModelWord, random: str, size: int | None, device: str, read_config: Callable[[str], Config]
) -> AnalysedNetwork:
    config, published = _find_config(word.source, read_config)
    checkpoint = word.checkpoint or (None if random else published)
    if checkpoint is None and not random:
        raise UsageError(
            f'{word.source} has no published weights; name a checkpoint, {word.source}@FILE, or use --random-weights'
        )
    if not config.get('test_dataloader'):
        raise UsageError(
            f'{word.source} has no test_dataloader, whose pipeline prepares images; inherit one with _base_'
        )
    resolve_num_classes(config)
    detect = config.get('default_scope') == 'mmdet'
    inferencer = _inferencer(config, detect)
    model = inferencer.model
    classes = None
    if checkpoint is None:
        _initialise(model)
    else:
        content = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
        misfit = load_and_describe_misfit(model, content)
        if misfit is not None:
            raise UsageError(f'{checkpoint} does not fit {word.source}: {misfit}. Use the config of its training')
        classes = None if detect else find_dataset_meta(model, content, config, strict=True).get('classes')
    model.to(device).eval()

    def prepare(image: str) -> PreparedImage:
        if size is not None:
            batch: Any = dict(inputs=[_central_square(image, size)], data_samples=None)
        elif detect:
            _, batch = next(iter(inferencer.preprocess([image])))
        else:
            batch = next(iter(inferencer.preprocess([image])))
        return prepare_image(model, batch, _name(image))

    description = f'{word.source}, {checkpoint or random}'
    return AnalysedNetwork(word.label, description, TokenNetwork(model), prepare, classes)


def _central_square(image: str, size: int) -> Tensor:
    """Return the central square of an image file as (3, size, size), BGR, uint8."""
    pixels = Image.fromarray(read_image(image))  # the order of the channels does not matter here
    fitted = ImageOps.fit(pixels, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(fitted).transpose(2, 0, 1).copy())


def _find_config(source: str, read_config: Callable[[str], Config]) -> tuple[Config, str | None]:
    """Return a config, and its published weights."""
    from mmpretrain.apis import ModelHub

    from .model_index import find_model, list_names

    if source.endswith('.py') or Path(source).is_file():
        return read_config(source), None
    if source.lower() in list_names() or source.lower() not in map(str.lower, model_names()):
        path, weights = find_model(source)
        return read_config(path), weights
    found = ModelHub.get(source.lower())
    return found.config, found.weights


def _inferencer(config: Config, detect: bool) -> Any:
    """Return an inferencer without weights on the CPU: it has the model and its test pipeline."""
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), _without_remarks():
        if detect:
            from .detection_inferencer import DetectionInferencer

            return DetectionInferencer(config, None, 'cpu', show_progress=False, strict=False)
        from .classification_inferencer import ClassificationInferencer

        return ClassificationInferencer(config, False, 'cpu')


def _initialise(model: nn.Module) -> None:
    """Set random initial weights; parts that would start from a checkpoint start from random weights, too."""
    for module in model.modules():
        if isinstance(module, BaseModule):
            module.init_cfg = split_pretrained(module.init_cfg)[0]
        if isinstance(module, VisionBackbone):
            module.pretrained = []
    with _without_remarks():  # a list of all parameters
        model.init_weights()  # type: ignore[operator]


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Log warnings and errors only inside the block."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _name(image: str) -> str:
    return image.rpartition('/')[2] if '://' in image else Path(image).name
