# Everything sets itself up in .venv: made if missing, reused if there.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A process that has no test left takes some from the other one.
IN_TWO := --numprocesses 2 --dist worksteal

SOURCE ?=
CAPTIONS ?=
OUT ?= demo-out

.PHONY: help demo test test-slow lint types layers pytest coverage nightly install clean

help:
	@echo "make demo   build a small dataset and train on it (SOURCE=DIR CAPTIONS=FILE OUT=DIR)"
	@echo "make test   lint, types, import layers, unit and integration tests"
	@echo "make test-slow   the long tests: kills, nodes, jobs, the documentation's commands"
	@echo "make coverage   all tests, and the share of lines that they run"
	@echo "make nightly   coverage, and small benchmarks into docs/notes/benchmarks.md (SOURCE=DIR of real models)"

demo: $(READY)
	@$(BIN)/python -m pipelines.demo --out "$(OUT)" \
		$(if $(SOURCE),--source "$(SOURCE)") $(if $(CAPTIONS),--captions "$(CAPTIONS)")

test: lint types layers pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

layers: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	$(BIN)/python -m pytest $(IN_TWO) tests/unit tests/integration

test-slow: $(READY)
	$(BIN)/python -m pytest $(IN_TWO) tests/slow

coverage: $(READY)
	$(BIN)/python -m pytest $(IN_TWO) tests --cov --cov-report=term

nightly: $(READY)
	@failed=0; $(MAKE) coverage || failed=1; \
	$(BIN)/python -m benchmarks nightly --page docs/notes/benchmarks.md \
		$(if $(SOURCE),--source "$(SOURCE)") || failed=1; exit $$failed

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || \
		{ echo "CPython 3.11 is needed (bpy 4.5 has no other build): make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) render/system_libraries.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[build,train,dev]'
	# Its declared torchvision does not import beside a CPU torch, and only its weights are read.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps lpips==0.1.4
	@touch $@

clean:
	rm -rf $(VENV) demo-out
