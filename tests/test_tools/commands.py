"""Run the tools: in a process of their own, or in this one up to their error message."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def error_of(capsys: pytest.CaptureFixture, call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """Call a function that runs a tool in this process, expect status 2, and return the error message."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as info:
        call(*arguments, **options)
    message = capsys.readouterr().err
    assert info.value.code == 2
    assert message.startswith('error: ')
    assert 'Traceback' not in message
    return message
