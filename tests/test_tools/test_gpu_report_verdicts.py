"""Verdicts, page and plots of the GPU report from chosen numbers."""

import re

import pytest
from gpu_measurements import COMMIT, DATE, SHAPES, networks, operators, outcomes, passed, scan
from gpu_report_parts.goals import CHAIN, OURS, PASSES, judge
from gpu_report_parts.outcomes import Outcome
from gpu_report_parts.page import conclusion, write_page
from gpu_report_parts.plots import draw, speed_ups
from gpu_report_parts.stages import stages

SPEED, MEMORY, EXP, TRAINING, INFERENCE = range(5)


def verdicts(found):
    return [goal.verdict for goal in judge(found)]


def test_all_goals_are_met():
    goals = judge(outcomes())
    assert [goal.verdict for goal in goals] == ['passed'] * 5
    assert goals[SPEED].measured.startswith('(64, 197, forward) 3.00 x; (64, 197, forward + backward) 3.00 x; (16,')
    assert goals[MEMORY].measured == '; '.join(f'({b}, {length}, forward + backward) 0.25' for b, length in SHAPES)
    assert goals[EXP].measured.startswith('(64, 197: 100 µs) 70%; ')
    assert goals[TRAINING].measured == '(1100 against 1000 images/s) 1.10 x'
    assert goals[INFERENCE].measured == '(2200 against 2000 images/s) 1.10 x'


@pytest.mark.parametrize(
    ('goal', 'changed'),
    [
        (SPEED, dict(operators=passed(records=operators(speed_up=1.99)))),
        (MEMORY, dict(operators=passed(records=operators(memory=0.51)))),
        (EXP, dict(operators=passed(records=operators(of_exp=0.59)))),
        (TRAINING, dict(networks=passed(records=networks(training=999.0)))),
        (INFERENCE, dict(networks=passed(records=networks(inference=1999.0)))),
    ],
)
def test_one_goal_is_missed(goal, changed):
    expected = ['passed'] * 5
    expected[goal] = 'missed'
    assert verdicts(outcomes(**changed)) == expected


def test_goals_at_their_limits_are_met():
    limits = passed(records=operators(speed_up=2.0, memory=0.5, of_exp=0.6))
    rates = passed(records=networks(training=1000.0, inference=2000.0))
    assert verdicts(outcomes(operators=limits, networks=rates)) == ['passed'] * 5


def test_one_shape_that_misses_is_enough():
    slow = [*operators(shapes=SHAPES[:2]), *operators(shapes=SHAPES[2:], speed_up=1.5, memory=0.9, of_exp=0.2)]
    assert verdicts(outcomes(operators=passed(records=slow)))[:3] == ['missed'] * 3


def test_shapes_that_are_missing_leave_a_goal_open_unless_another_misses():
    reason = 'it ran into its limit of 480 s and was killed'
    killed = Outcome('failed', reason, dict(records=operators(shapes=SHAPES[:2])))
    goals = judge(outcomes(operators=killed))
    assert [goal.verdict for goal in goals[:3]] == ['not measured'] * 3
    assert goals[EXP].measured.endswith(f'(2, 4705) {reason}')
    killed.facts['records'] = operators(shapes=SHAPES[:1], speed_up=1.0)
    assert verdicts(outcomes(operators=killed))[SPEED] == 'missed'


def test_reasons_for_what_was_not_measured():
    reason = "backend 'mamba_ssm' cannot run: mamba-ssm is not installed"
    records = [r for r in operators() if r['implementation'] == OURS]
    records.insert(0, dict(operator='defocus_scan', implementation=CHAIN, obstacle=reason))
    goals = judge(outcomes(operators=passed(records=records)))
    assert [goal.verdict for goal in goals[:3]] == ['not measured', 'not measured', 'passed']
    assert goals[SPEED].measured == reason

    wrong = [r | dict(seconds=None, passes='') if r['implementation'] == OURS else r for r in operators()]
    goals = judge(outcomes(operators=passed(records=wrong)))
    assert [goal.verdict for goal in goals[:3]] == ['not measured'] * 3
    assert goals[EXP].measured == 'cuda differs from the reference'

    missing = Outcome('not measured', 'timm not installed')
    goals = judge(outcomes(networks=missing))
    assert (goals[TRAINING].verdict, goals[TRAINING].measured) == ('not measured', 'timm not installed')
    defect = [networks()[0], dict(network=networks()[1]['network'], parameters=9, defect='a loss that is not finite')]
    goals = judge(outcomes(networks=Outcome('failed', 'status 1', dict(records=defect))))
    assert goals[INFERENCE].measured == 'timm:deit_base_patch16_224 has a loss that is not finite'


def test_times_that_contain_launches_are_named():
    records = [r | dict(host_bound=r['implementation'] == CHAIN) for r in operators()]
    assert '(64, 197, forward, with launches) 3.00 x' in judge(outcomes(operators=passed(records=records)))[0].measured


def test_speed_ups_of_all_pairs():
    records = [
        scan((2, 5), 'triton', PASSES[0], 1.0, operator='bandpass_attention'),
        scan((2, 5), 'fla', PASSES[0], 4.0, operator='bandpass_attention'),
        scan((2, 5), 'fla', PASSES[1], 4.0, operator='bandpass_attention'),
        scan((2, 5), 'chunkwise', PASSES[0], 3.0, operator='retention'),
        scan((2, 5), 'fla', PASSES[0], None, operator='retention'),
        dict(operator='mixer', implementation='cuda', obstacle='none'),
    ]
    assert speed_ups(records) == {'bandpass_attention: triton against fla': {'2, 5, forward': 4.0}}


def full():
    """Return outcomes with something of everything."""
    skipped = {'test_scan::test_equals_mamba_ssm': 'could not import\nmamba_ssm | at all'}
    tests = Outcome(
        'failed', '3 passed', dict(passed=3, failed=['test_scan::test_a'], skipped=skipped), 9.0, DATE, COMMIT
    )
    ran = dict(ran=['defocus_scan cuda (2, 33) torch.float32'], not_finite=['x'], obstacles=["mixer: backend 'cuda' …"])
    obstacle = dict(operator='retention', implementation='fla', obstacle='fla is not installed')
    return outcomes(
        machine=passed('NVIDIA H200, torch 2.11.0', lines={'load': '0.1', 'GPU state': 'clocks.sm 1980 MHz'}),
        tests=tests,
        memcheck=passed('0 errors', **ran),
        operators=passed(records=[*operators(), obstacle]),
        classifier=passed(
            'loss 7 → 2',
            losses=[7.0 / (1 + step / 20) for step in range(200)],
            config='defocus_mamba_base',
            batch=64,
            side=224,
            images_per_second=1000.0,
            peak_bytes=2e10,
        ),
        detector=Outcome(
            'failed',
            'the loss of step 2 is not finite',
            dict(
                losses=[90.0, 80.0, None], config='defocus_mamba_base_12ep', batch=2, side=1024,
                images_per_second=5.0, peak_bytes=None,
            ),
            9.0,
            DATE,
            COMMIT,
        ),
        profile=passed('layer 1', total=200.0, rows=[dict(kernel='scan_kernel<a | b>', calls=1.0, microseconds=150.0)]),
    )  # fmt: skip


def test_page_has_all_results(tmp_path):
    found = full()
    plots = draw(found, tmp_path)
    write_page(tmp_path / 'report.md', stages(None, None), found, judge(found), plots)
    page = (tmp_path / 'report.md').read_text()
    assert page.startswith('# GPU report, 2030-01-31\n\nNVIDIA H200, torch 2.11.0. Commit abc. Stages: ')
    assert conclusion(found, judge(found)) in page
    assert conclusion(found, judge(found)).startswith('Stages: 9 passed, 2 failed, 0 not measured. Goals: 5 passed, 0')
    assert '### Failed tests\n\n- `test_scan::test_a`' in page
    assert '- `test_scan::test_equals_mamba_ssm`: could not import mamba_ssm \\| at all' in page
    for part in (
        'Ran: defocus_scan cuda (2, 33) torch.float32.',
        '- not finite: x',
        "- cannot run: mixer: backend 'cuda' …",
        '- `retention`, `fla`: fla is not installed',
        '| defocus_scan: cuda against chain on mamba_ssm | 64, 197, forward ',
        '| defocus_mamba_base | 2200 | 1.00 | 1100 | 9.00 |',
        '| defocus_mamba_base | 64 x 224² | 1000 | 20.00 | loss 7 → 2 |',
        '| `scan_kernel<a \\| b>` | 1 | 150.0 | 75.0% |',
        '- GPU state: clocks.sm 1980 MHz',
    ):
        assert part in re.sub(' +', ' ', page), part
    assert [path.name for path in plots] == ['operators.png', 'networks.png', 'training.png']
    for path in plots:
        assert f'({path.name})' in page
        assert path.read_bytes().startswith(b'\x89PNG')


def test_nothing_is_drawn_of_what_was_not_measured(tmp_path):
    nothing = {name: Outcome('not measured', 'no reason') for name in outcomes()}
    (tmp_path / 'networks.png').write_text('of an earlier run')
    assert draw(nothing, tmp_path) == []
    assert not list(tmp_path.iterdir())
    write_page(tmp_path / 'report.md', stages(None, None), nothing, judge(nothing), [])
    assert 'Goals: 0 passed, 0 missed, 5 not measured.' in (tmp_path / 'report.md').read_text()
