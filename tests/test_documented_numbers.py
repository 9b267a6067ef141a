"""Compare the measured numbers in README and docs with the reports that they cite."""

import re
from math import ceil, floor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / 'docs' / 'benchmarks'
FIRST_RUNS = (BENCHMARKS / 'first-runs.md').read_text()
NOT_MEASURED = ('\u2013', 'TO MEASURE')


def text(path: str) -> str:
    """Return a page without its line breaks."""
    return ' '.join((ROOT / path).read_text().split())


def section(report: str, title: str) -> str:
    found = re.search(rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', report, re.MULTILINE | re.DOTALL)
    assert found, f'the report has no section {title!r}'
    return found[1]


def tables(part: str) -> list[dict[str, str]]:
    """Return the rows of all tables as dicts with the header of their table as keys."""
    rows, header = [], None
    for line in part.splitlines():
        if not line.startswith('|'):
            header = None
            continue
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if header is None:
            header = cells
        elif not set(line) <= set('|-: '):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


def column(title: str, name: str, **where: str) -> list[str]:
    """Return the measured cells of a column in the order of the report, without rows that are not measured yet."""
    rows = tables(section(FIRST_RUNS, title))
    cells = [row[name] for row in rows if all(row[key] == value for key, value in where.items())]
    measured = [cell for cell in cells if cell not in NOT_MEASURED]
    assert measured, f'{title} has no row with {name}'
    return measured


def span(values: list[str]) -> str:
    """Return the range as '0.811 to 0.816', or the value if there is only one."""
    first, last = min(values, key=float), max(values, key=float)
    return first if first == last else f'{first} to {last}'


def minutes(time: str) -> float:
    """Convert '3 min 12 s' to minutes."""
    parts = re.fullmatch(r'(\d+) min(?: (\d+) s)?', time)
    assert parts, time
    return int(parts[1]) + int(parts[2] or 0) / 60


def whole_minutes(times: list[str]) -> str:
    return span([str(time) for time in (floor(min(map(minutes, times))), ceil(max(map(minutes, times))))])


def test_set_up():
    took = whole_minutes(column('Set-up', 'time'))
    assert f'on 2 cores it took {took} minutes' in text('README.md')
    assert f'({took} minutes on 2 cores' in text('tools/setup.sh')
    size = re.search(r'`\.venv` has ([\d.]+) GiB', FIRST_RUNS)[1]
    assert f'`.venv` has {size} GiB' in text('README.md')
    assert f'{size} for .venv' in text('tools/setup.sh')


def test_demo():
    readme = text('README.md')
    assert f'it trained in {whole_minutes(column("Demo", "training"))} minutes' in readme
    assert f'reached a box mAP of **{span(column("Demo", "box mAP"))}**' in readme


def test_classifier_of_digits():
    title = 'Classifier of digits'
    accuracy = span([cell.removesuffix(' %') for cell in column(title, 'top-1')])
    took = whole_minutes(column(title, 'training'))
    assert f'trained for {took} minutes on two CPU cores and then got {accuracy} % of 400 digits' in text('README.md')
    ablation = text('docs/ablation.md')
    assert f'With two threads, seed 0 gave {accuracy} %' in ablation
    by_seed = re.search(r'\((\d\d\.\d\d), [\d., and]+ with seeds 0', ablation)[1]
    assert f'With one thread the same seed gave {by_seed} %' in FIRST_RUNS


def test_classifier_of_a_folder():
    first, second = (cell.removesuffix(' %') for cell in column('Classifier of a folder', 'top-1'))
    assert f'Two such trainings reached {first} and {second} %' in text('docs/finetune.md')


@pytest.mark.parametrize(
    ('network', 'pages'),
    [
        ('base detector', ['README.md', 'configs/dino/README.md']),
        ('base classifier', ['configs/classification/README.md']),
        ('Mask R-CNN with DAT-T++', ['configs/mask_rcnn/README.md']),
        ('Mask R-CNN with FCViT-B24', ['configs/mask_rcnn/README.md']),
    ],
)
def test_one_training_step_at_full_size(network, pages):
    title = 'One training step at full size'
    (time,), (memory,) = (column(title, name, network=network) for name in ('iteration', 'peak memory'))
    for page in pages:
        assert f' took {time} ' in text(page)
        assert memory in text(page)


@pytest.fixture
def operators() -> str:
    """Return the text of the report that README.md cites."""
    (report,) = re.findall(r'\[report\]\((docs/benchmarks/[\w-]+\.md)#comparisons\)', (ROOT / 'README.md').read_text())
    report = (ROOT / report).read_text()
    assert '-dirty' not in report
    return report


def fused_scan(report: str) -> list[dict[str, str]]:
    """Return the rows of the forward pass and of both passes for 4705 tokens."""
    assert '-dirty' not in report
    rows = [row for row in tables(section(report, 'defocus_scan')) if row['B, L'] == '1, 4705']
    forward, both = (row for row in rows if row['implementation'] == 'cpp')
    assert (forward['pass'], both['pass']) == ('forward', 'forward + backward')
    return [forward, both]


def test_operators(operators):
    readme = text('README.md')
    forward, both = fused_scan(operators)
    assert (
        f'the fused scan took {float(forward["ms"]):.0f} ms forward and {float(both["ms"]):.0f} ms with its gradient '
        f'on 2 threads of an Intel Xeon, {forward["/ exp"]} and {both["/ exp"]} times the time of `torch.exp`'
    ) in readme
    (busy,) = re.findall(r'\[busy\]\((docs/benchmarks/[\w-]+\.md)\)', readme)
    forward, both = fused_scan((ROOT / busy).read_text())
    assert f'took {float(forward["ms"]):.0f} and {float(both["ms"]):.0f} ms ([busy](' in readme

    comparisons = section(operators, 'Comparisons').partition('µs per token')[0]
    faster = {'`defocus_scan`': [], '`mixer`': []}
    for row in tables(comparisons):
        faster[row['operator']] += [f'{float(row[name]):.1f}' for name in ('forward', 'forward + backward')]
    assert f'the fused scan was {span(faster["`defocus_scan`"])} times faster' in readme
    assert f'the whole mixer between its projections {span(faster["`mixer`"])} times' in readme


def test_summary_of_the_operators_is_that_of_their_report(operators):
    """Compare the times in docs/operators.md, which have two decimals."""
    summary = (ROOT / 'docs' / 'operators.md').read_text()
    shown = [row for row in tables(summary) if 'forward, ms' in row]
    assert len(shown) > 30
    for row in shown:
        same = [
            reported
            for reported in tables(section(operators, row['operator'].strip('`')))
            if (reported['B, L'], reported['implementation']) == (row['B, L'], row['implementation'])
        ]
        times = [float(row[name].split()[0]) for name in ('forward, ms', 'forward + backward, ms')]
        assert times == pytest.approx([float(reported['ms']) for reported in same], rel=0, abs=0.0055)


def test_the_optimiser_steps():
    report = tables((BENCHMARKS / '2026-11-22-cpu-optimizer.md').read_text())
    rows = {row['`fused=True`']: row for row in tables((ROOT / 'docs/options.md').read_text()) if '`fused=True`' in row}
    for title, network in (('base classifier', 'defocus_mamba_base'), ('base DINO', 'defocus_mamba_base_12ep')):
        measured = next(row for row in report if (row['network'], row['AdamW']) == (network, 'fused'))
        numbers = [measured['groups'], measured['ms'], measured['merged groups'], measured['merged ms']]
        assert list(rows[title].values())[1:] == [f'{float(number):.3g}' for number in numbers]


def test_networks_relative_to_deit():
    networks = {
        'De-focus Mamba': 'defocus_mamba_base',
        'De-focus ViT': 'defocus_vit_base',
        'De-focus RetNet': 'defocus_retnet_base',
    }
    shown = [row for row in tables((BENCHMARKS / 'README.md').read_text()) if 'De-focus Mamba' in row]
    assert len(shown) == 5
    for row in shown:
        (report,) = re.findall(r'\(([\w-]+\.md)\)', row['images'])
        speeds = {
            found['network']: [float(found[f'{step} images/s']) for step in ('inference', 'training')]
            for found in tables((BENCHMARKS / report).read_text())
            if 'inference images/s' in found
        }
        deit = speeds['timm:deit_base_patch16_224']
        for title, name in networks.items():
            ratios = [own / other for own, other in zip(speeds[name], deit, strict=True)] if name in speeds else []
            assert row[title] == (' / '.join(f'{ratio:.2f}' for ratio in ratios) or '\N{EN DASH}')


def test_parts_of_the_steps_of_networks():
    page = text('docs/benchmarks/README.md')
    rows = tables(section((BENCHMARKS / '2026-11-23-cpu-networks.md').read_text(), 'Parts of a step, in ms'))
    parts = {(row.pop('network'), row.pop('step')): {part: float(ms) for part, ms in row.items()} for row in rows}
    mamba, deit = 'defocus_mamba_base', 'timm:deit_base_patch16_224'
    for network, name in ((mamba, 'De-focus Mamba'), (deit, 'DeiT')):
        step = parts[network, 'inference']
        assert f'{step["products"]:.0f} of {step["ms"]:.0f} ms of {name}' in page
    rest = [parts[network, 'inference']['ms'] - parts[network, 'inference']['products'] for network in (mamba, deit)]
    assert f'takes {rest[0]:.0f} ms; attention, norms and the rest of DeiT take {rest[1]:.0f} ms' in page
    mixing = [parts[network, 'training']['token mixing'] for network in (mamba, deit)]
    assert f'the scan and its gradient take {mixing[0]:.0f} ms, attention {mixing[1]:.0f} ms' in page
