"""Convert a classifier or detector of mmdefocus to the layout of the published checkpoints; see docs/checkpoints.md."""

import argparse

from mmdefocus.models.checkpoint import mmdefocus_to_official, read_checkpoint
from mmdefocus.models.checkpoint.conversion import convert_to_official
from mmdefocus.models.checkpoint.inspection import report
from mmdefocus.models.checkpoint.publishing import sha256, write_checkpoint


def convert(args: argparse.Namespace) -> None:
    content = read_checkpoint(args.src)
    checkpoint = convert_to_official(content)
    state_dict = content.get('state_dict', content)
    official_names = {ours: name for name, ours in mmdefocus_to_official({key: key for key in state_dict}).items()}
    print(f'source     {args.src}, sha256 {sha256(args.src)}')
    print(report(state_dict, official_names, 'to'))
    written = write_checkpoint(checkpoint, args.dst)
    print(f'written    {written}, sha256 {sha256(written)}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of mmdefocus')
    parser.add_argument('dst', help='file to write, NAME.pth')
    args = parser.parse_args()
    try:
        convert(args)
    except (ValueError, OSError) as error:
        parser.exit(2, f'error: {error}\n')


if __name__ == '__main__':
    main()
