"""Reduce the checkpoint of a training to what a prediction needs: weights in half precision, config and class names.

The package ships such a file of the demo. To make it again:

    make demo
    EXAMPLE=mmdefocus/apis/example/defocus_mamba_nano_digits.pth
    python tools/make_example_checkpoint.py work_dirs/demo/epoch_4.pth $EXAMPLE
    python tools/test.py configs/dino/defocus_mamba_nano_digits.py work_dirs/demo/epoch_4.pth
    python tools/test.py configs/dino/defocus_mamba_nano_digits.py $EXAMPLE

The last two commands must print the same box mAP up to 0.002; if they do not, use --float32.
"""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmdefocus.apis.errors import UsageError
from mmdefocus.cli.arguments import ToolParser
from mmdefocus.cli.run_tool import run_tool
from mmdefocus.models.checkpoint import read_checkpoint
from mmdefocus.models.checkpoint.publishing import write_checkpoint

LARGEST = 5_000_000  # bytes
KEPT = ('cfg', 'dataset_meta', 'mmengine_version')


def reduced(checkpoint: Mapping[str, Any], half: bool) -> dict[str, Any]:
    """Return weights and the kept parts of ``meta``.

    Raises:
        UsageError: The checkpoint has no config or no class names, or half precision cannot hold a weight.
    """
    meta = checkpoint.get('meta') or {}
    missing = [name for name in ('cfg', 'dataset_meta') if not meta.get(name)]
    if missing:
        raise UsageError(f'expected the checkpoint of a training, got one without {" and ".join(missing)} in its meta')
    weights = checkpoint['state_dict']
    if half:
        weights = copy.copy(weights)  # with its metadata, which has the image size of the training
        for name, value in checkpoint['state_dict'].items():
            weights[name] = value.half() if value.is_floating_point() else value
        for name, value in weights.items():
            if not torch.equal(torch.isfinite(value), torch.isfinite(checkpoint['state_dict'][name])):
                raise UsageError(f'{name} has values that half precision cannot hold; use --float32')
    return dict(meta={name: meta[name] for name in KEPT if name in meta}, state_dict=weights)


def run(args: argparse.Namespace) -> None:
    """Write the reduced checkpoint."""
    content = reduced(read_checkpoint(args.checkpoint, map_location='cpu'), half=not args.float32)
    written = write_checkpoint(content, args.out)
    size = written.stat().st_size
    if size > LARGEST:
        written.unlink()
        raise UsageError(f'expected a file of at most {LARGEST:,} bytes, got {size:,}; reduce a smaller network')
    print(f'{Path(args.checkpoint).stat().st_size:,} bytes → {size:,} bytes: {written}')


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', help='checkpoint of a training')
    parser.add_argument('out', help='file to write (.pth)')
    parser.add_argument('--float32', action='store_true', help='keep the precision of the weights')
    args = parser.parse_args()
    run_tool(parser, lambda: run(args), also=(ValueError, OSError))


if __name__ == '__main__':
    main()
