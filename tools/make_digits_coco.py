"""Make a COCO-format detection set from scikit-learn's handwritten digits."""

import argparse
import sys
from dataclasses import fields

from mmengine.utils import ProgressBar

from mmdefocus.datasets.digits import DigitsOptions, make_digits_coco


def parse_args() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    default = DigitsOptions()
    parser.add_argument('--out', default='data/digits', help='directory of the set')
    parser.add_argument('--train-images', type=int, default=default.train_images)
    parser.add_argument('--val-images', type=int, default=default.val_images)
    parser.add_argument('--size', type=int, default=default.size, help='side of the square images in pixels')
    parser.add_argument('--digits', type=int, nargs=2, default=default.digits, metavar=('MIN', 'MAX'), help='per image')
    parser.add_argument(
        '--digit-size', type=int, nargs=2, default=default.digit_size, metavar=('MIN', 'MAX'), help='side in pixels'
    )
    parser.add_argument('--max-iou', type=float, default=default.max_iou, help='largest overlap of two boxes')
    parser.add_argument(
        '--photos',
        action=argparse.BooleanOptionalAction,
        default=default.photos,
        help='photographs among the backgrounds',
    )
    parser.add_argument('--seed', type=int, default=default.seed)
    parser.add_argument('--force', action='store_true', help='replace a digits set with other options')
    return parser, parser.parse_args()


def main() -> None:
    parser, args = parse_args()
    values = {field.name: getattr(args, field.name) for field in fields(DigitsOptions)}
    values.update(digits=tuple(args.digits), digit_size=tuple(args.digit_size))
    try:
        options = DigitsOptions(**values)
        bar: list[ProgressBar] = []

        def progress(done: int, total: int) -> None:
            if not bar:
                bar.append(ProgressBar(total, file=sys.stderr))
            bar[0].update()
            if done == total:
                print(file=sys.stderr)

        made = make_digits_coco(args.out, options, args.force, progress)
    except (ValueError, FileExistsError, RuntimeError) as error:
        parser.exit(2, f'error: {error}\n')
    counts = f'{options.train_images} training and {options.val_images} validation images'
    print(f'made {args.out}: {counts}' if made else f'{args.out} already holds this set: {counts}')


if __name__ == '__main__':
    main()
