"""Draw which parts of an image the detections of a DINO detector depend on."""

import argparse
from pathlib import Path

import torch

from mmdefocus.analysis.detector_queries import TARGETS, detection_maps
from mmdefocus.analysis.query_pictures import draw_detection_maps
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.images import read_image
from mmdefocus.apis.inference import DetectionInferencer
from mmdefocus.apis.runs.folders import make_folder
from mmdefocus.cli.arguments import ToolParser
from mmdefocus.cli.model_source import read_model_source
from mmdefocus.cli.run_tool import run_tool


def place(text: str) -> str | int:
    return text if text in ('features', 'image') else int(text)


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('image', help='image file or URL')
    parser.add_argument('model', help='name in model-index.yml, or config file')
    parser.add_argument('--checkpoint', help='weights: a file or URL; default: the published ones of the named model')
    parser.add_argument('--top', type=int, default=4, help='detections to show, best first (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of a box (default: %(default)s)')
    parser.add_argument('--of', choices=TARGETS, default='score', help='what depends on the image: score or box')
    parser.add_argument(
        '--at',
        type=place,
        default='features',
        metavar='{features,image,LAYER}',
        help='last feature map of the backbone (default), the pixels, or the tokens that enter a layer',
    )
    parser.add_argument('--out', required=True, metavar='DIR', help='directory that receives the picture')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    parser.add_argument(
        '--no-strict', dest='strict', action='store_false', help='accept weights that do not fit the model'
    )
    args = parser.parse_args()
    run_tool(parser, lambda: run(args), also=(ValueError, OSError))


def run(args: argparse.Namespace) -> None:
    config, checkpoint = read_model_source(args.model, args.checkpoint)
    if config.get('default_scope') != 'mmdet':
        raise UsageError(f'{config.model.type} is no detector; tools/analysis/cam.py draws maps of classifiers')
    make_folder('--out', args.out)
    inferencer = DetectionInferencer(config, checkpoint, device=args.device, show_progress=False, strict=args.strict)
    ((_, batch),) = inferencer.preprocess([args.image])
    data = inferencer.model.data_preprocessor(batch, False)
    found = detection_maps(
        inferencer.model, data['inputs'], data['data_samples'][0], args.top, args.score_thr, args.of, args.at
    )
    classes = inferencer.model.dataset_meta.get('classes')
    for label, score, box in zip(found.labels.tolist(), found.scores, found.boxes, strict=True):
        corners = ' '.join(f'{corner:.1f}' for corner in box)
        print('  '.join((f'  {score:.4f}', str(label), *([classes[label]] if classes else []), corners)))
    picture = Path(args.out) / f'{Path(args.image).stem}.png'
    draw_detection_maps(read_image(args.image)[..., ::-1], found, picture, classes)
    print(f'picture: {picture}')


if __name__ == '__main__':
    main()
