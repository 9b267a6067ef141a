"""Show what networks look at: attention, gradients, receptive fields and scores, as one page, pictures and tables.

    python tools/analysis/over_focus.py NETWORK... IMAGE... --layers 0 11 -1 --out FOLDER

NETWORK is [LABEL=]SOURCE[@CHECKPOINT]; SOURCE is a config file, the name of a model of mmdefocus or MMPreTrain, or
timm:NAME. IMAGE is a file, a URL, or a folder of images. docs/over-focus.md explains the results.
"""

import argparse
import contextlib
from dataclasses import replace

import torch
from mmengine.config import Config
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mmdefocus.analysis.errors import AnalysisError
from mmdefocus.analysis.prepared_image import PreparedImage
from mmdefocus.analysis.report_data import NetworkReport
from mmdefocus.analysis.scores import SCORES, ScoreTable
from mmdefocus.analysis.spectra import LayerSpectrum, band_pass_spectra
from mmdefocus.apis.analysis_models import AnalysedNetwork, load_network
from mmdefocus.apis.analysis_words import named_images, split_words
from mmdefocus.apis.errors import UsageError
from mmdefocus.apis.map_faithfulness import MapFaithfulness, measure_faithfulness
from mmdefocus.apis.over_focus_files import mean_over_layers, write_report
from mmdefocus.apis.over_focus_report import STEPS, ReportOptions, check_network, report_network
from mmdefocus.apis.runs.config_checks import check_model
from mmdefocus.apis.runs.config_file import load_config
from mmdefocus.apis.runs.folders import make_folder
from mmdefocus.cli.arguments import ToolParser
from mmdefocus.cli.run_tool import run_tool

SHOWN = ('entropy', 'top_mass', 'gini', 'sink_rate', 'query_irrelevance', 'norm_outliers', 'gradient_evenness')


def layer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers, got '{text}'; name networks and images first") from None


def main() -> None:
    parser = ToolParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('words', nargs='+', metavar='NETWORK-or-IMAGE', help='networks and images, in any order')
    parser.add_argument('--out', required=True, metavar='FOLDER', help='folder of the results')
    parser.add_argument(
        '--layers', type=layer, nargs='+', metavar='N', help='layers from 0, or from -1, the last; default: all'
    )
    parser.add_argument(
        '--random-weights',
        action='store_true',
        help='random initial weights for networks without @CHECKPOINT, in place of published ones',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of random weights (default: %(default)s)')
    parser.add_argument(
        '--size', type=int, metavar='PIXELS', help="side of the images' central square as the input of all networks"
    )
    parser.add_argument(
        '--reduce',
        choices=('group', 'mean'),
        default='group',
        help='a map per head or group of channels, or one map, their mean (default: %(default)s)',
    )
    parser.add_argument(
        '--include',
        nargs='+',
        choices=('conv', 'gate'),
        default=[],
        help='parts of the mixer that attention maps include: convolution; norm scale, skip connection and gate',
    )
    parser.add_argument(
        '--faithfulness',
        type=int,
        metavar='STEPS',
        help='also measure how faithful the maps of classifiers are, by insertion and deletion in STEPS steps, such as '
        '16; a step runs the network four times per map and image',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s')
    args = parser.parse_args()
    run_tool(parser, lambda: run(args), also=(ValueError, OSError))


def run(args: argparse.Namespace) -> None:
    if args.faithfulness is not None and args.faithfulness < 1:
        raise UsageError(f'--faithfulness needs a number of steps from 1, got {args.faithfulness}; try 16')
    words, sources = split_words(args.words)
    images = named_images(sources)
    make_folder('--out', args.out)
    networks = [
        load_network(word, args.random_weights, args.size, args.device, args.seed, read_config) for word in words
    ]
    prepared = [[replace(network.prepare(path), name=name) for name, path in images.items()] for network in networks]
    for network, inputs in zip(networks, prepared, strict=True):
        check_network(network, inputs[0], args.layers, args.include)
    options = ReportOptions(args.layers, args.reduce, tuple(args.include))
    reports: list[NetworkReport] = []
    tables: dict[str, ScoreTable] = {}
    spectra: dict[str, list[LayerSpectrum]] = {}
    faithfulness: dict[str, MapFaithfulness] = {}
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('', total=len(networks) * len(images) * len(STEPS))
        for network, inputs in zip(networks, prepared, strict=True):

            def advance(step: str, label: str = network.label) -> None:
                progress.update(task, description=f'{label}: {step}', advance=1)

            found, table = report_network(network, inputs, options, advance)
            reports += found
            if table is not None:
                tables[network.label] = table
            with contextlib.suppress(AnalysisError):  # no band-pass
                spectra[network.label] = band_pass_spectra(network.network, inputs[0].inputs, args.layers)
            if args.faithfulness is not None:
                progress.update(task, description=f'{network.label}: faithfulness')
                faithfulness[network.label] = _faithfulness(network, inputs, args.faithfulness)
    written = write_report(args.out, reports, tables, spectra, faithfulness)
    print_summary(reports, tables)
    for label, measured in faithfulness.items():
        print(f'faithfulness of the maps of {label}\n{measured.to_markdown()}')
    print(f'{len(written)} files in {args.out}; open {written[0]} in a browser')


def _faithfulness(network: AnalysedNetwork, images: list[PreparedImage], steps: int) -> MapFaithfulness:
    try:
        return measure_faithfulness(network, images, steps)
    except AnalysisError as error:
        return MapFaithfulness({}, [f'no faithfulness: {error}'])


def print_summary(reports: list[NetworkReport], tables: dict[str, ScoreTable]) -> None:
    """Print a few scores of every network, and what could not be computed."""
    table = Table(box=box.ASCII2)
    table.add_column('mean of the layers', overflow='fold')
    for name in SHOWN:
        table.add_column(SCORES[name].title, justify='right')
    for label, scores in tables.items():
        means = [mean_over_layers(scores, name) for name in SHOWN]
        table.add_row(label, *('-' if mean != mean else f'{mean:.3f}' for mean in means))
    Console(width=120, color_system=None, force_terminal=False).print(table)
    for line in dict.fromkeys(f'{report.label}: {note}' for report in reports for note in report.notes):
        print(line)


def read_config(path: str) -> Config:
    config = load_config(path)
    check_model(config)
    return config


if __name__ == '__main__':
    main()
