"""The environment: installed versions, compilers and usable operator backends. Needs torch alone."""

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess

import torch

import mmdefocus
from mmdefocus.ops.backends import available_backends

# Import name → names of the distributions that provide it, in the order of the search.
PACKAGES = {
    'torchvision': ('torchvision',),
    'numpy': ('numpy',),
    'triton': ('triton',),
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmcv._ext': (),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'supervision': ('supervision',),
    'faster_coco_eval': ('faster-coco-eval',),
}


def describe_package(module: str, distributions: tuple[str, ...]) -> str:
    """Return version and distribution of a module, or the reason why its import fails."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        return 'not installed' if module.startswith(missing) else f'does not import: {error}'
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything, and the report must continue
        return f'does not import: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    for name in distributions:
        try:
            return f'{importlib.metadata.version(name)} ({name})'
        except importlib.metadata.PackageNotFoundError:
            continue
    return 'loads' if not distributions else 'unknown version'


def describe_command(command: list[str]) -> str:
    """Return the version line of a compiler, or the message that it is missing."""
    if shutil.which(command[0]) is None:
        return f'{command[0]!r} not found'
    result = subprocess.run([*command, '--version'], capture_output=True, text=True, check=False)
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    return next(
        (line for line in lines if 'release' in line), lines[0] if lines else f'exit status {result.returncode}'
    )


def describe_cuda() -> str:
    """Return the CUDA version of torch and the visible GPUs."""
    if torch.version.cuda is None:
        return 'torch is built without CUDA'
    if not torch.cuda.is_available():
        return f'torch is built for CUDA {torch.version.cuda}; no usable GPU'
    names = ', '.join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return f'torch is built for CUDA {torch.version.cuda}; {names}'


def describe_environment() -> dict[str, str | dict[str, str]]:
    """Return versions, compilers and GPUs by name; ``operator backends`` says which of them can run, or why not."""
    backends = available_backends().items()
    return {
        'mmdefocus': mmdefocus.__version__,
        'python': f'{platform.python_version()} ({platform.platform()})',
        'torch': f'{torch.__version__}, {torch.get_num_threads()} threads',
        **{module: describe_package(module, names) for module, names in PACKAGES.items()},
        'CUDA': describe_cuda(),
        'C++ compiler': describe_command(os.environ.get('CXX', 'c++').split()),
        'CUDA compiler': describe_command(['nvcc']),
        'operator backends': {
            name: 'can run' if reason is None else f'cannot run: {reason}' for name, reason in backends
        },
    }


def environment_as_text() -> str:
    """Return the environment as a table."""
    lines = []
    for name, value in describe_environment().items():
        if isinstance(value, dict):
            lines += ['', name, *(f'  {key:<12} {text}' for key, text in value.items())]
        else:
            lines.append(f'{name:<18} {value}')
    return '\n'.join(lines)
