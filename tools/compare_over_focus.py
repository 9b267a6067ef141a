"""Compare what networks of handwritten digits look at: three mixers, with and without band-pass and auxiliary loss.

Trains the networks with several seeds, scores them on test digits, prints three tables and makes a report page of the
first seed. Repeat the command to continue an interrupted study. docs/over-focus-digits.md explains the tables and their
limits.
"""

import argparse
from pathlib import Path

import torch
from mmengine.fileio import dump
from PIL import Image
from studies.ablation import add_ablation_arguments, run_ablation
from studies.ablation_table import write_table
from studies.over_focus_networks import METRIC, SCHEDULE, change_pairs, network_variants
from studies.over_focus_scores import measure
from studies.over_focus_table import format_effects, format_faithfulness, format_scores

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.report import write_page, write_pictures
from mmdefocus.analysis.scores import SCORES
from mmdefocus.apis.analysis_models import AnalysedNetwork, load_network
from mmdefocus.apis.analysis_words import ModelWord
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.over_focus_report import ReportOptions, report_network
from mmdefocus.datasets.digits_classification import DefocusDigits

VARIANTS = network_variants()


def write_digits(folder: Path, count: int) -> list[str]:
    """Write evenly spread test digits as PNG files and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = DefocusDigits('test')
    paths = []
    for index in range(0, len(digits), len(digits) // count)[:count]:
        path = folder / f'digit_{digits[index]["gt_label"]}_{index:03}.png'
        Image.fromarray(digits[index]['img']).save(path)
        paths.append(str(path))
    return paths


def load(folder: Path, label: str) -> AnalysedNetwork:
    last = Path((folder / 'last_checkpoint').read_text(encoding='utf-8').strip()).name
    return load_network(ModelWord(label, str(folder / 'config.py'), str(folder / last)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_ablation_arguments(parser, [variant.name for variant in VARIANTS], 'work_dirs/compare_over_focus')
    parser.add_argument('--images', type=int, default=32, help='test digits to score (default: %(default)s)')
    args = parser.parse_args()
    try:
        compare(args)
    except (UsageError, AnalysisError, RuntimeError) as error:
        parser.exit(2, f'error: {error}\n')


def compare(args: argparse.Namespace) -> None:
    variants = [variant for variant in VARIANTS if variant.name in args.variants]
    accuracies = run_ablation(
        variants, args.seeds, METRIC, args.work_dir, args.jobs, SCHEDULE | args.cfg_options, print
    )
    work_dir = Path(args.work_dir)
    images = write_digits(work_dir / 'images', args.images)
    numbers, reports = {}, []
    for variant in variants:
        networks = [load(work_dir / variant.folder / f'seed_{seed}', variant.name) for seed in args.seeds]
        inputs = torch.cat([networks[0].prepare(image).inputs for image in images])
        numbers[variant.name] = [measure(network.network, inputs) for network in networks]
        reports += report_network(networks[0], [networks[0].prepare(image) for image in images[:2]], ReportOptions())[0]
        print(f'scored: {variant.name}')
    dump(numbers, work_dir / 'scores.json', indent=1)
    page = work_dir / 'report' / 'index.html'
    page.parent.mkdir(exist_ok=True)
    write_page(reports, page, {name: score.meaning for name, score in SCORES.items()})
    write_pictures(reports, page.parent)
    parts = format_scores(numbers, accuracies), format_effects(numbers, change_pairs(list(numbers)))
    table = '\n'.join([*parts, format_faithfulness(numbers)])
    print(f'\n{table}\nreport: {page}')
    if args.out is not None:
        write_table(table, args.out)
        print(f'tables: {args.out}')


if __name__ == '__main__':
    main()
