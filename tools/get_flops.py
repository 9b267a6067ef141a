"""Print the parameters and the FLOPs of a config's network, including scans, for inference of one image.

Most of the network runs on torch's meta device, so that large networks need no memory.
"""

import argparse

from mmdefocus.apis.complexity import count_complexity
from mmdefocus.apis.num_classes import resolve_num_classes
from mmdefocus.apis.runs.config_checks import check_model
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.cli.arguments import ToolParser, add_config_options
from mmdefocus.cli.run_tool import run_tool


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PIXELS',
        help="height and width, or one side; default: that of a classifier's test images, or 800 1333 for a detector",
    )
    add_config_options(parser)
    args = parser.parse_args()
    if args.shape is not None and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes a side, or a height and a width, in pixels; got {" ".join(map(str, args.shape))}')
    run_tool(parser, lambda: report(args), also=(ValueError, FileNotFoundError))


def report(args: argparse.Namespace) -> None:
    cfg = load_config(args.config, args.cfg_options)
    check_model(cfg)
    resolve_num_classes(cfg)
    found = count_complexity(cfg, args.shape and (args.shape[0], args.shape[-1]))
    print(f'image: {found.shape[0]} x {found.shape[1]}')
    print(f'parameters: {found.parameters:,}')
    print(f'FLOPs: {found.multiply_adds / 1e9:.3f} G, with a multiply-add as one, as in the tables of OpenMMLab')
    print(f'       {2 * found.multiply_adds / 1e9:.3f} G, with a multiply-add as two, as in torch')
    print(f'scans: {found.scan_multiply_adds / found.multiply_adds:.1%} of the FLOPs')


if __name__ == '__main__':
    main()
