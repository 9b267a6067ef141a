"""``mmdefocus check-data``: what is wrong with a data set, and repairs of it."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from mmdefocus.apis.model_sizes import ModelSizes
    from mmdefocus.datasets.inspection import DataReport
    from mmdefocus.datasets.prepared.source_data import SourceData

SUMMARY = 'Look for mistakes in a data set: COCO, YOLO, Pascal VOC or class folders.'
EXAMPLES = """examples:
  mmdefocus check-data my_data                                  print what is wrong
  mmdefocus check-data my_data --out check                      and write check/index.html with pictures
  mmdefocus check-data my_data --model defocus_mamba_base       compare the objects with this model
  mmdefocus check-data my_data --format json > check.json       for programs
  mmdefocus check-data my_data --repair clip empty --out fixed  write a repaired copy of the annotations

The data are never changed. Exit status: 0 no errors (warnings and notes are no errors), 1 errors in the data,
2 a mistake in the request. With --repair, the status is that of the repaired data.
"""
_REPAIRS = (
    'unreadable, merge, sizes, orientation, strays, invalid, xyxy, clip, empty, twins, area, ids, labels, duplicates, '
    'categories'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument('data', metavar='DIR', help='folder of the data, or its YAML or JSON file')
    parser.add_argument(
        '--model',
        help='compare the objects with this model: name in the zoo, config or checkpoint; default: strides '
        'of 8 pixels and more, test images of 160 pixels and 40 objects per image, as the nano detectors',
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='write index.html and report.json there; with --repair, the repaired data as well, into a new folder',
    )
    parser.add_argument('--format', choices=('text', 'json'), default='text', help='what to print; default: text')
    parser.add_argument('--repair', nargs='+', metavar='KIND', default=[], help=f'any of {_REPAIRS}, or all')
    parser.add_argument(
        '--fast',
        action='store_true',
        help='read only the headers of the images: no search for damaged images and duplicates',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        metavar='F',
        help='divide a set without validation images as training would, with this share, and check the parts',
    )


def run(args: argparse.Namespace) -> None:
    """Inspect the data, print the report, write the page, repair.

    Raises:
        SystemExit: With status 1 if the data, or the repaired data, have errors.
    """
    import json
    from pathlib import Path

    from mmdefocus.datasets.inspection import inspect_data
    from mmdefocus.datasets.prepared import read_data, split_data

    _check_request(args)
    source = read_data(args.data)
    if args.val_fraction is not None:
        source = split_data(source, args.val_fraction)
    sizes = _sizes(args.model, source.task)
    limits: dict[str, Any] = {} if sizes is None else vars(sizes)
    with _progress() as progress:
        report = inspect_data(source, read_images=not args.fast, progress=progress, **limits)
    result = _repair(args, source, report) if args.repair else None
    if args.out:
        _write_report(report, source, result, Path(args.out) / 'check' if args.repair else Path(args.out))
    if args.format == 'json':
        print(json.dumps(_as_dict(report, result), indent=2))
    else:
        print(_as_text(args, report, result, sizes), end='')
    if (result.report if result else report).errors:
        raise SystemExit(1)


def _check_request(args: argparse.Namespace) -> None:
    from pathlib import Path

    from mmdefocus.apis.errors import UsageError
    from mmdefocus.apis.runs.folders import make_folder
    from mmdefocus.datasets.inspection import REPAIRS

    unknown = [kind for kind in args.repair if kind not in (*REPAIRS, 'all')]
    if unknown:
        raise UsageError(f'--repair takes {", ".join(REPAIRS)} or all, got {", ".join(unknown)}')
    if args.repair and not args.out:
        raise UsageError('--repair needs --out FOLDER: the data are never changed; name a new folder for the result')
    if args.val_fraction is not None and not 0 < args.val_fraction < 1:
        raise UsageError(f'--val-fraction must be between 0 and 1, got {args.val_fraction}; 0.2 is usual')
    if not Path(args.data).exists():
        return  # read_data says so
    if args.repair and Path(args.out).is_dir() and any(Path(args.out).iterdir()):
        raise UsageError(f"--out '{args.out}' exists and is not empty; name a new folder for the repaired data")
    if args.out:
        make_folder('--out', args.out)  # before minutes of reading images


def _sizes(model: str | None, task: str) -> 'ModelSizes | None':
    """Return the sizes of the model; None without one, or for classification."""
    if model is None or task == 'classification':
        return None
    from mmdefocus.apis.model_sizes import model_sizes
    from mmdefocus.apis.named_model import find_named_model

    return model_sizes(find_named_model(model, task='detection').training_cfg)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how many images were read, and the time left."""
    from tqdm import tqdm

    with tqdm(desc='reading images', unit=' images', leave=False, disable=None) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


class _Repaired(NamedTuple):
    sentences: list[str]
    report: 'DataReport'
    files: list['Path']


def _repair(args: argparse.Namespace, source: 'SourceData', report: 'DataReport') -> _Repaired:
    from mmdefocus.datasets.inspection import inspect_repaired, repair_data, write_source

    kinds = args.repair
    if 'all' in kinds:
        kinds = [finding.repair for finding in report.findings if finding.repair]
    repaired, sentences = repair_data(source, report, kinds)
    files = write_source(repaired, args.out)
    return _Repaired(sentences, inspect_repaired(repaired, report), files)


def _write_report(report: 'DataReport', source: 'SourceData', result: _Repaired | None, folder: 'Path') -> None:
    import json

    from mmdefocus.apis.data_page import write_data_page
    from mmdefocus.engine.safe_writing import write_safely

    write_data_page(report, source, folder / 'index.html')
    write_safely(folder / 'report.json', json.dumps(_as_dict(report, result), indent=2).encode())


def _as_dict(report: 'DataReport', result: _Repaired | None) -> dict[str, Any]:
    content = report.to_dict()
    if result is not None:
        content['repairs'] = result.sentences
        content['files'] = [str(path) for path in result.files]
        content['after'] = result.report.to_dict()
    return content


def _as_text(
    args: argparse.Namespace, report: 'DataReport', result: _Repaired | None, sizes: 'ModelSizes | None'
) -> str:
    from pathlib import Path

    from mmdefocus.datasets.inspection.report_text import conclusion

    text = report.to_text()
    if report.task == 'detection' and sizes is None:
        text += (
            f'Objects were compared with the nano detectors: strides from {min(report.strides)} pixels, test images of '
            f'{report.image_size[0]} pixels, {report.max_objects} objects per image; --model names another.\n'
        )
    if result is not None:
        text += '\nRepaired:\n' + ''.join(f'  {sentence}\n' for sentence in result.sentences)
        text += f'After that: {conclusion(result.report)}\n'
        text += ''.join(f'  {one.severity}: {one.title} [{one.split or "all"}]\n' for one in result.report.errors)
        text += f'Written: {", ".join(map(str, result.files))}\n'
    if args.out:
        folder = Path(args.out) / 'check' if result else Path(args.out)
        text += f'Page with pictures: {folder / "index.html"}\n'
    return text
