"""Tables and data of a replayed training step."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mmdefocus.apis.replay import Replay, Run
from mmdefocus.apis.replay_cause import WITHIN_MODEL, cause, place
from mmdefocus.engine.magnitudes import Magnitudes, largest_of
from mmdefocus.engine.non_finite_origin import Origin
from mmdefocus.engine.operator_watch import ModuleCall

BEFORE, AFTER = 6, 2


def format_replay(replay: Replay, all_layers: bool = False) -> str:
    """Format the findings of a replay as text and tables.

    Args:
        replay: Result of :func:`~mmdefocus.apis.replay.replay_step`.
        all_layers: Show all layers instead of those around the first non-finite value.

    Returns:
        Text with lines of at most 160 characters, except for long names.
    """
    capture = replay.capture
    console = Console(width=160, color_system=None, force_terminal=False)
    origin = replay.original.origin
    with console.capture() as text:
        print_line = _line_printer(console)
        processes = f'process {capture["rank"] + 1} of {capture["world_size"]}'
        print_line(f'step: iteration {capture["iteration"]}, epoch {capture["epoch"]}, {processes}')
        print_line(f'in the training: {capture["message"]}')
        print_line(f'in this replay, on {replay.device}: {_result(replay)}')
        console.print(_images(replay))
        if origin is not None:
            console.print(_layers(replay, origin, all_layers))
            print_line(f'first non-finite value: {place(origin)}')
            for number, values in origin.inputs:
                print_line(f'  input {number}: {_described(values)}')
            if origin.output is not None:
                print_line(f'  output: {_described(origin.output)}')
            print_line(f'cause: {cause(replay, origin)}')
    return '\n'.join(line.rstrip() for line in text.get().splitlines()) + '\n'


def replay_as_data(replay: Replay) -> dict[str, Any]:
    """Return the findings as values for JSON. Infinities and NaN become the texts ``inf``, ``-inf`` and ``nan``."""
    origin = replay.original.origin
    capture = {key: replay.capture[key] for key in ('problem', 'message', 'iteration', 'epoch', 'rank', 'world_size')}
    runs = [
        dict(
            type=run.name,
            losses=run.losses,
            error=run.error,
            finite=run.is_finite,
            layers=[dataclasses.asdict(call) for call in run.calls],
        )
        for run in replay.runs
    ]
    return _for_json(
        dict(
            capture,
            versions=replay.capture['versions'],
            device=replay.device,
            reproduced=not replay.original.is_finite,
            different_losses=replay.different_losses,
            origin=None if origin is None else dataclasses.asdict(origin),
            cause=None if origin is None else cause(replay, origin),
            images=[dict(file=name, largest=largest) for name, largest in replay.images],
            runs=runs,
        )
    )


def _line_printer(console: Console) -> Any:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _result(replay: Replay) -> str:
    run = replay.original
    if run.error is not None:
        return run.error
    total = f'loss={run.losses["loss"]:g}'
    differing = replay.different_losses
    if not differing:
        return f'{total}; all {len(run.losses)} losses equal those of the training bit by bit'
    return f'{total}; losses that differ from those of the training: {", ".join(differing)}'


def _layers(replay: Replay, origin: Origin, all_layers: bool) -> Table:
    table = Table(box=box.ASCII2)
    for column in ('layer', 'type', 'operator'):
        table.add_column(column, overflow='fold')
    for run in replay.runs:
        mark = ' (training)' if run.is_original else ''
        table.add_column(f'{run.name}{mark}\nlargest input → output', justify='right', no_wrap=True)
    matching = [{(call.name, call.number): call for call in run.calls} for run in replay.runs]

    def add(call: ModuleCall) -> None:
        found = [calls.get((call.name, call.number)) for calls in matching]
        cells = ['-' if call is None else _change(call.input, call.output) for call in found]
        table.add_row(call.name or WITHIN_MODEL, call.kind, '', *cells)

    calls = replay.original.calls
    before = [call for call in calls[: origin.calls] if not call.inner_calls]
    after = [call for call in calls[origin.calls :] if not call.inner_calls]
    if not origin.node and before and before[-1].name == origin.module:
        before.pop()  # its row is that of the operator
    for call in before if all_layers else before[-BEFORE:]:
        add(call)
    kind = next(call.kind for call in calls if call.name == origin.module)
    operator = f'{origin.operator}{" (backward)" if origin.node else ""}'
    table.add_row(f'> {origin.module or WITHIN_MODEL}', kind, operator, *map(_operator_cell, replay.runs))
    for call in after if all_layers else after[:AFTER]:
        add(call)
    return table


def _operator_cell(run: Run) -> str:
    if run.is_original and run.origin is not None:
        inputs: Sequence[tuple[int, Magnitudes]] = run.origin.inputs
        output = run.origin.output
    elif run.operator is not None:
        inputs, output = run.operator
    else:
        return '-' if run.error is None else run.error.partition(':')[0]
    return _change(largest_of(x for _, x in inputs), output)


def _change(first: Magnitudes | None, second: Magnitudes | None) -> str:
    return ' → '.join('-' if x is None else f'{x.largest:.3g}' for x in (first, second))


def _described(values: Magnitudes) -> str:
    return f'{values.dtype} {list(values.shape)}, magnitudes from {values.smallest:.3g} to {values.largest:.3g}'


def _images(replay: Replay) -> Table:
    origin = replay.original.origin
    table = Table(box=box.ASCII2)
    table.add_column('image', overflow='fold')
    table.add_column('largest pixel', justify='right')
    table.add_column('in the output of the operator')
    samples = () if origin is None else origin.samples
    for number, (name, largest) in enumerate(replay.images):
        state = 'not finite' if number in samples else 'finite' if samples else '-'
        table.add_row(name, f'{largest:.3g}', state)
    return table


def _for_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _for_json(item) for key, item in value.items()}
    return [_for_json(item) for item in value] if isinstance(value, (list, tuple)) else value
