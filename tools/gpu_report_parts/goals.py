"""The goals of the project for GPUs, and whether the measurements of a report meet them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .outcomes import Outcome
from .stages import SHAPES

Verdict = Literal['passed', 'missed', 'not measured']
OURS, CHAIN = 'cuda', 'chain on mamba_ssm'
PASSES = ('forward', 'forward + backward')
DEFOCUS, DEIT = 'defocus_mamba_base', 'timm:deit_base_patch16_224'
LEAST_SPEED_UP, MOST_MEMORY, LEAST_OF_EXP, LEAST_RATE = 2.0, 0.5, 0.6, 1.0


@dataclass(frozen=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        name: What should be reached.
        verdict: Whether it was.
        measured: The numbers, or why there are none.
    """

    name: str
    verdict: Verdict
    measured: str


def judge(outcomes: Mapping[str, Outcome]) -> list[Goal]:
    """Compare the outcomes of the stages ``operators`` and ``networks``, by name, with the goals."""
    operators, networks = (outcomes[name] for name in ('operators', 'networks'))
    return [
        _goal(
            f'the fused scan is at least {LEAST_SPEED_UP:g} times as fast as the chain',
            [_compare(operators, shape, which, _speed_up) for shape in SHAPES for which in PASSES],
            lambda ratio: ratio >= LEAST_SPEED_UP,
            '{:.2f} x',
        ),
        _goal(
            f'the fused scan takes at most {MOST_MEMORY:g} of the memory of the chain',
            [_compare(operators, shape, PASSES[1], _memory) for shape in SHAPES],
            lambda ratio: ratio <= MOST_MEMORY,
            '{:.2f}',
        ),
        _goal(
            f'the forward pass reaches {LEAST_OF_EXP:.0%} of the exponentials per second of the GPU',
            [_of_exp(operators, shape) for shape in SHAPES],
            lambda share: share >= LEAST_OF_EXP,
            '{:.0%}',
        ),
        *(
            _goal(
                f'De-focus Base has the images per second of DeiT-Base in {phase}',
                [_rates(networks, phase)],
                lambda ratio: ratio >= LEAST_RATE,
                '{:.2f} x',
            )
            for phase in ('training', 'inference')
        ),
    ]


# A label, and a number or the reason why there is none.
_Value = tuple[str, float | str]


def _goal(name: str, values: Sequence[_Value], reached: Callable[[float], bool], form: str) -> Goal:
    """Judge a goal that each of the numbers must reach; one that is missing leaves it open unless another misses."""
    numbers = {label: value for label, value in values if not isinstance(value, str)}
    reasons: dict[str, list[str]] = {}
    for label, value in values:
        if isinstance(value, str):
            reasons.setdefault(value, []).append(label)
    parts = [f'({label}) {form.format(value)}' for label, value in numbers.items()]
    parts += [f'({"; ".join(labels)}) {reason}' if numbers else reason for reason, labels in reasons.items()]
    measured = '; '.join(parts)
    if not all(map(reached, numbers.values())):
        return Goal(name, 'missed', measured)
    return Goal(name, 'not measured' if reasons else 'passed', measured)


def _speed_up(ours: dict, chain: dict) -> float:
    return chain['seconds'] / ours['seconds']


def _memory(ours: dict, chain: dict) -> float:
    return ours['peak'] / chain['peak']


def _compare(outcome: Outcome, shape: tuple[int, int], which: str, ratio: Callable[[dict, dict], float]) -> _Value:
    """Compare the records of the fused scan and of the chain."""
    label = f'{shape[0]}, {shape[1]}, {which}'
    found = [_record(outcome, shape, which, name) for name in (OURS, CHAIN)]
    missing = next((record for record in found if isinstance(record, str)), None)
    if missing is not None:
        return label, missing
    if any(record['host_bound'] for record in found):
        label += ', with launches'
    return label, ratio(*found)


def _of_exp(outcome: Outcome, shape: tuple[int, int]) -> _Value:
    found = _record(outcome, shape, PASSES[0], OURS)
    label = f'{shape[0]}, {shape[1]}'
    return (label, found) if isinstance(found, str) else (f'{label}: {found["seconds"] * 1e6:.0f} µs', found['of_exp'])


def _record(outcome: Outcome, shape: tuple[int, int], which: str, name: str) -> Any:
    """Return the record of an implementation of the fused scan, or the reason why there is none."""
    for record in _scan_records(outcome, name):
        if 'obstacle' in record:
            return record['obstacle']
        if (record['batch'], record['length']) == shape:
            if record.get('seconds') is None:
                return f'{name} differs from the reference'
            if record['passes'] == which:
                return record
    return _no_number(outcome, f'no time of {name}')


def _scan_records(outcome: Outcome, name: str) -> Iterator[dict]:
    for record in outcome.facts.get('records', ()):
        if (record['operator'], record['implementation']) == ('defocus_scan', name):
            yield record


def _rates(outcome: Outcome, phase: str) -> _Value:
    records = {record['network']: record for record in outcome.facts.get('records', ())}
    rates = []
    for name in (DEFOCUS, DEIT):
        rate = records.get(name, {}).get(phase)
        if rate is None:
            reason = records.get(name, {}).get('defect')
            return phase, (reason and f'{name} has {reason}') or _no_number(outcome, f'no time of {name}')
        rates.append(rate)
    return f'{rates[0]:.4g} against {rates[1]:.4g} images/s', rates[0] / rates[1]


def _no_number(outcome: Outcome, otherwise: str) -> str:
    return otherwise if outcome.status == 'passed' else outcome.reason
