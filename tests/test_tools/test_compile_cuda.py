"""Parsing of the compiler's report on the CUDA kernels, and the search for the toolkit. .ci/run compiles them."""

import runpy

import pytest
from commands import TOOLS

OUTPUT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN9mmdefocus4cuda14forward_kernelIN3c108BFloat16ELi16EEEvNS0_10ScanInputsIT_EE' for 'sm_90'
ptxas info    : Function properties for _ZN9mmdefocus4cuda14forward_kernelIN3c108BFloat16ELi16EEEvNS0_10ScanInputsIT_EE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 80 registers, used 1 barriers
ptxas info    : Compiling entry function '_ZN9mmdefocus4cuda20state_passing_kernelEv' for 'sm_90'
ptxas info    : Function properties for _ZN9mmdefocus4cuda20state_passing_kernelEv
    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 42 registers, used 0 barriers
"""  # noqa: E501 - the format of ptxas


@pytest.fixture
def tool():
    return runpy.run_path(str(TOOLS / 'compile_cuda.py'))


def test_registers_and_spills_are_read(tool):
    assert tool['resources'](OUTPUT) == [
        ('forward_kernel<BFloat16, 16>', 'sm_90', '80', '0 / 0'),
        ('state_passing_kernel', 'sm_90', '42', '12 / 16'),
    ]


def test_toolkit_behind_the_compiler_on_the_path(tool, tmp_path, monkeypatch):
    nvcc = tmp_path / 'nvcc'
    nvcc.write_text(f'#!/bin/sh\necho "#$ TOP={tmp_path}/toolkit/bin/.." >&2\n')
    nvcc.chmod(0o755)
    monkeypatch.delenv('CUDA_HOME', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    assert tool['find_toolkit']() == str(tmp_path / 'toolkit')
    monkeypatch.setenv('CUDA_HOME', '/chosen')
    assert tool['find_toolkit']() == '/chosen'


def test_without_a_compiler(tool, monkeypatch):
    monkeypatch.delenv('CUDA_HOME', raising=False)
    monkeypatch.setenv('PATH', '')
    with pytest.raises(SystemExit, match='nvcc not found; install a CUDA toolkit'):
        tool['find_toolkit']()
