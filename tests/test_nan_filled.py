"""The setting of `make nightly` that fills uninitialised memory with NaN."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parent / 'nan_filled'
PROGRAM = 'import sys, torch; sys.exit(0 if torch.empty(1000).isnan().all() else 3)'


@pytest.mark.parametrize(('path', 'code'), [(str(DIRECTORY), 0), ('', 3)])
def test_every_process_has_the_setting(path, code):
    done = subprocess.run([sys.executable, '-c', PROGRAM], env={**os.environ, 'PYTHONPATH': path}, check=False)
    assert done.returncode == code
