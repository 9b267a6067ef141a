"""``mmdefocus predict``: boxes or classes of images."""

import argparse
import json
import time

from mmdefocus.cli.arguments import add_amp_argument, add_config_options

SUMMARY = 'Detect objects in images, or classify images.'
EXAMPLES = """examples:
  mmdefocus predict --example                                          a shipped detector on shipped pictures
  mmdefocus predict work_dirs/nuts/best.pth shelf.jpg --out found      pictures with boxes
  mmdefocus predict work_dirs/nuts/best.pth 'shots/**/*.jpg' --json found.json
  mmdefocus predict base photos --task classification --topk 3     published weights
"""
USER_ERRORS = (ValueError, TypeError, OSError)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        'model',
        metavar='MODEL',
        nargs='?',
        help='checkpoint of a training (.pth), folder of a training, config (.py) or name in the zoo; '
        '`mmdefocus models` lists the names',
    )
    parser.add_argument(
        'images',
        metavar='IMAGES',
        nargs='*',
        help='files, folders (the images directly in them) or patterns in quotes, with ** for all folders below',
    )
    parser.add_argument(
        '--example',
        action='store_true',
        help='predict shipped pictures of handwritten digits with a shipped detector; --out is mmdefocus-example then',
    )
    parser.add_argument(
        '--weights', '--checkpoint', metavar='FILE', help='checkpoint; default: that of MODEL, or the published one'
    )
    parser.add_argument('--task', choices=['detection', 'classification'], help='task of a name in the zoo')
    parser.add_argument('--threshold', type=float, metavar='SCORE', help='lowest score of a box (default: 0.3)')
    parser.add_argument('--topk', type=int, metavar='N', help='classes of a classification to show (default: 5)')
    parser.add_argument('--out', metavar='DIR', help='folder that receives a picture for every image')
    parser.add_argument('--json', metavar='FILE', help='file that receives the boxes as COCO results, or the classes')
    parser.add_argument(
        '--annotations',
        metavar='FILE',
        help='COCO file whose image ids --json takes; by default images are numbered from 1 in the order of the output',
    )
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images at a time (default: 1)')
    add_amp_argument(parser)
    parser.add_argument('--device', help='such as cpu or cuda:1; default: a GPU if there is one')
    parser.add_argument(
        '--no-strict',
        dest='strict',
        action='store_false',
        help='accept weights that do not fit the model (missing tensors keep random values) or have other classes than '
        'the config',
    )
    add_config_options(parser, 'settings of the config to change')


def run(args: argparse.Namespace) -> None:
    """Predict the images and print the results."""
    from mmdefocus.apis.prediction import Predictor
    from mmdefocus.cli.predicting import check_ids_are_known, json_entries, read_request
    from mmdefocus.engine.safe_writing import write_safely

    request = read_request(args)
    model = request.model
    predictor = Predictor(model.cfg, request.weights, model.task, args.device, args.strict, args.amp)
    if args.json:
        check_ids_are_known(predictor.category_ids, request)
    entries = []
    objects = 0
    began = time.perf_counter()
    results = predictor(request.images, **request.options)
    for result, image_id, picture in zip(results, request.image_ids, request.picture_files, strict=True):
        print(result)
        objects += len(result)
        if args.json:
            entries += json_entries(result, image_id)
        if picture is not None:
            result.save(picture)
    number = len(request.images)
    found = f', {objects} objects' if request.model.task == 'detection' else ''
    print(f'{number} images{found}, {(time.perf_counter() - began) / number:.2f} s per image')
    if request.pictures:
        print(f'pictures: {request.pictures}')
    if args.json:
        write_safely(args.json, json.dumps(entries, indent=1).encode())
        print(f'results: {args.json}')
