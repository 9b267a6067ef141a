"""The tools as commands in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[2] / 'tools'


def run(cwd: Path, *command: str | Path, code: int = 0) -> str:
    environment = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def tool(cwd: Path, name: str, *arguments: str | Path, code: int = 0) -> str:
    return run(cwd, sys.executable, TOOLS / name, *arguments, code=code)
