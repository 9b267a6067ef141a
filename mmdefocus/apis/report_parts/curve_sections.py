"""Sections about the course of a training."""

import math

from mmdefocus.pages import Chart, Page, Text, lines

from .history import History, Series

_PARTS = 6  # lines of a chart


def add_curves(page: Page, history: History) -> None:
    """Add the section of the curves."""
    if not history.steps and not history.validations:
        page.add('Curves', Text('The work directory has no logged scalars (*/vis_data/scalars.json).', 'warning'))
        return
    parts: list[Chart | Text] = [Text(note, 'warning') for note in history.notes]
    parts += [chart for chart in (*_losses(history), *_validations(history), *_costs(history)) if chart]
    if bad := [step for step, values in history.steps.items() if not math.isfinite(values.get('loss', 0.0))]:
        parts.insert(0, Text(f'The loss is not finite at {len(bad)} logged steps, first at step {bad[0]}.', 'error'))
    runs = 'one run' if history.runs == 1 else f'{history.runs} runs, the later ones resumed or restarted'
    page.add('Curves', *parts, note=f'Logged in {runs}. The loss should fall and then level off.')


def _losses(history: History) -> list[Chart | None]:
    names = list(dict.fromkeys(name for values in history.steps.values() for name in values if 'loss' in name))
    last = list(history.steps.values())[-1:] or [{}]
    parts = sorted((name for name in names if name != 'loss'), key=lambda name: -abs(last[0].get(name, 0.0)))
    total = _chart(history, ['loss'], 'loss', 'Loss')
    if not parts:
        return [total]
    more = f': the {_PARTS} largest of {len(parts)}' if len(parts) > _PARTS else ''
    return [total, _chart(history, parts[:_PARTS], 'loss', f'Parts of the loss{more}')]


def _validations(history: History) -> list[Chart | None]:
    names = list(dict.fromkeys(name for values in history.validations.values() for name in values))
    scores = [name for name in names if name.endswith(('bbox_mAP', 'bbox_mAP_50', 'segm_mAP')) or 'accuracy' in name]
    series = {name.rpartition('/')[2]: history.validation_series(name) for name in scores}
    if not series:
        return []
    percent = any(value > 1 for _, values in series.values() for value in values)
    return [lines(series, 'epoch or step of the validation', '%' if percent else 'score', title='Validation score')]


def _costs(history: History) -> list[Chart | None]:
    rates = [name for name in ('lr', 'base_lr') if any(name in values for values in history.steps.values())][:1]
    return [
        _chart(history, rates, 'learning rate', 'Learning rate') if rates else None,
        _chart(history, ['grad_norm'], 'norm', 'Norm of the gradient', logarithmic=True),
        _chart(history, ['memory'], 'MiB', 'Peak memory of the GPU'),
        _chart(history, ['time', 'data_time'], 'seconds', 'Time of a step'),
    ]


def _chart(history: History, names: list[str], label: str, title: str, logarithmic: bool = False) -> Chart | None:
    series: dict[str, Series] = {name: history.series(name) for name in names}
    series = {name: values for name, values in series.items() if values[0]}
    if not series:
        return None
    positive = all(value > 0 for _, values in series.values() for value in values)
    return lines(series, 'step', label, title=title, logarithmic=logarithmic and positive)
