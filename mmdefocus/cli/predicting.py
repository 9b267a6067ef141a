"""What the arguments of ``mmdefocus predict`` ask for, and where the results go."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.example_model import CHECKPOINT, example_images
from mmdefocus.apis.named_model import NamedModel, find_named_model
from mmdefocus.apis.prediction import check_weights, find_images
from mmdefocus.apis.results import DetectionResult, ImageResult
from mmdefocus.apis.runs.folders import make_folder

EXAMPLE_OUT = 'mmdefocus-example'


@dataclass(frozen=True)
class Request:
    """What the arguments of ``mmdefocus predict`` ask for.

    Attributes:
        model: The model.
        weights: Path or URL of its checkpoint.
        images: Files and URLs.
        image_ids: Id of each image in COCO results.
        pictures: Folder for pictures; None without.
        picture_files: File for the picture of each image; None without.
        options: Arguments of :meth:`mmdefocus.apis.prediction.Predictor.__call__`.
    """

    model: NamedModel
    weights: str
    images: list[str]
    image_ids: list[Any]
    pictures: str | None
    picture_files: list[Path | None]
    options: dict[str, Any]


def read_request(args: argparse.Namespace) -> Request:
    """Read and check the arguments of ``mmdefocus predict``, and make the folder for pictures.

    Raises:
        UsageError: The request contradicts itself, or cannot be fulfilled.
    """
    model, images, weights, out = _what(args)
    _refuse_options_without_effect(args, model)
    weights = check_weights(weights, model.name)
    image_ids = _image_ids(args.annotations, images)
    if args.json:
        make_folder('--json', str(Path(args.json).parent))  # before minutes of predicting
    files: list[Path | None] = [None] * len(images)
    if out:
        make_folder('--out', out)
        files = list(_picture_files(out, images))
    options: dict[str, Any] = dict(batch_size=args.batch_size, progress=True)
    options.update({name: getattr(args, name) for name in ('threshold', 'topk') if getattr(args, name) is not None})
    return Request(model, weights, images, image_ids, out, files, options)


def check_ids_are_known(category_ids: Any, request: Request) -> None:
    """Raise ``UsageError`` if COCO results are impossible since the checkpoint of a detector has no category ids."""
    if request.model.task == 'detection' and category_ids is None:
        raise UsageError(
            f'--json needs the category ids of the training, which {request.weights} does not have; omit --json, or '
            'train again with this version, which stores them'
        )


def json_entries(result: ImageResult, image_id: Any) -> list[dict[str, Any]]:
    """Return what a file of results says about an image: COCO results with ``file_name``, or the classes."""
    if isinstance(result, DetectionResult):
        return [dict(entry, file_name=result.path) for entry in result.to_coco(image_id)]
    return [dict(result.to_dict(), image_id=image_id)]  # type: ignore[attr-defined]


def _what(args: argparse.Namespace) -> tuple[NamedModel, list[str], str | None, str | None]:
    """Return the model, the images, the weights, and the folder for pictures."""
    if args.example:
        given = [word for word in (args.model, *args.images) if word]
        if given or args.weights or args.task:
            raise UsageError('--example has its own model and pictures; omit MODEL, IMAGES, --weights and --task')
        model = find_named_model(CHECKPOINT, 'detection', args.cfg_options)
        return model, [str(path) for path in example_images()], str(CHECKPOINT), args.out or EXAMPLE_OUT
    if not args.model or not args.images:
        missing = 'IMAGES' if args.model else 'MODEL and IMAGES'
        raise UsageError(f'expected {missing}, got none; name them, or use --example')
    images = find_images(args.images)
    model = find_named_model(args.model, args.task, args.cfg_options)
    return model, images, args.weights or model.weights, args.out


def _refuse_options_without_effect(args: argparse.Namespace, model: NamedModel) -> None:
    if model.task == 'detection' and args.topk is not None:
        raise UsageError(f'--topk is for classifiers, and {model.name} is a detector; use --threshold')
    if model.task == 'classification' and args.threshold is not None:
        raise UsageError(f'--threshold is for detectors, and {model.name} is a classifier; use --topk')
    if args.annotations and not args.json:
        raise UsageError('--annotations gives the ids of --json; name a file with --json, or omit it')


def _image_ids(annotations: str | None, images: list[str]) -> list[Any]:
    """Return the ids of the images in an annotation file, or numbers from 1."""
    if annotations is None:
        return list(range(1, len(images) + 1))
    try:
        content = json.loads(Path(annotations).read_text())
        by_name = {PurePosixPath(image['file_name']).name: image['id'] for image in content['images']}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f'--annotations {annotations} must be a COCO file with images, each with id and file_name, got '
            f'{type(error).__name__}: {error}; correct it'
        ) from error
    if len(by_name) != len(content['images']):
        raise UsageError(f'two images of {annotations} have the same file name, so that names do not tell their ids')
    missing = [image for image in images if _file_name(image) not in by_name]
    if missing:
        raise UsageError(
            f'{len(missing)} of {len(images)} images are not in {annotations}, such as {missing[0]}; name the images '
            'of that file only'
        )
    return [by_name[_file_name(image)] for image in images]


def _picture_files(out: str, images: list[str]) -> list[Path]:
    """Return a file for the picture of every image; images of the same name get numbers."""
    files: list[Path] = []
    taken: set[Path] = set()
    for image in images:
        name = PurePosixPath(_file_name(image))
        file, number = Path(out) / name.name, 2
        while file in taken:
            file, number = Path(out) / f'{name.stem}-{number}{name.suffix}', number + 1
        if file.exists() and any(Path(image).exists() and file.samefile(image) for image in images):
            raise UsageError(f"--out {out} would replace the image '{file}'; name another folder")
        taken.add(file)
        files.append(file)
    return files


def _file_name(image: str) -> str:
    return PurePosixPath(urlparse(image).path).name if '://' in image else Path(image).name
