# make setup | demo | test | test-gpu | gpu-report | fuzz | nightly | lint | format | clean; needs bash, a C++ compiler and Python 3.10–3.12, see README.md
VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
PYTHON_FOR_GPU ?= $(or $(wildcard $(PYTHON_IN_VENV)),python3)
CXX_SOURCES = $(shell find mmdefocus -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

define need_gpu
@$(PYTHON_FOR_GPU) -c 'import sys, torch; sys.exit(None if torch.cuda.is_available() else "make $@: torch finds no CUDA GPU on this machine")'
endef

.PHONY: setup demo test test-gpu gpu-report fuzz nightly lint format clean

setup:
	@bash tools/setup.sh

demo: setup
	@bash tools/demo.sh

# One process per core, each with one thread. worksteal keeps neighbouring tests together, which saves shared fixtures.
test: setup
	OMP_NUM_THREADS=1 $(PYTHON_IN_VENV) -m pytest -n auto --dist worksteal --durations=30

# Needs a GPU, nvcc, torch and pytest, but neither `make setup` nor the OpenMMLab packages.
test-gpu:
	$(need_gpu)
	FORCE_CUDA=1 $(PYTHON_FOR_GPU) setup.py build_ext --inplace
	$(PYTHON_FOR_GPU) -m pytest -m gpu tests/test_ops/gpu

# Needs timm and matplotlib as well. Packages from a folder of wheels serve this run alone.
gpu-report:
	$(need_gpu)
	@$(if $(OUT),,echo 'make gpu-report: name a folder for the report: make gpu-report OUT=build/gpu-report' >&2; exit 2)
	PYTHONPATH=$(CURDIR):$$PYTHONPATH $(PYTHON_FOR_GPU) tools/gpu_report.py --out $(OUT) $(addprefix --wheels ,$(WHEELS)) $(if $(STAGES),--stages $(STAGES))

# Random inputs for so many seconds in all; `make test` repeats those that were found.
FUZZ_SECONDS ?= 600
fuzz: setup
	OMP_NUM_THREADS=1 FUZZ_SECONDS=$(FUZZ_SECONDS) $(PYTHON_IN_VENV) -m pytest -n auto --dist worksteal tests/fuzz

# All tests with NaN in uninitialised memory.
nightly: fuzz
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/tests/nan_filled $(PYTHON_IN_VENV) -m pytest -n auto --dist worksteal

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	clang-format --dry-run --Werror $(CXX_SOURCES)

format: setup
	ruff check --fix .
	ruff format .
	clang-format -i $(CXX_SOURCES)

clean:
	rm -rf $(VENV) build *.egg-info mmdefocus/_ext*.so
