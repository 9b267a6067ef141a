"""Stages of the GPU report with stand-ins: they hang, fail, print nonsense, miss packages; the report comes out."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gpu_report
import pytest
import torch
from commands import TOOLS, tool
from gpu_report_parts.goals import Goal
from gpu_report_parts.outcomes import Finding, Outcome, load_outcome
from gpu_report_parts.readers import read_facts, read_status
from gpu_report_parts.running import run_limited
from gpu_report_parts.stages import Stage, stages

ROOT = TOOLS.parent
NOTHING_RAN = Outcome('not measured', 'the stage has not run')


def python(code: str) -> list[str]:
    return [sys.executable, '-c', code]


def run(command: list[str], tmp_path: Path, limit: float = 60.0, reports: list | None = None) -> tuple[int | None, str]:
    log = tmp_path / 'logs' / 'stage.log'
    status = run_limited(command, log, limit, os.environ, tmp_path, (reports or []).append, interval=0.2)
    return status, log.read_text()


def alive(number: int) -> bool:
    state = Path(f'/proc/{number}/stat')
    return state.exists() and state.read_text().rpartition(')')[2].split()[0] != 'Z'


def test_output_status_and_signals(tmp_path):
    talks = python('import sys; print("out"); print("err", file=sys.stderr); sys.exit(3)')
    status, log = run(talks, tmp_path)
    assert (status, sorted(log.split())) == (3, ['err', 'out'])
    assert run(python('import os; os.kill(os.getpid(), 9)'), tmp_path)[0] == -9
    assert run(python('import sys; print(repr(sys.stdin.read()))'), tmp_path) == (0, "''\n")


STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'
child = subprocess.Popen([sys.executable, '-c', code])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def test_a_stage_that_hangs_is_killed_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr('gpu_report_parts.running.GRACE', 0.5)
    reports: list[float] = []
    log = tmp_path / 'stage.log'
    start = time.monotonic()
    assert run_limited(python(STUBBORN), log, 3.0, os.environ, tmp_path, reports.append, interval=0.5) is None
    assert time.monotonic() - start < 10
    assert reports == sorted(reports)
    assert len(reports) >= 3
    numbers = [int(word) for word in log.read_text().split()]
    assert len(numbers) == 2
    deadline = time.monotonic() + 5
    while any(map(alive, numbers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, numbers))


def test_children_that_a_stage_leaves_behind_are_killed(tmp_path):
    leaves = (
        'import subprocess, sys; print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)'
    )
    status, log = run(python(leaves), tmp_path)
    assert status == 0
    deadline = time.monotonic() + 5
    while alive(int(log)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(int(log))


def stand_in(name: str, code: str, limit: int = 60, read=read_facts, **options) -> Stage:
    return Stage(name, f'stand-in {name}', limit, lambda folder: [*python(code), str(folder)], read, **options)


WRITES = 'import sys; open(sys.argv[1] + "/facts.json", "w").write({text!r})'
GOOD = stand_in('machine', WRITES.format(text=json.dumps(dict(summary='a GPU', lines={'load': '0.1'}))))
STAND_INS = [
    GOOD,
    stand_in('build', 'print("cannot compile"); raise SystemExit(7)', read=read_status),
    stand_in('tests', 'import time; print("waiting", flush=True); time.sleep(600)', limit=1),
    stand_in('memcheck', WRITES.format(text='no JSON')),
    stand_in('racecheck', 'print("nothing written")'),
    stand_in('synccheck', '', program='no-such-program'),
    stand_in('operators', '', modules=('no_such_module', 'json')),
    stand_in('networks', 'raise ValueError("too small")'),
    stand_in('classifier', WRITES.format(text='[1, 2]')),
    stand_in('detector', WRITES.format(text='{}')),
    stand_in('profile', WRITES.format(text='{"rows": []}')),
]


@pytest.fixture
def report(monkeypatch, tmp_path):
    """Return a function that runs the report with stand-ins for stages and GPU."""
    monkeypatch.delenv('MMDEFOCUS_BACKEND', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(gpu_report, 'commit', lambda: 'abc')
    before = signal.getsignal(signal.SIGTERM)

    def run(replaced: list[Stage], *options: str) -> tuple[int, Path]:
        monkeypatch.setattr(gpu_report, 'stages', lambda *_: replaced)
        return gpu_report.main(['--out', str(tmp_path / 'out'), *options]), tmp_path / 'out'

    yield run
    signal.signal(signal.SIGTERM, before)


def rows(page: str, section: str) -> list[list[str]]:
    lines = page.partition(f'## {section}\n')[2].partition('\n## ')[0].splitlines()
    return [[cell.strip() for cell in line.strip('| ').split(' | ')] for line in lines if line.startswith('|')][2:]


def test_stages_that_fail_do_not_stop_the_next_ones(report, capsys):
    status, out = report(STAND_INS)
    assert status == 1
    page = (out / 'report.md').read_text()
    found = {row[0].partition(':')[0]: (row[1], row[4]) for row in rows(page, 'Stages')}
    assert list(found) == [stage.name for stage in STAND_INS]
    assert found['machine'] == ('passed', 'a GPU')
    assert found['build'] == ('failed', 'status 7: cannot compile')
    assert found['tests'] == ('failed', 'it ran into its limit of 1 s and was killed')
    assert found['memcheck'][0] == 'failed'
    assert found['memcheck'][1].startswith('its results cannot be read: JSONDecodeError: ')
    assert found['racecheck'][0] == 'failed'
    assert found['racecheck'][1].startswith('its results cannot be read: FileNotFoundError: ')
    missing = 'no-such-program is not on the PATH; it is a part of the CUDA toolkit'
    assert found['synccheck'] == ('not measured', missing)
    assert found['operators'][0] == 'not measured'
    assert found['operators'][1].startswith('no_such_module not installed; install the packages')
    assert found['networks'] == ('failed', 'status 1: ValueError: too small')
    assert found['classifier'][0] == 'failed'
    assert [found[name][0] for name in ('detector', 'profile')] == ['passed'] * 2
    assert 'Stages: 3 passed, 6 failed, 2 not measured. Goals: 0 passed, 0 missed, 5 not measured.' in page
    assert page.startswith(f'# GPU report, {time.strftime("%Y-")}')
    assert (out / 'logs' / 'tests.log').read_text() == 'waiting\n'
    assert not (out / 'logs' / 'operators.log').exists()

    printed = capsys.readouterr().out
    assert '[3/11] tests: stand-in tests, at most 1 s\n' in printed
    assert '[3/11] tests: failed after 1 s: it ran into its limit of 1 s and was killed\n' in printed
    assert '[7/11] operators: not measured after 0 s: no_such_module not installed' in printed
    assert f'\n{out / "report.md"}\n' in printed


def all_good() -> list[Stage]:
    empty = dict.fromkeys(('ran', 'not_finite', 'obstacles'), ()) | dict(losses=[], records=[])
    return [stand_in(stage.name, WRITES.format(text=json.dumps(empty))) for stage in STAND_INS]


def test_status_is_zero_if_nothing_failed_and_no_goal_was_missed(report, monkeypatch):
    assert report(all_good())[0] == 0
    monkeypatch.setattr(gpu_report, 'judge', lambda outcomes: [Goal('be quick', 'missed', '0.5 x')])
    status, out = report(all_good())
    assert status == 1
    assert rows((out / 'report.md').read_text(), 'Goals') == [['be quick', 'missed', '0.5 x']]


def test_some_stages_again_with_the_earlier_results_of_the_others(report, monkeypatch, capsys):
    _, out = report(all_good())
    again = [*all_good()[:-1], STAND_INS[1]]
    capsys.readouterr()
    assert report([*all_good()[:1], *STAND_INS[1:2], *all_good()[2:]], '--stages', 'build')[0] == 1
    printed = capsys.readouterr().out
    assert '[2/11] build: failed' in printed
    assert '[1/11]' not in printed
    assert 'Stages: 10 passed, 1 failed, 0 not measured.' in printed
    monkeypatch.setattr(gpu_report, 'commit', lambda: 'def-dirty')
    assert report(again[:-1] + all_good()[-1:], '--stages', 'build')[0] == 0
    found = {row[0].partition(':')[0]: (row[1], row[4]) for row in rows((out / 'report.md').read_text(), 'Stages')}
    assert found['build'] == ('passed', '')
    assert found['tests'] == ('not measured', 'it ran on abc, this is def-dirty; run the stage again')


def test_a_stage_that_is_killed_keeps_what_it_measured(report):
    changed = all_good()

    def read(folder, log, status):
        assert status == 1
        return Finding('failed', '', {'records': [dict(operator='x', implementation='y', obstacle='z')]})

    changed[6] = stand_in('operators', 'import time; time.sleep(600)', limit=2, read=read)
    _, out = report(changed)
    outcome = load_outcome(out / 'results' / 'operators', 'abc')
    assert outcome.reason == 'it ran into its limit of 2 s and was killed'
    assert outcome.facts['records'][0]['obstacle'] == 'z'
    assert '- `x`, `y`: z' in (out / 'report.md').read_text()


def test_ctrl_c_ends_the_stage_and_writes_the_report(tmp_path):
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(TOOLS)]!r}
import gpu_report, test_gpu_report_running as tests, torch
torch.cuda.is_available = lambda: True
hangs = tests.stand_in('build', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)')
gpu_report.stages = lambda *_: [tests.GOOD, hangs, *tests.all_good()[2:]]
sys.exit(gpu_report.main(['--out', {str(tmp_path / 'out')!r}]))
"""
    environment = {name: value for name, value in os.environ.items() if name != 'MMDEFOCUS_BACKEND'}
    process = subprocess.Popen(python(program), env=environment, stderr=subprocess.DEVNULL)
    log = tmp_path / 'out' / 'logs' / 'build.log'
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not alive(int(log.read_text()))
    found = {row[0].partition(':')[0]: row[1] for row in rows((tmp_path / 'out' / 'report.md').read_text(), 'Stages')}
    assert (found['machine'], found['build']) == ('passed', 'not measured')


def test_report_without_matplotlib(report, monkeypatch, capsys):
    monkeypatch.setattr(gpu_report.importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setattr(gpu_report, 'draw', None)
    status, out = report(all_good())
    assert status == 0
    assert '\nno plots: matplotlib is not installed' in capsys.readouterr().out
    assert (out / 'report.md').exists()


def test_outcomes_are_read_back(tmp_path):
    outcome = Outcome('failed', 'why', {'losses': [1.0, None]}, 1.5, '2030-01-31 12:00:00', 'abc')
    outcome.save(tmp_path)
    assert load_outcome(tmp_path, 'abc') == outcome
    assert load_outcome(tmp_path / 'none', 'abc') == NOTHING_RAN


def test_commands_of_the_stages(tmp_path):
    """What they name exists, and all limits together are 35 minutes at most."""
    found = stages(None, tmp_path)
    assert sum(stage.limit for stage in stages(tmp_path, tmp_path)) <= 35 * 60
    assert max(stage.limit for stage in found) < 600
    for stage in found:
        command = stage.command(tmp_path)
        for word in command[1:]:
            if word.endswith('.py') or word.startswith('tests/'):
                assert (ROOT / word).exists(), word
            if word.startswith('gpu_report_parts.'):
                assert (TOOLS / f'{word.replace(".", "/")}.py').exists(), word
    (tmp_path / 'a.whl').touch()
    first, *_ = stages(tmp_path, tmp_path / 'packages')
    assert first.command(tmp_path)[-2:] == [str(tmp_path / 'packages'), str(tmp_path / 'a.whl')]
    installed = {**os.environ, 'PYTHONPATH': str(tmp_path / 'packages')}
    assert next(stage for stage in found if stage.name == 'networks').obstacle(installed) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason='this machine has a GPU')
def test_without_a_gpu(tmp_path):
    assert 'torch finds no CUDA GPU on this machine' in tool(tmp_path, 'gpu_report.py', '--out', 'report', code=2)
    words = ['make', 'gpu-report', f'PYTHON_FOR_GPU={sys.executable}', f'OUT={tmp_path / "report"}']
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'make gpu-report: torch finds no CUDA GPU on this machine' in done.stderr
    assert not (tmp_path / 'report').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--stages', 'test'], '--stages: expected some of machine, build, tests, '),
        (['--wheels', '/none'], "--wheels: there are no wheels in '/none'"),
    ],
)
def test_wrong_options(monkeypatch, capsys, options, message):
    monkeypatch.delenv('MMDEFOCUS_BACKEND', raising=False)
    with pytest.raises(SystemExit, match='2'):
        gpu_report.main(['--out', 'report', *options])
    assert message in capsys.readouterr().err


def test_a_forced_backend_is_rejected(monkeypatch, capsys):
    monkeypatch.setenv('MMDEFOCUS_BACKEND', 'reference')
    with pytest.raises(SystemExit, match='2'):
        gpu_report.main(['--out', 'report'])
    assert 'unset MMDEFOCUS_BACKEND: the report compares the backends' in capsys.readouterr().err
