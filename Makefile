# make setup | demo | test | lint | format | clean; needs bash, a C++ compiler and Python 3.10–3.12, see README.md
VENV := .venv
PYTHON_IN_VENV := $(VENV)/bin/python
CXX_SOURCES = $(shell find mmdefocus -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: setup demo test lint format clean

setup:
	@bash tools/setup.sh

demo: setup
	@bash tools/demo.sh

test: setup
	$(PYTHON_IN_VENV) -m pytest

lint: setup
	ruff check .
	ruff format --check .
	mypy
	clang-format --dry-run --Werror $(CXX_SOURCES)

format: setup
	ruff check --fix .
	ruff format .
	clang-format -i $(CXX_SOURCES)

clean:
	rm -rf $(VENV) build *.egg-info mmdefocus/_ext*.so
