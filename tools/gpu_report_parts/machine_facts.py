"""Describe the machine of a GPU report: GPU and its clocks, load, versions, commit."""

import argparse
import os
import shutil
import subprocess
from pathlib import Path

import torch

from mmdefocus.cli.environment import describe_environment, describe_package

from .facts import write_facts

ROOT = Path(__file__).resolve().parents[2]
GPU_FIELDS = (
    *('name', 'driver_version', 'clocks.sm', 'clocks.max.sm', 'clocks.mem', 'temperature.gpu', 'power.draw'),
    *('utilization.gpu', 'memory.used', 'memory.total'),
)
ALTERNATIVES = {'timm': ('timm',), 'mamba_ssm': ('mamba-ssm',), 'fla': ('flash-linear-attention', 'fla-core')}


def commit() -> str:
    """Return the commit of the checkout, with ``-dirty`` if a file differs from it, new ones included."""
    try:
        head = _git('rev-parse', '--short=12', 'HEAD')
        return f'{head}-dirty' if _git('status', '--porcelain') else head
    except (OSError, subprocess.CalledProcessError):
        return 'unknown (no Git checkout)'


def _git(*words: str) -> str:
    done = subprocess.run(['git', *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def gpu_state() -> str:
    """Return names, clocks, temperature and use of the GPUs, as nvidia-smi reports them."""
    if shutil.which('nvidia-smi') is None:
        return 'nvidia-smi not found'
    command = ['nvidia-smi', f'--query-gpu={",".join(GPU_FIELDS)}', '--format=csv,noheader']
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        return f'nvidia-smi ended with status {done.returncode}: {(done.stdout + done.stderr).strip()}'
    states = [line.split(', ') for line in done.stdout.strip().splitlines()]
    return '; '.join(
        ', '.join(f'{name} {value}' for name, value in zip(GPU_FIELDS, state, strict=True)) for state in states
    )


def machine_facts() -> dict[str, object]:
    """Return what the report says about the machine."""
    environment = describe_environment()
    backends = environment.pop('operator backends')
    lines = {
        'GPU state': gpu_state(),
        'load': f'{os.getloadavg()[0]:.1f} on {os.cpu_count()} cores',
        **environment,
        **{module: describe_package(module, names) for module, names in ALTERNATIVES.items()},
        **{f'backend {name}': text for name, text in dict(backends).items()},
    }
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU'
    return dict(summary=f'{name}, torch {torch.__version__}', lines=lines)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--facts', type=Path, required=True, metavar='FILE.json', help='results')
    write_facts(parser.parse_args().facts, machine_facts())
