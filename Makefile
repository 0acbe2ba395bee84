# One environment for everything: `make demo` and `make test` both work on a fresh clone.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format docs release-check chaos fuzz audit bench proto profiles clean

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing PyTorch and what else is needed into $(VENV): some minutes, without a word from pip"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

install: $(STAMP) ## make .venv and install splitinfer in it

demo: $(STAMP) ## profile two models, then split one at every cut over a real edge server
	$(BIN)/splitinfer demo

test: $(STAMP) ## the whole test suite
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadgroup

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP) ## the documentation site into site/, every warning an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release-check: $(STAMP) ## build sdist and wheel, install the wheel in a clean environment, use and type-check it there
	VENV=$(VENV) .ci/release_check

chaos: $(STAMP) ## 10,000 tasks under random faults; CHAOS="--tasks 500 --seed 1" for others
	$(BIN)/python -m benchmarks.faults.chaos $(or $(CHAOS),--tasks 10000)

fuzz: $(STAMP) ## feed random bytes to everything that reads a stranger's; FUZZ_SECONDS=60 each
	$(BIN)/python -m benchmarks.faults.fuzz --seconds $(or $(FUZZ_SECONDS),60)

audit: $(STAMP) ## look for known vulnerabilities in what constraints.txt pins; fails where it could not look, too
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --strict --progress-spinner off -r constraints.txt --no-deps --disable-pip

bench: $(STAMP) ## every benchmark, one table at the end
	$(BIN)/python -m benchmarks

sweep: $(STAMP) ## capture some 280 architectures of torchvision, timm and transformers, where installed
	$(BIN)/python -m benchmarks.architectures

proto: $(STAMP) ## regenerate the gRPC code from the .proto file
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. splitinfer/wire/splitinfer.proto

profiles: $(STAMP) ## measure the shipped tables in profiles/ again
	$(BIN)/python -m splitinfer.profiling.shipped

clean: ## remove the environment and caches
	rm -rf $(VENV) build dist site .pytest_cache .ruff_cache .mypy_cache .hypothesis
