#!/usr/bin/env bash
# Create .venv with everything that mmdefocus needs. Safe to repeat: installed parts are kept, missing ones added.
#
#   bash tools/setup.sh            set up, or finish an interrupted set-up
#   bash tools/setup.sh --check    only check the prerequisites
#
# PYTHON=python3.11       Python to use (default: that of an existing .venv, or the first supported one of python3,
#                         python3.12, python3.11 and python3.10)
# FORCE_CUDA=1            compile CUDA code even without a visible GPU; 0 skips it even with one
# TORCH_CUDA_ARCH_LIST    GPU architectures to compile for
# MAX_JOBS=2              parallel compiler processes (default: one per core, at most one per 2 GB of free memory)
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
PY=$VENV/bin/python
BUILD=$ROOT/build/setup
LOG=$BUILD/setup.log
STAMP=$VENV/.mmdefocus-setup
ASKED_CUDA=${FORCE_CUDA:-auto}
DISK_GB=8 # 5.3 for .venv, the rest for unpacking downloads, data and checkpoints

BUILD_TOOLS=(setuptools wheel packaging ninja)
OPENMMLAB=(onedl-mmengine onedl-mmdetection onedl-mmpretrain opencv-python-headless scikit-learn timm grad-cam tensorboard
    supervision faster-coco-eval ImageHash psutil jinja2 shtab defusedxml PyYAML)
DEVELOPMENT=(pytest pytest-xdist hypothesis markdown-it-py pyyaml ruff mypy import-linter clang-format selenium)

fail() {
    printf '\nset-up failed: %s\n' "$1" >&2
    exit 1
}

# ---- prerequisites

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
is_supported() { [[ $1 =~ ^3\.(10|11|12)$ ]]; }

find_python() {
    local candidate version found='' existing=''
    "$PY" -m pip --version >/dev/null 2>&1 && existing=$PY
    for candidate in ${PYTHON:-$existing python3 python3.12 python3.11 python3.10}; do
        version=$(python_version "$candidate") || continue
        found+="${found:+, }$candidate is Python $version"
        if is_supported "$version"; then
            PYTHON=$candidate
            return
        fi
    done
    fail "Python 3.10, 3.11 or 3.12 is needed, but ${found:-no Python was found}; install one (apt install python3 python3-dev python3-venv) or set PYTHON: PYTHON=/path/to/python3.11 make setup"
}

check_headers() {
    "$PYTHON" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        fail "the C headers of $PYTHON (Python.h) are missing; the compiled operators need them (apt install python3-dev python3-venv)"
}

# Debian ships `ensurepip` in the package python3-venv; virtualenv or an installed pip can replace it.
check_venv() {
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || "$PYTHON" -m virtualenv --version >/dev/null 2>&1 ||
        "$PYTHON" -m pip --version >/dev/null 2>&1 || fail "$NO_VENV"
}

check_compiler() {
    local program='#include <vector>
int main() { return std::vector<int>{}.size(); }'
    # Unquoted: CXX may contain a launcher, as in "ccache g++".
    ${CXX:-c++} -std=c++17 -x c++ -fsyntax-only - <<<"$program" >/dev/null 2>&1 ||
        fail "no working C++17 compiler: '${CXX:-c++}' cannot compile a small program; install one (apt install g++) or set CXX"
}

check_choice_of_device() {
    [[ $ASKED_CUDA =~ ^(auto|0|1)$ ]] ||
        fail "expected FORCE_CUDA to be 1 (compile for CUDA), 0 (for the CPU only) or unset, got '$ASKED_CUDA'"
}

check_disk() {
    local free_kb used_kb needed_kb
    free_kb=$(df -Pk "$ROOT" | awk 'NR == 2 { print $4 }')
    used_kb=$(du -sk "$VENV" 2>/dev/null | awk '{ print $1 }') || used_kb=0
    needed_kb=$((DISK_GB * 1024 * 1024 - ${used_kb:-0}))
    ((free_kb >= needed_kb)) ||
        fail "not enough disk space: set-up needs $((needed_kb / 1024 / 1024)) GB in $ROOT, but $((free_kb / 1024 / 1024)) GB are free; free some space or move the checkout"
}

# ---- steps

create_venv() {
    "$PYTHON" -m venv --clear "$VENV" ||
        "$PYTHON" -m virtualenv --clear "$VENV" ||
        { "$PYTHON" -m venv --clear --without-pip "$VENV" && "$PYTHON" -m pip --python "$PY" install pip; }
}

# --no-compile: most of the installed modules are never imported, and Python compiles the others on import.
pip_install() { "$PY" -m pip install --no-compile --constraint "$ROOT/requirements/constraints.txt" "$@"; }

install_build_tools() { pip_install --retries 1 "${BUILD_TOOLS[@]}"; }

install_torch() { pip_install torch torchvision; }

install_packages() {
    pip_install --no-build-isolation --no-deps "$ROOT/requirements/opencv-python" &&
        pip_install "${OPENMMLAB[@]}" "${DEVELOPMENT[@]}"
}

cuda_is_usable() {
    "$PY" - <<'PYTHON'
import os, re, subprocess, sys, torch
from torch.utils.cpp_extension import CUDA_HOME
if not torch.cuda.is_available() or CUDA_HOME is None:
    sys.exit(1)
nvcc = subprocess.run([os.path.join(CUDA_HOME, 'bin', 'nvcc'), '--version'], capture_output=True, text=True).stdout
release = re.search(r'release (\d+)', nvcc)
sys.exit(release is None or release[1] != torch.version.cuda.split('.')[0])
PYTHON
}

# Compile for the CPU only, unless the GPU is usable or FORCE_CUDA=1: mmcv does not build if a GPU is visible and nvcc
# does not match torch.
choose_device() {
    : "${FORCE_CUDA:=$(cuda_is_usable 2>>"$LOG" && echo 1 || echo 0)}"
    export FORCE_CUDA
    if [[ $FORCE_CUDA == 1 ]]; then
        echo "      compiling for CPU and CUDA"
    else
        export CUDA_VISIBLE_DEVICES=
        local reason='no GPU with a CUDA toolkit that matches this torch; FORCE_CUDA=1 compiles for CUDA anyway'
        [[ $ASKED_CUDA != 0 ]] || reason='FORCE_CUDA=0'
        echo "      compiling for CPU ($reason)"
    fi
}

# Parsing torch's headers takes two thirds of the compile time, hence the precompiled header. -O1 halves the rest and
# does not slow down any mmcv operator that training or evaluation runs on the CPU.
build_mmcv() {
    local header flags='-O1 -g0' status=0
    rm -rf "$BUILD/wheels"
    if header=$(CFLAGS=$flags "$PY" "$ROOT/tools/precompile_torch_header.py" "$BUILD/header"); then
        flags+=" -include $header"
    fi
    CFLAGS=$flags "$PY" -m pip wheel --verbose --no-build-isolation --no-deps --wheel-dir "$BUILD/wheels" \
        --constraint "$ROOT/requirements/constraints.txt" "$@" onedl-mmcv || status=$?
    rm -rf "$BUILD/header"
    return $status
}

install_mmcv() {
    pip_install --no-deps --force-reinstall "$BUILD"/wheels/onedl_mmcv-*.whl && rm -rf "$BUILD/wheels"
}

# Run one operator in a new process: a wheel from pip's cache may have been compiled for another torch ("undefined
# symbol") or without operators.
mmcv_works() {
    "$PY" - <<'PYTHON'
import os, torch, mmcv._ext
from mmcv.ops import get_compiling_cuda_version, nms
nms(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.5, 0.4]), 0.5)
if os.environ['FORCE_CUDA'] == '1' and 'not' in get_compiling_cuda_version():
    raise ImportError('mmcv was compiled without CUDA')
PYTHON
}

install_mmdefocus() { "$PY" -m pip install --no-build-isolation --no-deps --editable "$ROOT"; }

extension_is_current() {
    local library
    library=$("$PY" -c 'import importlib.util as u; print(u.find_spec("mmdefocus._ext").origin)' 2>/dev/null) &&
        [[ -z $(find "$ROOT/setup.py" "$ROOT/pyproject.toml" "$ROOT/mmdefocus/ops/csrc" -newer "$library" -print -quit) ]]
}

# ---- progress

STEP=0
STEPS=6
announce() {
    STEP=$((STEP + 1))
    printf '[%d/%d] %s … ' "$STEP" "$STEPS" "$1"
    printf '\n==== %s\n' "$1" >>"$LOG"
    STARTED=$SECONDS
}
done_in() { printf 'done in %d s\n' $((SECONDS - STARTED)); }

# step TITLE COMMAND…: run the command with its output in the log; print $ADVICE if it fails.
step() {
    announce "$1"
    "${@:2}" >>"$LOG" 2>&1 || stop
    done_in
}

stop() {
    printf 'failed\n\nThe last lines of %s:\n' "$LOG" >&2
    tail -n 15 "$LOG" >&2
    fail "$ADVICE"
}

# Checksum of everything that set-up depends on; set-up runs again after a change.
fingerprint() {
    {
        echo "$ROOT $ASKED_CUDA"
        cat "$ROOT/tools/setup.sh" "$ROOT/tools/precompile_torch_header.py" "$ROOT/requirements/constraints.txt"
        "$PY" -c 'import sys; print(sys.version)'
        cat "$VENV"/lib/python*/site-packages/torch/version.py || echo 'no torch'
    } 2>/dev/null | cksum
}

# Install everything except mmdefocus.
install_stack() {
    local version packages status=0
    version=$(python_version "$PY") || version=none
    if [[ $version == none || $version != "$(python_version "$PYTHON")" ]] || ! "$PY" -m pip --version >>"$LOG" 2>&1; then
        ADVICE=$NO_VENV
        step "create a virtual environment with $PYTHON (a few seconds)" create_venv
    else
        step "virtual environment: already present" true
    fi

    ADVICE="pip could not install ${BUILD_TOOLS[*]}: the package index is unreachable or lacks them; check the network and pip's configuration (pip config list)"
    step "contact the package index and install build tools (a few seconds)" install_build_tools
    ADVICE="pip could not install torch and torchvision in the versions of requirements/constraints.txt; if the lines above report a connection error, check the network and run the same command again"
    step "install torch and torchvision (about 1 min)" install_torch
    choose_device

    # Download packages while mmcv compiles. The download gets its own process group (set -m), so that interrupting set-up
    # kills all of it.
    set -m
    install_packages >"$BUILD/packages.log" 2>&1 9>&- &
    packages=$!
    set +m
    trap 'kill -- -'"$packages"' 2>/dev/null || true' EXIT
    if mmcv_works >>"$LOG" 2>&1; then
        step "operators of mmcv: already present" true
    else
        ADVICE="the operators of mmcv could not be compiled; the lines above show the compiler error or the failed connection"
        step "compile the operators of mmcv and download the other packages (about 2 min)" build_mmcv
    fi
    announce "install the other packages (a few seconds more)"
    wait "$packages" || status=$?
    trap - EXIT
    cat "$BUILD/packages.log" >>"$LOG"
    ADVICE="pip could not install the OpenMMLab packages and their tools; if the lines above report a connection error, check the network and run the same command again"
    ((status == 0)) || stop
    if compgen -G "$BUILD/wheels/onedl_mmcv-*.whl" >/dev/null; then
        install_mmcv >>"$LOG" 2>&1 || stop
    fi
    done_in
    if ! mmcv_works >>"$LOG" 2>&1; then
        STEPS=$((STEPS + 1))
        announce "mmcv from pip's cache does not match this torch: recompile it (about 2 min)"
        ADVICE="mmcv is installed, but its compiled operators do not work (see the lines above); check that the compiler is compatible with this Python, remove $VENV and run the same command again"
        { build_mmcv --no-cache-dir --no-binary onedl-mmcv && install_mmcv && mmcv_works; } >>"$LOG" 2>&1 || stop
        done_in
    fi
}

main() {
    cd "$ROOT"
    mkdir -p "$BUILD"
    exec 9>"$BUILD/lock"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "waiting for another set-up in this checkout to finish"
        flock 9
    fi
    rm -rf "$BUILD/tmp" "$BUILD/header" # left over from an interrupted set-up
    mkdir "$BUILD/tmp"
    exec 3>&2 # stderr may point to the log when the trap runs
    trap 'printf "\ninterrupted; run the same command to continue\n" >&3; exit 130' INT TERM
    export TMPDIR=$BUILD/tmp PATH=$VENV/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1

    local only_extension=no
    if [[ ${1:-} != --check && -f $STAMP && $(cat "$STAMP") == "$(fingerprint)" ]]; then
        if extension_is_current; then
            echo "set-up is complete: $VENV"
            return
        fi
        only_extension=yes
    fi
    find_python
    NO_VENV="$PYTHON cannot create a virtual environment with pip; install the venv module (apt install python3-venv)"
    check_headers
    check_venv
    check_compiler
    check_choice_of_device
    check_disk
    if [[ ${1:-} == --check ]]; then
        echo "all prerequisites are present: $PYTHON, ${CXX:-c++}, $DISK_GB GB of disk"
        return
    fi

    local memory_kb cores
    memory_kb=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo 2>/dev/null || true)
    cores=$(getconf _NPROCESSORS_ONLN)
    local jobs=$((${memory_kb:-4000000} / 2000000))
    jobs=$((jobs < cores ? jobs : cores))
    export MAX_JOBS=${MAX_JOBS:-$((jobs < 1 ? 1 : jobs))}

    date >"$LOG"
    local began=$SECONDS
    if [[ $only_extension == yes ]]; then
        STEPS=1
        choose_device
    else
        echo "setting up $VENV (3 to 5 minutes on 2 cores, all output in $LOG)"
        install_stack
    fi
    ADVICE="the operators of mmdefocus could not be compiled; the lines above show the compiler error"
    step "compile and install mmdefocus (about 2 min)" install_mmdefocus
    fingerprint >"$STAMP"
    rm -rf "$BUILD/tmp"
    printf 'set-up is complete after %d s: %s\n' $((SECONDS - began)) "$VENV"
}

main "$@"
