"""Tests of tools/setup.sh with a stub for Python: missing prerequisites, failing steps and repeated runs.

Nothing is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='the set-up script is for Linux')

# Logs each call of Python and pip, and answers as the script expects. Calls that match the pattern FAIL fail.
PYTHON_STUB = r"""#!/usr/bin/env bash
script=''
[[ $1 == - ]] && script=$(cat)
request="$*"
echo "$request" >>"$NOTES"
[[ -n ${FAIL:-} && $request =~ $FAIL ]] && { echo "pretended failure of $FAIL"; exit 1; }
if [[ -n ${WAIT:-} && $request == *"torch $WAIT"* ]]; then
    trap 'exit 1' INT
    touch "$ROOT/waiting"
    sleep 30 3>&- 9>&- & # holds neither the terminal nor the lock of the set-up
    wait
fi
case "$request$script" in
    *sys.version_info*) echo "${VERSION:-3.11}" ;;
    *'sys.exit(not os.path.exists'*) exit "${HEADERS:-0}" ;;
    *'find_spec("mmdefocus._ext")'*) echo "$ROOT/extension.so" ;;
    '-m venv '*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/python" ;;
    "-c import venv, ensurepip") exit "${NO_ENSUREPIP:-0}" ;;
    '-m virtualenv '*) exit 1 ;;
    '-m pip --python '*) exit "${NO_PIP:-0}" ;;
    '-m pip wheel'*)
        mkdir -p "$ROOT/build/setup/wheels" && touch "$ROOT/build/setup/wheels/onedl_mmcv-2.3.6-py3.whl"
        [[ $request != *--no-cache-dir* ]] || touch "$ROOT/compiled"
        ;;
    *--force-reinstall*onedl_mmcv*) touch "$ROOT/installed" ;;
    *--editable*) touch "$ROOT/extension.so" ;;
    *'import os, torch, mmcv._ext'*)
        [[ -f $ROOT/installed && ( ${CACHE:-good} == good || ( ${CACHE} == stale && -f $ROOT/compiled ) ) ]] || {
            echo "ImportError: undefined symbol"
            exit 1
        }
        ;;
    *'torch.cuda.is_available()'*) exit 1 ;;
esac
"""


def write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path):
    """Copy the files that set-up reads, and make a folder for PATH with the system's programs and the Python stub."""
    root = tmp_path / 'checkout'
    programs = tmp_path / 'bin'
    programs.mkdir()
    for folder in (Path('/bin'), Path('/usr/bin')):
        for program in folder.iterdir():
            if not program.name.startswith('python') and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    (programs / 'python3').unlink(missing_ok=True)
    write_program(programs / 'python3', PYTHON_STUB)
    for name in ('df', 'du'):
        (programs / name).unlink(missing_ok=True)
    write_program(programs / 'df', '#!/bin/sh\necho header\necho "disk 1 1 ${FREE_KB:-99000000} 1% /"\n')
    write_program(programs / 'du', '#!/bin/sh\necho "0 $2"\n')
    for name in ('tools/setup.sh', 'tools/precompile_torch_header.py', 'requirements/constraints.txt', 'setup.py'):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / 'pyproject.toml').touch()
    (root / 'mmdefocus' / 'ops' / 'csrc').mkdir(parents=True)
    return root


def run_setup(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ['bash', 'tools/setup.sh', *arguments],
        cwd=root,
        env={'PATH': str(root.parent / 'bin'), 'NOTES': str(root / 'notes'), 'ROOT': str(root), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def requests(root: Path) -> list[str]:
    return (root / 'notes').read_text().splitlines()


def failure_message(result: subprocess.CompletedProcess) -> str:
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith('set-up failed: ')
    return last


def test_check_passes_without_creating_an_environment(machine):
    result = run_setup(machine, '--check')
    assert result.returncode == 0, result.stderr
    assert 'all prerequisites are present' in result.stdout
    assert not (machine / '.venv').exists()


@pytest.mark.parametrize('version', ['3.9', '3.13', '2.7'])
def test_unsupported_python_fails(machine, version):
    message = failure_message(run_setup(machine, '--check', VERSION=version))
    assert f'3.10, 3.11 or 3.12 is needed, but python3 is Python {version};' in message
    assert 'apt install python3' in message


def test_missing_python_fails(machine):
    (machine.parent / 'bin' / 'python3').unlink()
    assert 'but no Python was found' in failure_message(run_setup(machine, '--check'))


def test_supported_python_is_found_beside_an_unsupported_one(machine):
    programs = machine.parent / 'bin'
    write_program(programs / 'python3.11', PYTHON_STUB)
    write_program(programs / 'python3', '#!/bin/sh\necho 3.13\n')
    assert 'python3.11' in run_setup(machine, '--check').stdout


def test_missing_headers_fail(machine):
    message = failure_message(run_setup(machine, '--check', HEADERS='1'))
    assert 'Python.h' in message
    assert 'apt install python3-dev' in message


@pytest.mark.parametrize('environment', [{}, {'CXX': '/no/such/compiler'}])
def test_missing_compiler_fails(machine, environment):
    (machine.parent / 'bin' / 'c++').unlink(missing_ok=True)
    message = failure_message(run_setup(machine, '--check', **environment))
    assert f'no working C++17 compiler: {environment.get("CXX", "c++")!r}' in message
    assert 'apt install g++' in message


def test_full_disk_fails(machine):
    message = failure_message(run_setup(machine, '--check', FREE_KB=str(3 * 1024 * 1024 + 5)))
    assert 'set-up needs 8 GB in' in message
    assert 'but 3 GB are free' in message


@pytest.mark.parametrize(
    ('environment', 'message'),
    [
        ({}, 'compiling for CPU (no GPU with a CUDA toolkit that matches this torch; FORCE_CUDA=1 compiles'),
        ({'FORCE_CUDA': '0'}, 'compiling for CPU (FORCE_CUDA=0)'),
        ({'FORCE_CUDA': '1'}, 'compiling for CPU and CUDA'),
    ],
)
def test_target_device_is_printed(machine, environment, message):
    result = run_setup(machine, **environment)
    assert result.returncode == 0, result.stderr
    assert message in result.stdout


def test_wrong_force_cuda_fails_before_anything_is_done(machine):
    message = failure_message(run_setup(machine, FORCE_CUDA='yes'))
    assert "expected FORCE_CUDA to be 1 (compile for CUDA), 0 (for the CPU only) or unset, got 'yes'" in message
    assert not (machine / '.venv').exists()


@pytest.mark.parametrize(
    ('request_part', 'expected'),
    [
        ('-m venv ', 'apt install python3-venv'),
        ('setuptools wheel', 'the package index is unreachable'),
        ('torch torchvision', 'could not install torch and torchvision'),
        ('pip wheel', 'the operators of mmcv could not be compiled'),
        ('onedl-mmdetection', 'could not install the OpenMMLab packages'),
        ('--editable', 'the operators of mmdefocus could not be compiled'),
    ],
)
def test_failing_step_shows_log_and_advice(machine, request_part, expected):
    result = run_setup(machine, FAIL=request_part)
    assert expected in failure_message(result)
    assert 'setup.log' in result.stderr
    assert 'pretended failure' in result.stderr
    assert not (machine / '.venv' / '.mmdefocus-setup').exists()


def test_unreachable_index_fails_with_a_real_pip(machine):
    """A real Python and pip try an index at a closed port: the advice must fit pip's actual behaviour."""
    if sys.version_info >= (3, 13):
        pytest.skip('set-up does not support this Python')
    closed = 'http://127.0.0.1:9/simple'
    nowhere = {'PIP_CONFIG_FILE': os.devnull, 'PIP_INDEX_URL': closed, 'PIP_RETRIES': '0', 'HOME': str(machine)}
    result = run_setup(machine, PYTHON=sys.executable, **nowhere)
    assert 'the package index is unreachable' in failure_message(result)


def test_system_pip_replaces_ensurepip(machine):
    """Debian without python3-venv creates environments without pip; the system's pip then installs pip into them."""
    result = run_setup(machine, FAIL='-m venv --clear /')
    assert result.returncode == 0, result.stderr
    assert any(request.startswith('-m pip --python') for request in requests(machine))


def test_missing_ensurepip_and_pip_fails(machine):
    message = failure_message(run_setup(machine, '--check', NO_ENSUREPIP='1', FAIL='-m pip --version'))
    assert 'apt install python3-venv' in message


def test_system_pip_that_cannot_install_pip_fails(machine):
    message = failure_message(run_setup(machine, FAIL='-m venv --clear /', NO_PIP='1'))
    assert 'apt install python3-venv' in message


def test_second_run_installs_nothing(machine):
    first = run_setup(machine)
    assert first.returncode == 0, first.stderr
    assert 'set-up is complete after' in first.stdout
    installs = [request for request in requests(machine) if 'pip install' in request or 'pip wheel' in request]
    assert len(installs) == 7
    (machine / 'notes').unlink()
    second = run_setup(machine)
    assert second.stdout == f'set-up is complete: {machine}/.venv\n'
    assert not any('pip' in request for request in requests(machine))


def test_interrupted_run_continues(machine):
    """Ctrl-C also makes pip fail; the script must report the interruption only and reuse the environment later."""
    waiting = machine / 'waiting'
    process = subprocess.Popen(
        ['bash', 'tools/setup.sh'],
        cwd=machine,
        env={
            'PATH': str(machine.parent / 'bin'),
            'NOTES': str(machine / 'notes'),
            'ROOT': str(machine),
            'WAIT': 'torchvision',
        },
        start_new_session=True,
        # Background jobs of a shell ignore Ctrl-C, and child processes inherit that; restore the default handler.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not waiting.exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.strip() == 'interrupted; run the same command to continue'
    assert run_setup(machine).returncode == 0
    assert sum('-m venv' in request for request in requests(machine)) == 1


def test_changed_sources_only_recompile_the_extension(machine):
    run_setup(machine)
    (machine / 'notes').unlink()
    os.utime(machine / 'extension.so', (1, 1))
    assert run_setup(machine).returncode == 0
    assert [request for request in requests(machine) if ' install ' in request or '-m venv' in request] == [
        f'-m pip install --no-build-isolation --no-deps --editable {machine}'
    ]


def test_changed_requirements_are_installed(machine):
    run_setup(machine)
    with (machine / 'requirements' / 'constraints.txt').open('a') as file:
        file.write('another==1.0\n')
    (machine / 'notes').unlink()
    assert run_setup(machine).returncode == 0
    assert any('torch torchvision' in request for request in requests(machine))


def test_mmcv_compiled_for_another_torch_is_recompiled(machine):
    result = run_setup(machine, CACHE='stale')
    assert result.returncode == 0, result.stderr
    assert 'does not match this torch: recompile it' in result.stdout
    wheels = [request for request in requests(machine) if '-m pip wheel' in request]
    assert len(wheels) == 2
    assert '--no-cache-dir --no-binary onedl-mmcv' in wheels[1]


def test_mmcv_without_operators_fails(machine):
    result = run_setup(machine, CACHE='broken')
    assert 'its compiled operators do not work' in failure_message(result)
    assert 'undefined symbol' in result.stderr
    assert not (machine / '.venv' / '.mmdefocus-setup').exists()
