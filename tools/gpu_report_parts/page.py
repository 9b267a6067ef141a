"""The GPU report as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarking.report import table

from .goals import Goal
from .outcomes import Outcome
from .plots import speed_ups
from .stages import Stage


def write_page(
    path: Path, stages: Sequence[Stage], outcomes: Mapping[str, Outcome], goals: Sequence[Goal], plots: Sequence[Path]
) -> None:
    """Write the report.

    Args:
        path: File to write.
        stages: All stages in their order.
        outcomes: What came out of them, by name.
        goals: Goals with their verdicts.
        plots: PNG files in the folder of the report.
    """
    first = min((outcome.date for outcome in outcomes.values() if outcome.date), default='')
    commits = sorted({outcome.commit for outcome in outcomes.values() if outcome.commit})
    parts = [
        f'# GPU report, {first[:10]}',
        f'{outcomes["machine"].reason}. Commit {", ".join(commits) or "unknown"}. {conclusion(outcomes, goals)}',
        '## Goals',
        table(('goal', 'verdict', 'measured'), [(goal.name, goal.verdict, goal.measured) for goal in goals]),
        '## Stages',
        table(
            ('stage', 'outcome', 's', 'started', 'what it says', 'log'),
            [_stage_row(path.parent, stage, outcomes[stage.name]) for stage in stages],
        ),
        *(f'![{plot.stem}]({plot.name})' for plot in plots),
        *_tests(outcomes['tests']),
        *(part for name in ('memcheck', 'racecheck', 'synccheck') for part in _sanitizer(name, outcomes[name])),
        *_operators(outcomes['operators']),
        *_networks(outcomes['networks']),
        *_training(outcomes),
        *_profile(outcomes['profile']),
        *_machine(outcomes['machine']),
    ]
    path.write_text('\n\n'.join(parts) + '\n', encoding='utf-8')


def conclusion(outcomes: Mapping[str, Outcome], goals: Sequence[Goal]) -> str:
    """Count in a sentence how stages and goals came out."""
    stages = [outcome.status for outcome in outcomes.values()]
    verdicts = [goal.verdict for goal in goals]
    counted = [f'{stages.count(word)} {word}' for word in ('passed', 'failed', 'not measured')]
    judged = [f'{verdicts.count(word)} {word}' for word in ('passed', 'missed', 'not measured')]
    return f'Stages: {", ".join(counted)}. Goals: {", ".join(judged)}.'


def _stage_row(folder: Path, stage: Stage, outcome: Outcome) -> tuple[str, ...]:
    log = Path('logs') / f'{stage.name}.log'
    link = f'[log]({log.as_posix()})' if (folder / log).exists() else ''
    seconds = f'{outcome.seconds:.0f}' if outcome.date else ''
    return f'{stage.name}: {stage.title}', outcome.status, seconds, outcome.date, _cell(outcome.reason), link


def _cell(text: str) -> str:
    """Make a text fit for a cell of a table."""
    return ' '.join(text.split()).replace('|', '\\|')


def _tests(outcome: Outcome) -> list[str]:
    failed, skipped = outcome.facts.get('failed', []), outcome.facts.get('skipped', {})
    parts = ['### Failed tests\n\n' + '\n'.join(f'- `{name}`' for name in failed)] if failed else []
    if skipped:
        lines = [f'- `{name}`: {_cell(reason)}' for name, reason in skipped.items()]
        parts.append('### Skipped tests\n\n' + '\n'.join(lines))
    return ['## Tests', f'{outcome.facts.get("passed", 0)} passed.', *parts] if outcome.facts else []


def _sanitizer(name: str, outcome: Outcome) -> list[str]:
    if not outcome.facts:
        return []
    wrong = [f'- not finite: {label}' for label in outcome.facts['not_finite']]
    lines = [*wrong, *(f'- cannot run: {reason}' for reason in outcome.facts['obstacles'])]
    ran = ', '.join(outcome.facts['ran']) or 'nothing'
    return [f'## compute-sanitizer {name}', f'Ran: {ran}.', *(['\n'.join(lines)] if lines else [])]


def _operators(outcome: Outcome) -> list[str]:
    rows = [
        (pair, label, f'{ratio:.2f}')
        for pair, by_label in speed_ups(outcome.facts.get('records', [])).items()
        for label, ratio in by_label.items()
    ]
    missing = [r for r in outcome.facts.get('records', []) if 'obstacle' in r]
    lines = [f'- `{r["operator"]}`, `{r["implementation"]}`: {r["obstacle"]}' for r in missing]
    if not rows and not lines:
        return []
    links = 'All times: [operators.md](results/operators/operators.md), if the stage has ended.'
    found = [table(('ours against the alternative', 'B, L, pass', 'times as fast'), rows)] if rows else []
    return ['## Operators', links, *found, *(['Cannot run:\n\n' + '\n'.join(lines)] if lines else [])]


def _networks(outcome: Outcome) -> list[str]:
    rows = [
        (
            record['network'],
            *(
                text
                for phase in ('inference', 'training')
                for text in (
                    (f'{record[phase]:.4g}', f'{record[f"{phase}_bytes"] / 1e9:.2f}')
                    if phase in record
                    else (record['defect'], '')
                )
            ),
        )
        for record in outcome.facts.get('records', [])
    ]
    header = ('network', 'inference images/s', 'inference GB', 'training images/s', 'training GB')
    return ['## Networks', table(header, rows)] if rows else []


def _training(outcomes: Mapping[str, Outcome]) -> list[str]:
    rows = []
    for name in ('classifier', 'detector'):
        facts = outcomes[name].facts
        if facts.get('losses'):
            peak = f'{facts["peak_bytes"] / 1e9:.2f}' if facts['peak_bytes'] is not None else ''
            size = f'{facts["batch"]} x {facts["side"]}²'
            rows.append((facts['config'], size, f'{facts["images_per_second"]:.4g}', peak, outcomes[name].reason))
    header = ('config', 'images', 'images/s', 'peak GB', 'losses')
    return ['## Training on synthetic images', table(header, rows)] if rows else []


def _profile(outcome: Outcome) -> list[str]:
    if not outcome.facts.get('rows'):
        return []
    rows = [
        (
            f'`{_cell(row["kernel"])[:90]}`',
            f'{row["calls"]:g}',
            f'{row["microseconds"]:.1f}',
            f'{row["microseconds"] / outcome.facts["total"]:.1%}',
        )
        for row in outcome.facts['rows']
    ]
    text = f'{outcome.reason}. Trace: [trace.json.gz](results/profile/trace.json.gz), for chrome://tracing.'
    return ['## Kernels of a layer', text, table(('kernel', 'calls', 'µs', 'share'), rows)]


def _machine(outcome: Outcome) -> list[str]:
    lines = outcome.facts.get('lines', {})
    return ['## Machine', '\n'.join(f'- {name}: {value}' for name, value in lines.items())] if lines else []
