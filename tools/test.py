"""Test a checkpoint of a detector or a classifier and print its metrics."""

from mmengine.dist import is_main_process

from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.run_options import apply_test_options
from mmdefocus.apis.runs.runner import build_runner, dump_predictions
from mmdefocus.cli.arguments import ToolParser, add_amp_argument, add_common_arguments, parse_arguments
from mmdefocus.cli.report import format_metrics
from mmdefocus.cli.run_tool import run_tool
from mmdefocus.engine.amp_prediction import predict_in_mixed_precision


def main() -> None:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out', metavar='FILE.pkl', help='pickle file for all predictions')
    parser.add_argument('--show', action='store_true', help='show every picture in a window')
    parser.add_argument('--show-dir', help='directory for pictures with predictions and ground truth')
    parser.add_argument('--wait-time', type=float, default=2.0, help='seconds for which a window stays open')
    add_amp_argument(parser)
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--no-strict',
        dest='strict',
        action='store_false',
        help='accept missing, additional or differently shaped tensors in the checkpoint',
    )
    parser.add_argument(
        '--ignore-class-names',
        dest='compare_classes',
        action='store_false',
        help='accept a checkpoint whose classes have different names or a different order',
    )
    add_common_arguments(parser)
    args = parse_arguments(parser)

    def test() -> None:
        cfg = load_config(args.config, args.cfg_options, args.work_dir, args.launcher)
        apply_test_options(cfg, args.checkpoint, args.show, args.show_dir, args.wait_time, args.tta)
        runner = build_runner(cfg, args.strict, args.compare_classes)
        if args.amp:
            predict_in_mixed_precision(runner.model)
        if args.out is not None:
            dump_predictions(runner, args.out)
        metrics = runner.test()
        if is_main_process():
            print(format_metrics(metrics))
            for what, where in (('predictions', args.out), ('pictures', args.show_dir)):
                if where is not None:
                    print(f'{what}: {where}')

    run_tool(parser, test)


if __name__ == '__main__':
    main()
