"""Repeat a training step whose loss or gradient was not finite, and name the operator that made it so.

    python tools/replay.py work_dirs/NAME/non_finite/iter_12_rank_0.pt

DefocusFiniteLossHook writes the file. The exit status is 0 if the step is not finite here either, 1 if it is finite,
and 2 if it cannot be repeated. docs/nonfinite.md explains the table.
"""

import argparse
import json
from pathlib import Path

from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.replay import replay_step
from mmdefocus.cli.replay_report import format_replay, replay_as_data
from mmdefocus.cli.run_tool import run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', help='capture: <work_dir>/non_finite/iter_<iteration>_rank_<rank>.pt')
    parser.add_argument('--device', help='cpu, cuda or cuda:1; default: the kind of device of the training')
    parser.add_argument('--checkpoint', help='checkpoint whose weights replace those of the capture')
    parser.add_argument('--all-layers', action='store_true', help='list all layers, not only those around the first')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all numbers to this file')
    parser.add_argument(
        '--import-code',
        action='store_true',
        help='import the modules that the captured config names; only for files and modules that you trust',
    )
    args = parser.parse_args()
    finite = False

    def replay() -> None:
        nonlocal finite
        result = replay_step(args.file, args.device, args.import_code, args.checkpoint)
        print(format_replay(result, args.all_layers), end='')
        if args.out is not None:
            try:
                args.out.write_text(json.dumps(replay_as_data(result), indent=1) + '\n', encoding='utf-8')
            except OSError as error:
                raise UsageError(f'--out {args.out} cannot be written: {error}') from error
        finite = result.original.is_finite

    run_tool(parser, replay)
    if finite:
        parser.exit(1, 'the step is finite on replay: loss and all gradients\n')


if __name__ == '__main__':
    main()
