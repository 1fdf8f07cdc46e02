# Every target sets up what it needs, without root. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools/bin
GO ?= go
ENGINE ?= embedded
UV_VERSION := 0.13.9

ENGINE_SOURCES := $(shell find engine/src engine/Cargo.toml engine/Cargo.lock engine/capabilities.json -type f 2>/dev/null)

.PHONY: help setup tools demo test check bench generate format clean
help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.engine ## virtual environment with pinned packages, and the Rego engine

$(VENV)/.packages: requirements/uv.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "customhouse needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=python3.11 (Debian 12: apt-get install python3.11-venv).")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/uv.txt
	$(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python requirements/dev.txt
	@touch $@

$(VENV)/.engine: $(VENV)/.packages $(ENGINE_SOURCES) pyproject.toml
	@.ci/need-cargo
	@echo "building the Rego engine (about 3 minutes the first time)"
	$(BIN)/uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@touch $@

tools: setup ## programs that are not Python, for tests: need Go 1.26 or newer
	@.ci/build-tools

demo: setup ## the whole product at work, scene by scene; ENGINE=opa lets OPA decide
	$(BIN)/sidecar demo --engine $(ENGINE)

test: setup ## every test; what a machine lacks is skipped with the reason (in CI: fails)
	@.ci/build-tools --optional
	$(BIN)/python -m pytest -m "unit or contract or conformance"
	@# A process for each file: event loops and servers of one are no business of the next.
	@failed=""; for file in tests/integration/test_*.py tests/fault/test_*.py; do \
	  timeout -k 10 1200 $(BIN)/python -m pytest -q $$file || failed="$$failed $$file"; done; \
	  if [ -n "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

check: setup ## lint, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.generated --check

generate: setup ## write generated code, help text and reference pages anew
	$(BIN)/python -m tests.generated --write

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## speed and memory, as ratios side by side
	@.ci/build-tools --optional
	$(BIN)/python -m tests.benchmarks

clean: ## remove what the targets made, except the virtual environment and tools
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-data
