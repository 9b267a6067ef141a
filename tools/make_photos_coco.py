"""Make a two-image COCO-format set, in the layout of COCO 2017, from scikit-learn's sample photographs."""

import argparse

from mmdefocus.datasets.photos import make_photos_coco


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('--out', default='data/photos', help='directory of the set')
    parser.add_argument('--force', action='store_true', help='replace a damaged or older set')
    args = parser.parse_args()
    try:
        made = make_photos_coco(args.out, args.force)
    except FileExistsError as error:
        parser.exit(2, f'error: {error}\n')
    print(f'made {args.out}' if made else f'{args.out} already holds this set')


if __name__ == '__main__':
    main()
