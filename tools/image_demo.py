"""Classify images or detect objects: print results and time, write pictures."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.utils import progress

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.inference import ClassificationInferencer, DetectionInferencer, list_images
from mmdefocus.apis.runs.folders import make_folder
from mmdefocus.cli.arguments import ToolParser, add_amp_argument
from mmdefocus.cli.model_source import read_model_source
from mmdefocus.cli.run_tool import run_tool


class Stopwatch:
    """Measure the total time of a function, including its work on a GPU."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = self.function(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - started
        return result


def classify(args: argparse.Namespace, config: Config, images: list[str]) -> float:
    progress.disable_progress_bar = True
    inferencer = ClassificationInferencer(
        config, args.checkpoint, device=args.device, topk=args.topk, strict=args.strict, amp=args.amp
    )
    inferencer.forward = watch = Stopwatch(inferencer.forward)
    predictions = inferencer(images, return_datasamples=True, batch_size=args.batch_size, show_dir=args.out_dir)
    for image, prediction in zip(images, predictions, strict=True):
        print(image)
        for label in inferencer.best(prediction).pred_label.tolist():
            name = inferencer.classes[label] if inferencer.classes else ''
            print(f'  {prediction.pred_score[label].item():.4f}  {label}  {name}'.rstrip())
    return watch.seconds


def detect(args: argparse.Namespace, config: Config, images: list[str]) -> float:
    inferencer = DetectionInferencer(
        config, args.checkpoint, device=args.device, show_progress=False, strict=args.strict, amp=args.amp
    )
    inferencer.forward = watch = Stopwatch(inferencer.forward)
    results = inferencer(images, batch_size=args.batch_size, pred_score_thr=args.score_thr, out_dir=args.out_dir or '')
    classes = inferencer.model.dataset_meta.get('classes')
    for image, found in zip(images, results['predictions'], strict=True):
        print(image)
        for label, score, box in zip(found['labels'], found['scores'], found['bboxes'], strict=True):
            if score >= args.score_thr:
                corners = ' '.join(f'{corner:.1f}' for corner in box)
                print('  '.join((f'  {score:.4f}', str(label), *([classes[label]] if classes else []), corners)))
    return watch.seconds


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='image file, URL, or folder of images')
    parser.add_argument('model', help='name in model-index.yml, or config file')
    parser.add_argument('--checkpoint', help='weights: a file or URL; default: the published ones of the named model')
    parser.add_argument('--out-dir', help='directory that receives a picture for every image')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    add_amp_argument(parser)
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time (default: %(default)s)')
    parser.add_argument('--topk', type=int, default=5, help='classes to show (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of a box (default: %(default)s)')
    parser.add_argument(
        '--no-strict',
        dest='strict',
        action='store_false',
        help='accept weights that do not fit the model (missing tensors keep random values) or have other classes than '
        'the config',
    )
    args = parser.parse_args()
    run_tool(parser, lambda: run(args), also=(ValueError, OSError))


def run(args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise UsageError(f'--batch-size must be at least 1, got {args.batch_size}; give the images at a time')
    config, args.checkpoint = read_model_source(args.model, args.checkpoint)
    images = list_images(args.input)
    if args.out_dir:
        make_folder('--out-dir', args.out_dir)
    seconds = (detect if config.get('default_scope') == 'mmdet' else classify)(args, config, images)
    threads = f', {torch.get_num_threads()} threads' if args.device == 'cpu' else ''
    print(f'{seconds / len(images):.3f} s per image in the network ({len(images)} images, {args.device}{threads})')
    if args.out_dir:
        print(f'pictures: {args.out_dir}')


if __name__ == '__main__':
    main()
