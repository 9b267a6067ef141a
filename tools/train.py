"""Train a detector or a classifier from a config file."""

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_train_options
from mmdefocus.apis.runs.runner import train
from mmdefocus.apis.runs.stop_signals import ended_by_signals
from mmdefocus.cli.arguments import ToolParser, add_amp_argument, add_common_arguments, parse_arguments
from mmdefocus.cli.run_tool import run_tool


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_amp_argument(parser)
    parser.add_argument('--auto-scale-lr', action='store_true', help='learning rate by total batch / base_batch_size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume this checkpoint; without a name, the newest one in the work directory',
    )
    add_common_arguments(parser)
    args = parse_arguments(parser)

    def run() -> None:
        with ended_by_signals():  # until the training itself listens to them
            cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
            apply_train_options(cfg, args.amp, args.auto_scale_lr, args.resume)
            train(cfg)

    run_tool(parser, run)


if __name__ == '__main__':
    main()
