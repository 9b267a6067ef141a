"""What the stages of the GPU report leave is read as it is meant: failures, skips, summaries, nonsense."""

import json

import pytest
from gpu_report_parts import readers
from gpu_report_parts.readers import SANITIZER_STATUS

CASE = '<testcase classname="gpu.test_scan" name="{}">{}</testcase>'
SKIPPED = CASE.format('test_c[1]', '<skipped type="pytest.skip" message="needs a GPU with 60 GB">x.py:1</skipped>')
MEMCHECK = '========= COMPUTE-SANITIZER\ndefocus_scan cuda\n{}========= ERROR SUMMARY: {} error{}\n'
INVALID = '========= Invalid __global__ read of size 4 bytes\n=========     at scan_kernel+0x80\n'
RACES = '========= RACECHECK SUMMARY: {} hazards displayed ({} errors, {} warnings)\n'


def junit(folder, *cases):
    (folder / 'junit.xml').write_text(f'<testsuites><testsuite>{"".join(cases)}</testsuite></testsuites>')


def test_tests_that_passed_and_were_skipped(tmp_path):
    junit(tmp_path, CASE.format('test_a', ''), CASE.format('test_b', ''), SKIPPED)
    found = readers.read_tests(tmp_path, '', 0)
    assert (found.status, found.reason) == ('passed', '2 passed, 0 failed, 1 skipped')
    assert found.facts['skipped'] == {'gpu.test_scan::test_c[1]': 'needs a GPU with 60 GB'}


@pytest.mark.parametrize('kind', ['failure', 'error'])
def test_tests_that_failed(tmp_path, kind):
    junit(tmp_path, CASE.format('test_a', ''), CASE.format('test_b', f'<{kind} message="no">…</{kind}>'))
    found = readers.read_tests(tmp_path, '', 1)
    assert (found.status, found.reason) == ('failed', '1 passed, 1 failed, 0 skipped; status 1')
    assert found.facts['failed'] == ['gpu.test_scan::test_b']
    assert readers.read_tests(tmp_path, '', 0).status == 'failed'


def test_skipped_tests_alone_are_no_success(tmp_path):
    junit(tmp_path, SKIPPED)
    assert readers.read_tests(tmp_path, '', 0).status == 'failed'
    junit(tmp_path)
    assert readers.read_tests(tmp_path, '', 5).status == 'failed'


def test_a_test_run_that_broke_off(tmp_path):
    found = readers.read_tests(tmp_path, 'collecting\nSegmentation fault\n', -11)
    assert (found.status, found.reason) == ('failed', 'pytest wrote no results; status -11: Segmentation fault')


@pytest.fixture
def ran(tmp_path):
    (tmp_path / 'facts.json').write_text(json.dumps(dict(ran=['a', 'b'], not_finite=[], obstacles=[])))
    return tmp_path


@pytest.mark.parametrize('log', [MEMCHECK.format('', 0, 's'), RACES.format(0, 0, 0)])
def test_a_clean_sanitizer(ran, log):
    found = readers.read_sanitizer(ran, log, 0)
    assert (found.status, found.reason) == ('passed', '0 errors in 2 runs of operators')
    assert found.facts['ran'] == ['a', 'b']


@pytest.mark.parametrize(
    ('log', 'status', 'reason'),
    [
        (MEMCHECK.format(INVALID, 3, 's'), SANITIZER_STATUS, '3 errors; status 99: ========= Invalid __global__ read'),
        (MEMCHECK.format(INVALID, 1, ''), 0, '1 errors; status 0: ========= Invalid __global__ read of size 4 bytes'),
        (RACES.format(2, 1, 1), 0, '1 errors; status 0: ========= RACECHECK SUMMARY: 2 hazards'),
        (MEMCHECK.format('', 0, 's') + 'ValueError: no\n', 1, '0 errors; status 1: ValueError: no'),
        ('RuntimeError: no kernel\n', 1, 'no error summary; status 1: RuntimeError: no kernel'),
        ('all is well\n', 0, 'no error summary; status 0: all is well'),
        ('', 0, 'no error summary; status 0: no output'),
    ],
)
def test_a_sanitizer_that_complains_or_says_nothing(ran, log, status, reason):
    found = readers.read_sanitizer(ran, log, status)
    assert found.status == 'failed'
    assert found.reason.startswith(reason)


def test_a_sanitizer_that_watched_nothing(tmp_path):
    assert readers.read_sanitizer(tmp_path, MEMCHECK.format('', 0, 's'), 0).status == 'failed'
    (tmp_path / 'facts.json').write_text(json.dumps(dict(ran=[], not_finite=[], obstacles=['no'])))
    assert readers.read_sanitizer(tmp_path, MEMCHECK.format('', 0, 's'), 0).status == 'failed'


def test_a_sanitizer_that_refuses_the_gpu(tmp_path):
    found = readers.read_sanitizer(tmp_path, '========= Error: Device not supported\n', 1)
    assert found.status == 'not measured'
    assert 'Device not supported' in found.reason


@pytest.mark.parametrize(('read', 'name'), [(readers.read_operators, 'operators'), (readers.read_networks, 'networks')])
def test_measurements(tmp_path, read, name):
    assert read(tmp_path, 'out of memory\n', 1).status == 'failed'
    assert read(tmp_path, '', 0).status == 'failed', 'nothing was measured'
    header, records = {'exp_rate': 1.0}, [{'operator': 'x', 'seconds': 1.0}, {'operator': 'x', 'obstacle': 'y'}]
    (tmp_path / f'{name}.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in [header, *records]))
    found = read(tmp_path, '', 0)
    assert found.status == 'passed'
    assert (found.facts['header'], found.facts['records']) == (header, records)
    late = read(tmp_path, 'reference differs\n', 1)
    assert late.status == 'failed'
    assert late.reason.endswith('status 1: reference differs')
    assert late.facts == found.facts


def trained(folder, losses):
    (folder / 'facts.json').write_text(json.dumps(dict(losses=losses, images_per_second=1234.5)))
    return readers.read_training(folder, '', 0)


def test_trainings(tmp_path):
    falling = [10.0 - step / 25 for step in range(200)]
    found = trained(tmp_path, falling)
    assert (found.status, found.reason) == ('passed', 'loss 9.62 → 2.42 in 200 steps, 1.23e+03 images/s')
    found = trained(tmp_path, falling[::-1])
    assert found.status == 'failed'
    assert found.reason.startswith('the loss does not fall: loss 2.42 → 9.62')
    assert trained(tmp_path, [3.0] * 20).status == 'failed'
    found = trained(tmp_path, [*falling[:50], None, *falling[50:]])
    assert (found.status, found.reason) == ('failed', 'the loss of step 50 is not finite')
    assert readers.read_training(tmp_path, 'OutOfMemoryError: no\n', 1).reason == 'status 1: OutOfMemoryError: no'


def test_facts_of_our_programs(tmp_path):
    (tmp_path / 'facts.json').write_text('{"summary": "done", "rows": [1]}')
    found = readers.read_facts(tmp_path, '', 0)
    assert (found.status, found.reason, found.facts) == ('passed', 'done', {'rows': [1]})
    assert readers.read_facts(tmp_path, '===\nx' + 300 * 'y', 2).reason == f'status 2: x{199 * "y"}'
