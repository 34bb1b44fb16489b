# Saves typing; the real interface is snakemake. `make` alone lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SCALE ?= laptop
ARGS ?=
CONFIG := --config scale=$(SCALE)
# after set-up nothing looks for a network
export HF_HUB_OFFLINE = 1
export HF_DATASETS_OFFLINE = 1
export MPLBACKEND = Agg

.PHONY: help setup figures smoke test lint report gallery bench schema freeze clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the environment from pinned versions (once)

$(READY): pyproject.toml envs/constraints.txt envs/install.sh
	@PYTHON="$(PYTHON)" sh envs/install.sh "$(VENV)"
	@touch $@

figures: $(READY) ## every figure, table and claim at laptop size, and the report (SCALE=smoke, ARGS=...)
	@$(BIN)/python -m memorization.cli run --scale $(SCALE) $(ARGS)

smoke: ## the whole DAG at its smallest size
	@$(MAKE) --no-print-directory figures SCALE=smoke

test: $(READY) ## unit and workflow tests (PYTEST="-k ..." to choose)
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

lint: $(READY) ## ruff, mypy, snakefmt and snakemake --lint
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/snakefmt --check Snakefile rules
	@$(BIN)/python -m memorization.cli lint

report: $(READY) ## results/<scale>/report.html from what is there
	@$(BIN)/python -m memorization.cli report --scale $(SCALE)

gallery: $(READY) ## refresh docs/gallery from the last laptop run
	@$(BIN)/python -m memorization.cli gallery --scale $(SCALE)

bench: $(READY) ## speed against named peers, in one run
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

schema: $(READY) ## config/schema.json from the typed configuration
	@$(BIN)/python -m memorization.config schema > config/schema.json

freeze: $(READY) ## an archive of results with everything a fresh clone needs to plan nothing
	@$(BIN)/snakemake freeze $(CONFIG) $(ARGS)

clean: ## delete results of this scale (asks nothing)
	rm -rf results/$(SCALE)
