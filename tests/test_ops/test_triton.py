import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_bandpass_attention import make

from mmdefocus.ops import bandpass_attention


def test_kernels_in_the_interpreter():
    """In a process of their own: Triton must know that it interprets before it is imported."""
    cases = Path(__file__).with_name('triton_interpreted.py')
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(cases)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, 'TRITON_INTERPRET': '1'},
    )
    assert done.returncode == 0, done.stdout
    assert int(re.search(r'(\d+) passed', done.stdout)[1]) > 20


@pytest.mark.parametrize(
    ('dtype', 'message'), [(torch.float32, 'run on GPU tensors, got tensors on cpu'), (torch.float64, 'got float64')]
)
def test_what_the_kernels_cannot_do_is_refused(dtype, message):
    with pytest.raises(RuntimeError, match=f"backend 'triton' cannot run: its kernels .*{message}"):
        bandpass_attention(**make(dtype=dtype), backend='triton')
