"""Check that neither memory nor open files grow while a detector trains and is evaluated on many small images.

Prints a table and ends with status 1 if something grows. docs/before-training.md has a measured table.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from studies.memory_growth import MIB, MOST_GROWTH, find_problems, format_samples, growth, run

CONFIG = Path(__file__).parents[1] / 'configs/dino/defocus_mamba_nano_digits.py'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--images', type=int, default=5000, help='number of images, a fifth of them for the evaluation')
    parser.add_argument('--size', type=int, default=64, help='height and width of an image in pixels')
    parser.add_argument('--workers', type=int, default=0, help='data workers')
    parser.add_argument('--batch-size', type=int, default=8, help='images in a batch')
    parser.add_argument('--most', type=float, default=MOST_GROWTH / MIB, help='allowed growth of memory in MiB')
    args = parser.parse_args()
    if args.images < 100:
        parser.error(f'--images must be at least 100, got {args.images}')
    if args.size < 48:  # fewer pixels have fewer tokens than the detector has queries
        parser.error(f'--size must be at least 48, got {args.size}')
    with tempfile.TemporaryDirectory() as folder:
        samples = run(CONFIG, Path(folder), args.images, args.size, args.workers, args.batch_size)
    print(format_samples(samples))
    for phase in ('train', 'val'):
        memory, files = growth([one for one in samples if one.phase == phase])
        print(f'{phase}: memory {memory / MIB:+.1f} MiB, open files {files:+d} from the first to the last tenth')
    problems = find_problems(samples, args.most * MIB)
    sys.exit('\n'.join(problems) if problems else 0)


if __name__ == '__main__':
    main()
