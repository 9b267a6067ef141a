"""Convert an official checkpoint to an MMEngine checkpoint; see docs/checkpoints.md."""

import argparse

from mmdefocus.cli.arguments import ToolParser, import_custom
from mmdefocus.cli.run_tool import run_tool
from mmdefocus.models.checkpoint import read_checkpoint
from mmdefocus.models.checkpoint.conversion import HEADS, TARGETS, convert_official
from mmdefocus.models.checkpoint.families.name_map import sources_by_name, unmapped
from mmdefocus.models.checkpoint.inspection import expected_model, missing_and_misshapen, report
from mmdefocus.models.checkpoint.official import find_official_weights
from mmdefocus.models.checkpoint.publishing import sha256, write_checkpoint


def convert(args: argparse.Namespace) -> None:
    import_custom(args.custom_imports)
    content = read_checkpoint(args.src)
    weights = 'model_ema' if args.weights == 'ema' else 'model'
    checkpoint = convert_official(content, weights, args.to, args.head, strict=not args.no_strict)
    official = find_official_weights(content, weights)
    assert official is not None, 'convert_official raises'
    name_map = official.family.from_official(official.state_dict)
    state_dict = checkpoint['state_dict']
    missing = missing_and_misshapen(state_dict, expected_model(state_dict))
    checkpoint['meta']['source_sha256'] = sha256(args.src)
    print(f'source     {args.src}: {official.kind}, sha256 {sha256(args.src)}')
    print(f'weights    {weights}')
    print(report(state_dict, sources_by_name(name_map), 'from'))
    print(f'unexpected {", ".join(sorted(unmapped(name_map, official.state_dict))) or "none"}')
    print(f'missing    {", ".join(missing) or "none"}')
    if missing and not args.no_strict:
        raise ValueError(
            f'{len(missing)} keys of the model are missing or of a different shape ({missing[0]}, ...); '
            '--no-strict writes the file without them'
        )
    written = write_checkpoint(checkpoint, args.dst, with_hash=True)
    print(f'written    {written}, sha256 {sha256(written)}')


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('src', help='official checkpoint of a classifier or a detector')
    parser.add_argument('dst', help='file to write, NAME.pth; 8 digits of its SHA-256 are added to the name')
    parser.add_argument('--weights', choices=['model', 'ema'], default='model', help='plain or averaged weights')
    parser.add_argument('--to', choices=TARGETS, help='det makes the backbone of a detector from a classifier')
    parser.add_argument(
        '--head', choices=HEADS, help='heads of a classifier; 21k-to-1k reduces them to the classes of ImageNet-1k'
    )
    parser.add_argument(
        '--no-strict', action='store_true', help='write the file even if keys are missing or unexpected'
    )
    parser.add_argument(
        '--custom-imports', nargs='+', metavar='MODULE', default=[], help='modules that register checkpoint families'
    )
    args = parser.parse_args()
    run_tool(parser, lambda: convert(args), also=(ValueError, OSError))


if __name__ == '__main__':
    main()
