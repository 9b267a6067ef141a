"""Test and measure mmdefocus on a GPU: one dated report with plots and a verdict for each goal.

    make gpu-report OUT=build/gpu-report                                  # all stages, at most 35 minutes
    make gpu-report OUT=build/gpu-report WHEELS=wheels                    # with the OpenMMLab packages from a folder
    make gpu-report OUT=build/gpu-report STAGES="operators networks"      # these, with earlier results of the others

A stage that fails, or that is killed at its time limit, does not stop the next ones. Ends with status 1 if a stage
failed or a goal was missed; what could not be measured is listed with the reason. Run nothing else on the machine
meanwhile. docs/gpu-report.md explains the report.
"""

import argparse
import datetime
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from gpu_report_parts.goals import judge
from gpu_report_parts.machine_facts import commit
from gpu_report_parts.outcomes import Finding, Outcome, load_outcome
from gpu_report_parts.page import conclusion, write_page
from gpu_report_parts.plots import draw
from gpu_report_parts.running import run_limited
from gpu_report_parts.stages import Stage, stages

from mmdefocus.ops.backends import ENVIRONMENT_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ROOT / 'build' / 'gpu-report-packages'


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[Stage]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True, metavar='FOLDER', help='report, plots, logs and results')
    parser.add_argument('--wheels', type=Path, metavar='FOLDER', help='wheels to install for the report alone')
    parser.add_argument('--stages', nargs='+', metavar='NAME', help='only these; earlier results of the others count')
    arguments = parser.parse_args(argv)
    if arguments.wheels is not None and not any(arguments.wheels.glob('*.whl')):
        parser.error(f"--wheels: there are no wheels in '{arguments.wheels}'")
    if ENVIRONMENT_VARIABLE in os.environ:
        parser.error(f'unset {ENVIRONMENT_VARIABLE}: the report compares the backends')
    known = stages(arguments.wheels, PACKAGES)
    names = [stage.name for stage in known]
    unknown = set(arguments.stages or ()) - set(names)
    if unknown:
        parser.error(f'--stages: expected some of {", ".join(names)}, got {", ".join(sorted(unknown))}')
    if not torch.cuda.is_available():
        parser.error('torch finds no CUDA GPU on this machine')
    arguments.stages = arguments.stages or names
    arguments.out = arguments.out.resolve()
    return arguments, known


def environment() -> dict[str, str]:
    """Return the environment of the stages: Python finds this checkout, its tools and the installed wheels."""
    paths = (str(ROOT), str(ROOT / 'tools'), str(PACKAGES), os.environ.get('PYTHONPATH'))
    toolkit = Path(os.environ.get('CUDA_HOME', '/usr/local/cuda'), 'bin')  # often not on the PATH
    programs = (str(Path(sys.executable).parent), os.environ.get('PATH'), str(toolkit))
    places = {'PYTHONPATH': paths, 'PATH': programs}
    return {**os.environ, **{name: os.pathsep.join(filter(None, folders)) for name, folders in places.items()}}


def run_stage(stage: Stage, out: Path, label: str, revision: str, variables: Mapping[str, str]) -> Outcome:
    """Run a stage, save its outcome and print how it goes."""
    folder, log = out / 'results' / stage.name, out / 'logs' / f'{stage.name}.log'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log.unlink(missing_ok=True)
    started = datetime.datetime.now().isoformat(' ', 'seconds')
    begin = time.monotonic()
    obstacle = stage.obstacle(variables)
    if obstacle is not None:
        finding = Finding('not measured', obstacle)
    else:
        print(f'{label}: {stage.title}, at most {stage.limit} s', flush=True)
        status = run_limited(
            stage.command(folder),
            log,
            stage.limit,
            {**variables, **stage.environment},
            ROOT,
            lambda elapsed: print(f'{label}: {elapsed:.0f} s of {stage.limit} s', flush=True),
        )
        finding = read(stage, folder, log, status)
    seconds = time.monotonic() - begin
    outcome = Outcome(finding.status, finding.reason, finding.facts, seconds, started, revision)
    outcome.save(folder)
    print(': '.join(filter(None, (label, f'{outcome.status} after {seconds:.0f} s', outcome.reason))), flush=True)
    return outcome


def read(stage: Stage, folder: Path, log: Path, status: int | None) -> Finding:
    """Read what a stage has left; of one that was killed, what it had measured."""
    try:
        finding = stage.read(folder, log.read_text(encoding='utf-8', errors='replace'), 1 if status is None else status)
    except (OSError, ValueError, LookupError, TypeError, SyntaxError) as error:
        finding = Finding('failed', f'its results cannot be read: {type(error).__name__}: {error}; status {status}')
    if status is None:
        return Finding('failed', f'it ran into its limit of {stage.limit} s and was killed', finding.facts)
    return finding


def plots(outcomes: Mapping[str, Outcome], out: Path) -> list[Path]:
    """Draw the plots; without matplotlib, say so: the report is worth more than its plots."""
    sys.path.append(str(PACKAGES))
    if importlib.util.find_spec('matplotlib') is None:
        print('no plots: matplotlib is not installed; install it and run a stage again')
        return []
    return draw(outcomes, out)


def main(argv: Sequence[str] | None = None) -> int:
    arguments, known = parse_arguments(argv)
    out, revision = arguments.out, commit()
    # `timeout` and batch systems end programs by SIGTERM, which would leave the stage running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcomes = {stage.name: load_outcome(out / 'results' / stage.name, revision) for stage in known}
    variables = environment()
    try:
        for number, stage in enumerate(known, 1):
            if stage.name in arguments.stages:
                outcomes[stage.name] = run_stage(
                    stage, out, f'[{number}/{len(known)}] {stage.name}', revision, variables
                )
    finally:
        goals = judge(outcomes)
        write_page(out / 'report.md', known, outcomes, goals, plots(outcomes, out))
        for goal in goals:
            print(f'{goal.verdict}: {goal.name}: {goal.measured}')
        print(f'{conclusion(outcomes, goals)}\n{out / "report.md"}', flush=True)
    failed = any(outcome.status == 'failed' for outcome in outcomes.values())
    return int(failed or any(goal.verdict == 'missed' for goal in goals))


if __name__ == '__main__':
    sys.exit(main())
