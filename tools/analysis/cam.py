"""Draw the class activation map of an image over it."""

import argparse
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config

from mmdefocus.analysis.cams import CLASS_METHODS, CLASSLESS_METHODS, cam, draw_cam
from mmdefocus.analysis.token_probe import SIDES
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.inference import ClassificationInferencer
from mmdefocus.apis.runs.folders import make_folder
from mmdefocus.cli.arguments import ToolParser
from mmdefocus.cli.model_source import read_model_source
from mmdefocus.cli.run_tool import run_tool


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('image', help='image file or URL')
    parser.add_argument('model', help='name in model-index.yml, or config file')
    parser.add_argument('--checkpoint', help='weights: a file or URL; default: the published ones of the named model')
    parser.add_argument('--method', choices=CLASS_METHODS + CLASSLESS_METHODS, default='GradCAM', help='of grad-cam')
    parser.add_argument('--layer', type=int, default=-1, help='layer of the network; default: %(default)s, the last')
    parser.add_argument('--side', choices=SIDES, default='input', help='tokens before or after the layer')
    parser.add_argument('--class', dest='label', type=int, help='index of the class; default: the predicted one')
    parser.add_argument('--out', required=True, help='picture to write, such as cam.png')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    parser.add_argument(
        '--no-strict', dest='strict', action='store_false', help='accept weights that do not fit the model'
    )
    args = parser.parse_args()
    run_tool(parser, lambda: run(args), also=(ValueError, OSError))


def run(args: argparse.Namespace) -> None:
    config, checkpoint = read_model_source(args.model, args.checkpoint)
    check_classifier(config)
    make_folder('--out', str(Path(args.out).parent))
    inferencer = ClassificationInferencer(config, checkpoint, device=args.device, strict=args.strict)
    (batch,) = inferencer.preprocess([args.image])
    image = batch['inputs'][0].permute(1, 2, 0).numpy()  # as the network sees it, BGR
    inputs = inferencer.model.data_preprocessor(batch, False)['inputs']
    values = cam(inferencer.model, inputs, args.method, args.layer, args.label, args.side)[0]
    picture = draw_cam(image[..., ::-1], values)
    try:
        mmcv.imwrite(picture[..., ::-1], args.out)
    except Exception as error:
        raise UsageError(f'--out needs the name of a picture, such as cam.png, got {args.out!r} ({error})') from error
    print(f'picture: {args.out}')


def check_classifier(config: Config) -> None:
    """Raise a UsageError for a config of a detector."""
    if config.get('default_scope') == 'mmdet':
        raise UsageError(f'{config.model.type} is a detector; tools/analysis/detector_queries.py draws its detections')


if __name__ == '__main__':
    main()
