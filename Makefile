# Every target sets up what it needs, without root. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .tools/bin
SUPPLY := .tools/supply-chain/.installed
GO ?= go
ENGINE ?= embedded
UV_VERSION := 0.13.9

ENGINE_SOURCES := $(shell find native/src native/Cargo.toml native/Cargo.lock native/capabilities.json -type f 2>/dev/null)

.PHONY: help setup tools demo test check bench generate format clean sbom audit changelog
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
	@.ci/lanes $(BIN)/python

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
	@.ci/build-bench-tools
	$(BIN)/python -m tests.benchmarks

$(SUPPLY): requirements/supply-chain.txt
	$(PYTHON) -m venv .tools/supply-chain
	.tools/supply-chain/bin/pip install --quiet --require-hashes --requirement $<
	@touch $@

sbom: setup $(SUPPLY) ## build/sbom.json (CycloneDX) and build/licences.md; fails on a licence nobody allowed
	$(BIN)/python -m tests.supply_chain sbom build

audit: setup $(SUPPLY) ## known vulnerabilities; exit code 3 where no database could be asked
	@$(BIN)/python -m tests.supply_chain audit; code=$$?; \
	  [ $$code -ne 3 ] || echo "make audit: NOT AUDITED: run it where the databases of vulnerabilities can be reached"; exit $$code

changelog: setup ## CHANGELOG.md from changelog.d; VERSION=1.2.3
	$(BIN)/python -m tests.changelog $(VERSION)

clean: ## remove what the targets made, except the virtual environment and tools
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache demo-data build
