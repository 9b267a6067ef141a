"""Read what the stages of the GPU report leave: JUnit files, logs of compute-sanitizer, JSON of our own programs.

A reader gets the folder of the stage, the text of its log and its exit status.
"""

import json
import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarking import json_lines

from .outcomes import Finding

SANITIZER_STATUS = 99  # of compute-sanitizer if it found errors
SANITIZER_COMPLAINT = re.compile('=+ (Invalid|Error|Warning|Program hit|Barrier|Race)')
NO_DEVICE_SUPPORT = 'Device not supported'
WINDOW = 0.1  # share of the training steps that the first and the last loss are the mean of


def read_status(folder: Path, log: str, status: int) -> Finding:
    """Judge by the exit status alone."""
    return Finding('passed') if status == 0 else Finding('failed', f'status {status}: {last_line(log)}')


def read_facts(folder: Path, log: str, status: int) -> Finding:
    """Read ``facts.json`` of one of our programs."""
    if status:
        return read_status(folder, log, status)
    facts = json.loads((folder / 'facts.json').read_text(encoding='utf-8'))
    return Finding('passed', facts.pop('summary', ''), facts)


def read_tests(folder: Path, log: str, status: int) -> Finding:
    """Count the tests in ``junit.xml``; skipped tests are none that passed."""
    path = folder / 'junit.xml'
    if not path.exists():
        return Finding('failed', f'pytest wrote no results; status {status}: {last_line(log)}')
    failed, skipped, passed = [], {}, 0
    for case in ElementTree.parse(path).iter('testcase'):
        name = f'{case.get("classname")}::{case.get("name")}'
        skip = case.find('skipped')
        if case.find('failure') is not None or case.find('error') is not None:
            failed.append(name)
        elif skip is not None:
            skipped[name] = skip.get('message', '')
        else:
            passed += 1
    facts = dict(passed=passed, failed=failed, skipped=skipped)
    counts = f'{passed} passed, {len(failed)} failed, {len(skipped)} skipped'
    if failed or status or not passed:
        return Finding('failed', f'{counts}; status {status}', facts)
    return Finding('passed', counts, facts)


def read_sanitizer(folder: Path, log: str, status: int) -> Finding:
    """Read the summary of compute-sanitizer; without one, nothing has been checked."""
    if NO_DEVICE_SUPPORT in log:
        return Finding('not measured', f'compute-sanitizer says "{NO_DEVICE_SUPPORT}": it cannot watch this GPU')
    errors = [int(number) for number in re.findall(r'ERROR SUMMARY: (\d+) error', log)]
    errors += [int(number) for number in re.findall(r'RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) error', log)]
    summary = f'{sum(errors)} errors' if errors else 'no error summary'
    facts_file = folder / 'facts.json'
    facts = json.loads(facts_file.read_text(encoding='utf-8')) if facts_file.exists() else {}
    if status or not errors or sum(errors) or not facts.get('ran'):
        first = next((line for line in log.splitlines() if SANITIZER_COMPLAINT.match(line)), '')
        return Finding('failed', f'{summary}; status {status}: {first or last_line(log)}', facts)
    return Finding('passed', f'{summary} in {len(facts["ran"])} runs of operators', facts)


def read_operators(folder: Path, log: str, status: int) -> Finding:
    """Read the measurements of tools/benchmark_ops.py."""
    header, *records = json_lines.read(folder / 'operators.jsonl') or [{}]
    timed = [record for record in records if record.get('seconds')]
    facts = dict(header=header, records=records)
    if status or not timed:
        return Finding('failed', f'{len(timed)} times; status {status}: {last_line(log)}', facts)
    return Finding('passed', f'{len(timed)} times', facts)


def read_networks(folder: Path, log: str, status: int) -> Finding:
    """Read the measurements of tools/benchmark.py."""
    header, *records = json_lines.read(folder / 'networks.jsonl') or [{}]
    facts = dict(header=header, records=records)
    if status or not records:
        return Finding('failed', f'{len(records)} networks; status {status}: {last_line(log)}', facts)
    return Finding('passed', f'{len(records)} networks', facts)


def read_training(folder: Path, log: str, status: int) -> Finding:
    """Read the losses of a training, which must be finite and fall."""
    found = read_facts(folder, log, status)
    if found.status != 'passed':
        return found
    losses = found.facts['losses']
    wrong = next((step for step, loss in enumerate(losses) if loss is None or not math.isfinite(loss)), None)
    if wrong is not None:
        return Finding('failed', f'the loss of step {wrong} is not finite', found.facts)
    window = max(1, round(len(losses) * WINDOW))
    first, last = (sum(part) / window for part in (losses[:window], losses[-window:]))
    said = f'loss {first:.3g} → {last:.3g} in {len(losses)} steps, {found.facts["images_per_second"]:.3g} images/s'
    if not last < first:
        return Finding('failed', f'the loss does not fall: {said}', found.facts)
    return Finding('passed', said, found.facts)


def last_line(log: str) -> str:
    """Return the last line of a log that says something, in at most 200 characters."""
    lines = [line.strip() for line in log.splitlines() if line.strip(' =')]
    return lines[-1][:200] if lines else 'no output'
