"""The stages of the GPU report: their commands, time limits and readers."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from pathlib import Path

from .outcomes import Finding
from .readers import (
    SANITIZER_STATUS,
    read_facts,
    read_networks,
    read_operators,
    read_sanitizer,
    read_status,
    read_tests,
    read_training,
)

# Modules by import name. With them, the classifiers and detectors can be built.
OPENMMLAB = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')
SHAPES = ((64, 197), (16, 577), (2, 4705))
PYTHON = (sys.executable, '-u')


@dataclass(frozen=True)
class Stage:
    """A part of the report that one command measures.

    Attributes:
        name: Word that selects the stage, names its folder and its log.
        title: What it does.
        limit: Seconds after which it is killed.
        command: Function from the folder of its results to the command.
        read: Function from this folder, the log and the exit status to what they say.
        modules: Python modules that it imports.
        program: Program outside of Python that it runs.
        environment: Further environment variables.
    """

    name: str
    title: str
    limit: int
    command: Callable[[Path], list[str]]
    read: Callable[[Path, str, int], Finding] = read_facts
    modules: tuple[str, ...] = ()
    program: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def obstacle(self, variables: Mapping[str, str]) -> str | None:
        """Return the reason if something that the stage needs is missing, or None.

        Args:
            variables: Environment of the stage.
        """
        path = [*variables['PYTHONPATH'].split(os.pathsep), *sys.path]
        missing = [name for name in self.modules if PathFinder.find_spec(name, path) is None]
        if missing:
            remedy = 'install the packages (README), or name a folder of their wheels: WHEELS=…'
            return f'{", ".join(missing)} not installed; {remedy}'
        if self.program is not None and shutil.which(self.program, path=variables['PATH']) is None:
            return f'{self.program} is not on the PATH; it is a part of the CUDA toolkit'
        return None


def stages(wheels: Path | None, packages: Path) -> list[Stage]:
    """Return all stages in their order.

    Args:
        wheels: Folder with wheels to install, or None.
        packages: Folder to install them into.
    """
    return [
        *([_wheels(wheels, packages)] if wheels is not None else []),
        Stage('machine', 'machine and versions', 60, _program('machine_facts')),
        Stage(
            'build',
            'build the extension for this GPU',
            240,
            lambda folder: [*PYTHON, 'setup.py', 'build_ext', '--inplace'],
            read_status,
            environment={'FORCE_CUDA': '1'},
        ),
        Stage('tests', 'tests on the GPU', 460, _tests, read_tests, modules=('pytest',)),
        *(_sanitizer(tool, limit) for tool, limit in (('memcheck', 120), ('racecheck', 130), ('synccheck', 100))),
        Stage('operators', 'operators against alternatives', 440, _operators, read_operators),
        Stage(
            'networks',
            'networks against DeiT of timm',
            180,
            _networks,
            read_networks,
            modules=('timm', *OPENMMLAB),
        ),
        *(
            Stage(task, f'200 steps of the base {task}', limit, _program('training', task), read_training, OPENMMLAB)
            for task, limit in (('classifier', 90), ('detector', 160))
        ),
        Stage('profile', 'kernels of one layer', 60, _profile),
    ]


def _wheels(wheels: Path, packages: Path) -> Stage:
    def command(folder: Path) -> list[str]:
        shutil.rmtree(packages, ignore_errors=True)
        files = sorted(map(str, wheels.glob('*.whl')))
        options = ('--no-index', '--no-deps', '--no-compile', '--target', str(packages))
        return [*PYTHON, '-m', 'pip', 'install', *options, *files]

    return Stage('wheels', f'install the wheels of {wheels}', 60, command, read_status)


def _program(name: str, *words: str) -> Callable[[Path], list[str]]:
    return lambda folder: [*PYTHON, '-m', f'gpu_report_parts.{name}', *words, '--facts', str(folder / 'facts.json')]


def _tests(folder: Path) -> list[str]:
    return [*PYTHON, '-m', 'pytest', '-m', 'gpu', 'tests/test_ops/gpu', '--junitxml', str(folder / 'junit.xml')]


def _sanitizer(tool: str, limit: int) -> Stage:
    def command(folder: Path) -> list[str]:
        options = ('--tool', tool, '--error-exitcode', str(SANITIZER_STATUS))
        return ['compute-sanitizer', *options, *_program('small_operators')(folder)]

    # Without torch's cache, every tensor is an allocation of its own, whose bounds the tool knows.
    environment = {'PYTORCH_NO_CUDA_MEMORY_CACHING': '1'}
    title = f'compute-sanitizer {tool}'
    return Stage(tool, title, limit, command, read_sanitizer, program='compute-sanitizer', environment=environment)


def _operators(folder: Path) -> list[str]:
    shapes = [f'{batch},{length}' for batch, length in SHAPES]
    files = ('--json', str(folder / 'operators.jsonl'), '--out', str(folder / 'operators.md'))
    options = ('--device', 'cuda', '--dtypes', 'bfloat16', '--seconds', '0.1', '--cuda-graphs')
    return [*PYTHON, 'tools/benchmark_ops.py', *options, '--shapes', *shapes, *files]


def _networks(folder: Path) -> list[str]:
    files = ('--json', str(folder / 'networks.jsonl'), '--out', str(folder / 'networks.md'))
    return [*PYTHON, 'tools/benchmark.py', '--device', 'cuda', '--seconds', '2', *files]


def _profile(folder: Path) -> list[str]:
    return [*_program('layer_profile')(folder), '--trace', str(folder / 'trace.json.gz')]
