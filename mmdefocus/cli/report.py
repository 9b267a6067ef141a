"""Tables of test metrics."""

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

_TITLES = dict(bbox='COCO box AP', segm='COCO mask AP')
_COLUMNS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APs='mAP_s', APm='mAP_m', APl='mAP_l')
_CLASS_SUFFIX = '_precision'


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Format the metrics of ``runner.test()`` as tables.

    Args:
        metrics: Names and values as reported by MMDetection's ``CocoMetric`` (fractions; -1 or NaN where no such box
            exists), MMPreTrain's ``Accuracy`` (percent) or any other metric.

    Returns:
        Text: COCO box AP and mask AP, each in one line; one line per class if the evaluator ran with
        ``classwise=True``; other metrics.
    """
    rest = dict(metrics)
    tables: dict[str, Table] = {}
    for kind, title in _TITLES.items():
        keys = {column: f'coco/{kind}_{name}' for column, name in _COLUMNS.items()}
        found = {column: rest.pop(key) for column, key in keys.items() if key in rest}
        if found:
            table = Table(box=box.ASCII2)
            for column in found:
                table.add_column(column, justify='right')
            table.add_row(*map(_fraction, found.values()))
            tables[title] = table
    classes = [key for key in rest if key.startswith('coco/') and key.endswith(_CLASS_SUFFIX)]
    if classes:
        table = Table('class', box=box.ASCII2)
        table.add_column('AP', justify='right')
        for key in classes:
            table.add_row(key.removeprefix('coco/').removesuffix(_CLASS_SUFFIX), _fraction(rest.pop(key)))
        # MMDetection keeps the classes of its last metric only.
        last = [title for key in metrics for kind, title in _TITLES.items() if key == f'coco/{kind}_mAP'][-1:]
        tables[f'{(last or [_TITLES["bbox"]])[0]} per class'] = table
    if rest:
        table = Table('metric', box=box.ASCII2)
        table.add_column('value', justify='right')
        for key, value in rest.items():
            table.add_row(key, f'{value:.2f}' if key.startswith('accuracy/') else f'{value:.4g}')
        tables['Other metrics' if tables else 'Metrics'] = table
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        for title, table in tables.items():
            console.print(title, table, sep='\n', end='\n')
    return capture.get()


def _fraction(value: float) -> str:
    return f'{value:.3f}' if value >= 0 else '-'
