# Everything happens in the tree, in its own .venv; nothing else on the machine is changed.
#   make demo       install, then fill simulated traffic of known truth, and score it
#   make test       install, lint, whole test suite
#   make test-fast  the suite without its slow tests
#   make bench      kernels against their baselines
#   make sanitize   kernel tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make lint, make format, make clean
# Another Python than the first fitting one on the PATH: make demo PYTHON=/path/to/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-fast lint format bench sanitize clean
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(abspath $(VENV)/bin)
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The tested torch comes first and alone, so that nothing that depends on torch picks another build of it.
TORCH := torch==2.13.0
BUILD_TOOLS := 'scikit-build-core>=0.10' 'pybind11>=2.13' 'cmake>=3.24' 'ninja>=1.11'
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$python && break; done)
SOURCES := CMakeLists.txt pyproject.toml README.md $(shell find csrc fastimpute kernels -type f \
	-not -path '*/__pycache__/*' -not -name '*.so')
CXX_SOURCES = $(shell find csrc tests -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh')
KERNEL_TESTS = $(wildcard $(foreach op,$(notdir $(wildcard csrc/*)),tests/test_$(op).py))
ASAN_TREE := build/sanitize/tree

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(shell nproc)
export PATH := $(BIN):$(PATH)

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.package
	$(BIN)/fastimpute demo

test: lint
	$(BIN)/pytest -n $$(nproc) --dist loadfile

test-fast: $(VENV)/.dev
	$(BIN)/pytest -n $$(nproc) --dist loadfile -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_SOURCES)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

bench: $(VENV)/.dev
	$(BIN)/fastimpute bench

# The compiled module is built once more, instrumented, into a tree of its own, which the kernel tests then import.
sanitize: $(VENV)/.dev
	cmake -S . -B build/sanitize -G Ninja -DFASTIMPUTE_SANITIZE=ON -DCMAKE_BUILD_TYPE=Release \
		-DPython_EXECUTABLE=$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)"
	cmake --build build/sanitize
	rm -rf $(ASAN_TREE) && mkdir -p $(ASAN_TREE)
	cp -r fastimpute $(ASAN_TREE)/ && rm -f $(ASAN_TREE)/fastimpute/_core*.so && cp -r kernels $(ASAN_TREE)/fastimpute/
	cp build/sanitize/_core*.so $(ASAN_TREE)/fastimpute/
	PYTHONPATH=$(abspath $(ASAN_TREE)) ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
		$(BIN)/pytest -m "not slow" $(KERNEL_TESTS)

clean:
	rm -rf build dist demo_output $(VENV)

# ---- the environment -----------------------------------------------------------------------------------------------

$(VENV)/.tools: Makefile
	@test -n "$(PYTHON)" || { echo "fastimpute needs Python 3.11 or newer and finds none on the PATH; name one with" \
		"make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "fastimpute needs a C++20 compiler and finds no $(CXX) on the PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet $(BUILD_TOOLS)
	touch $@

$(VENV)/.package: $(VENV)/.tools $(SOURCES)
	$(PIP) install --quiet --no-build-isolation .
	touch $@

$(VENV)/.dev: $(VENV)/.tools $(SOURCES)
	$(PIP) install --quiet --no-build-isolation '.[dev]'
	touch $(VENV)/.package $@
