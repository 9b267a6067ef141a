"""The CPU kernels for every instruction set of this processor; the other tests run those for the best one."""

import os
import subprocess
import sys

import pytest
import torch
from test_bandpass_kernels import OPERATORS as BANDPASS_OPERATORS
from test_bandpass_kernels import assert_same as assert_same_bandpass
from test_bandpass_kernels import make as make_bandpass
from test_causal_conv1d import assert_same as assert_same_convolution
from test_causal_conv1d import make as make_convolution
from test_defocus_scan import assert_same as assert_same_defocus_scan
from test_defocus_scan import make as make_defocus_scan
from test_defocus_scan import test_half_types_compute_in_float32 as check_half_types
from test_selective_scan import assert_same as assert_same_selective_scan
from test_selective_scan import make as make_selective_scan

# By torch's name of the instruction set; ATEN_CPU_CAPABILITY selects among those that the processor has.
KERNELS = {'DEFAULT': 'baseline', 'AVX2': 'avx2', 'AVX512': 'avx512'}
BEST = torch.backends.cpu.get_cpu_capability()
PRESENT = list(KERNELS)[: list(KERNELS).index(BEST) + 1] if BEST in KERNELS else ['DEFAULT']


def check_kernels():
    """Compare every operator in every type with the reference, by the kernels that the environment selects."""
    for dtype in (torch.float32, torch.float64):
        for state in (16, 6):  # a compile-time and a run-time size
            assert_same_defocus_scan(
                make_defocus_scan(channels=100, length=67, state=state, dtype=dtype), 'cpp', group_size=50
            )
            assert_same_defocus_scan(
                make_defocus_scan(channels=128, length=34, state=state, dtype=dtype), 'cpp', group_size=64
            )
            assert_same_selective_scan(make_selective_scan(length=67, state=state, dtype=dtype))
        for name in BANDPASS_OPERATORS:
            for channels, values in ((64, 33), (6, 5)):
                assert_same_bandpass(name, make_bandpass(1, 3, 145, channels, values, dtype))
        assert_same_convolution(make_convolution(length=145, dtype=dtype), 'silu')
    for dtype in (torch.float16, torch.bfloat16):
        check_half_types('cpp', dtype)


@pytest.mark.parametrize('capability', PRESENT)
def test_kernels_equal_the_reference(capability):
    environment = {**os.environ, 'ATEN_CPU_CAPABILITY': capability.lower()}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == KERNELS[capability]


if __name__ == '__main__':
    check_kernels()
    sys.stdout.write(torch.ops.mmdefocus.cpu_instruction_set())
