"""Convert a checkpoint of mmdefocus to the layout of the official files; see docs/checkpoints.md."""

import argparse

from mmdefocus.cli.arguments import ToolParser, import_custom
from mmdefocus.cli.run_tool import run_tool
from mmdefocus.models.checkpoint import read_checkpoint
from mmdefocus.models.checkpoint.conversion import convert_to_official
from mmdefocus.models.checkpoint.families.name_map import names_by_source
from mmdefocus.models.checkpoint.inspection import report
from mmdefocus.models.checkpoint.names import name_map_to_official
from mmdefocus.models.checkpoint.publishing import sha256, write_checkpoint


def convert(args: argparse.Namespace) -> None:
    import_custom(args.custom_imports)
    content = read_checkpoint(args.src)
    checkpoint = convert_to_official(content)
    state_dict = content.get('state_dict', content)
    name_map, _ = name_map_to_official(state_dict)
    print(f'source     {args.src}, sha256 {sha256(args.src)}')
    print(report(state_dict, names_by_source(name_map), 'to'))
    written = write_checkpoint(checkpoint, args.dst)
    print(f'written    {written}, sha256 {sha256(written)}')


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of mmdefocus, of a classifier or a detector')
    parser.add_argument('dst', help='file to write, NAME.pth')
    parser.add_argument(
        '--custom-imports', nargs='+', metavar='MODULE', default=[], help='modules that register checkpoint families'
    )
    args = parser.parse_args()
    run_tool(parser, lambda: convert(args), also=(ValueError, OSError))


if __name__ == '__main__':
    main()
